import { fullJitterMs } from '../../core/backoff.ts'
import { type Clock, monotonicOf } from '../../core/clock.ts'
import { isPassing } from './errors.ts'

const BASE_MS = 100
const MAX_MS = 2_000
const LEAST_MS = 20

/** Growing, bounded pauses between tries. */
export interface Pace {
  /** Rests after one more failure; ends early when `signal` aborts. */
  rest(signal: AbortSignal): Promise<void>
  /** It works again. */
  reset(): void
}

/** Does it again while the broker answers that it can't yet, for `limitMs` or until `signal` aborts. */
export async function patiently<T>(clock: Clock, limitMs: number, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const now = monotonicOf(clock)
  const endMs = now() + limitMs
  const pace = createPace(clock)
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!isPassing(error) || signal.aborted || now() >= endMs) throw error
      await pace.rest(signal)
    }
  }
}

export function createPace(clock: Clock): Pace {
  let failures = 0
  return {
    async rest(signal) {
      failures++
      await clock.sleep(LEAST_MS + fullJitterMs({ baseMs: BASE_MS, maxMs: MAX_MS }, failures, Math.random), signal)
    },
    reset() {
      failures = 0
    },
  }
}
