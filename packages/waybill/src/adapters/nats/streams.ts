import { WaybillError } from '../../core/errors.ts'
import type { Observe } from '../../core/observe.ts'
import type { JetStreamApi } from './api.ts'
import { JS, isJetStreamError, toWaybillError } from './failures.ts'
import { natsPartitionSubject, natsStreamName, natsSubject } from './names.ts'
import type { CheckedNatsOptions } from './options.ts'

/** A stream's configuration, as far as it matters here. */
export interface StreamConfig {
  readonly name: string
  readonly subjects?: readonly string[]
  readonly retention?: string
  readonly storage?: string
  readonly discard?: string
  readonly num_replicas?: number
  readonly max_age?: number
  readonly max_bytes?: number
  readonly duplicate_window?: number
  readonly metadata?: Readonly<Record<string, string>>
  readonly [other: string]: unknown
}

/** What JetStream tells of a stream. */
export interface StreamInfo {
  readonly config: StreamConfig
  /** When it was made: a stream of the same name that is made again is another one. */
  readonly created: string
  readonly state: {
    readonly messages: number
    readonly bytes: number
    readonly first_seq: number
    readonly last_seq: number
    readonly consumer_count: number
  }
  readonly cluster?: { readonly leader?: string; readonly replicas?: readonly { readonly current?: boolean }[] }
}

/** A topic's stream. */
export interface TopicStream {
  readonly topic: string
  readonly name: string
  readonly partitions: number
  /** Of its partitions, by number. */
  readonly subjects: readonly string[]
}

/** The streams behind topics: made with their first use, compared with what is declared. */
export interface Streams {
  /**
   * @throws WaybillError `TOPIC_MISSING` where it may not be made; `TRANSPORT_UNAVAILABLE` | `UNKNOWN_OUTCOME` | `ACCESS_DENIED`
   */
  open(topic: string): Promise<TopicStream>
  /** The stream's name, whether there is one or not. */
  nameOf(topic: string): string
  /** One that was opened, without asking. */
  known(topic: string): TopicStream | undefined
  /** It turned out to be gone: the next `open` looks again. */
  forget(topic: string): void
  /** @throws as `open` */
  info(stream: TopicStream): Promise<StreamInfo>
  /** Makes a stream that is not a topic's; nothing where there is one of that name. */
  ensure(config: StreamConfig): Promise<StreamInfo>
}

const PARTITIONS = 'waybill-partitions'
const TOPIC = 'waybill-topic'
const NANOS = 1_000_000
/** Topics that are remembered; more are asked for again. */
const KNOWN_MAX = 10_000

/** The partitions that a stream was made with; undefined where somebody else made it. */
export function partitionsOf(config: StreamConfig): number | undefined {
  const count = Number(config.metadata?.[PARTITIONS])
  return Number.isInteger(count) && count >= 1 && count <= 256 ? count : undefined
}

/** The stream that `options` declare for a topic. */
export function streamConfig(topic: string, options: CheckedNatsOptions): StreamConfig {
  const { prefix } = options
  return {
    name: natsStreamName(prefix, topic),
    subjects: [natsSubject(prefix, topic), natsPartitionSubject(prefix, topic, 0).replace(/0$/, '*')],
    ...storageConfig(options),
    max_age: options.maxAgeMs * NANOS,
    max_bytes: options.maxBytes === 0 ? -1 : options.maxBytes,
    duplicate_window: duplicateWindow(options),
    discard: 'old',
    allow_direct: true,
    metadata: { [PARTITIONS]: String(options.partitions), [TOPIC]: topic },
  }
}

// The server refuses a window that is longer than messages live.
const duplicateWindow = ({ duplicateWindowMs, maxAgeMs }: CheckedNatsOptions): number =>
  (maxAgeMs === 0 ? duplicateWindowMs : Math.min(duplicateWindowMs, maxAgeMs)) * NANOS

export const storageConfig = ({ storage, replicas }: CheckedNatsOptions): Pick<StreamConfig, 'retention' | 'storage' | 'num_replicas'> => ({
  retention: 'limits',
  storage,
  num_replicas: replicas,
})

const COMPARED = ['subjects', 'retention', 'storage', 'num_replicas', 'max_age', 'max_bytes', 'duplicate_window', 'discard'] as const

