import { type RetryPolicy, resolveRetryPolicy } from '../core/backoff.ts'
import { type Clock, type Random, systemClock } from '../core/clock.ts'
import { WaybillError } from '../core/errors.ts'
import { newId } from '../core/ids.ts'
import { type Observe, observeAll, unobserved } from '../core/observe.ts'
import { checkInteger } from '../core/options.ts'
import type { OutboxStore } from '../core/stores.ts'
import type { BreakerState, DestinationBreakerOptions } from './destination-breaker.ts'
import { createRecentRows } from './recent-rows.ts'
import { createDestinations, type Publishers } from './relay-destinations.ts'
import { type Engine, type RelaySettings, startEngine } from './relay-engine.ts'
import type { RelayCounters } from './relay-sender.ts'

export interface RelayOptions {
  readonly store: OutboxStore
  /** Who takes the rows of which destination. A row whose destination has none is held, and parked after `retry.attemptsMax` attempts. */
  readonly publishers: Publishers
  /** Names this relay among those that share the database; never give two running ones the same. @default made up */
  readonly relayId?: string
  /** Most rows claimed at a time, 1 to 10,000. @default 200 */
  readonly batchSize?: number
  /** Most rows in flight, 1 to 100,000. @default 1000 */
  readonly inFlightMax?: number
  /**
   * Most bytes of bodies in flight, 1,048,576 to 4,294,967,296, as far as can be told from the size of the rows before: one claim may exceed it. A
   * row that is larger goes alone. @default 67108864
   */
  readonly inFlightMaxBytes?: number
  /**
   * How long this relay keeps its shards without renewing them, 100 to 3,600,000: so long its rows wait when it dies. It renews them at a third of
   * that, also while calls take longer. @default 15000
   */
  readonly leaseMs?: number
  /** Longest pause between two looks where nothing is due, 1 to 60,000. It starts at 20 ms after work, and doubles. @default 500 */
  readonly pollIntervalMs?: number
  /**
   * Whether to listen for what the database says of commits, where it can: a commit is then published at once instead of at the next poll. Takes a
   * connection of its own, and never replaces the polling. Where hints come, and where they don't, is observed as `relay.hints`. @default true
   */
  readonly listen?: boolean
  /**
   * How long a call of a transport that reports `stored` may take, 100 to 3,600,000. Then its signal aborts, and what it has not answered a second later
   * is taken for unknown: sent again, and never dropped. A transport that reports `handled` waits for handlers, which have time limits of their own.
   * @default 30000
   */
  readonly publishTimeoutMs?: number
  /** Attempts of a row that its destination refuses by content, and the waits in between. Spent attempts park it, and its key with it. @default 5 attempts, 100 ms doubling up to 10 s */
  readonly retry?: Partial<RetryPolicy>
  /** When a destination that fails is left alone. @default after 5 failed calls in a row, for 1 s doubling up to 30 s */
  readonly breaker?: DestinationBreakerOptions
  /** How long a stop waits for what is in flight before it cuts it off, 0 to 600,000. @default 5000 */
  readonly shutdownMs?: number
  /** Time. Leases, waits and the stop go by its monotonic part, where it has one. @default the machine's */
  readonly clock?: Clock
  /** Spreads waits. @default `Math.random` */
  readonly random?: Random
  /** Told of what this relay does: `relay.*` and `breaker.changed`. */
  readonly observe?: Observe
  /**
   * Called when this relay has got shards that it did not hold, before it claims any of their rows: what their former owner has left behind must be
   * known by then. Rejects: nothing is claimed, and it is called again.
   */
  readonly beforeTakeOver?: () => Promise<void>
}

/** What a relay is doing, and has done since it was made. */
export interface RelayStats extends Readonly<RelayCounters> {
  readonly running: boolean
  /** Shards it holds, of 64. */
  readonly shards: number
  readonly rowsInFlight: number
  /** Rows that were in flight when their relay died, and wait for their turn to be sent alone. */
  readonly suspectsWaiting: number
  /** Keys that wait after a failure of their destination. */
  readonly keysResting: number
  /** The database's hints reach it. */
  readonly listening: boolean
  readonly breakers: Readonly<Record<string, BreakerState>>
}

