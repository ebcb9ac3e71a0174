import { WaybillError } from '../core/errors.ts'
import type { RegisteredHandler } from '../core/handler.ts'
import type { EventRegistry } from '../core/registry.ts'
import type { EventBus } from './event-bus.ts'
import type { Call } from './in-process.ts'
import type { Policy } from './policy.ts'

/** How an event of some type travels: its policy, and who takes it in this process. */
export interface TravelPlan {
  readonly policy: Policy
  /** What the in-process path runs. */
  readonly calls: readonly Call[]
  /** Some handler is served by the road only. */
  readonly hasOrdered: boolean
}

export interface PlannerOptions {
  readonly registry: EventRegistry
  readonly handlersFor: (eventType: string) => readonly RegisteredHandler[]
  /** Functions without a name: they have no inbox, so they can take part only where no second copy comes by the road. */
  readonly subscribers: EventBus
}

/** Who takes an event of this type under this policy. @throws WaybillError `HYBRID_WITHOUT_CONSUMER` | `HYBRID_FAST_ACROSS_CONTEXTS` */
export type Planner = (eventType: string, policy: Policy) => TravelPlan

export function createPlanner({ registry, handlersFor, subscribers }: PlannerOptions): Planner {
  return (eventType, policy) => {
    const { strategy } = policy
    const handlers = handlersFor(eventType)
    const hasOrdered = handlers.some(({ ordered }) => ordered)
    if (strategy === 'ASYNC_ONLY') return { policy, calls: [], hasOrdered }
    const inProcess = handlers.filter(({ ordered }) => !ordered)
    const unnamed = subscribers.handlerCount(eventType)
    if (strategy === 'SYNC_ONLY') {
      const calls = inProcess.map(({ name, plain }): Call => ({
        name,
        run: (event, signal) => plain({ events: [event], signal, attempt: 1 }),
      }))
      return { policy, calls: unnamed === 0 ? calls : [...calls, { name: 'subscribers', run: subscribers.emit }], hasOrdered }
    }
    if (handlers.length === 0 || unnamed > 0) throw withoutConsumer(eventType, policy, unnamed)
    const owner = registry.contextOf(eventType)
    const foreign = strategy === 'HYBRID_FAST' ? inProcess.find(({ context }) => context !== owner) : undefined
    if (foreign !== undefined) throw acrossContexts(eventType, foreign, owner)
    return {
      policy,
      calls: inProcess.map(({ name, once }): Call => ({ name, run: (event, signal) => once({ events: [event], signal, attempt: 1 }) })),
      hasOrdered,
    }
  }
}

function withoutConsumer(eventType: string, { strategy }: Policy, unnamed: number): WaybillError {
  const message =
    unnamed === 0
      ? `nobody is declared to handle this ${strategy} event`
      : `a subscriber without a name can't take part in ${strategy}: it would miss, or repeat, the copy that comes by the outbox`
  return new WaybillError('HYBRID_WITHOUT_CONSUMER', message, {
    got: unnamed === 0 ? 'no handler' : `${unnamed} subscribers`,
    allowed: 'a handler declared in a bounded context, or SYNC_ONLY or ASYNC_ONLY',
    where: eventType,
  })
}

function acrossContexts(eventType: string, { name, context }: RegisteredHandler, owner: string | undefined): WaybillError {
  return new WaybillError('HYBRID_FAST_ACROSS_CONTEXTS', 'HYBRID_FAST stays within a bounded context, and another one handles this event', {
    got: `${name} of context ${context}`,
    allowed: `handlers of context ${owner}, or scope INTER_BC with HYBRID_RELIABLE or ASYNC_ONLY`,
    where: eventType,
  })
}
