import type { Random } from './clock.ts'
import { checkInteger } from './options.ts'

/** How often something is tried, and how long to wait in between. */
export interface RetryPolicy {
  /** Attempts in all, the first one included; 1 to 100. @default 5 */
  readonly attemptsMax: number
  /** Upper bound of the wait after the first failure. @default 100 */
  readonly baseMs: number
  /** Upper bound of every wait. @default 10000 */
  readonly maxMs: number
}

/** The policy used where none is given. */
export const DEFAULT_RETRY: RetryPolicy = Object.freeze({ attemptsMax: 5, baseMs: 100, maxMs: 10_000 })

/** Fills in defaults and checks ranges. @throws WaybillError `INVALID_OPTION` */
export function resolveRetryPolicy(options: Partial<RetryPolicy> = {}, where = 'retry'): RetryPolicy {
  const { attemptsMax, baseMs, maxMs } = { ...DEFAULT_RETRY, ...options }
  return Object.freeze({
    attemptsMax: checkInteger(attemptsMax, `${where}.attemptsMax`, 1, 100),
    baseMs: checkInteger(baseMs, `${where}.baseMs`, 0, 3_600_000),
    maxMs: checkInteger(maxMs, `${where}.maxMs`, 0, 86_400_000),
  })
}

/**
 * Wait before the next try after `attempt` failures: a random time up to `min(maxMs, baseMs × 2^(attempt-1))`.
 * Full jitter spreads a crowd of retries best: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 */
export function fullJitterMs(policy: Pick<RetryPolicy, 'baseMs' | 'maxMs'>, attempt: number, random: Random): number {
  const ceiling = Math.min(policy.maxMs, policy.baseMs * 2 ** Math.min(Math.max(attempt - 1, 0), 40))
  return Math.floor(random() * (ceiling + 1))
}
