import { fullJitterMs } from '../core/backoff.ts'
import type { Clock, Random } from '../core/clock.ts'
import type { Observe } from '../core/observe.ts'
import type { OutboxHints } from '../core/stores.ts'
import { DATABASE_RETRY, isFatal } from './relay-marks.ts'

export interface HintsOptions {
  /** None where the database has none, or they are not wanted. */
  readonly hints: OutboxHints | undefined
  readonly relayId: string
  readonly clock: Clock
  readonly random: Random
  readonly observe: Observe
  /** Told of each hint, and when they begin to come: what was committed before was not hinted at. */
  readonly wake: () => void
}

/** What the database tells of commits. Whatever becomes of it, the relay polls. */
export interface Hints {
  /** Hints come. */
  readonly listening: boolean
  /** Begins to listen; does nothing where it does already. */
  start(): void
  /** Says that this relay is going to wait, unless it has said so already: true where the caller must look once more before it does. */
  fallAsleep(): Promise<boolean>
  /** Rows were claimed, or the database may have forgotten this relay: it does not count as asleep any more. */
  awake(): void
  /** Ends within a second. */
  stop(): Promise<void>
}

const STOP_MS = 1_000

export function createHints({ hints, relayId, clock, random, observe, wake }: HintsOptions): Hints {
  const stopped = new AbortController()
  let known: 'listening' | 'deaf' | undefined
  let asleep = false
  let done: Promise<void> | undefined

  function state(next: 'listening' | 'deaf', error?: unknown): void {
    asleep = false
    // Each failed attempt to reconnect is no news.
    if (stopped.signal.aborted || next === known) return
    known = next
    observe({ type: 'relay.hints', state: next, ...(error === undefined ? {} : { error }) })
    if (next === 'listening') wake()
  }

  async function listen(source: OutboxHints): Promise<void> {
    for (let failures = 1; !stopped.signal.aborted; failures++) {
      try {
        await source.listen(relayId, { hint: wake, state }, stopped.signal)
        // It ends when it is told to. Where it ended by itself there is nothing to wait for.
        if (!stopped.signal.aborted) state('deaf')
        return
      } catch (error) {
        state('deaf', error)
        if (isFatal(error)) return
        await clock.sleep(fullJitterMs(DATABASE_RETRY, failures, random), stopped.signal)
      }
    }
  }

  return {
    get listening() {
      return known === 'listening'
    },
    start() {
      if (hints !== undefined && !stopped.signal.aborted) done ??= listen(hints)
    },
    async fallAsleep() {
      // Who is deaf would have every commit call in vain.
      if (hints === undefined || known !== 'listening' || asleep) return false
      try {
        await hints.asleep(relayId)
      } catch (error) {
        observe({ type: 'relay.failed', error })
        return false
      }
      asleep = true
      return true
    },
    awake() {
      asleep = false
    },
    async stop() {
      stopped.abort()
      known = undefined
      if (done === undefined) return
      const timer = new AbortController()
      await Promise.race([done, clock.sleep(STOP_MS, timer.signal)])
      timer.abort('ended')
    },
  }
}
