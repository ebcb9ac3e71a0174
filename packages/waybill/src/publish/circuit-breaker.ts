import type { Clock } from '../core/clock.ts'
import { systemClock } from '../core/clock.ts'
import { observeAll, type Observe } from '../core/observe.ts'
import { checkInteger } from '../core/options.ts'

/** When a breaker opens and closes. */
export interface BreakerLimits {
  /** Consecutive failures that open it, 1 to 10,000. @default 5 */
  readonly failureThreshold: number
  /** How long it stays open before it lets probes through, 1 to 86,400,000. @default 60000 */
  readonly recoveryMs: number
  /** Probes at a time while half-open, 1 to 1,000. @default 3 */
  readonly halfOpenMax: number
  /** Successful probes that close it, 1 to 1,000. @default 2 */
  readonly successThreshold: number
}

/** Where a breaker stands. */
export type BreakerState =
  | { readonly kind: 'closed'; readonly failures: number }
  | { readonly kind: 'open'; readonly sinceMs: number }
  | { readonly kind: 'half-open'; readonly sinceMs: number; readonly probes: number; readonly successes: number }

/** Leave to try once. The first verdict counts, later ones do nothing; so does a verdict on a state that is over. */
export interface Permit {
  succeeded(): void
  failed(): void
  /** It ended without saying anything about the path's health. */
  cancelled(): void
}

export interface CircuitBreaker {
  /** Leave to try, to be given one verdict; `undefined` while the path is to be left alone. */
  tryAcquire(): Permit | undefined
  readonly state: BreakerState['kind']
  /** How often it opened. */
  readonly trips: number
}

export interface CircuitBreakerOptions extends Partial<BreakerLimits> {
  /** What it guards: shown in `breaker.changed`. */
  readonly name: string
  readonly clock?: Clock
  readonly observe?: Observe
}

/** Fills in defaults and checks ranges. @throws WaybillError `INVALID_OPTION` */
export function resolveBreakerLimits(options: Partial<BreakerLimits> = {}, where = 'breaker'): BreakerLimits {
  const { failureThreshold = 5, recoveryMs = 60_000, halfOpenMax = 3, successThreshold = 2 } = options
  return Object.freeze({
    failureThreshold: checkInteger(failureThreshold, `${where}.failureThreshold`, 1, 10_000),
    recoveryMs: checkInteger(recoveryMs, `${where}.recoveryMs`, 1, 86_400_000),
    halfOpenMax: checkInteger(halfOpenMax, `${where}.halfOpenMax`, 1, 1_000),
    successThreshold: checkInteger(successThreshold, `${where}.successThreshold`, 1, 1_000),
  })
}

const CLOSED: BreakerState = Object.freeze({ kind: 'closed', failures: 0 })

/** The state after somebody was let through, or `undefined` where nobody may be. */
function admit(state: BreakerState, nowMs: number, limits: BreakerLimits): BreakerState | undefined {
  if (state.kind === 'closed') return state
  const due = nowMs - state.sinceMs >= limits.recoveryMs
  // Half-open with all probes gone silent for a whole recovery time counts as due too: a probe that never ends must not keep it shut for ever.
  if (due && (state.kind === 'open' || state.probes >= limits.halfOpenMax))
    return { kind: 'half-open', sinceMs: nowMs, probes: 1, successes: 0 }
  if (state.kind === 'half-open' && state.probes < limits.halfOpenMax) return { ...state, probes: state.probes + 1 }
  return undefined
}

/** The state after a verdict on something that was let through in `state`. */
function judge(state: BreakerState, verdict: 'succeeded' | 'failed' | 'cancelled', nowMs: number, limits: BreakerLimits): BreakerState {
  switch (state.kind) {
    case 'closed': {
      if (verdict === 'cancelled') return state
      if (verdict === 'succeeded') return CLOSED
      const failures = state.failures + 1
      return failures >= limits.failureThreshold ? { kind: 'open', sinceMs: nowMs } : { kind: 'closed', failures }
    }
    case 'half-open': {
      if (verdict === 'failed') return { kind: 'open', sinceMs: nowMs }
      const successes = state.successes + (verdict === 'succeeded' ? 1 : 0)
      return successes >= limits.successThreshold ? CLOSED : { ...state, probes: state.probes - 1, successes }
    }
    case 'open':
      return state
  }
}

/**
 * Stops calling a path that keeps failing, and tries it again by itself after a while.
 * @throws WaybillError `INVALID_OPTION`
 */
export function createCircuitBreaker(options: CircuitBreakerOptions): CircuitBreaker {
  const { name, clock = systemClock } = options
  const limits = resolveBreakerLimits(options, `breaker ${name}`)
  const observe = observeAll(options.observe === undefined ? [] : [options.observe])
  let state: BreakerState = CLOSED
  let trips = 0
  // Rises whenever a new state begins, so that what was let through before has no say in it.
  let era = 0

  function enter(next: BreakerState): void {
    const from = state
    state = next
    // A half-open state that replaces a half-open one is a new round of probes.
    const begins = next.kind !== from.kind || (next.kind === 'half-open' && from.kind === 'half-open' && next.sinceMs !== from.sinceMs)
    if (!begins) return
    era++
    if (next.kind === 'open') trips++
    if (next.kind !== from.kind) observe({ type: 'breaker.changed', path: name, from: from.kind, to: next.kind })
  }

  function permitIn(permitEra: number): Permit {
    let settled = false
    const settle = (verdict: 'succeeded' | 'failed' | 'cancelled'): void => {
      if (settled) return
      settled = true
      if (permitEra === era) enter(judge(state, verdict, clock.now(), limits))
    }
    return { succeeded: () => settle('succeeded'), failed: () => settle('failed'), cancelled: () => settle('cancelled') }
  }

  return {
    tryAcquire() {
      const now = clock.now()
      // A clock that was set back would otherwise keep the breaker open for as long as it was set back.
      if (state.kind !== 'closed' && now < state.sinceMs) state = { ...state, sinceMs: now }
      const next = admit(state, now, limits)
      if (next === undefined) return undefined
      enter(next)
      return permitIn(era)
    },
    get state() {
      return state.kind
    },
    get trips() {
      return trips
    },
  }
}
