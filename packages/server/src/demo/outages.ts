import { setTimeout as delay } from 'node:timers/promises'
import { WaybillError } from 'waybill'
import type { Outage } from './plan.ts'
import { markOutage } from './setup.ts'
import type { SupervisorEvent } from './supervisor.ts'

/** A broker that the demo may take away. */
export interface RestartableBroker {
  stop(mode: 'kill' | 'graceful'): Promise<void>
  /** Resolves when it answers. */
  start(): Promise<void>
}

/** What is told of an outage. */
export type OutageEvent =
  | { readonly type: 'broker.gone'; readonly mode: Outage['mode']; readonly invoices: number }
  | { readonly type: 'broker.back'; readonly awayMs: number }
  | { readonly type: 'broker.recovered'; readonly recoveryMs: number }

export interface OutagesOptions {
  readonly folder: string
  readonly broker: RestartableBroker
  readonly outages: readonly Outage[]
  readonly onEvent: (event: OutageEvent) => void
  /** Told when the broker can't be stopped or started: the demo is over then. */
  readonly onFailure: (error: unknown) => void
}

/** The broker's outages as the load goes on. */
export interface Outages {
  /** Tells how far the load is. */
  see(event: SupervisorEvent): void
  /**
   * How long each outage that was begun took to recover from, in milliseconds: from the broker's first answer until stock, revenue and ledger each had been
   * given an event that was made after it. Waits for one that is on its way.
   */
  end(): Promise<readonly number[]>
}

// So that everybody notices: who restarts as fast as Redis is hardly away.
const AWAY_MS = 1_000
/** The next outage waits for the end of the one before, but no longer. */
const RECOVERY_LIMIT_MS = 60_000
// Not "welcome": its events are confirmed in process, and hardly ever come over the broker.
const OVER_THE_BROKER = ['stock', 'revenue', 'ledger']

export function createOutages({ folder, broker, outages, onEvent, onFailure }: OutagesOptions): Outages {
  const recoveries: number[] = []
  let begun = 0
  let running: Promise<void> = Promise.resolve()
  /** When the broker answered again, where the road was not seen to flow since. */
  let waitingSince: number | undefined

  /** How long it took, or at least: the next outage and the end come also where the road was not seen to flow. */
  function record(): number | undefined {
    if (waitingSince === undefined) return undefined
    const recoveryMs = Date.now() - waitingSince
    waitingSince = undefined
    recoveries.push(recoveryMs)
    return recoveryMs
  }

  async function restart(index: number, { mode }: Outage, invoices: number): Promise<void> {
    record()
    await broker.stop(mode)
    const goneMs = Date.now()
    onEvent({ type: 'broker.gone', mode, invoices })
    markOutage(folder, 'gone', index)
    await delay(AWAY_MS)
    await broker.start()
    waitingSince = Date.now()
    onEvent({ type: 'broker.back', awayMs: waitingSince - goneMs })
    markOutage(folder, 'back', index)
  }

  return {
    see(event) {
      if (event.type !== 'progress') return
      const since = waitingSince
      if (since !== undefined && OVER_THE_BROKER.every((consumer) => (event.newest[consumer] ?? 0) > since))
        onEvent({ type: 'broker.recovered', recoveryMs: record() ?? 0 })
      const next = outages[begun]
      if (next === undefined || event.invoices < next.goneAt) return
      if (waitingSince !== undefined && Date.now() - waitingSince < RECOVERY_LIMIT_MS) return
      const index = begun++
      running = running
        .then(() => restart(index, next, event.invoices))
        .catch((cause: unknown) =>
          onFailure(
            new WaybillError(
              'TRANSPORT_UNAVAILABLE',
              `the broker could not be restarted: ${cause instanceof Error ? cause.message : String(cause)}`,
              { cause },
            ),
          ),
        )
    },
    async end() {
      await running
      record()
      return recoveries
    },
  }
}