/** Carries rows from the outbox to their destinations: at least once, in the order of each key. */
export interface Relay {
  /**
   * Works until `signal` aborts; then claims nothing more, waits up to `shutdownMs` for what is in flight, marks it, and gives its shards back. A
   * database that fails is observed as `relay.failed` and asked again, for ever.
   * @throws WaybillError `NOT_MIGRATED` | `SCHEMA_TOO_NEW` | `CLOSED` from the store; `DUPLICATE` where it runs already
   */
  run(signal: AbortSignal): Promise<void>
  /**
   * Publishes what is due in the shards that this relay gets, until nothing of it is left or `signal` aborts; gives back how many rows were
   * published meanwhile. Works beside `run` and without it. Not waited for: held, scheduled and parked rows, and those of a destination whose
   * breaker is open.
   */
  publishAllPending(signal?: AbortSignal): Promise<number>
  /** Something was committed: look at once. Costs nothing, and any number of calls is one look. */
  wake(): void
  stats(): RelayStats
}

/** How long a relay keeps its shards without renewing them, where nothing is said. */
export const DEFAULT_LEASE_MS = 15_000
const SENT_BEFORE_MAX = 10_000
const MIB = 1_048_576
const NOT_RUNNING = { shards: 0, rowsInFlight: 0, suspectsWaiting: 0, keysResting: 0, listening: false } as const

function resolve(options: RelayOptions): RelaySettings {
  const { store, relayId = `relay-${newId()}`, clock = systemClock, random = Math.random } = options
  return {
    store,
    relayId,
    clock,
    random,
    observe: observeAll([options.observe ?? unobserved]),
    beforeTakeOver: options.beforeTakeOver ?? (() => Promise.resolve()),
    batchSize: checkInteger(options.batchSize ?? 200, 'relay.batchSize', 1, 10_000),
    inFlightMax: checkInteger(options.inFlightMax ?? 1_000, 'relay.inFlightMax', 1, 100_000),
    inFlightMaxBytes: checkInteger(options.inFlightMaxBytes ?? 64 * MIB, 'relay.inFlightMaxBytes', MIB, 4_096 * MIB),
    leaseMs: checkInteger(options.leaseMs ?? DEFAULT_LEASE_MS, 'relay.leaseMs', 100, 3_600_000),
    pollIntervalMs: checkInteger(options.pollIntervalMs ?? 500, 'relay.pollIntervalMs', 1, 60_000),
    publishTimeoutMs: checkInteger(options.publishTimeoutMs ?? 30_000, 'relay.publishTimeoutMs', 100, 3_600_000),
    listen: options.listen ?? true,
    shutdownMs: checkInteger(options.shutdownMs ?? 5_000, 'relay.shutdownMs', 0, 600_000),
    retry: resolveRetryPolicy(options.retry, 'relay.retry'),
  }
}

/** @throws WaybillError `INVALID_OPTION` */
export function createRelay(options: RelayOptions): Relay {
  const settings = resolve(options)
  const destinations = createDestinations(options.publishers, settings.clock, settings.observe, options.breaker)
  const counters: RelayCounters = { published: 0, held: 0, parked: 0, failures: 0 }
  const sentBefore = createRecentRows(SENT_BEFORE_MAX)
  let engine: Engine | undefined
  let isRunning = false

  /** Starts the engine for its first user; the others share it. */
  async function join(): Promise<Engine> {
    while (engine?.stopping === true) await engine.done.catch(() => {})
    engine ??= startEngine({ ...settings, destinations, counters, sentBefore })
    engine.users++
    return engine
  }

  async function leave(left: Engine): Promise<void> {
    if (--left.users > 0) return
    left.stop()
    try {
      await left.done
    } finally {
      if (engine === left) engine = undefined
    }
  }

  return {
    async run(signal) {
      if (isRunning)
        throw new WaybillError('DUPLICATE', 'this relay runs already', {
          got: settings.relayId,
          allowed: 'one run at a time',
          where: 'relay.run',
        })
      isRunning = true
      try {
        const joined = await join()
        try {
          joined.listen()
          await untilAborted(signal, joined.done)
        } finally {
          await leave(joined)
        }
      } finally {
        isRunning = false
      }
    },
    async publishAllPending(signal) {
      const before = counters.published
      const joined = await join()
      try {
        await untilAborted(signal, Promise.race([joined.drained(), joined.done]))
      } finally {
        await leave(joined)
      }
      return counters.published - before
    },
    wake: () => engine?.wake(),
    stats: () => ({
      ...counters,
      running: engine !== undefined,
      ...(engine?.stats() ?? NOT_RUNNING),
      breakers: destinations.states(),
    }),
  }
}

/** Waits for `other`, but no longer than until `signal` aborts. */
async function untilAborted(signal: AbortSignal | undefined, other: Promise<void>): Promise<void> {
  if (signal === undefined) return other
  if (signal.aborted) return
  const { promise, resolve: stop } = Promise.withResolvers<void>()
  const onAbort = (): void => stop()
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    await Promise.race([promise, other])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
