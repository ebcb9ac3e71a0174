import { randomBytes } from 'node:crypto'
import { type Clock, systemClock } from '../../core/clock.ts'
import { type Environment, readSettings } from '../../core/environment.ts'
import { WaybillError } from '../../core/errors.ts'
import { createMember, type Member } from '../../core/member.ts'
import { checkGroup, checkTopic } from '../../core/names.ts'
import { type Observe, observeAll } from '../../core/observe.ts'
import { checkInteger, checkNames } from '../../core/options.ts'
import { createPublishQueue } from '../../core/publish-queue.ts'
import { type CheckedSource, checkSource } from '../../core/source.ts'
import type { Capabilities, Transport } from '../../core/transport.ts'
import { createAdmin } from './admin.ts'
import { CONNECTION_NAMES, connectionSettings, redisAddress, type RedisConnectionOptions } from './connection-options.ts'
import { createFetcher } from './fetcher.ts'
import { createGroupTopic } from './group-topic.ts'
import { createLink, type Link } from './link.ts'
import { PARTITIONS_MAX, redisKeys } from './names.ts'
import { commandError } from './redis-errors.ts'
import { ENSURE } from './scripts.ts'
import { createSender } from './sender.ts'
import { askServer, assertUsable } from './server-check.ts'
import { idBeforeTime } from './stream-id.ts'
import { startTail } from './tail.ts'
import { createTopics } from './topics.ts'
import { createTrimmer } from './trimmer.ts'
import { createWaker, type Waker } from './waker.ts'

export interface RedisTransportOptions extends RedisConnectionOptions {
  /** What all keys begin with; 1 to 64 letters, digits, `_`, `.` and `-`. @default 'waybill' */
  readonly keyPrefix?: string
  /** Of topics that are made, 1 to 1024; a topic that exists keeps its own. A group has at most so many members at work. @default 12 */
  readonly partitions?: number
  /** Whether topics are made when they are first used; else `TOPIC_MISSING`. @default true */
  readonly createTopics?: boolean
  /** Largest body in bytes, 1 to 64 MiB. @default 1048576 (1 MiB) */
  readonly messageMaxBytes?: number
  /** Longest wait for a connection, or an answer, 100 ms to 10 minutes. @default 10000 */
  readonly requestTimeoutMs?: number
  /** Longest time that closing takes, 0 to 10 minutes. @default 5000 */
  readonly closeTimeoutMs?: number
  /** How long a member that has died keeps its partitions, 1 s to 10 minutes. @default 10000 */
  readonly leaseMs?: number
  /** How long messages are kept that every group has settled, 0 to 10 years. @default 86400000 (a day) */
  readonly retainMs?: number
  /** How many messages per partition are kept that every group has settled, or that no group reads, 0 to 1,000,000,000. @default 100000 */
  readonly retainMax?: number
  /** Pause between two trims, 100 ms to a day. @default 15000 */
  readonly trimEveryMs?: number
  /** Times the delay of `Delivery.retry`. @default the machine's */
  readonly clock?: Clock
  /** Told what happens to the connection, the partitions and the messages. @default nobody */
  readonly observe?: Observe
}

const MIB = 1024 * 1024
const TEN_MINUTES_MS = 600_000
const PREFETCH_MAX = 256
const PREFETCH_MAX_BYTES = 2 * MIB
const WHERE = 'redis transport'
const NAMES = {
  ...CONNECTION_NAMES,
  keyPrefix: true,
  partitions: true,
  createTopics: true,
  messageMaxBytes: true,
  requestTimeoutMs: true,
  closeTimeoutMs: true,
  leaseMs: true,
  retainMs: true,
  retainMax: true,
  trimEveryMs: true,
  clock: true,
  observe: true,
} as const
const CAPABILITIES: Capabilities = Object.freeze({
  ordering: 'key',
  stopsKeyAtFailure: true,
  acknowledges: 'stored',
  delay: true,
  startsAtTime: true,
})

/**
 * A transport over Redis Streams (7.0 or newer, one server with its replicas). A topic has partitions, a stream each; a key always goes to the same one,
 * and within a group one member at a time holds a partition, by a lease that every read and every ack is checked against at the server. What a member
 * leaves unsettled goes to the next holder before anything newer. Messages are removed only when every group has settled them.
 * How much survives a crash is a setting of the server: it is read at the first connection, and `transport.warned` says what it costs.
 * Connects with the first use.
 * @throws WaybillError `INVALID_OPTION` | `PEER_MISSING`
 */
