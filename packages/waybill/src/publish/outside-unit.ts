import { WaybillError, isWaybillError } from '../core/errors.ts'
import type { OutboxEntry } from '../core/stores.ts'
import type { Receipt } from '../core/unit.ts'
import type { DurablePath } from './durable-path.ts'
import type { InProcessPath, Outcome } from './in-process.ts'
import type { Journey, Reporter } from './journey.ts'

export interface OutsideUnitOptions {
  readonly inProcess: InProcessPath
  readonly durable: DurablePath | undefined
  readonly reporter: Reporter
}

/** Publishes where there is no transaction to join. `entry` is there for every strategy that has a row. */
export type PublishOutside = (journey: Journey, entry: OutboxEntry | undefined) => Promise<Receipt>

export function createPublishOutside({ inProcess, durable, reporter }: OutsideUnitOptions): PublishOutside {
  async function appendAfter({ event }: Journey, entry: OutboxEntry, outcome: Outcome): Promise<void> {
    try {
      await durable!.append(entry)
    } catch (error) {
      if (isWaybillError(error, 'UNKNOWN_OUTCOME')) throw error
      if (outcome.kind === 'confirmed') {
        throw new WaybillError(
          'PUBLISH_FAILED',
          "the event was handled in process, but can't be written to the outbox, which its ordered handlers need",
          {
            cause: error,
            where: event.type,
          },
        )
      }
      throw new WaybillError('PUBLISH_FAILED', 'the event could be neither handled in process nor written to the outbox', {
        cause: new AggregateError([outcome.error, error]),
        where: event.type,
      })
    }
  }

  return async (journey, entry) => {
    const { event, policy, calls, hasOrdered } = journey
    const run = (): Promise<Outcome> => inProcess.run(event, calls, policy.timeoutMs)
    switch (policy.strategy) {
      case 'SYNC_ONLY': {
        const outcome = await run()
        if (outcome.kind === 'unconfirmed') throw syncFailure(journey, outcome)
        return reporter.settled(journey, 'delivered', outcome)
      }
      case 'ASYNC_ONLY':
        await durable!.append(entry!)
        return reporter.settled(journey, 'pending')
      case 'HYBRID_FAST': {
        const outcome = await run()
        if (outcome.kind === 'confirmed' && !hasOrdered) return reporter.settled(journey, 'delivered', outcome)
        reporter.fellBack(journey, outcome)
        await appendAfter(journey, entry!, outcome)
        return reporter.settled(journey, 'pending', outcome)
      }
      case 'HYBRID_RELIABLE':
        await durable!.append(entry!)
        return reporter.settled(journey, 'pending', await run())
    }
  }
}

function syncFailure({ event }: Journey, { because, error }: Outcome & { kind: 'unconfirmed' }): WaybillError {
  // These two say by themselves what was done: maybe something, and nothing.
  if (because === 'timeout' || because === 'breaker open') return error
  const what = because === 'failed' ? 'the handlers failed' : 'nobody in this process takes the event'
  return new WaybillError('PUBLISH_FAILED', `${what}, and SYNC_ONLY has no other path`, { cause: error, where: event.type })
}
