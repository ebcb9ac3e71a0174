import { fullJitterMs } from '../../core/backoff.ts'
import { isWaybillError, WaybillError } from '../../core/errors.ts'
import type { Member } from '../../core/member.ts'
import type { Observe } from '../../core/observe.ts'
import { OLDER, stateOf } from './gap-watch.ts'
import type { Fetcher } from './fetcher.ts'
import { createLease, type Lease } from './lease.ts'
import type { Link } from './link.ts'
import type { RedisKeys } from './names.ts'
import { ACQUIRE, CHANGED, ENSURE, JOIN } from './scripts.ts'
import { compareIds } from './stream-id.ts'
import { shareOf } from './share.ts'
import type { Topics } from './topics.ts'
import type { Waker } from './waker.ts'

export interface GroupTopicOptions {
  readonly link: Link
  readonly fetcher: Fetcher
  readonly waker: Waker
  readonly keys: RedisKeys
  readonly topics: Topics
  readonly member: Member<string>
  readonly memberId: string
  readonly topic: string
  readonly group: string
  /** An id, or `$`. */
  readonly startId: string
  readonly leaseMs: number
  readonly observe: Observe
  onStream(stream: string): void
  onFatal(error: WaybillError): void
}

/** One member's part in a group at one topic: joins, shares the partitions with the others, leaves. */
export interface GroupTopic {
  /** Resolves when the group exists at each partition, or that failed for the first time. Never rejects. */
  readonly joined: Promise<void>
  /** Gives everything back. Bounded by the time of its calls; never rejects. */
  leave(): Promise<void>
}

const RETRY = { baseMs: 200, maxMs: 5_000 }
const WAIT_SHARE = 5
const CONNECTION: ReadonlySet<string> = new Set(['CLOSED', 'TRANSPORT_UNAVAILABLE', 'UNKNOWN_OUTCOME'])

