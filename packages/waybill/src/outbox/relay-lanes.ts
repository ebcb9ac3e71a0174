import { fullJitterMs, type RetryPolicy } from '../core/backoff.ts'
import { type Clock, monotonicOf, type Random } from '../core/clock.ts'
import type { ClaimedRow } from '../core/stores.ts'
import type { RecentRows } from './recent-rows.ts'
import type { Destination, Destinations } from './relay-destinations.ts'
import { callsOf, groupBy, type Key, keyIdOf, splitSuspects, type Verdict } from './relay-plan.ts'
import type { Sender } from './relay-sender.ts'
import type { Tenure } from './relay-shards.ts'
import { createSuspects } from './relay-suspects.ts'

export interface LanesOptions {
  readonly destinations: Destinations
  readonly sender: Sender
  readonly inFlightMax: number
  readonly inFlightMaxBytes: number
  readonly batchSize: number
  readonly retry: RetryPolicy
  readonly clock: Clock
  readonly random: Random
  /** Rows that were through a call of this relay before: no suspects any more. */
  readonly sentBefore: RecentRows
  /** Told when it is worth claiming again at once. */
  readonly wake: () => void
  /** Told when it is worth claiming again soon. */
  readonly hurry: () => void
  /** Nothing is in flight any more. */
  readonly idled: () => void
  /** Told of what must end the relay. */
  readonly fatal: (error: unknown) => void
}

/** The keys of a relay that are in flight, resting after a failure of their destination, or suspects waiting their turn: no key in two of these. */
export interface Lanes {
  readonly rowsInFlight: number
  /** Of bodies. */
  readonly bytesInFlight: number
  readonly suspectsWaiting: number
  readonly keysResting: number
  /** Nothing in flight, waiting or resting. */
  readonly idle: boolean
  /** Starts sending what was claimed, and waits for none of it; gives back how many rows it took. */
  dispatch(rows: readonly ClaimedRow[], mine: Tenure): number
  /** Keys that must not be claimed now. */
  busy(): readonly Key[]
  /** Numbers of the rows in flight. */
  inFlight(): readonly string[]
  /** Shards of which rows are in flight, or suspects wait. */
  shardsInUse(): readonly number[]
  /** Drops suspects whose lease is gone, and those of shards that are to be given up. */
  forgetSuspects(leaving: readonly number[]): void
  /** Until the first key has rested; infinite where none rests. */
  nextRestedMs(): number
  /** Starts nothing any more. */
  stop(): void
}

/** So many keys can be in flight at least, however many rows each of them has. */
const KEYS_IN_FLIGHT_MIN = 50

/** What a row's body takes. */
export const bytesOf = (row: ClaimedRow): number => row.message.body.length

