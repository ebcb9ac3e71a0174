import { randomBytes } from 'node:crypto'
import { type Clock, systemClock } from '../../core/clock.ts'
import { type Environment, readSettings } from '../../core/environment.ts'
import { isWaybillError, WaybillError } from '../../core/errors.ts'
import { createMember, type Member } from '../../core/member.ts'
import { checkGroup, checkTopic } from '../../core/names.ts'
import { type Observe, observeAll } from '../../core/observe.ts'
import { checkInteger, checkNames } from '../../core/options.ts'
import { createPublishQueue } from '../../core/publish-queue.ts'
import { checkSource } from '../../core/source.ts'
import type { Capabilities, Message, PublishOutcome, Transport } from '../../core/transport.ts'
import { CONNECTION_NAMES, connectionSettings, redisAddress, type RedisConnectionOptions } from './connection-options.ts'
import { createLink, type Link } from './link.ts'
import { createDroppingBuffer } from './pubsub-buffer.ts'
import { framed, unframed } from './pubsub-frame.ts'
import { createHub, type Hub, type Listener } from './pubsub-hub.ts'
import { SPREAD } from './scripts.ts'

export interface RedisPubSubOptions extends RedisConnectionOptions {
  /** What all channels begin with, before the topic; up to 64 letters, digits, `_`, `.`, `:` and `-`. @default '' */
  readonly channelPrefix?: string
  /** Largest body in bytes, 1 to 64 MiB. @default 1048576 (1 MiB) */
  readonly messageMaxBytes?: number
  /** Messages that wait for a slow subscriber, 1 to 1,000,000; then the oldest are dropped, and `transport.gap` counts them. @default 10000 */
  readonly bufferMax?: number
  /** Their bytes, 1 to 1 GiB. @default 16777216 (16 MiB) */
  readonly bufferMaxBytes?: number
  /** Longest wait for a connection, or an answer, 100 ms to 10 minutes. @default 10000 */
  readonly requestTimeoutMs?: number
  /** Longest time that closing takes, 0 to 10 minutes. @default 5000 */
  readonly closeTimeoutMs?: number
  /** Times the delay of `Delivery.retry`. @default the machine's */
  readonly clock?: Clock
  /** Told what happens to the connection and the messages. @default nobody */
  readonly observe?: Observe
}

const MIB = 1024 * 1024
const TEN_MINUTES_MS = 600_000
const HEARTBEAT_MS = 2_000
const PREFETCH_MAX = 256
const WHERE = 'redis pub/sub'
const NAME = 'redis-pubsub'
const OPTIONS = {
  ...CONNECTION_NAMES,
  channelPrefix: true,
  messageMaxBytes: true,
  bufferMax: true,
  bufferMaxBytes: true,
  requestTimeoutMs: true,
  closeTimeoutMs: true,
  clock: true,
  observe: true,
} as const
const PREFIX = /^[A-Za-z0-9_.:-]{0,64}$/
const STORED: PublishOutcome = Object.freeze({ kind: 'stored' })
const CAPABILITIES: Capabilities = Object.freeze({
  ordering: 'none',
  stopsKeyAtFailure: true,
  acknowledges: 'sent',
  delay: true,
  keeps: false,
  shares: false,
})

/**
 * A transport over Redis Pub/Sub, for messages that may be lost: the server passes each on to whoever is subscribed at that moment, and keeps nothing.
 * Every subscription gets all messages, also where several name the same group. Acks say nothing to anybody; what a subscriber has not settled is gone
 * with it. What came while the connection was away is lost, and what a slow subscriber has no room for is dropped: both are `transport.gap`.
 * Connects with the first use.
 * @throws WaybillError `INVALID_OPTION` | `PEER_MISSING`
 */
