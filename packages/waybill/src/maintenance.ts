import type { Clock } from './core/clock.ts'
import type { Observe } from './core/observe.ts'
import type { Storage } from './core/stores.ts'

export interface MaintenanceOptions {
  readonly storage: Storage
  /** How long the inbox remembers. */
  readonly inboxKeepMs: number
  readonly clock: Clock
  readonly observe: Observe
}

const MAINTENANCE_MS = 60_000
const SWEEP_MAX = 5_000
const SWEEP_PAUSE_MS = 20

/** Keeps the tables that remember from growing without limit, until `signal` aborts. Never rejects: what fails is tried again a minute later. */
export async function maintain({ storage, inboxKeepMs, clock, observe }: MaintenanceOptions, signal: AbortSignal): Promise<void> {
  // Statement by statement, so that each is short; all of it, since a fixed number a minute would be overtaken by a faster stream.
  const sweep = async (run: (limit: number) => Promise<number>): Promise<void> => {
    while (!signal.aborted && (await run(SWEEP_MAX)) >= SWEEP_MAX) await clock.sleep(SWEEP_PAUSE_MS, signal)
  }
  for (;;) {
    await clock.sleep(MAINTENANCE_MS, signal)
    if (signal.aborted) return
    try {
      await sweep((limit) => storage.inbox.sweep(inboxKeepMs, limit))
      const { keepPublishedMs = 0 } = storage
      // Also where nothing published is kept: skipped rows are.
      await sweep((limit) => storage.outbox.sweep(keepPublishedMs, limit))
    } catch (error) {
      observe({ type: 'relay.failed', error })
    }
  }
}
