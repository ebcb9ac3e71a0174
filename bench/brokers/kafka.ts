import { Consumer, MessagesStreamModes, Producer } from '@platformatic/kafka'
import { newId } from 'waybill'
import { kafkaTransport } from 'waybill/kafka'
import { ownServer } from 'waybill-services'
import type { Row } from '../harness.ts'
import { type LatencyRow, latencyBench } from '../latency.ts'
import { type Bench, benchOf } from '../report.ts'
import { consume, messageOf, messagesOf, publishBatches, timed, waybillIdle } from './messages.ts'

const COUNT = 100_000
const BATCH = 1_000
const IN_FLIGHT = 4
const IDS = ['K1', 'K2', 'K3']

/** Rows K on a Kafka broker that is started for them. */
export async function kafkaBenches(
  stack: AsyncDisposableStack,
  wanted: (id: string) => boolean,
): Promise<{ readonly benches: readonly Bench[]; readonly about?: string }> {
  if (!IDS.some(wanted)) return { benches: [] }
  const server = await ownServer('kafka')
  stack.defer(() => server.close())
  const transport = await kafkaTransport({ bootstrapServers: [server.url], partitions: 4 })
  stack.defer(() => transport.close())
  const producer = openProducer(server.url)
  stack.defer(() => producer.close())
  const stage: Stage = { url: server.url, transport, producer }
  return {
    benches: [benchOf(publishRow(stage)), benchOf(consumeRow(stage)), latencyBench(idleRow(stage))],
    about: `Kafka ${server.version}, one node, on the same machine, topics of 4 partitions`,
  }
}

const openProducer = (url: string) =>
  new Producer<Buffer, Buffer, Buffer, Buffer>({ clientId: 'bench', bootstrapBrokers: [url], idempotent: true, autocreateTopics: false })

interface Stage {
  readonly url: string
  readonly transport: Awaited<ReturnType<typeof kafkaTransport>>
  readonly producer: ReturnType<typeof openProducer>
}

let topics = 0

/** A new topic, which Waybill makes, for both. */
async function newTopic({ transport }: Stage): Promise<string> {
  const topic = `bench.t${++topics}`
  await transport.declareGroups([{ topic, group: 'bench/none' }])
  return topic
}

/** What the client takes, of the same bytes; keys choose the partition there too. */
function recordsOf(topic: string, count: number) {
  return messagesOf(topic, count).map(({ key, headers, body }) => ({
    topic,
    key: Buffer.from(key),
    value: Buffer.from(body),
    headers: new Map(Object.entries(headers).map(([name, value]) => [Buffer.from(name), Buffer.from(value)])),
  }))
}

async function sendRecords(producer: Stage['producer'], records: ReturnType<typeof recordsOf>, inFlight: number): Promise<void> {
  let at = 0
  const worker = async (): Promise<void> => {
    while (at < records.length) await producer.send({ messages: records.slice(at, (at += BATCH)), acks: -1 })
  }
  await Promise.all(Array.from({ length: inFlight }, worker))
}

function publishRow(stage: Stage): Row {
  let messages: ReturnType<typeof messagesOf> = []
  let records: ReturnType<typeof recordsOf> = []
  return {
    id: 'K1',
    title: `Kafka: publish, batches of ${BATCH}, ${IN_FLIGHT} callers`,
    operations: COUNT,
    rounds: 5,
    warmups: 3,
    contenders: [
      {
        name: 'waybill',
        role: 'toolkit',
        prepare: async (count) => void (messages = messagesOf(await newTopic(stage), count)),
        run: () => publishBatches(stage.transport, messages, BATCH, IN_FLIGHT),
      },
      {
        name: '@platformatic/kafka, producer.send',
        role: 'floor',
        prepare: async (count) => void (records = recordsOf(await newTopic(stage), count)),
        run: () => sendRecords(stage.producer, records, IN_FLIGHT),
      },
    ],
    targets: [{ against: '@platformatic/kafka, producer.send', atLeast: 0.9 }],
    note: 'Both idempotent, all replicas acknowledge, the same keys and headers.',
  }
}

function consumeRow(stage: Stage): Row {
  let topic = ''
  const fill = async (count: number): Promise<void> => {
    topic = await newTopic(stage)
    await sendRecords(stage.producer, recordsOf(topic, count), 1)
  }
  return {
    id: 'K2',
    title: 'Kafka: consume in a group and commit, handler does nothing',
    operations: COUNT,
    rounds: 5,
    warmups: 3,
    contenders: [
      { name: 'waybill', role: 'toolkit', prepare: fill, run: (count) => consume(stage.transport, topic, `bench/${newId()}`, count) },
      {
        name: '@platformatic/kafka, stream, a commit per 1,000',
        role: 'floor',
        prepare: fill,
        async run(count) {
          const consumer = new Consumer({
            clientId: 'bench',
            groupId: newId(),
            bootstrapBrokers: [stage.url],
            maxWaitTime: 100,
            autocommit: false,
          })
          const stream = await consumer.consume({ topics: [topic], mode: MessagesStreamModes.EARLIEST })
          let seen = 0
          for await (const message of stream) {
            if (++seen % BATCH === 0) await message.commit()
            if (seen >= count) break
          }
          await consumer.close(true)
        },
      },
    ],
    targets: [{ against: '@platformatic/kafka, stream, a commit per 1,000', atLeast: 0.9 }],
    note: 'Joining and leaving the group is within the time of both.',
  }
}

function idleRow(stage: Stage): LatencyRow {
  return {
    id: 'K3',
    title: 'Kafka: from publish to the handler, idle',
    rounds: 2,
    contenders: [
      { name: 'waybill', role: 'toolkit', samples: 40, open: () => waybillIdle(stage.transport) },
      {
        name: '@platformatic/kafka',
        role: 'floor',
        samples: 40,
        async open() {
          const topic = await newTopic(stage)
          const consumer = new Consumer({ clientId: 'bench', groupId: newId(), bootstrapBrokers: [stage.url], autocommit: false })
          const stream = await consumer.consume({ topics: [topic], mode: MessagesStreamModes.EARLIEST })
          let onHandled = (): void => {}
          stream.on('data', () => onHandled())
          return {
            sample: () =>
              timed((done) => {
                onHandled = done
                const { key, body } = messageOf(topic, 1)
                return stage.producer.send({ messages: [{ topic, key: Buffer.from(key), value: Buffer.from(body) }], acks: -1 })
              }),
            close: () => consumer.close(true),
          }
        },
      },
    ],
    targets: [{ of: 'waybill', against: '@platformatic/kafka', atMost: 1.25 }],
    note: 'Gaps of 30 to 330 ms in between.',
  }
}
