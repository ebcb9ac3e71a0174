import { fullJitterMs, type RetryPolicy } from '../core/backoff.ts'
import type { Clock, Random } from '../core/clock.ts'
import { crashpoint } from '../core/crashpoint.ts'
import type { Observe } from '../core/observe.ts'
import { type ClaimedRow, OUTBOX_SHARDS, type OutboxStore } from '../core/stores.ts'
import type { RecentRows } from './recent-rows.ts'
import type { Destinations } from './relay-destinations.ts'
import { createLanes, type Lanes } from './relay-lanes.ts'
import { DATABASE_RETRY, isFatal } from './relay-marks.ts'
import { createSender, type RelayCounters, type Sender } from './relay-sender.ts'

/** A relay's options, checked and filled in, and what outlives one run of it. */
export interface RelaySettings {
  readonly store: OutboxStore
  readonly relayId: string
  readonly batchSize: number
  readonly inFlightMax: number
  readonly leaseMs: number
  readonly pollIntervalMs: number
  readonly shutdownMs: number
  readonly retry: RetryPolicy
  readonly clock: Clock
  readonly random: Random
  readonly observe: Observe
  readonly beforeTakeOver: () => Promise<void>
}

interface EngineOptions extends RelaySettings {
  readonly destinations: Destinations
  readonly counters: RelayCounters
  readonly sentBefore: RecentRows
}

const POLL_MIN_MS = 20
// While others hold shards, one of them may die: looking more often than leases are renewed shortens the silence.
const ACQUIRE_MS = 1_000
const ABORT_GRACE_MS = 1_000
// While rows are in flight, looking takes at most a fifth of the time: what is committed meanwhile comes with the next look, and batches grow with the
// load. With nothing in flight a commit is looked for at once.
const REST_PER_LOOK = 4
const REST_MAX_MS = 50

export interface EngineStats {
  readonly shards: number
  readonly rowsInFlight: number
  readonly suspectsWaiting: number
  readonly keysResting: number
}

/** A relay at work. */
export interface Engine {
  users: number
  readonly stopping: boolean
  /** Resolves when it has stopped; rejects with what ended it. */
  readonly done: Promise<void>
  /** Resolves when, from now on, a look has found nothing left to publish. */
  drained(): Promise<void>
  wake(): void
  stop(): void
  stats(): EngineStats
}

export function startEngine(options: EngineOptions): Engine {
  const { clock, pollIntervalMs, destinations, counters } = options
  const waiting = new Set<() => void>()
  const pause = createPause(clock)
  let ended: { readonly error: unknown } | undefined
  let stopping = false
  let resting: AbortController | undefined

  const sender = createSender(options)
  const fatal = (error: unknown): void => {
    ended ??= { error }
    pause.wake()
  }
  const lanes = createLanes({ ...options, sender, wake: pause.wake, hurry: pause.hurry, idled: () => resting?.abort('ended'), fatal })
  const shards = createShards(options)

  const limit = (): number => Math.min(options.batchSize, options.inFlightMax - lanes.rowsInFlight)

  /** Rows to send; none where there is no room for them, or no shard is ours. Rejects with the database's error. */
  async function look(rowsMax: number): Promise<readonly ClaimedRow[]> {
    await shards.renew()
    if (rowsMax <= 0 || shards.size === 0) return []
    const without = destinations.closed()
    return options.store.claim(options.relayId, { limit: rowsMax, busy: lanes.busy(), ...(without.length === 0 ? {} : { without }) })
  }

  async function work(): Promise<void> {
    let pollMs = POLL_MIN_MS
    let failures = 0
    while (!stopping && ended === undefined) {
      const asked = [...waiting]
      pause.arm()
      const rowsMax = limit()
      const lookedAt = clock.now()
      let rows: readonly ClaimedRow[]
      try {
        rows = await look(rowsMax)
        failures = 0
      } catch (error) {
        if (isFatal(error)) throw error
        counters.failures++
        options.observe({ type: 'relay.failed', error })
        await pause.for(fullJitterMs(DATABASE_RETRY, ++failures, options.random))
        continue
      }
      if (rows.length > 0) crashpoint('relay.afterClaim')
      const taken = lanes.dispatch(rows)
      if (taken === 0 && lanes.idle) for (const drained of asked) drained()
      if (taken > 0 && rows.length >= rowsMax) continue
      pollMs = taken > 0 ? POLL_MIN_MS : Math.min(pollMs * 2, pollIntervalMs)
      const restMs = Math.min(REST_MAX_MS, (clock.now() - lookedAt) * REST_PER_LOOK)
      await pause.for(Math.min(pollMs, pollIntervalMs, lanes.nextRestedMs(), destinations.nextProbeMs(), shards.renewInMs()))
      if (!lanes.idle && restMs > 0) {
        resting = new AbortController()
        await clock.sleep(restMs, resting.signal)
        resting = undefined
      }
    }
  }

  async function main(): Promise<void> {
    try {
      await work()
    } catch (error) {
      ended ??= { error }
    }
    stopping = true
    await windDown(options, lanes, sender, shards, pause)
    if (ended !== undefined) throw ended.error
  }

  const done = main()
  // Whoever uses it awaits it; until then a failure must not count as unhandled.
  done.catch(() => {})
  return {
    users: 0,
    get stopping() {
      return stopping
    },
    done,
    drained: () =>
      new Promise((drained) => {
        const once = (): void => {
          waiting.delete(once)
          drained()
        }
        waiting.add(once)
        pause.wake()
      }),
    wake: pause.wake,
    stop() {
      stopping = true
      pause.wake()
    },
    stats: () => ({
      shards: shards.size,
      rowsInFlight: lanes.rowsInFlight,
      suspectsWaiting: lanes.suspectsWaiting,
      keysResting: lanes.keysResting,
    }),
  }
}

