import type { Clock } from '../../core/clock.ts'
import { WaybillError } from '../../core/errors.ts'
import { isUnknownTopic, hasApiId } from './errors.ts'
import type { KafkaAdminLike } from './client.ts'
import { kafkaTopicName } from './names.ts'
import type { CheckedKafkaOptions } from './options.ts'
import { patiently } from './pace.ts'

/** What is known of a topic at the broker. */
export interface TopicFacts {
  readonly id: string
  readonly partitions: number
  /** Most bytes of records of one partition in one request. */
  readonly batchMaxBytes: number
}

/** The topics that a transport uses: looked up, made where they are missing, remembered. */
export interface Topics {
  /** @throws WaybillError `TOPIC_MISSING` where it may not be made; what `createErrors` makes of the library's errors */
  ensure(topic: string): Promise<TopicFacts>
  /** As `ensure`, asking the broker again and making nothing; undefined where it is missing. */
  look(topic: string): Promise<TopicFacts | undefined>
  /** Forgets what is known, since it has proved wrong. */
  forget(topic: string): void
}

const REMEMBER_MS = 30_000
const REMEMBERED_MAX = 10_000
const LOOK_AGAIN_MS = 50
/** Kafka's own limit, where a topic does not tell: 1 MiB and the head of a batch. */
const BATCH_MAX_BYTES = 1_048_588
/** The head of a batch, rounded up. */
const BATCH_HEAD_BYTES = 128
/** A key, 65 headers with the longest names and values, and what surrounds them. */
const ENVELOPE_MAX_BYTES = 288 * 1024
const TOPIC = 2
const NEVER = new AbortController().signal

interface Remembered {
  readonly facts: TopicFacts
  readonly untilMs: number
}

export function createTopics(
  admin: KafkaAdminLike,
  options: CheckedKafkaOptions,
  toError: (error: unknown, what: string) => WaybillError,
): Topics {
  const { clock, createTopics: mayCreate, requestTimeoutMs } = options
  const remembered = new Map<string, Remembered>()
  const asking = new Map<string, Promise<TopicFacts | undefined>>()

  async function ask(topic: string, create: boolean): Promise<TopicFacts | undefined> {
    const name = kafkaTopicName(topic)
    try {
      const known = await patiently(clock, requestTimeoutMs, NEVER, () => describe(admin, name))
      if (known !== undefined || !create) return known
      if (!mayCreate)
        throw new WaybillError('TOPIC_MISSING', 'the topic does not exist, and may not be made', {
          got: name,
          allowed: 'a topic that exists, or createTopics',
          where: `Kafka at ${options.address}`,
        })
      await make(admin, name, options)
      return await appeared(admin, name, clock, requestTimeoutMs)
    } catch (error) {
      throw toError(error, `topic ${name}`)
    }
  }

  /** One question at a time for each topic. */
  async function askOnce(topic: string, create: boolean): Promise<TopicFacts | undefined> {
    const id = `${create}\n${topic}`
    let answer = asking.get(id)
    if (answer === undefined) {
      answer = ask(topic, create).finally(() => asking.delete(id))
      asking.set(id, answer)
    }
    const facts = await answer
    if (facts === undefined) remembered.delete(topic)
    else {
      if (remembered.size >= REMEMBERED_MAX) remembered.clear()
      remembered.set(topic, { facts, untilMs: clock.now() + REMEMBER_MS })
    }
    return facts
  }

  return {
    async ensure(topic) {
      const known = remembered.get(topic)
      if (known !== undefined && clock.now() < known.untilMs) return known.facts
      const facts = await askOnce(topic, true)
      return facts!
    },
    look: (topic) => askOnce(topic, false),
    forget: (topic) => void remembered.delete(topic),
  }
}

async function describe(admin: KafkaAdminLike, name: string): Promise<TopicFacts | undefined> {
  const found = await lookUp(admin, name)
  if (found === undefined) return undefined
  return { id: found.id, partitions: found.partitionsCount, batchMaxBytes: (await batchMaxBytesOf(admin, name)) - BATCH_HEAD_BYTES }
}

async function lookUp(admin: KafkaAdminLike, name: string) {
  try {
    return (await admin.metadata({ topics: [name], forceUpdate: true })).topics.get(name)
  } catch (error) {
    if (isUnknownTopic(error)) return undefined
    throw error
  }
}

/** Where the right to ask is missing, Kafka's own limit is assumed. */
async function batchMaxBytesOf(admin: KafkaAdminLike, name: string): Promise<number> {
  try {
    const [described] = await admin.describeConfigs({
      resources: [{ resourceType: TOPIC, resourceName: name, configurationKeys: ['max.message.bytes'] }],
    })
    const value = Number(described?.configs.find((config) => config.name === 'max.message.bytes')?.value)
    return Number.isSafeInteger(value) && value > BATCH_HEAD_BYTES ? value : BATCH_MAX_BYTES
  } catch (error) {
    if (hasApiId(error, 'TOPIC_AUTHORIZATION_FAILED', 'CLUSTER_AUTHORIZATION_FAILED', 'UNKNOWN_TOPIC_OR_PARTITION')) return BATCH_MAX_BYTES
    throw error
  }
}

async function make(admin: KafkaAdminLike, name: string, options: CheckedKafkaOptions): Promise<void> {
  try {
    await admin.createTopics({
      topics: [{ topic: name, partitions: options.partitions, replicas: options.replicationFactor }],
      configs: [
        { name: 'max.message.bytes', value: String(Math.max(BATCH_MAX_BYTES, options.messageMaxBytes + ENVELOPE_MAX_BYTES)) },
        // A start at a time then means the broker's clock, not those of the senders.
        { name: 'message.timestamp.type', value: 'LogAppendTime' },
      ],
    })
  } catch (error) {
    if (!hasApiId(error, 'TOPIC_ALREADY_EXISTS')) throw error
  }
}

/** A new topic is known to the controller first, and its leaders a moment later. */
async function appeared(admin: KafkaAdminLike, name: string, clock: Clock, limitMs: number): Promise<TopicFacts> {
  for (let leftMs = limitMs; leftMs > 0; leftMs -= LOOK_AGAIN_MS) {
    const found = await patiently(clock, limitMs, NEVER, () => lookUp(admin, name))
    if (found?.partitions.every(({ leader }) => leader >= 0) === true) {
      const facts = await describe(admin, name)
      if (facts !== undefined) return facts
    }
    await clock.sleep(LOOK_AGAIN_MS)
  }
  throw new WaybillError('TRANSPORT_UNAVAILABLE', 'the topic was made, and has no leader yet', { got: name })
}
