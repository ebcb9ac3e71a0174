import type { Clock } from '../core/clock.ts'
import type { DomainEvent } from '../core/event.ts'
import type { Observe } from '../core/observe.ts'
import type { Receipt } from '../core/unit.ts'
import { type Outcome, ticksOf } from './in-process.ts'
import type { TravelPlan } from './travel-plan.ts'

/** One publish on its way. */
export interface Journey extends TravelPlan {
  readonly event: DomainEvent
  /** In {@link Reporter.ticks}. */
  readonly startedAt: number
}

/** Says what became of a publish: to its caller by a receipt, to everybody else by an event. */
export interface Reporter {
  ticks(): number
  receipt(journey: Journey, state: Receipt['state'], outcome?: Outcome): Receipt
  /** Tells the observers that it ended. */
  ended(journey: Journey, outcome: 'delivered' | 'pending' | 'failed'): void
  /** Both. */
  settled(journey: Journey, state: Receipt['state'], outcome?: Outcome): Receipt
  /** Tells the observers where the outbox had to step in for the in-process path. */
  fellBack(journey: Journey, outcome: Outcome): void
}

export function createReporter(clock: Clock, observe: Observe): Reporter {
  const ticks = ticksOf(clock)

  function receipt({ event, policy, startedAt }: Journey, state: Receipt['state'], outcome?: Outcome): Receipt {
    return {
      eventId: event.id,
      eventType: event.type,
      strategy: policy.strategy,
      scope: policy.scope,
      decidedBy: policy.decidedBy,
      state,
      confirmed: outcome?.kind === 'confirmed',
      ...(outcome?.kind === 'unconfirmed' ? { unconfirmedBecause: outcome.because } : {}),
      durationMs: ticks() - startedAt,
    }
  }

  function ended({ event, policy, startedAt }: Journey, outcome: 'delivered' | 'pending' | 'failed'): void {
    const { strategy, scope } = policy
    observe({ type: 'publish.settled', eventType: event.type, strategy, scope, outcome, durationMs: ticks() - startedAt })
  }

  return {
    ticks,
    receipt,
    ended,
    settled(journey, state, outcome) {
      ended(journey, state)
      return receipt(journey, state, outcome)
    },
    fellBack({ event }, outcome) {
      if (outcome.kind === 'unconfirmed') observe({ type: 'publish.fell-back', eventType: event.type, because: outcome.because })
    },
  }
}