function differences(declared: StreamConfig, found: StreamConfig): string[] {
  const different: string[] = COMPARED.filter((name) => JSON.stringify(declared[name]) !== JSON.stringify(found[name])).map(
    (name) => `${name} is ${JSON.stringify(found[name])}, declared ${JSON.stringify(declared[name])}`,
  )
  const [have, want] = [partitionsOf(found), partitionsOf(declared)]
  if (have !== want) different.push(`it has ${have ?? 'an unknown number of'} partitions, declared ${want}`)
  return different
}

export function createStreams(api: JetStreamApi, options: CheckedNatsOptions): Streams {
  const opened = new Map<string, TopicStream>()
  const opening = new Map<string, Promise<TopicStream>>()
  const said = new Set<string>()
  const { observe } = options

  async function find(topic: string): Promise<TopicStream> {
    const declared = streamConfig(topic, options)
    try {
      let info = await api.ask<StreamInfo>(`STREAM.INFO.${declared.name}`).catch(async (error: unknown) => {
        if (!isJetStreamError(error, JS.streamMissing)) throw error
        if (options.createTopics) return create(declared)
        throw new WaybillError('TOPIC_MISSING', `there is no stream ${declared.name} for topic ${topic}, and it may not be made`, {
          allowed: 'createTopics: true, or a stream that somebody made before',
          where: topic,
          cause: error,
        })
      })
      const different = differences(declared, info.config)
      if (different.length > 0 && options.update) info = await update(declared, info)
      else if (different.length > 0) warn(observe, said, declared.name, different)
      const partitions = partitionsOf(info.config) ?? options.partitions
      const subjects = Array.from({ length: partitions }, (_, partition) => natsPartitionSubject(options.prefix, topic, partition))
      const stream = { topic, name: declared.name, partitions, subjects }
      if (opened.size >= KNOWN_MAX) opened.clear()
      opened.set(topic, stream)
      return stream
    } catch (error) {
      throw toWaybillError(error, topic)
    }
  }

  async function create(config: StreamConfig): Promise<StreamInfo> {
    try {
      return await api.ask<StreamInfo>(`STREAM.CREATE.${config.name}`, config)
    } catch (error) {
      // Somebody was faster, with other settings.
      if (isJetStreamError(error, JS.nameInUse)) return api.ask<StreamInfo>(`STREAM.INFO.${config.name}`)
      throw error
    }
  }

  async function update(declared: StreamConfig, found: StreamInfo): Promise<StreamInfo> {
    const metadata = { ...declared.metadata, ...found.config.metadata }
    try {
      const changed = await api.ask<StreamInfo>(`STREAM.UPDATE.${declared.name}`, { ...found.config, ...declared, metadata })
      const left = differences(declared, changed.config)
      if (left.length > 0) warn(observe, said, declared.name, left)
      return changed
    } catch (error) {
      if (!isJetStreamError(error)) throw error
      throw new WaybillError('DECLARATION_DIFFERS', `stream ${declared.name} can't be changed to what is declared: ${error.message}`, {
        got: differences(declared, found.config).join('; '),
        where: declared.name,
        cause: error,
      })
    }
  }

  return {
    async open(topic) {
      const known = opened.get(topic)
      if (known !== undefined) return known
      let finding = opening.get(topic)
      if (finding === undefined) {
        finding = find(topic).finally(() => opening.delete(topic))
        opening.set(topic, finding)
      }
      return finding
    },
    nameOf: (topic) => natsStreamName(options.prefix, topic),
    known: (topic) => opened.get(topic),
    forget: (topic) => void opened.delete(topic),
    async info({ topic, name }) {
      try {
        return await api.ask<StreamInfo>(`STREAM.INFO.${name}`)
      } catch (error) {
        throw toWaybillError(error, topic)
      }
    },
    async ensure(config) {
      try {
        return await api.ask<StreamInfo>(`STREAM.INFO.${config.name}`)
      } catch (error) {
        if (!isJetStreamError(error, JS.streamMissing)) throw toWaybillError(error, config.name)
      }
      try {
        return await create(config)
      } catch (error) {
        throw toWaybillError(error, config.name)
      }
    },
  }
}

function warn(observe: Observe, said: Set<string>, name: string, different: readonly string[]): void {
  const text = `stream ${name} differs from what is declared: ${different.join('; ')}`
  if (said.has(text) || said.size >= KNOWN_MAX) return
  said.add(text)
  const error = new WaybillError('DECLARATION_DIFFERS', text, { where: name })
  observe({
    type: 'transport.warned',
    transport: 'nats',
    text: error.message,
    advice:
      'declare it as it is, or pass update: true to have it changed; the number of partitions can only be changed by making the stream anew',
  })
}
