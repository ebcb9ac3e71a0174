import type { Clock } from '../core/clock.ts'
import type { Database } from '../core/database.ts'
import { WaybillError, isWaybillError } from '../core/errors.ts'
import type { Observe } from '../core/observe.ts'
import type { OutboxEntry, OutboxStore } from '../core/stores.ts'
import type { CircuitBreaker } from './circuit-breaker.ts'

/** The outbox, from the bus. */
export interface DurablePath {
  /**
   * Writes a row in a transaction of its own, and wakes the relay.
   * @throws WaybillError `PUBLISH_FAILED` with the database's error as cause; `UNKNOWN_OUTCOME` where the commit was cut; `CIRCUIT_OPEN`; as they are those
   * that only a person can mend (`NOT_MIGRATED` ...)
   */
  append(entry: OutboxEntry): Promise<void>
  /** After the commit: the row is not needed any more, or is due now. False where that could not be done: then the row becomes due by itself. Never rejects. */
  settle(rowId: string, how: 'retire' | 'release'): Promise<boolean>
}

export interface DurablePathOptions {
  readonly outbox: { readonly store: OutboxStore; readonly database: Database }
  readonly breaker: CircuitBreaker
  readonly wakeRelay: () => void
  /** How long settling a row may take. */
  readonly settleMs: number
  readonly clock: Clock
  readonly observe: Observe
}

export function createDurablePath({ outbox, breaker, wakeRelay, settleMs, clock, observe }: DurablePathOptions): DurablePath {
  const { store, database } = outbox

  function wake(): void {
    try {
      wakeRelay()
    } catch (error) {
      // The row is safe and the relay polls anyway: this must not look like a failed publish.
      observe({ type: 'relay.failed', error })
    }
  }

  async function append(entry: OutboxEntry): Promise<void> {
    const permit = breaker.tryAcquire()
    if (permit === undefined)
      throw new WaybillError(
        'CIRCUIT_OPEN',
        'the outbox failed several times in a row and is left alone for a while; nothing was written',
        { where: entry.eventType },
      )
    try {
      await database.transaction((sql) => store.append(sql, [entry]))
    } catch (cause) {
      if (isWaybillError(cause) && !cause.retryable) {
        // Says nothing about the database's health, and must not be hidden behind an open breaker.
        permit.cancelled()
        throw cause
      }
      permit.failed()
      if (isWaybillError(cause, 'UNKNOWN_OUTCOME')) throw cause
      throw new WaybillError('PUBLISH_FAILED', 'the event could not be written to the outbox', { cause, where: entry.eventType })
    }
    permit.succeeded()
    wake()
  }

  async function settle(rowId: string, how: 'retire' | 'release'): Promise<boolean> {
    const timer = new AbortController()
    try {
      const done = store[how]([rowId]).then(() => true)
      const settled = await Promise.race([done, clock.sleep(settleMs, timer.signal).then(() => false)])
      if (!settled)
        observe({
          type: 'unit.failed',
          error: new WaybillError('TIMEOUT', `could not ${how} an outbox row in time; the relay delivers it`, {
            got: rowId,
            where: 'outbox',
          }),
        })
      else if (how === 'release') wake()
      return settled
    } catch (error) {
      // The business change is committed and the row is there: all that is lost is time, since it becomes due when its grace ends.
      observe({ type: 'unit.failed', error })
      return false
    } finally {
      timer.abort('ended')
    }
  }

  return { append, settle }
}
