import { type Clock, monotonicOf } from '../core/clock.ts'
import { crashpoint } from '../core/crashpoint.ts'
import { WaybillError } from '../core/errors.ts'
import type { Observe } from '../core/observe.ts'
import type { OutboxStore } from '../core/stores.ts'
import { ABORT_GRACE_MS } from './relay-call.ts'
import type { Lanes } from './relay-lanes.ts'
import { DATABASE_RETRY } from './relay-marks.ts'
import type { Pause } from './relay-pause.ts'
import type { Sender } from './relay-sender.ts'
import type { Shards } from './relay-shards.ts'

export interface WindDownOptions {
  readonly store: OutboxStore
  readonly relayId: string
  readonly shutdownMs: number
  readonly clock: Clock
  readonly observe: Observe
  readonly lanes: Lanes
  readonly sender: Sender
  readonly shards: Shards
  readonly pause: Pause
  /** The loop, which may still wait for the database. Never rejects. */
  readonly looking: Promise<void>
}

const RELINQUISH_MS = 5_000

/**
 * Waits for what is in flight, cuts off what takes too long, and gives the shards back. Ends within `shutdownMs` and 6 seconds, also where the database
 * does not answer.
 */
export async function windDown({
  store,
  relayId,
  shutdownMs,
  clock,
  observe,
  lanes,
  sender,
  shards,
  pause,
  looking,
}: WindDownOptions): Promise<void> {
  // Not the time of day: a clock that is set back would make the stop last as much longer.
  const monotonic = monotonicOf(clock)
  let renewing: Promise<void> | undefined

  /** One at a time, and never waited for: the database may be what does not answer. */
  function renew(): void {
    renewing ??= shards
      .renew()
      .then(
        () => {},
        (error: unknown) => observe({ type: 'relay.failed', error }),
      )
      .finally(() => {
        renewing = undefined
      })
  }

  async function waitUntil(deadline: number): Promise<void> {
    while (lanes.rowsInFlight > 0 && monotonic() < deadline) {
      pause.arm()
      renew()
      await pause.for(Math.min(deadline - monotonic(), DATABASE_RETRY.baseMs))
    }
  }

  lanes.stop()
  await waitUntil(monotonic() + shutdownMs)
  sender.abort()
  await waitUntil(monotonic() + ABORT_GRACE_MS)
  sender.abandon()
  crashpoint('relay.beforeRelinquish')
  /** After whatever was asked before: a renewal that is answered late would take back what was given. */
  async function relinquish(): Promise<void> {
    await looking
    await renewing
    await store.relinquish(relayId)
  }
  const timer = new AbortController()
  const late = clock.sleep(RELINQUISH_MS, timer.signal).then(() => {
    if (!timer.signal.aborted)
      throw new WaybillError('TIMEOUT', 'the database did not take the leases back in time', { where: 'relay.shutdownMs' })
  })
  try {
    await Promise.race([relinquish(), late])
  } catch (error) {
    // The leases run out by themselves.
    observe({ type: 'relay.failed', error })
  } finally {
    timer.abort('ended')
  }
}
