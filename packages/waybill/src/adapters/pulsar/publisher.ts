import { WaybillError, isWaybillError } from '../../core/errors.ts'
import type { Message, PublishOutcome } from '../../core/transport.ts'
import { clientError } from './connect-errors.ts'
import type { Health } from './health.ts'
import { pulsarTopicName } from './names.ts'
import type { PulsarOptions } from './options.ts'
import type { PulsarLike, PulsarOutgoing, PulsarProducerLike } from './pulsar-like.ts'
import type { PulsarTopics } from './topics.ts'

/** Headers begin with a letter or a digit, so that none is called like this. */
export const ID_PROPERTY = '_waybill_id'

/** Sends messages by one producer per topic. */
export interface PulsarPublisher {
  /** One outcome per message; never rejects. */
  send(messages: readonly Message[]): Promise<readonly PublishOutcome[]>
  close(): Promise<void>
}

export interface PublisherOptions {
  readonly options: PulsarOptions
  readonly client: () => Promise<PulsarLike>
  readonly topics: PulsarTopics
  readonly health: Health
  /** Resolves when nothing of the topic begins to be read that must not miss what is published from now on. */
  joined(topic: string): Promise<void> | undefined
}

interface Producer {
  readonly opened: Promise<PulsarProducerLike>
  /** Calls that wait for its answers. */
  busy: number
  dropped: boolean
}

const PRODUCERS_MAX = 1_000
const STORED: PublishOutcome = Object.freeze({ kind: 'stored' })
const WHERE = 'pulsar transport'

export function createPublisher({ options, client, topics, health, joined }: PublisherOptions): PulsarPublisher {
  /** By topic; the one used last is the last. */
  const producers = new Map<string, Producer>()

  async function open(topic: string): Promise<PulsarProducerLike> {
    // Without partitions, and where it may be made, the broker makes it as we connect: one question less.
    if (!topics.brokerMakes) await topics.parts(topic)
    const connect = async (): Promise<PulsarProducerLike> =>
      (await client()).createProducer({
        topic: pulsarTopicName(topic, options.home),
        sendTimeoutMs: options.requestTimeoutMs,
        maxPendingMessages: 100_000,
        blockIfQueueFull: false,
        messageRoutingMode: 'UseSinglePartition',
        hashingScheme: 'Murmur3_32Hash',
        // A batch is one entry, given to the member of its first key, and given again as a whole: neither order by key nor single acks hold then.
        batchingEnabled: false,
      })
    try {
      return await connect()
    } catch (error) {
      if (!isWaybillError(clientError(error, 'TRANSPORT_UNAVAILABLE'), 'TOPIC_MISSING')) throw error
      // Deleted since, or at a broker that makes none by itself.
      topics.forget(topic)
      await topics.parts(topic)
      return await connect()
    }
  }

  function producerOf(topic: string): Producer {
    const known = producers.get(topic)
    producers.delete(topic)
    const producer = known ?? { opened: open(topic), busy: 0, dropped: false }
    producers.set(topic, producer)
    if (known === undefined) {
      producer.opened.then(
        () => health.up(),
        (error: unknown) => {
          drop(topic, producer)
          health.failed(error)
        },
      )
      closeOldest()
    }
    return producer
  }

  function drop(topic: string, producer: Producer): void {
    if (producers.get(topic) === producer) producers.delete(topic)
    producer.dropped = true
    closeIdle(producer)
  }

  /** Not before the answers are there that others wait for. */
  function closeIdle({ opened, busy, dropped }: Producer): void {
    // It is of no use any more, also where it can't even be closed.
    if (dropped && busy === 0) opened.then((producer) => producer.close()).catch(() => undefined)
  }

  function closeOldest(): void {
    if (producers.size <= PRODUCERS_MAX) return
    for (const [topic, producer] of producers) {
      if (producer.busy > 0) continue
      drop(topic, producer)
      break
    }
  }

  async function sendTopic(
    topic: string,
    messages: readonly Message[],
    indexes: readonly number[],
    outcomes: PublishOutcome[],
  ): Promise<void> {
    let producer: Producer | undefined
    try {
      await joined(topic)
      producer = producerOf(topic)
      producer.busy++
      const opened = await producer.opened
      const failed = await sendAll(opened, messages, indexes, outcomes)
      // Later messages go by a new one: what this one still holds of a key comes before them, or never.
      if (failed || !opened.isConnected()) drop(topic, producer)
    } catch (error) {
      // Nothing was sent.
      for (const index of indexes) outcomes[index] = { kind: 'rejected', error: rejection(error) }
    } finally {
      if (producer !== undefined) {
        producer.busy--
        closeIdle(producer)
      }
    }
  }

  async function sendAll(
    opened: PulsarProducerLike,
    messages: readonly Message[],
    indexes: readonly number[],
    outcomes: PublishOutcome[],
  ): Promise<boolean> {
    let failed = false
    await Promise.all(
      indexes.map((index) =>
        opened.send(outgoing(messages[index]!)).then(
          () => {
            outcomes[index] = STORED
          },
          (error: unknown) => {
            const known = sendError(error)
            failed ||= known.retryable
            outcomes[index] = { kind: known.code === 'UNKNOWN_OUTCOME' ? 'unknown' : 'rejected', error: known }
          },
        ),
      ),
    )
    return failed
  }

  return {
    async send(messages) {
      const outcomes: PublishOutcome[] = []
      const byTopic = new Map<string, number[]>()
      for (const [index, { topic }] of messages.entries()) {
        const indexes = byTopic.get(topic)
        if (indexes === undefined) byTopic.set(topic, [index])
        else indexes.push(index)
      }
      await Promise.all([...byTopic].map(([topic, indexes]) => sendTopic(topic, messages, indexes, outcomes)))
      return outcomes
    },
    async close() {
      const all = [...producers.values()]
      producers.clear()
      await Promise.allSettled(all.map(async ({ opened }) => (await opened).close()))
    },
  }
}

function rejection(cause: unknown): WaybillError {
  const error = clientError(cause, 'TRANSPORT_UNAVAILABLE')
  return isWaybillError(error) ? error : new WaybillError('TRANSPORT_UNAVAILABLE', "Pulsar can't be reached", { where: WHERE, cause })
}

function sendError(cause: unknown): WaybillError {
  const error = clientError(cause, 'UNKNOWN_OUTCOME')
  return isWaybillError(error)
    ? error
    : new WaybillError('UNKNOWN_OUTCOME', 'Pulsar has not confirmed the message', { where: WHERE, cause })
}

function outgoing({ id, key, headers, body }: Message): PulsarOutgoing {
  return {
    data: Buffer.from(body.buffer, body.byteOffset, body.byteLength),
    properties: headers['event_id'] === id ? { ...headers } : { ...headers, [ID_PROPERTY]: id },
    partitionKey: key,
  }
}
