import { isWaybillError, messageOf } from '../core/errors.ts'
import type { RetryPolicy } from '../core/backoff.ts'

/** What to do about a failed attempt. */
export type Verdict =
  | { readonly kind: 'again' }
  /** The database is away: nothing was tried, so no attempt is spent. */
  | { readonly kind: 'outage' }
  | { readonly kind: 'park'; readonly reason: 'failed' | 'refused'; readonly error: string }

/** @param retryWhen Whether an error may pass by itself. */
export function judge(error: unknown, attempt: number, policy: RetryPolicy, retryWhen: (error: unknown) => boolean): Verdict {
  if (isWaybillError(error, 'DEAD_LETTERED')) return { kind: 'park', reason: 'refused', error: messageOf(error) }
  if (isOutage(error)) return { kind: 'outage' }
  if (attempt < policy.attemptsMax && retryWhen(error)) return { kind: 'again' }
  return { kind: 'park', reason: 'failed', error: messageOf(error) }
}

/** Nothing was reached, so nothing was tried: whoever fails with this is not to blame. */
export function isOutage(error: unknown): boolean {
  return isWaybillError(error, 'DATABASE_UNREACHABLE')
}
