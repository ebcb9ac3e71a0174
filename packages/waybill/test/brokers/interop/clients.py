"""The clients of other languages: clients.py BROKER publish|consume ADDRESS PLACE [GROUP or KEY]

publish reads a body from stdin and puts it there as that client's users would; consume prints the first message as one line of JSON.
"""

import asyncio
import json
import os
import sys

LIMIT_S = 30


def show(key, headers, body):
    print(json.dumps({"key": key, "headers": headers, "body": body.decode("utf-8")}))


def kafka_publish(address, topic, key, body):
    from confluent_kafka import Producer

    failures = []
    producer = Producer({"bootstrap.servers": address})
    producer.produce(topic, key=key, value=body, on_delivery=lambda error, _: failures.append(error) if error else None)
    left = producer.flush(LIMIT_S)
    if left or failures:
        raise SystemExit(f"not delivered: {failures or left}")


def kafka_consume(address, topic, group):
    from confluent_kafka import Consumer

    consumer = Consumer({"bootstrap.servers": address, "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    for _ in range(LIMIT_S):
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error():
            raise SystemExit(str(message.error()))
        show(message.key().decode("utf-8"), {name: value.decode("utf-8") for name, value in message.headers() or []}, message.value())
        consumer.commit(message)
        consumer.close()
        return
    raise SystemExit("nothing came")


async def nats_publish(address, subject, body):
    import nats

    client = await nats.connect(address)
    await client.jetstream().publish(subject, body, timeout=LIMIT_S)
    await client.close()


async def nats_consume(address, subject, durable):
    import nats

    client = await nats.connect(address)
    subscription = await client.jetstream().pull_subscribe(subject, durable)
    [message] = await subscription.fetch(1, timeout=LIMIT_S)
    show(None, dict(message.headers or {}), message.data)
    await message.ack_sync()
    await client.close()


def pulsar_publish(address, topic, key, body):
    import pulsar

    client = pulsar.Client(address, logger=quiet())
    producer = client.create_producer(topic)
    producer.send(body, partition_key=key)
    client.close()


def pulsar_consume(address, topic, subscription):
    import pulsar

    client = pulsar.Client(address, logger=quiet())
    consumer = client.subscribe(
        topic, subscription, consumer_type=pulsar.ConsumerType.KeyShared, initial_position=pulsar.InitialPosition.Earliest
    )
    message = consumer.receive(timeout_millis=LIMIT_S * 1000)
    show(message.partition_key(), message.properties(), message.data())
    consumer.acknowledge(message)
    client.close()


def quiet():
    import pulsar

    # Its own logger writes to stdout, which is ours.
    return pulsar.ConsoleLogger(pulsar.LoggerLevel.Error)


def main(broker, what, address, place, who):
    body = sys.stdin.buffer.read() if what == "publish" else b""
    if broker == "kafka":
        kafka_publish(address, place, who, body) if what == "publish" else kafka_consume(address, place, who)
    elif broker == "nats":
        asyncio.run(nats_publish(address, place, body) if what == "publish" else nats_consume(address, place, who))
    else:
        pulsar_publish(address, place, who, body) if what == "publish" else pulsar_consume(address, place, who)


main(*sys.argv[1:6])
sys.stdout.flush()
# Without the interpreter's own end, at which the threads of native clients sometimes abort.
os._exit(0)
