import { WaybillError } from '../core/errors.ts'
import type { OutboxEntry } from '../core/stores.ts'
import type { Receipt, UnitScope } from '../core/unit.ts'
import type { DurablePath } from './durable-path.ts'
import type { InProcessPath, Outcome } from './in-process.ts'
import type { Journey, Reporter } from './journey.ts'

export interface InsideUnitOptions {
  readonly inProcess: InProcessPath
  readonly durable: DurablePath | undefined
  readonly reporter: Reporter
  /** How much longer than its timeout a HYBRID_FAST row waits before the relay takes it. */
  readonly graceMs: number
  /** Counts work after a commit as running. */
  readonly tracked: <T>(run: () => Promise<T>) => Promise<T>
  /** True while too much runs already. */
  readonly isFull: () => boolean
}

/** Publishes with a transaction's commit. `entry` is there for every strategy that has a row. */
export type PublishInside = (unit: UnitScope, journey: Journey, entry: OutboxEntry | undefined) => Receipt | Promise<Receipt>

export function createPublishInside({ inProcess, durable, reporter, graceMs, tracked, isFull }: InsideUnitOptions): PublishInside {
  /** SYNC_ONLY after the commit: whether or not its handlers succeed, there is nothing left to do. */
  async function runCommitted(journey: Journey): Promise<Receipt> {
    const outcome = await inProcess.run(journey.event, journey.calls, journey.policy.timeoutMs, true)
    reporter.ended(journey, outcome.kind === 'confirmed' ? 'delivered' : 'failed')
    return reporter.receipt(journey, 'delivered', outcome)
  }

  /** The row is committed. What happens from here on can make it superfluous or due, never lost. */
  async function confirmCommitted(journey: Journey, rowId: string): Promise<Receipt> {
    const { event, policy, calls, hasOrdered } = journey
    if (policy.strategy === 'ASYNC_ONLY') return reporter.settled(journey, 'pending')
    const outcome = isFull() ? tooMuch(journey) : await inProcess.run(event, calls, policy.timeoutMs)
    if (policy.strategy === 'HYBRID_RELIABLE') return reporter.settled(journey, 'pending', outcome)
    reporter.fellBack(journey, outcome)
    const done = outcome.kind === 'confirmed' && !hasOrdered
    const retired = done && (await durable!.settle(rowId, 'retire'))
    if (!done && calls.length > 0) await durable!.settle(rowId, 'release')
    return reporter.settled(journey, retired ? 'delivered' : 'pending', outcome)
  }

  return (unit, journey, entry) => {
    const { event, policy, calls } = journey
    const begun = (): Journey => ({ ...journey, startedAt: reporter.ticks() })
    if (entry === undefined) {
      if (unit.write !== undefined) {
        throw new WaybillError('UNSUPPORTED', "SYNC_ONLY can't join a transaction that the caller owns: nobody tells when it commits", {
          got: policy.strategy,
          allowed: 'a strategy with a row, or a unit of work',
          where: event.type,
        })
      }
      if (calls.length === 0)
        throw new WaybillError('PUBLISH_FAILED', 'nobody in this process takes the event, and SYNC_ONLY has no other path', {
          where: event.type,
        })
      unit.afterCommit(() => tracked(() => runCommitted(begun())))
      return reporter.receipt(journey, 'pending')
    }
    // There nobody confirms anything after the commit: a row, due with it, is all that can be had.
    if (unit.write !== undefined) return unit.write(entry).then(() => reporter.settled(journey, 'pending'))
    const grace = policy.strategy === 'HYBRID_FAST' && calls.length > 0 ? { holdMs: policy.timeoutMs + graceMs } : {}
    unit.enqueue({ ...entry, ...grace }, (rowId) => tracked(() => confirmCommitted(begun(), rowId)))
    return reporter.receipt(journey, 'pending')
  }
}

/** So much runs already that more would only make all of it late: the outbox takes the load. */
function tooMuch({ event }: Journey): Outcome {
  const error = new WaybillError('QUEUE_FULL', 'too much runs in this process at the same time', { where: event.type })
  return { kind: 'unconfirmed', because: 'breaker open', error }
}
