import type { Clock } from '../core/clock.ts'
import type { Observe } from '../core/observe.ts'
import type { Publisher } from '../core/transport.ts'
import type { Key } from './relay-plan.ts'
import {
  type BreakerState,
  createDestinationBreaker,
  type DestinationBreaker,
  type DestinationBreakerOptions,
} from './destination-breaker.ts'

/** Where rows go: by the name that stands in the row. */
export type Publishers = ReadonlyMap<string, Publisher> | ((destination: string) => Publisher | undefined)

export interface Destination {
  readonly publisher: Publisher
  readonly breaker: DestinationBreaker
  /** Failed calls since the last one that succeeded. */
  failures: number
  /** Keys that have failed since the last success: the next probe is of another one, where there is any. */
  readonly probedInVain: Map<string, Key>
}

export interface Destinations {
  /** None where the relay has no publisher of that name. */
  get(name: string): Destination | undefined
  /** Those that take nothing now. */
  closed(): readonly string[]
  /** Those that take a single call now, as a probe. */
  probing(): readonly Destination[]
  /** Until the next of them may be probed; infinite where none is open. */
  nextProbeMs(): number
  states(): Readonly<Record<string, BreakerState>>
}

// Names come from rows, and a function may know a publisher for each of them: of how many it is remembered how they do.
const DESTINATIONS_MAX = 1_000

/** @throws WaybillError `INVALID_OPTION` */
export function createDestinations(
  publishers: Publishers,
  clock: Clock,
  observe: Observe,
  options: DestinationBreakerOptions | undefined,
): Destinations {
  const known = new Map<string, Destination>()
  const find = (name: string): Publisher | undefined => (typeof publishers === 'function' ? publishers(name) : publishers.get(name))
  // Made once for nothing, so that wrong options are refused before the first row.
  createDestinationBreaker(clock, () => {}, options)

  return {
    get(name) {
      const found = known.get(name)
      if (found !== undefined) return found
      const publisher = find(name)
      if (publisher === undefined) return undefined
      if (known.size >= DESTINATIONS_MAX) {
        const [forgotten] = [...known].find(([, { breaker }]) => breaker.state === 'closed') ?? [...known][0]!
        known.delete(forgotten)
      }
      const breaker = createDestinationBreaker(
        clock,
        (from, to, error) =>
          observe({ type: 'breaker.changed', path: `relay:${name}`, from, to, ...(error === undefined ? {} : { error }) }),
        options,
      )
      const destination: Destination = { publisher, breaker, failures: 0, probedInVain: new Map() }
      known.set(name, destination)
      return destination
    },
    closed: () => [...known].flatMap(([name, { breaker }]) => (breaker.admits === 'none' ? [name] : [])),
    probing: () => [...known.values()].filter(({ breaker }) => breaker.admits === 'one'),
    nextProbeMs() {
      let next = Infinity
      for (const { breaker } of known.values()) if (breaker.state === 'open') next = Math.min(next, breaker.waitMs)
      return next
    },
    states: () => Object.fromEntries([...known].map(([name, { breaker }]) => [name, breaker.state])),
  }
}
