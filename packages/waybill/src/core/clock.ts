import { setTimeout as delay } from 'node:timers/promises'

/** Time comes in through this door, so that retries, leases and breakers are tested without waiting. */
export interface Clock {
  /** Milliseconds since 1970, UTC. */
  now(): number
  /** Resolves after `ms`, or as soon as `signal` aborts; never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

/** The machine's own time. */
export const systemClock: Clock = {
  now: Date.now,
  async sleep(ms, signal) {
    try {
      await delay(ms, undefined, signal === undefined ? {} : { signal })
    } catch {
      // Aborted: being told to stop is what the caller asks its signal about.
    }
  },
}

/** A random number in [0, 1). */
export type Random = () => number
