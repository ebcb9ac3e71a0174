import type { Clock } from '../core/clock.ts'
import { createQueue } from './queue.ts'

/** Times many calls that may all take equally long, with one timer: a timer for each costs more than a fast handler. */
export interface Deadlines {
  /** Calls `expire` when the time is over; gives back how to call that off. */
  start(expire: () => void): () => void
  /** Nothing expires any more. */
  close(): void
}

interface Deadline {
  readonly dueMs: number
  expire: (() => void) | undefined
}

// Beyond this, a sleep that took longer than asked for (or ended before it began) means that the clock was set or the process stood still.
const SKEW_MAX_MS = 1000

export function createDeadlines(clock: Clock, limitMs: number): Deadlines {
  const deadlines = createQueue<Deadline>()
  const closing = new AbortController()
  let watching = false
  // What the clock jumped: no call may expire early because somebody set the time.
  let skewMs = 0
  const now = (): number => clock.now() - skewMs

  function nextDeadline(): Deadline | undefined {
    while (deadlines.peek()?.expire === undefined && deadlines.size > 0) deadlines.shift()
    return deadlines.peek()
  }

  async function watch(): Promise<void> {
    for (let next = nextDeadline(); next !== undefined && !closing.signal.aborted; next = nextDeadline()) {
      const fromMs = now()
      const waitMs = Math.max(0, next.dueMs - fromMs)
      if (waitMs > 0) await clock.sleep(waitMs, closing.signal)
      if (closing.signal.aborted) break
      const skew = now() - fromMs - waitMs
      if (Math.abs(skew) > SKEW_MAX_MS) skewMs += skew
      for (let due = nextDeadline(); due !== undefined && due.dueMs <= now(); due = nextDeadline()) {
        const { expire } = due
        due.expire = undefined
        expire?.()
      }
    }
    watching = false
  }

  return {
    start(expire) {
      const deadline: Deadline = { dueMs: now() + limitMs, expire }
      deadlines.push(deadline)
      if (!watching) {
        watching = true
        void watch()
      }
      return () => {
        deadline.expire = undefined
      }
    },
    close() {
      closing.abort()
    },
  }
}
