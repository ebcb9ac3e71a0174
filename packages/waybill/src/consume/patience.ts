import { fullJitterMs, type RetryPolicy } from '../core/backoff.ts'
import type { Clock, Random } from '../core/clock.ts'

/** How the parts of one running consumer learn that it stops, and how they wait. */
export interface Patience {
  /** Aborts when the consumer is told to stop: nothing new begins. */
  readonly stop: AbortSignal
  readonly clock: Clock
  readonly random: Random
  readonly retry: RetryPolicy
  readonly onTrouble: (error: unknown) => void
}

/** Waits as long as the policy says after `failures` failures, or until the stop. */
export function pause({ retry, random, clock, stop }: Patience, failures: number): Promise<void> {
  return clock.sleep(fullJitterMs(retry, failures, random), stop)
}

/**
 * Does what must be done before anything else can go on, again and again with growing pauses: true once it worked, false when told to stop first.
 * `wait` may wrap each pause.
 */
export async function insist(
  patience: Patience,
  action: () => Promise<void>,
  wait: (pause: Promise<void>) => Promise<void> = (pausing) => pausing,
): Promise<boolean> {
  for (let failures = 1; ; failures++) {
    try {
      await action()
      return true
    } catch (error) {
      patience.onTrouble(error)
    }
    if (patience.stop.aborted) return false
    await wait(pause(patience, failures))
    if (patience.stop.aborted) return false
  }
}