export function createLanes(options: LanesOptions): Lanes {
  const { destinations, sender, inFlightMax, inFlightMaxBytes, batchSize, retry, clock, random, sentBefore, wake, hurry, idled, fatal } =
    options
  const monotonic = monotonicOf(clock)
  const sending = createKeysInFlight()
  const inFlight = new Map<string, number>()
  // As many as a few dead relays can have left behind. What exceeds it is claimed again later.
  const suspects = createSuspects(4 * inFlightMax, inFlightMaxBytes)
  const resting = new Map<string, Key & { readonly until: number; readonly destination: Destination }>()
  const perKeyMax = Math.max(1, Math.floor(inFlightMax / KEYS_IN_FLIGHT_MIN))
  let rowsInFlight = 0
  let bytesInFlight = 0
  let freed = 0
  let suspectInFlight = false
  let stopped = false

  /** Runs `work` with the rows' keys taken. */
  function start(rows: readonly ClaimedRow[], work: () => Promise<void>, ended: () => void = () => {}): void {
    const keys = keysOf(rows)
    sending.add(keys)
    for (const { rowId, shard } of rows) inFlight.set(rowId, shard)
    const bytes = rows.reduce((sum, row) => sum + bytesOf(row), 0)
    rowsInFlight += rows.length
    bytesInFlight += bytes
    const finish = (): void => {
      sending.delete(keys)
      for (const { rowId } of rows) inFlight.delete(rowId)
      rowsInFlight -= rows.length
      bytesInFlight -= bytes
      freed += rows.length
      ended()
      if (rowsInFlight === 0) idled()
      // Not at once at the end of each call: a claim per call would cost the database more than the sending.
      if (freed < Math.min(batchSize / 2, rowsInFlight + suspects.size)) return hurry()
      freed = 0
      wake()
    }
    void work().catch(fatal).finally(finish)
  }

  /** Starts a call to a destination that admits it; where it is half-open, this is the probe. */
  function call(
    destination: Destination,
    rows: readonly ClaimedRow[],
    work: (judged: (verdict: Verdict) => void) => Promise<void>,
    ended: () => void = () => {},
  ): void {
    const { breaker } = destination
    const isProbe = breaker.admits === 'one'
    if (isProbe) breaker.probe()
    start(
      rows,
      () => work((verdict) => note(destination, verdict, isProbe)),
      () => {
        if (isProbe && breaker.state === 'half-open') breaker.abandonProbe()
        ended()
      },
    )
  }

  function note(destination: Destination, { published, refused, deferred }: Verdict, isProbe: boolean): void {
    const { breaker } = destination
    if (published.length + refused.length > 0) {
      destination.failures = 0
      destination.probedInVain.clear()
      breaker.succeeded()
    } else if (deferred.length > 0) {
      destination.failures++
      breaker.failed(deferred[0]!.error)
    }
    if (breaker.state === 'open') {
      // Were it a key that always fails, probing with it would keep all others waiting for ever.
      if (isProbe) for (const { row } of deferred) destination.probedInVain.set(keyIdOf(row.message), keyOf(row.message))
      // The breaker keeps all of them back now.
      for (const [keyId, key] of resting) if (key.destination === destination) resting.delete(keyId)
      return
    }
    const until = monotonic() + fullJitterMs(retry, Math.max(1, destination.failures), random)
    for (const { row } of deferred) {
      resting.set(keyIdOf(row.message), { ...keyOf(row.message), until, destination })
      if (resting.size > inFlightMax) resting.delete(resting.keys().next().value!)
    }
  }

  function endRests(): void {
    const now = monotonic()
    for (const [keyId, { until }] of resting) if (until <= now) resting.delete(keyId)
  }

  /** Sends the next suspect, if none is on its way: should it kill the process, it is the only one to blame. */
  function nextSuspect(): void {
    while (!suspectInFlight && !stopped) {
      const next = suspects.next()
      if (next === undefined) return
      const { row, behind } = next
      const destination = destinations.get(row.destination)
      if (!behind.mine() || destination === undefined || destination.breaker.admits === 'none') continue
      suspectInFlight = true
      let passed = false
      const send = (judged: (verdict: Verdict) => void): Promise<void> =>
        sender.sendSuspect(row, {
          publisher: destination.publisher,
          mine: behind.mine,
          judged(verdict) {
            passed = verdict.published.length > 0
            judged(verdict)
          },
        })
      call(destination, [row], send, () => {
        suspectInFlight = false
        // The next of its key without another claim, but not before the other keys.
        if (passed && !stopped) suspects.add(behind)
        nextSuspect()
      })
    }
  }

  function dispatchTo(name: string, rows: readonly ClaimedRow[], mine: Tenure): number {
    const destination = destinations.get(name)
    if (destination === undefined) return refuse(name, rows)
    const { together, alone } = splitSuspects(rows, (row) => row.suspect && !sentBefore.has(row.rowId))
    let taken = 0
    const { publisher, breaker } = destination
    const admits = breaker.admits
    if (admits === 'none') return 0
    // A probe is of one key.
    const calls = callsOf(together, publisher.capabilities.acknowledges === 'handled' || admits === 'one' ? perKeyMax : undefined)
    for (const sent of admits === 'one' ? calls.slice(0, 1) : calls) {
      call(destination, sent, (judged) => sender.send(sent, { publisher, mine, judged }))
      taken += sent.length
    }
    for (const run of alone) taken += suspects.add({ rows: run, mine })
    return taken
  }

  /** Rows for a destination that this relay doesn't have: as if each key's first row had been refused. */
  function refuse(name: string, rows: readonly ClaimedRow[]): number {
    const failures = [...groupBy(rows, (row) => keyIdOf(row.message)).values()].map(([row]) => ({
      row: row!,
      error: `this relay has no publisher for the destination ${JSON.stringify(name)}`,
    }))
    start(
      failures.map(({ row }) => row),
      () => sender.setBack(failures),
    )
    return failures.length
  }

  return {
    get rowsInFlight() {
      return rowsInFlight
    },
    get bytesInFlight() {
      return bytesInFlight
    },
    get suspectsWaiting() {
      return suspects.size
    },
    get keysResting() {
      return resting.size
    },
    get idle() {
      return rowsInFlight === 0 && suspects.size === 0 && resting.size === 0
    },
    dispatch(rows, mine) {
      if (stopped || !mine()) return 0
      // A store that gives a busy key's rows would have them overtake each other.
      const free = rows.filter(({ message }) => !sending.has(message) && !suspects.has(message))
      let taken = 0
      for (const destination of destinations.probing())
        if (!free.some((row) => destinations.get(row.destination) === destination) && destination.probedInVain.size > 0) {
          // All that is left for it are keys that were tried: they are tried again.
          destination.probedInVain.clear()
          wake()
        }
      for (const [name, group] of groupBy(free, (row) => row.destination)) taken += dispatchTo(name, group, mine)
      nextSuspect()
      return taken
    },
    busy() {
      endRests()
      return [
        ...sending.keys(),
        ...suspects.keys().map(keyOf),
        ...[...resting.values()].map(keyOf),
        ...destinations.probing().flatMap(({ probedInVain }) => [...probedInVain.values()]),
      ]
    },
    inFlight: () => [...inFlight.keys()],
    shardsInUse: () => [...new Set([...inFlight.values(), ...suspects.shards()])],
    forgetSuspects: suspects.forget,
    nextRestedMs() {
      endRests()
      const now = monotonic()
      let next = Infinity
      for (const { until } of resting.values()) next = Math.min(next, Math.ceil(until - now))
      return next
    },
    stop() {
      stopped = true
      suspects.clear()
      resting.clear()
    },
  }
}

/** Keys and how many calls each is in: more than one only where its rows have several destinations. */
function createKeysInFlight() {
  const calls = new Map<string, { readonly key: Key; count: number }>()
  return {
    has: (key: Key): boolean => calls.has(keyIdOf(key)),
    keys: (): readonly Key[] => [...calls.values()].map(({ key }) => key),
    add(keys: ReadonlyMap<string, Key>): void {
      for (const [keyId, key] of keys) {
        const known = calls.get(keyId)
        if (known === undefined) calls.set(keyId, { key, count: 1 })
        else known.count++
      }
    },
    delete(keys: ReadonlyMap<string, Key>): void {
      for (const keyId of keys.keys()) if (--calls.get(keyId)!.count === 0) calls.delete(keyId)
    },
  }
}

const keysOf = (rows: readonly ClaimedRow[]): ReadonlyMap<string, Key> =>
  new Map(rows.map(({ message }) => [keyIdOf(message), keyOf(message)]))

const keyOf = ({ topic, key }: Key): Key => ({ topic, key })