export async function redisTransport(options: RedisTransportOptions = {}): Promise<Transport> {
  const checked = checkOptions(options)
  const { clock = systemClock } = options
  const observe = observeAll(options.observe === undefined ? [] : [options.observe])
  const { requestTimeoutMs, closeTimeoutMs, leaseMs } = checked
  const address = await redisAddress(options, 'redisTransport', Math.min(requestTimeoutMs, 5_000))
  const keys = redisKeys(options.keyPrefix ?? 'waybill', 'redisTransport.keyPrefix')
  const members = new Set<Member<string>>()
  const joining = new Set<Promise<void>>()
  let closing: Promise<void> | undefined
  let isChecked = false
  const onFailure = (error: WaybillError): void => observe({ type: 'transport.failed', transport: 'redis', error })

  const link: Link = createLink({
    where: WHERE,
    address,
    requestTimeoutMs,
    async onOpen(client) {
      if (isChecked) return
      const facts = await askServer(async (args) => {
        try {
          return await client.sendCommand(args)
        } catch (error) {
          throw commandError(error, WHERE)
        }
      })
      assertUsable(facts, WHERE)
      isChecked = true
      for (const { text, advice } of facts.findings) observe({ type: 'transport.warned', transport: 'redis', text, advice })
    },
    onUp() {
      topics.forget()
      observe({ type: 'transport.changed', transport: 'redis', to: 'up' })
    },
    onDown(error) {
      observe({ type: 'transport.changed', transport: 'redis', to: 'down', error })
      waker.reset()
    },
  })
  const blocked = createLink({ where: WHERE, address, requestTimeoutMs })
  const waker: Waker = createWaker({ blocked, commands: link, requestTimeoutMs, onFailure: () => {} })
  const fetcher = createFetcher(link, WHERE)
  const topics = createTopics({ where: WHERE, link, keys, partitions: checked.partitions, createTopics: checked.createTopics })
  const trimmer = createTrimmer({ link, retainMs: checked.retainMs, retainMax: checked.retainMax, everyMs: checked.trimEveryMs, onFailure })
  const sendBatch = createSender({ where: WHERE, link, keys, topics, onStream: trimmer.watch })
  const queue = createPublishQueue({
    where: WHERE,
    messageMaxBytes: checked.messageMaxBytes,
    async send(messages) {
      // What was subscribed to before is told where it begins, before anything newer is stored.
      if (joining.size > 0) await Promise.allSettled(joining)
      return sendBatch(messages)
    },
    keysTogether: true,
    batchMax: 256,
    batchMaxBytes: MIB,
    inFlightMax: 2,
  })

  function assertOpen(): void {
    if (closing !== undefined) throw new WaybillError('CLOSED', 'the transport is closed', { where: WHERE })
  }

  function join(member: Member<string>, { topics: names, group, start }: CheckedSource, ended: AbortSignal): () => Promise<void> {
    const startId = start === 'earliest' ? '0-0' : start === 'latest' ? '$' : idBeforeTime(start.at.getTime())
    const onFatal = (error: WaybillError): void => void member.end(error)
    const memberId = randomBytes(8).toString('hex')
    if (group === undefined) {
      for (const topic of names) announce(startTail({ link, waker, keys, topics, member, topic, startId, signal: ended, observe, onFatal }))
      return async () => {}
    }
    const parts = names.map((topic) =>
      createGroupTopic({
        link,
        fetcher,
        waker,
        keys,
        topics,
        member,
        memberId,
        topic,
        group,
        startId,
        leaseMs,
        observe,
        onStream: trimmer.watch,
        onFatal,
      }),
    )
    for (const part of parts) announce(part.joined)
    return async () => void (await Promise.all(parts.map((part) => part.leave())))
  }

  function announce(joined: Promise<void>): void {
    const gone = joined.finally(() => joining.delete(gone))
    joining.add(gone)
  }

  async function close(): Promise<void> {
    const limit = new AbortController()
    const timer = setTimeout(() => limit.abort(), closeTimeoutMs)
    const late = new Promise<void>((resolve) => limit.signal.addEventListener('abort', () => resolve(), { once: true }))
    trimmer.close()
    const ends = Promise.all([queue.close(limit.signal), ...[...members].map((member) => member.end())])
    await Promise.race([ends, late])
    clearTimeout(timer)
    waker.close()
    link.close()
  }

  return {
    name: 'redis',
    capabilities: CAPABILITIES,
    publish: (messages, signal) => queue.publish(messages, signal),
    subscribe(source, signal) {
      assertOpen()
      const wanted = checkSource(source, true)
      const ended = new AbortController()
      let leave = async (): Promise<void> => {}
      const member = createMember<string>({
        batchMax: wanted.batchMax,
        clock,
        prefetchMax: PREFETCH_MAX,
        prefetchMaxBytes: PREFETCH_MAX_BYTES,
        async onEnd() {
          ended.abort()
          members.delete(member)
          signal.removeEventListener('abort', onAbort)
          await leave()
        },
      })
      const onAbort = (): void => void member.end()
      members.add(member)
      leave = join(member, wanted, ended.signal)
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
      for (const { topic, group } of groups) {
        const partitions = await topics.ensure(topic)
        await Promise.all(
          Array.from({ length: partitions }, (_, partition) =>
            link.script(ENSURE, [keys.stream(topic, partition)], [group, '0-0', 'first']),
          ),
        )
      }
    },
    admin: createAdmin({ where: WHERE, link, keys, address: address.address }),
    close: () => (closing ??= close()),
  }
}

