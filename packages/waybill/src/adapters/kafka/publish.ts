import { type PublishQueue, createPublishQueue } from '../../core/publish-queue.ts'
import { WaybillError } from '../../core/errors.ts'
import type { Message, PublishOutcome } from '../../core/transport.ts'
import { type KafkaLike, type KafkaProducerLike, type KafkaRecordOut, cutConnections } from './client.ts'
import { hasApiId, isOutage, isUnknownTopic, mayHaveBeenSent } from './errors.ts'
import type { Health } from './health.ts'
import { partitionOf } from './murmur2.ts'
import { kafkaTopicName } from './names.ts'
import type { CheckedKafkaOptions } from './options.ts'
import { storedPartitions } from './produced.ts'
import type { TopicFacts, Topics } from './topics.ts'
import { toRecord } from './wire.ts'

export interface KafkaPublisherOptions {
  readonly kafka: KafkaLike
  readonly options: CheckedKafkaOptions
  readonly topics: Topics
  readonly health: Health
  readonly toError: (error: unknown, what: string) => WaybillError
  /** Resolves when those who subscribed before have taken their places. */
  settled(): Promise<unknown>
}

/** Rather more and smaller requests than fewer and larger ones: while one is made, the broker stores another. */
const BATCH_MAX = 1_000
const BATCH_MAX_BYTES = 4 * 1024 * 1024
const IN_FLIGHT_MAX = 6
const RETRY_DELAY_MS = 200
const RETRIES = 1_000_000
/** While the broker is known to be away, nobody waits long for it. */
const DOWN_RETRIES = 2
/** What a send may still take after its connections were ended. */
const GRACE_MS = 1_000
const STORED: PublishOutcome = Object.freeze({ kind: 'stored' })

/** A partition, while its messages are divided: the request that takes them now, and their bytes in it. */
interface Place {
  /** As the answers name it. */
  readonly name: string
  wave: number
  bytes: number
}

interface Item {
  readonly index: number
  readonly record: KafkaRecordOut
  readonly place: string
}

/** Records that go in one request: at most one batch per partition. */
type Wave = Item[]

/** A topic that messages go to: what is known of it, or why it can't take any, and its partitions so far. */
interface Target {
  /** At the broker. */
  readonly name: string
  readonly facts: TopicFacts | WaybillError
  readonly places: Place[]
}