export async function redisPubSub(options: RedisPubSubOptions = {}): Promise<Transport> {
  const checked = checkOptions(options)
  const { prefix, requestTimeoutMs, closeTimeoutMs } = checked
  const { clock = systemClock } = options
  const observe = observeAll(options.observe === undefined ? [] : [options.observe])
  const address = await redisAddress(options, 'redisPubSub', Math.min(requestTimeoutMs, 5_000))
  const members = new Set<Member<undefined>>()
  const joining = new Set<Promise<void>>()
  let isDown: boolean | undefined
  let closing: Promise<void> | undefined

  const changed = (to: 'up' | 'down', error?: WaybillError): void => {
    // Two connections, of which the first to be lost or back speaks for both.
    if (isDown === (to === 'down')) return
    isDown = to === 'down'
    observe({ type: 'transport.changed', transport: NAME, to, ...(error === undefined ? {} : { error }) })
  }
  const onUp = (): void => changed('up')
  const link: Link = createLink({ where: WHERE, address, requestTimeoutMs, onUp, onDown: (error) => changed('down', error) })
  const hub: Hub = createHub(
    createLink({
      where: WHERE,
      address,
      requestTimeoutMs,
      onUp,
      onDown(error) {
        changed('down', error)
        hub.lost(error)
      },
    }),
    HEARTBEAT_MS,
  )
  const queue = createPublishQueue({
    where: WHERE,
    messageMaxBytes: checked.messageMaxBytes,
    async send(messages) {
      if (joining.size > 0) await Promise.allSettled(joining)
      return spread(link, prefix, messages)
    },
    keysTogether: true,
    batchMax: 256,
    batchMaxBytes: MIB,
    inFlightMax: 2,
  })

  function assertOpen(): void {
    if (closing !== undefined) throw new WaybillError('CLOSED', 'the transport is closed', { where: WHERE })
  }

  function listen(member: Member<undefined>, topic: string, group: string): () => void {
    const id = randomBytes(6).toString('hex')
    const holding = member.hold({ id: `${topic}#${id}`, partition: topic })
    const gap = (error: WaybillError, missing?: number): void =>
      observe({
        type: 'transport.gap',
        transport: NAME,
        topic,
        group,
        partition: topic,
        ...(missing === undefined ? {} : { missing }),
        error,
      })
    const buffer = createDroppingBuffer({
      holding,
      messagesMax: checked.bufferMax,
      bytesMax: checked.bufferMaxBytes,
      onDropped: (count) =>
        gap(new WaybillError('QUEUE_FULL', 'the subscriber is too slow: the oldest messages were dropped', { where: topic }), count),
    })
    let count = 0
    const listener: Listener = {
      onMessage(bytes) {
        const number = ++count
        buffer.add(unframed(bytes, topic, () => `${NAME}:${topic}:${id}:${number}`))
      },
      onGap: (cause) =>
        gap(new WaybillError('POSITION_LOST', 'what was sent while the connection was away is lost', { where: topic, cause })),
      onFatal: (error) => void member.end(error),
    }
    const channel = prefix + topic
    const joined = hub.listen(channel, listener).finally(() => joining.delete(joined))
    joining.add(joined)
    return () => hub.leave(channel, listener)
  }

  async function close(): Promise<void> {
    const limit = new AbortController()
    const timer = setTimeout(() => limit.abort(), closeTimeoutMs)
    await Promise.all([queue.close(limit.signal), ...[...members].map((member) => member.end())])
    clearTimeout(timer)
    hub.close()
    link.close()
  }

  return {
    name: NAME,
    capabilities: CAPABILITIES,
    publish: (messages, signal) => queue.publish(messages, signal),
    subscribe(source, signal) {
      assertOpen()
      const { topics, group = '', batchMax } = checkSource(source, false)
      const leaves: (() => void)[] = []
      const member = createMember<undefined>({
        batchMax,
        clock,
        prefetchMax: PREFETCH_MAX,
        prefetchMaxBytes: checked.bufferMaxBytes,
        async onEnd() {
          members.delete(member)
          signal.removeEventListener('abort', onAbort)
          for (const leave of leaves) leave()
        },
      })
      const onAbort = (): void => void member.end()
      members.add(member)
      for (const topic of topics) leaves.push(listen(member, topic, group))
      signal.addEventListener('abort', onAbort, { once: true })
      if (signal.aborted) onAbort()
      return member.deliveries()
    },
    async declareGroups(groups) {
      assertOpen()
      for (const { topic, group } of groups) {
        checkTopic(topic)
        checkGroup(group)
      }
    },
    close: () => (closing ??= close()),
  }
}