/** Waits for what is in flight, cuts off what takes too long, and gives the shards back. */
async function windDown(settings: RelaySettings, lanes: Lanes, sender: Sender, shards: Shards, pause: Pause): Promise<void> {
  const { clock, shutdownMs, store, relayId, observe } = settings
  lanes.stop()
  const waitUntil = async (deadline: number): Promise<void> => {
    while (lanes.rowsInFlight > 0 && clock.now() < deadline) {
      pause.arm()
      try {
        await shards.renew()
      } catch (error) {
        observe({ type: 'relay.failed', error })
      }
      if (lanes.rowsInFlight > 0) await pause.for(Math.min(deadline - clock.now(), Math.max(DATABASE_RETRY.baseMs, shards.renewInMs())))
    }
  }
  await waitUntil(clock.now() + shutdownMs)
  sender.abort()
  await waitUntil(clock.now() + ABORT_GRACE_MS)
  sender.abandon()
  try {
    await store.relinquish(relayId)
  } catch (error) {
    // The leases run out by themselves.
    observe({ type: 'relay.failed', error })
  }
}

/** A sleep that can be cut short. */
interface Pause {
  /** From here on, {@link wake} counts. */
  arm(): void
  /** Sleeps, unless somebody has called {@link wake} since {@link arm}. */
  for(ms: number): Promise<void>
  /** Ends the sleep, or the next one before it begins. */
  wake(): void
  /** Lets the sleep, or the next one, last 20 ms from now at most. */
  hurry(): void
}

function createPause(clock: Clock): Pause {
  let woken = false
  let hurried = false
  let sleeping: AbortController | undefined

  async function nap(ms: number): Promise<void> {
    sleeping = new AbortController()
    await clock.sleep(ms, sleeping.signal)
    sleeping = undefined
  }

  return {
    arm() {
      woken = false
    },
    async for(ms) {
      if (!woken && !hurried) await nap(ms)
      if (!woken && hurried) await nap(Math.min(ms, POLL_MIN_MS))
      hurried = false
    },
    wake() {
      woken = true
      sleeping?.abort()
    },
    hurry() {
      if (hurried) return
      hurried = true
      sleeping?.abort()
    },
  }
}

/** The shards this relay holds, and when that must be renewed. */
interface Shards {
  readonly size: number
  renewInMs(): number
  renew(): Promise<void>
}

function createShards({ store, relayId, leaseMs, clock, observe, beforeTakeOver }: RelaySettings): Shards {
  let size = 0
  let held: ReadonlySet<number> = new Set()
  let renewedAt = -Infinity
  let renewAt = -Infinity

  // A clock that was set back must not keep the leases from being renewed.
  const renewInMs = (): number => (clock.now() < renewedAt ? 0 : Math.max(0, renewAt - clock.now()))

  return {
    get size() {
      return size
    },
    renewInMs,
    async renew() {
      if (renewInMs() > 0) return
      const before = size
      const shards = await store.acquire(relayId, leaseMs)
      // Where it rejects nothing is claimed, and the next look is here again.
      if (shards.some((shard) => !held.has(shard))) await beforeTakeOver()
      held = new Set(shards)
      size = shards.length
      renewedAt = clock.now()
      renewAt = renewedAt + (size < OUTBOX_SHARDS ? Math.min(leaseMs / 3, ACQUIRE_MS) : leaseMs / 3)
      if (size !== before) observe({ type: 'relay.acquired', relayId, shards: size })
    },
  }
}
