import { fullJitterMs, type RetryPolicy } from '../core/backoff.ts'
import type { Clock, Random } from '../core/clock.ts'
import type { ClaimedRow } from '../core/stores.ts'
import type { RecentRows } from './recent-rows.ts'
import type { Destination, Destinations } from './relay-destinations.ts'
import { callsOf, groupBy, type Key, keyIdOf, splitSuspects, type Verdict } from './relay-plan.ts'
import type { Sender } from './relay-sender.ts'

export interface LanesOptions {
  readonly destinations: Destinations
  readonly sender: Sender
  readonly inFlightMax: number
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
  readonly suspectsWaiting: number
  readonly keysResting: number
  /** Nothing in flight, waiting or resting. */
  readonly idle: boolean
  /** Starts sending, and waits for none of it; gives back how many rows it took. */
  dispatch(rows: readonly ClaimedRow[]): number
  /** Keys that must not be claimed now. */
  busy(): readonly Key[]
  /** Until the first key has rested; infinite where none rests. */
  nextRestedMs(): number
  /** Starts nothing any more. */
  stop(): void
}

/** So many keys can be in flight at least, however many rows each of them has. */
const KEYS_IN_FLIGHT_MIN = 50

export function createLanes(options: LanesOptions): Lanes {
  const { destinations, sender, inFlightMax, batchSize, retry, clock, random, sentBefore, wake, hurry, idled, fatal } = options
  const sending = new Map<string, Key>()
  const suspects = new Map<string, ClaimedRow>()
  const resting = new Map<string, Key & { readonly from: number; readonly until: number; readonly destination: Destination }>()
  // As many as a few dead relays can have left behind. What exceeds it is claimed again later.
  const suspectsMax = 4 * inFlightMax
  const perKeyMax = Math.max(1, Math.floor(inFlightMax / KEYS_IN_FLIGHT_MIN))
  let rowsInFlight = 0
  let freed = 0
  let suspectInFlight = false
  let stopped = false

  /** Runs `work` with the rows' keys taken. */
  function start(rows: readonly ClaimedRow[], work: () => Promise<void>, ended: () => void = () => {}): void {
    for (const { message } of rows) sending.set(keyIdOf(message), keyOf(message))
    rowsInFlight += rows.length
    const finish = (): void => {
      for (const { message } of rows) sending.delete(keyIdOf(message))
      rowsInFlight -= rows.length
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
      () => work((verdict) => note(destination, verdict)),
      () => {
        if (isProbe && breaker.state === 'half-open') breaker.abandonProbe()
        ended()
      },
    )
  }

  function note(destination: Destination, { published, refused, deferred }: Verdict): void {
    const { breaker } = destination
    if (published.length + refused.length > 0) {
      destination.failures = 0
      breaker.succeeded()
    } else if (deferred.length > 0) {
      destination.failures++
      breaker.failed()
    }
    if (breaker.state === 'open') {
      // The breaker keeps all of them back now.
      for (const [keyId, key] of resting) if (key.destination === destination) resting.delete(keyId)
      return
    }
    const from = clock.now()
    const until = from + fullJitterMs(retry, Math.max(1, destination.failures), random)
    for (const { row } of deferred) {
      resting.set(keyIdOf(row.message), { ...keyOf(row.message), from, until, destination })
      if (resting.size > inFlightMax) resting.delete(resting.keys().next().value!)
    }
  }

  function endRests(): void {
    const now = clock.now()
    // Before `from`: the clock was set back.
    for (const [keyId, { from, until }] of resting) if (until <= now || now < from) resting.delete(keyId)
  }

  /** Sends the next suspect, if none is on its way: should it kill the process, it is the only one to blame. */
  function nextSuspect(): void {
    while (!suspectInFlight && !stopped) {
      const [next] = suspects
      if (next === undefined) return
      const [keyId, row] = next
      suspects.delete(keyId)
      const destination = destinations.get(row.destination)
      if (destination === undefined || destination.breaker.admits === 'none') continue
      suspectInFlight = true
      call(
        destination,
        [row],
        (judged) => sender.sendSuspect(destination.publisher, row, judged),
        () => {
          suspectInFlight = false
          nextSuspect()
        },
      )
    }
  }

  function dispatchTo(name: string, rows: readonly ClaimedRow[]): number {
    const destination = destinations.get(name)
    if (destination === undefined) return refuse(name, rows)
    const { together, alone } = splitSuspects(rows, (row) => row.suspect && !sentBefore.has(row.rowId))
    let taken = 0
    const admits = destination.breaker.admits
    if (admits === 'none') return 0
    const calls = callsOf(together, destination.publisher.capabilities.acknowledges === 'handled' ? perKeyMax : undefined)
    for (const sent of admits === 'one' ? calls.slice(0, 1) : calls) {
      call(destination, sent, (judged) => sender.send(destination.publisher, sent, judged))
      taken += sent.length
    }
    for (const row of alone) {
      if (suspects.size >= suspectsMax) break
      suspects.set(keyIdOf(row.message), row)
      taken++
    }
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
    get suspectsWaiting() {
      return suspects.size
    },
    get keysResting() {
      return resting.size
    },
    get idle() {
      return rowsInFlight === 0 && suspects.size === 0 && resting.size === 0
    },
    dispatch(rows) {
      if (stopped) return 0
      // A store that gives a busy key's rows would have them overtake each other.
      const free = rows.filter(({ message }) => !sending.has(keyIdOf(message)) && !suspects.has(keyIdOf(message)))
      let taken = 0
      for (const [name, group] of groupBy(free, (row) => row.destination)) taken += dispatchTo(name, group)
      nextSuspect()
      return taken
    },
    busy() {
      endRests()
      return [...sending.values(), ...[...suspects.values()].map(({ message }) => keyOf(message)), ...[...resting.values()].map(keyOf)]
    },
    nextRestedMs() {
      endRests()
      const now = clock.now()
      let next = Infinity
      for (const { until } of resting.values()) next = Math.min(next, until - now)
      return next
    },
    stop() {
      stopped = true
      suspects.clear()
      resting.clear()
    },
  }
}

const keyOf = ({ topic, key }: Key): Key => ({ topic, key })
