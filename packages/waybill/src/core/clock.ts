/** Time comes in through this door, so that retries, leases and breakers are tested without waiting. */
export interface Clock {
  /** Milliseconds since 1970, UTC. */
  now(): number
  /** Resolves after `ms`, or as soon as `signal` aborts; never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
  /** Milliseconds since whenever, that never go back, whatever is done to the time of day. @default `now` counts */
  monotonic?(): number
}

/** The time of `clock` for measuring how long something takes. */
export function monotonicOf(clock: Clock): () => number {
  return () => clock.monotonic?.() ?? clock.now()
}

/** The machine's own time. */
export const systemClock: Clock = {
  now: Date.now,
  monotonic: () => performance.now(),
  // Not `node:timers/promises`: it makes an error with its stack for each sleep that is cut short, which costs more than what is timed.
  sleep(ms, signal) {
    return new Promise((resolve) => {
      if (signal?.aborted === true) return resolve()
      const end = (): void => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', end)
        resolve()
      }
      const timer = setTimeout(end, ms)
      signal?.addEventListener('abort', end, { once: true })
    })
  },
}

const READINGS_MAX = 64
let readings = READINGS_MAX
let readMs = 0
let forgetting = false
const forgetReading = (): void => {
  readings = READINGS_MAX
  forgetting = false
}

/**
 * The machine's time for what is made in bursts, events and their ids: reading the clock costs more than all the rest of making one, so one
 * reading serves at most 64 calls within one turn of the event loop. It is the time at which the burst began.
 */
export function burstNow(): number {
  if (readings >= READINGS_MAX) {
    // One at a time: a turn that makes a million events must not queue thousands of these.
    if (!forgetting) setImmediate(forgetReading).unref()
    forgetting = true
    readMs = Date.now()
    readings = 0
  }
  readings++
  return readMs
}

/** A random number in [0, 1). */
export type Random = () => number