export function createGroupTopic(options: GroupTopicOptions): GroupTopic {
  const { link, fetcher, waker, keys, topics, member, memberId, topic, group, startId, leaseMs, observe } = options
  const leases = new Map<number, Lease>()
  const releasing = new Set<Promise<void>>()
  /** Partitions at which the group was there already, and where to go on. */
  const known = new Map<number, string>()
  const stop = new AbortController()
  const heartbeatMs = Math.ceil(leaseMs / WAIT_SHARE)
  const membersAndBell = [keys.members(topic, group), keys.bell(topic, group)]
  let gained: string[] = []
  let lost: string[] = []
  let onJoined = (): void => {}
  let onBell = (): void => {}
  let isListening = false
  const joined = new Promise<void>((resolve) => {
    onJoined = resolve
  })
  const context = {
    link,
    fetcher,
    waker,
    keys,
    member,
    topic,
    group,
    leaseMs,
    onLost(lease: Lease, resumeId: string) {
      if (leases.get(lease.partition) === lease) leases.delete(lease.partition)
      known.set(lease.partition, resumeId)
      lost.push(lease.partitionName)
      const released = lease.release().finally(() => releasing.delete(released))
      releasing.add(released)
      onBell()
    },
    onGap: gap,
    onFatal: options.onFatal,
    onFailure: failed,
  }

  const watchdog = setInterval(() => {
    for (const lease of leases.values()) lease.expire(heartbeatMs)
  }, heartbeatMs / 2)
  watchdog.unref()
  const running = run()
  return { joined, leave }

  function gap(partition: number, missing: number | undefined, why: string): void {
    const error = new WaybillError('POSITION_LOST', why, { where: `${topic}:${partition}`, got: group })
    const counted = missing === undefined ? {} : { missing }
    observe({ type: 'transport.gap', transport: 'redis', topic, group, partition: String(partition), ...counted, error })
  }

  function failed(error: WaybillError): void {
    // That the connection is away is said once, by the connection.
    if (!CONNECTION.has(error.code)) observe({ type: 'transport.failed', transport: 'redis', error })
  }

  async function run(): Promise<void> {
    let failures = 0
    while (!stop.signal.aborted) {
      try {
        const bellId = await beat()
        failures = 0
        if (stop.signal.aborted) break
        void listen(bellId)
        await pause(heartbeatMs)
      } catch (error) {
        const typed = isWaybillError(error) ? error : new WaybillError('UNKNOWN_OUTCOME', 'joining failed', { where: topic, cause: error })
        if (stop.signal.aborted || typed.code === 'CLOSED') break
        if (!typed.retryable) {
          options.onFatal(typed)
          break
        }
        failed(typed)
        await pause(Math.min(heartbeatMs, fullJitterMs(RETRY, ++failures, Math.random)))
      } finally {
        onJoined()
      }
    }
    onJoined()
  }

  /** Sleeps, at most until the bell rings. */
  async function pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(end, ms)
      stop.signal.addEventListener('abort', end, { once: true })
      onBell = end
      function end(): void {
        clearTimeout(timer)
        stop.signal.removeEventListener('abort', end)
        resolve()
      }
      if (stop.signal.aborted) end()
    })
    onBell = () => {}
  }

  /** Somebody came or left. */
  async function listen(bellId: string): Promise<void> {
    if (isListening) return
    isListening = true
    await waker.wait(membersAndBell[1]!, bellId, stop.signal)
    isListening = false
    onBell()
  }

  /** Renews what is held, and brings it closer to this member's share. Gives the bell's last id. */
  async function beat(): Promise<string> {
    const partitions = await topics.ensure(topic)
    if (known.size === 0) await ensureGroups(partitions)
    onJoined()
    const [bellId, ...members] = (await link.script(JOIN, membersAndBell, [memberId, String(leaseMs)])) as readonly string[]
    const mine = shareOf(memberId, members, partitions, topic)
    await Promise.all([...leases.values()].map((lease) => lease.renew()))
    const working = [...leases.values()].filter((lease) => !lease.isLeaving)
    for (const lease of working.slice(mine.count)) void giveBack(lease)
    if (working.length < mine.count) await acquire(mine.count - working.length, partitions, mine.first)
    report()
    return bellId ?? '0-0'
  }

  async function ensureGroups(partitions: number): Promise<void> {
    const each = Array.from({ length: partitions }, (_, partition) => partition)
    await Promise.all(each.map((partition) => link.script(ENSURE, [keys.stream(topic, partition)], [group, startId, 'first'])))
    for (const partition of each) {
      known.set(partition, '0-0')
      options.onStream(keys.stream(topic, partition))
    }
  }

  async function giveBack(lease: Lease): Promise<void> {
    await lease.giveBack(leaseMs / WAIT_SHARE)
    await tellOthers()
  }

  async function tellOthers(...gone: readonly string[]): Promise<void> {
    try {
      await link.script(CHANGED, membersAndBell, gone)
    } catch (error) {
      // They look by themselves, a little later.
      if (isWaybillError(error)) failed(error)
    }
  }

  async function acquire(wanted: number, partitions: number, first: number): Promise<void> {
    const free = Array.from({ length: partitions }, (_, at) => (first + at) % partitions).filter((partition) => !leases.has(partition))
    let left = wanted
    for (let at = 0; at < free.length && left > 0 && !stop.signal.aborted;) {
      const tries = free.slice(at, at + left)
      at += tries.length
      const taken = await Promise.all(tries.map(tryOne))
      left -= taken.filter(Boolean).length
    }
  }

  async function tryOne(partition: number): Promise<boolean> {
    const stream = keys.stream(topic, partition)
    const sinceMs = performance.now()
    const start = known.get(partition) ?? '0-0'
    const keysOf = [stream, keys.lease(stream, group), keys.fence(stream)]
    const reply = await link.script(ACQUIRE, keysOf, [group, start, 'again', memberId, String(leaseMs)])
    if (!Array.isArray(reply)) return false
    const [token, made, ...state] = reply as readonly unknown[]
    if (made === 1) gap(partition, undefined, 'its stream or its group was deleted; the group has been made anew')
    else if (compareIds(stateOf(state).lastId, start) < 0) gap(partition, undefined, OLDER)
    // It has left meanwhile: the lease ends by itself, or with the release that `leave` sends.
    const lease = createLease(context, { partition, token: String(token), sinceMs, state })
    if (stop.signal.aborted) {
      await lease.release()
      return false
    }
    leases.set(partition, lease)
    gained.push(lease.partitionName)
    return true
  }

  function report(): void {
    if (gained.length + lost.length === 0) return
    const event = { type: 'transport.assigned', transport: 'redis', group, gained, lost } as const
    gained = []
    lost = []
    observe(event)
  }

  async function leave(): Promise<void> {
    if (stop.signal.aborted) return
    stop.abort()
    clearInterval(watchdog)
    await running
    for (const lease of leases.values()) void lease.release()
    await Promise.all(releasing)
    await tellOthers(memberId)
    report()
  }
}
