import { setImmediate as turn } from 'node:timers/promises'
import type { Clock } from '../core/clock.ts'
import { WaybillError } from '../core/errors.ts'
import { checkInteger } from '../core/options.ts'

/** A clock that stands still until a test moves it. */
export interface FakeClock extends Clock {
  /**
   * Moves the time on by `ms` and ends every sleep that is due meanwhile, earliest first, at its own time. Between two of them the code that was
   * woken runs until it waits again, so sleeps that it starts meanwhile count too.
   * @throws WaybillError `INVALID_OPTION` where `ms` is no whole number; `QUEUE_FULL` after 100,000 wake-ups in one call: something sleeps for no time, for ever
   */
  advance(ms: number): Promise<void>
  /** How many sleeps are waiting. */
  readonly pending: number
}

interface Sleeper {
  readonly dueMs: number
  readonly wake: () => void
}

const WAKES_MAX = 100_000
const PENDING_MAX = 100_000
const DAYS_1000_MS = 86_400_000_000
/** 2024-01-01T00:00:00Z */
const START_MS = 1_704_067_200_000

/** A clock for tests, standing at `startMs` (default 2024-01-01T00:00:00Z). A sleep of 0 ms ends by itself; all others wait for {@link FakeClock.advance}. */
export function createFakeClock(startMs: number = START_MS): FakeClock {
  let nowMs = startMs
  // Insertion order decides between sleeps that are due at the same time.
  const sleepers = new Set<Sleeper>()

  function nextDue(untilMs: number): Sleeper | undefined {
    let next: Sleeper | undefined
    for (const sleeper of sleepers) {
      if (sleeper.dueMs <= untilMs && (next === undefined || sleeper.dueMs < next.dueMs)) next = sleeper
    }
    return next
  }

  return {
    now: () => nowMs,
    async sleep(ms, signal) {
      if (signal?.aborted === true) return
      if (!(ms > 0)) {
        await turn()
        return
      }
      if (sleepers.size >= PENDING_MAX)
        throw new WaybillError('QUEUE_FULL', 'too many sleeps at once', {
          got: sleepers.size,
          allowed: `at most ${PENDING_MAX}`,
          where: 'fake clock',
        })
      const { promise, resolve } = Promise.withResolvers<void>()
      const sleeper: Sleeper = { dueMs: nowMs + ms, wake: resolve }
      const abort = (): void => {
        sleepers.delete(sleeper)
        resolve()
      }
      sleepers.add(sleeper)
      signal?.addEventListener('abort', abort, { once: true })
      await promise
      signal?.removeEventListener('abort', abort)
    },
    async advance(ms) {
      const untilMs = nowMs + checkInteger(ms, 'advance', 0, DAYS_1000_MS)
      // A turn of the event loop runs every microtask first: what was started before gets to its sleep.
      await turn()
      for (let wakes = 0; ; wakes++) {
        const next = nextDue(untilMs)
        if (next === undefined) break
        if (wakes >= WAKES_MAX)
          throw new WaybillError('QUEUE_FULL', 'the clock does not come to rest', {
            got: `${wakes} wake-ups`,
            allowed: `at most ${WAKES_MAX} in one advance`,
            where: 'fake clock',
          })
        sleepers.delete(next)
        nowMs = Math.max(nowMs, next.dueMs)
        next.wake()
        await turn()
      }
      nowMs = untilMs
    },
    get pending() {
      return sleepers.size
    },
  }
}
