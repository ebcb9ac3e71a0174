import { fullJitterMs, type RetryPolicy } from '../core/backoff.ts'
import { type Clock, monotonicOf, type Random } from '../core/clock.ts'
import { crashpoint } from '../core/crashpoint.ts'
import type { Observe } from '../core/observe.ts'
import type { ClaimedRow, OutboxStore } from '../core/stores.ts'
import type { RecentRows } from './recent-rows.ts'
import type { Destinations } from './relay-destinations.ts'
import { createHints } from './relay-hints.ts'
import { bytesOf, createLanes } from './relay-lanes.ts'
import { DATABASE_RETRY, isFatal } from './relay-marks.ts'
import { createPause, POLL_MIN_MS } from './relay-pause.ts'
import { createSender, type RelayCounters } from './relay-sender.ts'
import { createShards, type Tenure } from './relay-shards.ts'
import { windDown } from './relay-wind-down.ts'

/** A relay's options, checked and filled in, and what outlives one run of it. */
export interface RelaySettings {
  readonly store: OutboxStore
  readonly relayId: string
  readonly batchSize: number
  readonly inFlightMax: number
  readonly inFlightMaxBytes: number
  readonly leaseMs: number
  readonly pollIntervalMs: number
  readonly publishTimeoutMs: number
  readonly shutdownMs: number
  readonly listen: boolean
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

// While rows are in flight, looking takes at most a fifth of the time: what is committed meanwhile comes with the next look, and batches grow with the
// load. With nothing in flight a commit is looked for at once.
const REST_PER_LOOK = 4
const REST_MAX_MS = 50
// The largest message that the library writes.
const ROW_BYTES_MAX = 1_048_576
// Shorter waits are not worth saying so to the database.
const SLEEP_MIN_MS = 100

export interface EngineStats {
  readonly shards: number
  readonly rowsInFlight: number
  readonly suspectsWaiting: number
  readonly keysResting: number
  readonly listening: boolean
}

/** A relay at work. */
export interface Engine {
  users: number
  readonly stopping: boolean
  /** Resolves when it has stopped; rejects with what ended it. */
  readonly done: Promise<void>
  /** Resolves when, from now on, a look has found nothing left to publish. */
  drained(): Promise<void>
  /** Listens for the database's hints, where it has any and they are wanted. */
  listen(): void
  wake(): void
  stop(): void
  stats(): EngineStats
}

/** What a look has found, and whether it may still be sent. */
interface Found {
  readonly rows: readonly ClaimedRow[]
  readonly mine: Tenure
}

const NOTHING: Found = { rows: [], mine: () => true }

export function startEngine(options: EngineOptions): Engine {
  const { clock, pollIntervalMs, destinations, counters, store, relayId } = options
  const monotonic = monotonicOf(clock)
  const waiting = new Set<() => void>()
  const pause = createPause(clock)
  let ended: { readonly error: unknown } | undefined
  let stopping = false
  let resting: AbortController | undefined
  const stopped = Promise.withResolvers<void>()
  const windingDown = new AbortController()

  const sender = createSender(options)
  const fatal = (error: unknown): void => {
    ended ??= { error }
    pause.wake()
  }
  const lanes = createLanes({ ...options, sender, wake: pause.wake, hurry: pause.hurry, idled: () => resting?.abort('ended'), fatal })
  const hints = createHints({ ...options, hints: options.listen ? store.hints : undefined, wake: pause.wake })
  // The database may have forgotten a relay whose lease ran out, and with it that it was asleep.
  const shards = createShards({ ...options, inUse: lanes.shardsInUse, lost: hints.awake })

  // How large a row is, as the last ones were: at first as large as can be, and then halved at most, since one that is too low costs memory.
  let rowBytes = ROW_BYTES_MAX
  const limit = (): number => {
    const room = Math.floor((options.inFlightMaxBytes - lanes.bytesInFlight) / rowBytes)
    // However large it is, one row at a time must pass.
    return Math.min(options.batchSize, options.inFlightMax - lanes.rowsInFlight, lanes.rowsInFlight === 0 ? Math.max(1, room) : room)
  }

  /** Rows to send; none where there is no room for them, or no shard is ours. Rejects with the database's error. */
  async function look(rowsMax: number): Promise<Found> {
    const pending = await shards.renew()
    const { leaving, size } = shards
    lanes.forgetSuspects(leaving)
    // Where the renewal has learnt that nothing waits, it was the look: an idle relay asks one thing at a time.
    if (rowsMax <= 0 || size === 0 || pending === false) return NOTHING
    const mine = shards.tenure()
    const without = destinations.closed()
    const inFlight = lanes.inFlight()
    const rows = await store.claim(relayId, {
      limit: rowsMax,
      busy: lanes.busy(),
      ...(without.length === 0 ? {} : { without }),
      ...(leaving.length === 0 ? {} : { leaving }),
      ...(inFlight.length === 0 ? {} : { inFlight }),
    })
    if (rows.length > 0) {
      rowBytes = Math.max(rowBytes / 2, rows.reduce((sum, row) => sum + bytesOf(row), 0) / rows.length)
      crashpoint('relay.afterClaim')
    }
    return { rows, mine }
  }

  async function work(): Promise<void> {
    let pollMs = POLL_MIN_MS
    let failures = 0
    while (!stopping && ended === undefined) {
      const asked = [...waiting]
      pause.arm()
      const rowsMax = limit()
      const lookedAt = monotonic()
      // What was in flight when it looked kept the rows behind it out of sight, also where that has ended by now.
      const wasIdle = lanes.idle
      let found: Found
      try {
        found = await look(rowsMax)
        failures = 0
      } catch (error) {
        if (isFatal(error)) throw error
        counters.failures++
        options.observe({ type: 'relay.failed', error })
        await pause.for(fullJitterMs(DATABASE_RETRY, ++failures, options.random))
        continue
      }
      const { rows, mine } = found
      if (rows.length > 0) hints.awake()
      // The lease ran out meanwhile: it is renewed, and they are claimed again, by whoever holds their shards then.
      if (rows.length > 0 && !mine()) continue
      const taken = lanes.dispatch(rows, mine)
      if (taken === 0 && wasIdle && lanes.idle) for (const drained of asked) drained()
      if (taken > 0 && rows.length >= rowsMax) continue
      pollMs = taken > 0 ? POLL_MIN_MS : Math.min(pollMs * 2, pollIntervalMs)
      const restMs = Math.min(REST_MAX_MS, (monotonic() - lookedAt) * REST_PER_LOOK)
      const waitMs = Math.min(pollMs, pollIntervalMs, lanes.nextRestedMs(), destinations.nextProbeMs(), shards.renewInMs())
      // What is appended from now on is hinted at; what was committed before is found by one more look, and what was appended and not yet committed by
      // those that follow soon.
      if (waitMs > SLEEP_MIN_MS && !stopping && (await hints.fallAsleep())) {
        pollMs = POLL_MIN_MS
        continue
      }
      await pause.for(waitMs)
      if (!lanes.idle && restMs > 0) {
        resting = new AbortController()
        await clock.sleep(restMs, resting.signal)
        resting = undefined
      }
    }
  }

  /** A database that does not answer must not keep a stop from its time limits: what a late look finds is not sent any more. */
  async function lateStop(): Promise<void> {
    await stopped.promise
    await clock.sleep(options.shutdownMs, windingDown.signal)
  }

  async function main(): Promise<void> {
    const working = work()
    try {
      await Promise.race([working, lateStop()])
    } catch (error) {
      ended ??= { error }
    }
    windingDown.abort('ended')
    stopping = true
    const looking = working.catch(() => {})
    await Promise.all([hints.stop(), windDown({ ...options, lanes, sender, shards, pause, looking })])
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
    listen: hints.start,
    wake: pause.wake,
    stop() {
      stopping = true
      stopped.resolve()
      pause.wake()
    },
    stats: () => ({
      shards: shards.size,
      rowsInFlight: lanes.rowsInFlight,
      suspectsWaiting: lanes.suspectsWaiting,
      keysResting: lanes.keysResting,
      listening: hints.listening,
    }),
  }
}