/** The publishing half: queued, divided into requests that the topics take, sent by producers of which each has one request on its way. */
export function createKafkaPublisher({ kafka, options, topics, health, toError, settled }: KafkaPublisherOptions): PublishQueue {
  const idle: KafkaProducerLike[] = []
  const all = new Set<KafkaProducerLike>()
  const what = 'publishing'

  /**
   * One request at a time for each producer: the library numbers batches while it still waits for metadata, so that two at once could get the numbers of
   * one that is stored, and be taken for it.
   */
  function take(): KafkaProducerLike {
    const producer = health.isDown ? undefined : idle.pop()
    if (producer !== undefined) return producer
    const retries = health.isDown ? DOWN_RETRIES : RETRIES
    const fresh = new kafka.Producer({ ...options.client, idempotent: true, retries, retryDelay: RETRY_DELAY_MS })
    all.add(fresh)
    return fresh
  }

  /** After an error its numbering is not to be trusted, and what it still tries in the background must end. */
  function discard(producer: KafkaProducerLike): void {
    if (!all.delete(producer)) return
    cutConnections(producer)
    producer.close(true).catch(() => undefined)
  }

  async function request(records: KafkaRecordOut[]): Promise<{ readonly error: unknown } | undefined> {
    const limitMs = options.requestTimeoutMs
    const isBrief = health.isDown
    const producer = take()
    const timer = setTimeout(() => discard(producer), limitMs)
    let lateTimer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      lateTimer = setTimeout(() => reject(new WaybillError('UNKNOWN_OUTCOME', 'the broker did not answer in time')), limitMs + GRACE_MS)
    })
    try {
      await Promise.race([producer.send({ messages: records, acks: -1 }), late])
      if (isBrief) discard(producer)
      else if (all.has(producer)) idle.push(producer)
      return undefined
    } catch (error) {
      discard(producer)
      return { error }
    } finally {
      clearTimeout(timer)
      clearTimeout(lateTimer)
    }
  }

  async function sendWave(wave: Wave, outcomes: PublishOutcome[], failed: Set<string>): Promise<void> {
    const items = failed.size === 0 ? wave : wave.filter(({ place }) => !failed.has(place))
    if (items.length < wave.length) {
      for (const { index, record, place } of wave) {
        if (!failed.has(place)) continue
        const error = new WaybillError('PUBLISH_FAILED', 'an earlier message of its partition was not stored', { where: record.topic })
        outcomes[index] = { kind: 'rejected', error }
      }
    }
    if (items.length === 0) return
    const failure = await request(items.map(({ record }) => record))
    if (failure === undefined) {
      health.up()
      for (const { index } of items) outcomes[index] = STORED
      return
    }
    judge(items, failure.error, outcomes, failed)
  }

  /** A partition's part of a request is stored whole or not at all; what the broker did not speak of is unknown once anything was sent. */
  function judge(items: readonly Item[], error: unknown, outcomes: PublishOutcome[], failed: Set<string>): void {
    const { stored, refused, isDefinite } = storedPartitions(error)
    const wasSent = mayHaveBeenSent(error) || error instanceof WaybillError
    const whole = toError(error, what)
    if (isOutage(error)) health.down(whole)
    const unknown = new WaybillError('UNKNOWN_OUTCOME', 'the connection was lost, or time ran out, before the broker had answered', {
      where: `Kafka at ${options.address}`,
      cause: error,
    })
    for (const { index, record, place } of items) {
      if (stored.has(place)) {
        outcomes[index] = STORED
        continue
      }
      failed.add(place)
      const refusal = refused.get(place)
      if (refusal !== undefined && isUnknownTopic(refusal)) topics.forget(record.topic)
      if (refusal !== undefined && !mayHaveBeenSent(refusal)) outcomes[index] = { kind: 'rejected', error: toError(refusal, what) }
      else if (wasSent || (refusal === undefined && !isDefinite && stored.size + refused.size > 0))
        outcomes[index] = { kind: 'unknown', error: unknown }
      else outcomes[index] = { kind: 'rejected', error: whole }
    }
    if (isUnknownTopic(error) || hasApiId(error, 'INVALID_PARTITIONS')) for (const { record } of items) topics.forget(record.topic)
  }

  async function targetsOf(messages: readonly Message[]): Promise<ReadonlyMap<string, Target>> {
    const names = [...new Set(messages.map(({ topic }) => topic))]
    const facts = await Promise.all(
      names.map(async (topic) => {
        try {
          return await topics.ensure(topic)
        } catch (error) {
          const failure = toError(error, what)
          if (isOutage(error instanceof WaybillError ? error.cause : error)) health.down(failure)
          return failure
        }
      }),
    )
    return new Map(names.map((topic, index) => [topic, { name: kafkaTopicName(topic), facts: facts[index]!, places: [] }]))
  }

  async function send(messages: readonly Message[]): Promise<readonly PublishOutcome[]> {
    await settled()
    const targets = await targetsOf(messages)
    const outcomes: PublishOutcome[] = []
    const failed = new Set<string>()
    // What an earlier message of the key was refused for, its followers must not pass.
    const refusedKeys = new Set<string>()
    const waves: Wave[] = []
    const refuse = (index: number, error: WaybillError): void => {
      refusedKeys.add(keyOf(messages[index]!))
      outcomes[index] = { kind: 'rejected', error }
    }
    for (let index = 0; index < messages.length; index++) {
      const message = messages[index]!
      const { name, facts, places } = targets.get(message.topic)!
      if (facts instanceof WaybillError) {
        refuse(index, facts)
        continue
      }
      const { record, bytes } = toRecord(message, name)
      if (bytes > facts.batchMaxBytes) {
        refuse(index, tooLarge(message, bytes, facts))
        continue
      }
      if (refusedKeys.size > 0 && refusedKeys.has(keyOf(message))) {
        refuse(
          index,
          new WaybillError('PUBLISH_FAILED', 'an earlier message of its key was not stored', { got: message.key, where: message.topic }),
        )
        continue
      }
      record.partition = partitionOf(record.key, facts.partitions)
      const place = (places[record.partition] ??= { name: `${record.topic}\n${record.partition}`, wave: 0, bytes: 0 })
      // A partition's part of a request has room for so much: so its order is the order of waves.
      if (place.bytes > 0 && place.bytes + bytes > facts.batchMaxBytes) {
        place.wave++
        place.bytes = 0
      }
      place.bytes += bytes
      ;(waves[place.wave] ??= []).push({ index, record, place: place.name })
    }
    for (const wave of waves) await sendWave(wave, outcomes, failed)
    return outcomes
  }

  const queue = createPublishQueue({
    where: 'kafka transport',
    messageMaxBytes: options.messageMaxBytes,
    send,
    keysTogether: true,
    batchMax: BATCH_MAX,
    batchMaxBytes: BATCH_MAX_BYTES,
    inFlightMax: IN_FLIGHT_MAX,
  })
  return {
    publish: queue.publish,
    async close(signal) {
      await queue.close(signal)
      idle.length = 0
      for (const producer of all) discard(producer)
    },
  }
}

const keyOf = ({ topic, key }: Message): string => `${topic}\n${key}`

function tooLarge(message: Message, bytes: number, topic: TopicFacts): WaybillError {
  return new WaybillError('PAYLOAD_TOO_LARGE', 'the message with its key and headers is larger than its topic takes', {
    got: bytes,
    allowed: `at most ${topic.batchMaxBytes} bytes (max.message.bytes)`,
    where: message.topic,
  })
}