/** Sends a batch in one call: all of it, or nothing. */
async function spread(link: Link, prefix: string, messages: readonly Message[]): Promise<readonly PublishOutcome[]> {
  const channels: string[] = []
  const numbers = new Map<string, number>()
  const parts: Buffer[] = []
  for (const message of messages) {
    let number = numbers.get(message.topic)
    if (number === undefined) {
      channels.push(prefix + message.topic)
      numbers.set(message.topic, (number = channels.length))
    }
    const bytes = framed(message)
    const head = Buffer.allocUnsafe(6)
    head.writeUInt16BE(number, 0)
    head.writeUInt32BE(bytes.byteLength, 2)
    parts.push(head, bytes)
  }
  try {
    await link.script(SPREAD, [], [Buffer.concat(parts), ...channels])
    return messages.map(() => STORED)
  } catch (cause) {
    const error = isWaybillError(cause) ? cause : new WaybillError('UNKNOWN_OUTCOME', 'sending failed', { where: WHERE, cause })
    return messages.map(() => ({ kind: error.code === 'UNKNOWN_OUTCOME' ? 'unknown' : 'rejected', error }))
  }
}

function checkOptions(options: RedisPubSubOptions) {
  checkNames(options, OPTIONS, 'redisPubSub')
  const { channelPrefix: prefix = '' } = options
  if (typeof prefix !== 'string' || !PREFIX.test(prefix))
    throw new WaybillError('INVALID_OPTION', 'channelPrefix is not usable', {
      got: prefix,
      allowed: 'up to 64 letters, digits, "_", ".", ":" and "-"',
      where: 'redisPubSub.channelPrefix',
    })
  const number = (name: keyof RedisPubSubOptions, value: unknown, min: number, max: number): number =>
    checkInteger(value, `redisPubSub.${name}`, min, max)
  return {
    prefix,
    messageMaxBytes: number('messageMaxBytes', options.messageMaxBytes ?? MIB, 1, 64 * MIB),
    bufferMax: number('bufferMax', options.bufferMax ?? 10_000, 1, 1_000_000),
    bufferMaxBytes: number('bufferMaxBytes', options.bufferMaxBytes ?? 16 * MIB, 1, 1024 * MIB),
    requestTimeoutMs: number('requestTimeoutMs', options.requestTimeoutMs ?? 10_000, 100, TEN_MINUTES_MS),
    closeTimeoutMs: number('closeTimeoutMs', options.closeTimeoutMs ?? 5_000, 0, TEN_MINUTES_MS),
  }
}

/**
 * Options from the environment: `REDIS_URL`, `REDIS_USERNAME`, `REDIS_PASSWORD`, `REDIS_TLS_*`, `REDIS_CHANNEL_PREFIX`, `REDIS_MESSAGE_MAX_BYTES`,
 * `REDIS_BUFFER_MAX`, `REDIS_REQUEST_TIMEOUT_MS`, `REDIS_CLOSE_TIMEOUT_MS`.
 * @throws WaybillError `INVALID_SETTING` | `INVALID_FILE`
 */
export function redisPubSubSettings(env: Environment): RedisPubSubOptions {
  const settings = readSettings(env)
  const found: Readonly<Record<string, unknown>> = {
    channelPrefix: settings.text('REDIS_CHANNEL_PREFIX'),
    messageMaxBytes: settings.integer('REDIS_MESSAGE_MAX_BYTES', 1, 64 * MIB),
    bufferMax: settings.integer('REDIS_BUFFER_MAX', 1, 1_000_000),
    requestTimeoutMs: settings.integer('REDIS_REQUEST_TIMEOUT_MS', 100, TEN_MINUTES_MS),
    closeTimeoutMs: settings.integer('REDIS_CLOSE_TIMEOUT_MS', 0, TEN_MINUTES_MS),
  }
  return { ...connectionSettings(settings), ...Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined)) }
}
