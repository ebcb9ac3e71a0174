import type { Clock } from '../core/clock.ts'
import type { Observe } from '../core/observe.ts'
import type { Publisher } from '../core/transport.ts'
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
}

export interface Destinations {
  /** None where the relay has no publisher of that name. */
  get(name: string): Destination | undefined
  /** Those that take nothing now. */
  closed(): readonly string[]
  /** Until the next of them may be probed; infinite where none is open. */
  nextProbeMs(): number
  states(): Readonly<Record<string, BreakerState>>
}

// Names come from rows, and a function may know a publisher for each of them.
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
      const publisher = known.size < DESTINATIONS_MAX ? find(name) : undefined
      if (publisher === undefined) return undefined
      const breaker = createDestinationBreaker(
        clock,
        (from, to) => observe({ type: 'breaker.changed', path: `relay:${name}`, from, to }),
        options,
      )
      const destination: Destination = { publisher, breaker, failures: 0 }
      known.set(name, destination)
      return destination
    },
    closed: () => [...known].flatMap(([name, { breaker }]) => (breaker.admits === 'none' ? [name] : [])),
    nextProbeMs() {
      let next = Infinity
      for (const { breaker } of known.values()) if (breaker.state === 'open') next = Math.min(next, breaker.waitMs)
      return next
    },
    states: () => Object.fromEntries([...known].map(([name, { breaker }]) => [name, breaker.state])),
  }
}
