import { WaybillError } from '../core/errors.ts'
import type { DomainEvent } from '../core/event.ts'
import type { RegisteredHandler } from '../core/handler.ts'
import type { Observe } from '../core/observe.ts'
import type { DeadLetter, InboxStore } from '../core/stores.ts'
import type { Delivery } from '../core/transport.ts'
import type { Attempt, Attempts } from './attempts.ts'
import type { KeyedPool } from './keyed-pool.ts'
import { lineKeyOf, type Parking } from './parking.ts'
import { insist, pause, type Patience } from './patience.ts'
import { judge } from './retry.ts'
import type { Routing } from './routing.ts'
import type { Settling } from './settling.ts'

/** What the two ways to handle a delivery, alone and in a batch, share. */
export interface WorkerParts {
  readonly handler: RegisteredHandler
  readonly routing: Routing
  readonly attempts: Attempts
  readonly parking: Parking
  readonly settling: Settling
  readonly inbox: InboxStore
  readonly pool: KeyedPool
  readonly patience: Patience
  readonly observe: Observe
  readonly retryWhen: (error: unknown) => boolean
}

/** Handles one delivery to its end: acked, parked and acked, released, or dropped where it is no longer ours. */
export interface Worker {
  /** `tried`: how its first attempt ended, where that was made already. Never rejects, but for a bug. */
  handle(delivery: Delivery, tried?: Attempt): Promise<void>
}

/** Whether this message may have been at work when a process died: its attempts are counted before handling, so that one which kills is found out. */
export function isSuspect({ redelivered, message }: Delivery): boolean {
  return redelivered !== 'no' || message.resent === true
}

/** No settling, no parking: somebody else has the message now. */
export function isLost({ assignment }: Delivery): boolean {
  return assignment.signal.aborted
}

export function createWorker(parts: WorkerParts): Worker {
  const { handler, routing, attempts, parking, settling, inbox, pool, patience, observe, retryWhen } = parts
  const { stop, clock, retry } = patience
  const aside = (wait: Promise<void>): Promise<void> => pool.aside(wait)

  async function park(delivery: Delivery, reason: DeadLetter['reason'], error: unknown, spent: number): Promise<void> {
    const parked = await insist(patience, () => parking.park(delivery, reason, error, spent), aside)
    return parked ? settling.ack([delivery]) : settling.release([delivery])
  }

  /** Counts the attempt that is about to be made; nothing where told to stop before that worked. */
  async function charge(event: DomainEvent): Promise<number | undefined> {
    let count = 0
    const counted = await insist(patience, async () => void (count = await inbox.countAttempt(handler.name, event.id)), aside)
    return counted ? count : undefined
  }

  async function attemptUntilSettled(delivery: Delivery, event: DomainEvent, tried: Attempt | undefined): Promise<void> {
    let known = tried
    let attempt = known === undefined ? 0 : 1
    let outages = 0
    const suspect = isSuspect(delivery)
    const startedMs = clock.now()
    for (;;) {
      if (known === undefined) {
        const counted = suspect ? await charge(event) : attempt + 1
        if (counted === undefined) return settling.release([delivery])
        if (suspect && counted > retry.attemptsMax) {
          const died = new WaybillError('HANDLER_FAILED', 'the process ended, or lost the message, each time it was handled', {
            where: handler.name,
          })
          return park(delivery, 'failed', died, counted - 1)
        }
        attempt = counted
      }
      const outcome = known ?? (await attempts.run([event], [delivery], attempt))
      known = undefined
      if (outcome.kind === 'done') {
        observe({ type: 'delivery.handled', handler: handler.name, eventType: event.type, count: 1, durationMs: clock.now() - startedMs })
        return settling.ack([delivery])
      }
      if (isLost(delivery)) return
      observe({ type: 'delivery.failed', handler: handler.name, eventId: event.id, attempt, error: outcome.error })
      const verdict = judge(outcome.error, attempt, retry, retryWhen)
      if (verdict.kind === 'park') return park(delivery, verdict.reason, outcome.error, attempt)
      if (verdict.kind === 'outage') attempt--
      const wait = pause(patience, verdict.kind === 'outage' ? ++outages : attempt)
      await aside(Promise.all([wait, attempts.outlast(outcome, stop)]).then(() => undefined))
      if (isLost(delivery)) return
      if (stop.aborted) return settling.release([delivery])
    }
  }

  return {
    async handle(delivery, tried) {
      if (isLost(delivery)) return
      if (stop.aborted) return settling.release([delivery])
      if (parking.isParked(lineKeyOf(delivery.message))) return park(delivery, 'follower', undefined, 0)
      const content = await routing.read(delivery.message)
      if (isLost(delivery)) return
      switch (content.kind) {
        case 'other':
          return settling.ack([delivery])
        case 'undecodable':
          return park(delivery, 'undecodable', content.error, 0)
        case 'event':
          return attemptUntilSettled(delivery, content.event, tried)
      }
    },
  }
}
