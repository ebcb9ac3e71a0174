import { fullJitterMs } from '../../core/backoff.ts'
import { WaybillError, isWaybillError } from '../../core/errors.ts'
import { newId } from '../../core/ids.ts'
import { type Member, createMember } from '../../core/member.ts'
import { checkGroup, checkTopic } from '../../core/names.ts'
import { createPublishQueue } from '../../core/publish-queue.ts'
import { type CheckedSource, checkSource } from '../../core/source.ts'
import type { Capabilities, Transport } from '../../core/transport.ts'
import { createAdmin } from './admin.ts'
import { createApi } from './api.ts'
import { createConnection } from './connection.ts'
import { createDial, loadLibrary } from './dial.ts'
import { toWaybillError } from './failures.ts'
import { type GroupTopicOptions, fixStart, joinGroupTopic } from './group.ts'
import { type NatsTransportOptions, checkNatsOptions } from './options.ts'
import type { AdapterParts } from './partition.ts'
import { createSend } from './publishing.ts'
import { createRecords } from './records.ts'
import { createStreams } from './streams.ts'
import { openTail } from './tail.ts'

const CAPABILITIES: Capabilities = Object.freeze({
  ordering: 'key',
  stopsKeyAtFailure: true,
  acknowledges: 'stored',
  delay: true,
  startsAtTime: true,
  deduplicates: true,
})

/** Many small batches: one that waits for a slow answer must not keep the pipe empty. */
const BATCH_MAX = 256
const BATCH_MAX_BYTES = 1024 * 1024
const IN_FLIGHT_MAX = 16
const PREFETCH_MAX_BYTES = 16 * 1024 * 1024
const TICKS_PER_LEASE = 15
const PAUSE = { baseMs: 100, maxMs: 5000 }
/** How long a publish waits for a subscription of this transport that is on its way into the topic. */
const JOIN_WAIT_MS = 2000

/** One who joins, works and leaves. */
interface Part {
  tick(): void
  leave(): Promise<void>
}

/**
 * A transport over NATS JetStream, server 2.11 or newer. A topic is a stream with subjects for its partitions; a key stays in its partition, and each
 * partition of a group has one member at a time, by a lease in the key-value bucket `{prefix}-groups`, where the group's position is kept as well. What
 * was published twice with the same id within `duplicateWindowMs` is stored once. The connection is made with the first use, and made again without end.
 * @throws WaybillError `INVALID_OPTION` | `PEER_MISSING`
 */
export async function natsTransport(natsOptions: NatsTransportOptions = {}): Promise<Transport> {
  const options = checkNatsOptions(natsOptions)
  const { clock, observe, requestTimeoutMs } = options
  const dial = createDial(await loadLibrary(options), options)
  const connection = createConnection({
    dial,
    address: options.address,
    inboxPrefix: options.inboxPrefix,
    requestTimeoutMs,
    clock,
    observe,
  })
  const api = createApi(connection, options)
  const streams = createStreams(api, options)
  const parts: AdapterParts = { connection, api, streams, records: createRecords(api, streams, options), options }
  const joining = new Map<string, Set<Promise<unknown>>>()
  const members = new Set<Member<number>>()
  let closing: Promise<void> | undefined

  const queue = createPublishQueue({
    where: 'nats transport',
    messageMaxBytes: options.messageMaxBytes,
    send: createSend({
      connection,
      streams,
      options,
      joined(topic) {
        const waits = joining.get(topic)
        return waits === undefined
          ? undefined
          : Promise.race([Promise.allSettled(waits), clock.sleep(Math.min(JOIN_WAIT_MS, requestTimeoutMs))])
      },
    }),
    keysTogether: false,
    batchMax: BATCH_MAX,
    batchMaxBytes: BATCH_MAX_BYTES,
    inFlightMax: IN_FLIGHT_MAX,
  })

  function assertOpen(): void {
    if (closing !== undefined) throw new WaybillError('CLOSED', 'the transport is closed', { where: 'nats transport' })
  }

  /** What is published after `subscribe` on this transport must not come before the place where that begins. */
  function noteJoining(topic: string, joined: Promise<unknown>): void {
    const waits = joining.get(topic) ?? new Set()
    joining.set(topic, waits.add(joined))
    const gone = (): void => {
      waits.delete(joined)
      if (waits.size === 0) joining.delete(topic)
    }
    joined.then(gone, gone)
  }

  function join({ topics, group, start, batchMax }: CheckedSource, signal: AbortSignal): Member<number> {
    const left = new AbortController()
    const working: Part[] = []
    const memberId = newId()
    const ticking = setInterval(() => {
      for (const part of working) part.tick()
    }, options.leaseMs / TICKS_PER_LEASE)
    const member = createMember<number>({
      batchMax,
      clock,
      prefetchMax: options.prefetchMax,
      prefetchMaxBytes: PREFETCH_MAX_BYTES,
      async onEnd() {
        left.abort()
        signal.removeEventListener('abort', onAbort)
        await Promise.all(working.map((part) => part.leave()))
        clearInterval(ticking)
        members.delete(member)
      },
    })
    const onAbort = (): void => void member.end()
    signal.addEventListener('abort', onAbort, { once: true })
    members.add(member)
    if (signal.aborted) onAbort()
    const onFailed = (error: WaybillError): void => void member.end(error)
    for (const topic of topics) {
      const joined = untilJoined(left.signal, async () => {
        if (group === undefined) {
          const tail = await openTail(parts, { topic, start, member, onFailed })
          await tail.started
          return () => ({ tick: () => tail.check(), leave: async () => tail.stop() })
        }
        const joinOptions: GroupTopicOptions = { topic, group, start, member, memberId, onFailed }
        const stream = await fixStart(parts, joinOptions)
        return () => joinGroupTopic(parts, stream, joinOptions)
      }).then(
        (begin) => {
          if (begin !== undefined && !left.signal.aborted) working.push(begin())
        },
        (error: unknown) => onFailed(toWaybillError(error, topic)),
      )
      if (group === undefined || start === 'latest') noteJoining(topic, joined)
    }
    return member
  }

  /** Tries until it works, or can't. */
  async function untilJoined<T>(signal: AbortSignal, attempt: () => Promise<T>): Promise<T | undefined> {
    for (let count = 1; !signal.aborted; count++) {
      try {
        return await attempt()
      } catch (error) {
        if (!isWaybillError(error) || !error.retryable) throw error
        await clock.sleep(fullJitterMs(PAUSE, count, Math.random), signal)
      }
    }
    return undefined
  }

  async function shut(): Promise<void> {
    const limit = new AbortController()
    const late = clock.sleep(options.closeTimeoutMs * 0.8, limit.signal)
    const cut = new AbortController()
    void late.then(() => cut.abort())
    await Promise.race([Promise.allSettled([queue.close(cut.signal), ...[...members].map((member) => member.end())]), late])
    limit.abort()
    await connection.close(options.closeTimeoutMs * 0.2)
  }

  return {
    name: 'nats',
    capabilities: CAPABILITIES,
    publish: (messages, signal) => queue.publish(messages, signal),
    subscribe(source, signal) {
      assertOpen()
      return join(checkSource(source, true), signal).deliveries()
    },
    async declareGroups(groups) {
      assertOpen()
      for (const { topic, group } of groups) {
        checkTopic(topic)
        checkGroup(group)
      }
      for (const topic of new Set(groups.map((each) => each.topic))) await streams.open(topic)
    },
    admin: createAdmin(parts),
    close: () => (closing ??= shut()),
  }
}