function checkOptions(options: RedisTransportOptions) {
  checkNames(options, NAMES, 'redisTransport')
  const number = (name: keyof RedisTransportOptions, value: unknown, min: number, max: number): number =>
    checkInteger(value, `redisTransport.${name}`, min, max)
  const { createTopics: mayCreate = true } = options
  if (typeof mayCreate !== 'boolean')
    throw new WaybillError('INVALID_OPTION', 'createTopics is not usable', {
      got: mayCreate,
      allowed: 'true or false',
      where: 'redisTransport.createTopics',
    })
  return {
    createTopics: mayCreate,
    partitions: number('partitions', options.partitions ?? 12, 1, PARTITIONS_MAX),
    messageMaxBytes: number('messageMaxBytes', options.messageMaxBytes ?? MIB, 1, 64 * MIB),
    requestTimeoutMs: number('requestTimeoutMs', options.requestTimeoutMs ?? 10_000, 100, TEN_MINUTES_MS),
    closeTimeoutMs: number('closeTimeoutMs', options.closeTimeoutMs ?? 5_000, 0, TEN_MINUTES_MS),
    leaseMs: number('leaseMs', options.leaseMs ?? 10_000, 1_000, TEN_MINUTES_MS),
    retainMs: number('retainMs', options.retainMs ?? 86_400_000, 0, 315_360_000_000),
    retainMax: number('retainMax', options.retainMax ?? 100_000, 0, 1_000_000_000),
    trimEveryMs: number('trimEveryMs', options.trimEveryMs ?? 15_000, 100, 86_400_000),
  }
}

/**
 * Options from the environment: `REDIS_URL`, `REDIS_USERNAME`, `REDIS_PASSWORD`, `REDIS_TLS_*`, `REDIS_KEY_PREFIX`, `REDIS_PARTITIONS`, `REDIS_CREATE_TOPICS`,
 * `REDIS_MESSAGE_MAX_BYTES`, `REDIS_REQUEST_TIMEOUT_MS`, `REDIS_CLOSE_TIMEOUT_MS`, `REDIS_LEASE_MS`, `REDIS_STREAM_RETAIN_MS`, `REDIS_STREAM_RETAIN_MAX`.
 * @throws WaybillError `INVALID_SETTING` | `INVALID_FILE`
 */
export function redisSettings(env: Environment): RedisTransportOptions {
  const settings = readSettings(env)
  const found: Readonly<Record<string, unknown>> = {
    keyPrefix: settings.text('REDIS_KEY_PREFIX'),
    partitions: settings.integer('REDIS_PARTITIONS', 1, PARTITIONS_MAX),
    createTopics: settings.flag('REDIS_CREATE_TOPICS'),
    messageMaxBytes: settings.integer('REDIS_MESSAGE_MAX_BYTES', 1, 64 * MIB),
    requestTimeoutMs: settings.integer('REDIS_REQUEST_TIMEOUT_MS', 100, TEN_MINUTES_MS),
    closeTimeoutMs: settings.integer('REDIS_CLOSE_TIMEOUT_MS', 0, TEN_MINUTES_MS),
    leaseMs: settings.integer('REDIS_LEASE_MS', 1_000, TEN_MINUTES_MS),
    retainMs: settings.integer('REDIS_STREAM_RETAIN_MS', 0, 315_360_000_000),
    retainMax: settings.integer('REDIS_STREAM_RETAIN_MAX', 0, 1_000_000_000),
  }
  return { ...connectionSettings(settings), ...Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined)) }
}
