import type { Clock } from '../core/clock.ts'
import { checkInteger } from '../core/options.ts'

/** When a destination is left alone. */
export interface DestinationBreakerOptions {
  /** Failed calls in a row that open it, 1 to 1,000. @default 5 */
  readonly failuresMax?: number
  /** How long it stays open the first time, 1 to 3,600,000; doubles each time the probe fails. @default 1000 */
  readonly openMs?: number
  /** How long it stays open at most, 1 to 3,600,000. @default 30000 */
  readonly openMaxMs?: number
}

export type BreakerState = 'closed' | 'open' | 'half-open'

/** Keeps a relay from hammering a destination that is down. Counts calls, not messages: one outage is one failure per call. */
export interface DestinationBreaker {
  readonly state: BreakerState
  /** What may be sent now: everything; one call, as a probe; nothing. */
  readonly admits: 'all' | 'one' | 'none'
  /** Until a probe may be sent; 0 where it is not open. */
  readonly waitMs: number
  /** Notes that the probe was sent. */
  probe(): void
  /** The probe ended without an answer that counts: another may be sent. */
  abandonProbe(): void
  succeeded(): void
  /** `error` is what is told where this opens it. */
  failed(error?: unknown): void
}

/** @throws WaybillError `INVALID_OPTION` */
export function createDestinationBreaker(
  clock: Clock,
  changed: (from: BreakerState, to: BreakerState, error?: unknown) => void,
  options: DestinationBreakerOptions = {},
): DestinationBreaker {
  const failuresMax = checkInteger(options.failuresMax ?? 5, 'relay.breaker.failuresMax', 1, 1_000)
  const openMs = checkInteger(options.openMs ?? 1_000, 'relay.breaker.openMs', 1, 3_600_000)
  const openMaxMs = Math.max(openMs, checkInteger(options.openMaxMs ?? 30_000, 'relay.breaker.openMaxMs', 1, 3_600_000))
  let state: BreakerState = 'closed'
  let failures = 0
  let nextOpenMs = openMs
  let openedAt = 0
  let openUntil = 0
  let probing = false

  const change = (to: BreakerState, error?: unknown): void => {
    if (to === state) return
    const from = state
    state = to
    probing = false
    changed(from, to, error)
  }

  const open = (error: unknown): void => {
    openedAt = clock.now()
    openUntil = openedAt + nextOpenMs
    nextOpenMs = Math.min(nextOpenMs * 2, openMaxMs)
    change('open', error)
  }

  const current = (): BreakerState => {
    // A clock that was set back must not keep it open for as long as it was set back.
    if (state === 'open' && (clock.now() >= openUntil || clock.now() < openedAt)) change('half-open')
    return state
  }

  return {
    get state() {
      return current()
    },
    get admits() {
      if (current() === 'closed') return 'all'
      return state === 'half-open' && !probing ? 'one' : 'none'
    },
    get waitMs() {
      return current() === 'open' ? openUntil - clock.now() : 0
    },
    probe() {
      probing = true
    },
    abandonProbe() {
      probing = false
    },
    succeeded() {
      // While it is open, an answer comes from a call sent before: it says nothing about now.
      if (state === 'open') return
      failures = 0
      nextOpenMs = openMs
      change('closed')
    },
    failed(error) {
      if (state === 'open') return
      failures++
      if (state === 'half-open' || failures >= failuresMax) {
        failures = 0
        open(error)
      }
    },
  }
}
