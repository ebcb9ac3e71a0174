import type { Clock } from '../core/clock.ts'

/** The shortest pause between two looks. */
export const POLL_MIN_MS = 20

/** A sleep that can be cut short. */
export interface Pause {
  /** From here on, {@link wake} counts. */
  arm(): void
  /** Sleeps, unless somebody has called {@link wake} since {@link arm}. */
  for(ms: number): Promise<void>
  /** Ends the sleep, or the next one before it begins. */
  wake(): void
  /** Lets the sleep, or the next one, last 20 ms from now at most. */
  hurry(): void
}

export function createPause(clock: Clock): Pause {
  let woken = false
  let hurried = false
  let sleeping: AbortController | undefined

  async function nap(ms: number): Promise<void> {
    sleeping = new AbortController()
    await clock.sleep(ms, sleeping.signal)
    sleeping = undefined
  }

  return {
    arm() {
      woken = false
    },
    async for(ms) {
      if (!woken && !hurried) await nap(ms)
      if (!woken && hurried) await nap(Math.min(ms, POLL_MIN_MS))
      hurried = false
    },
    wake() {
      woken = true
      sleeping?.abort()
    },
    hurry() {
      if (hurried) return
      hurried = true
      sleeping?.abort()
    },
  }
}
