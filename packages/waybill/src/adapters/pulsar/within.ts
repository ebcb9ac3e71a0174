import type { Clock } from '../../core/clock.ts'

/** Resolves when `work` does, or after `ms`; leaves no timer behind. Rejects as `work` does. */
export async function withinMs(clock: Clock, ms: number, work: Promise<unknown>): Promise<void> {
  const done = new AbortController()
  try {
    await Promise.race([work, clock.sleep(ms, done.signal)])
  } finally {
    done.abort()
  }
}
