import { WaybillError } from '../core/errors.ts'
import type { EventType } from '../core/event.ts'
import {
  type EventScope,
  type PublishConfig,
  type PublishPreset,
  type PublishStrategy,
  resolvePublishCall,
  resolvePublishConfig,
} from '../core/publish-config.ts'
import type { EventRegistry } from '../core/registry.ts'
import type { Receipt } from '../core/unit.ts'

/** How one publish travels, with nothing left open. */
export interface Policy {
  readonly strategy: PublishStrategy
  readonly scope: EventScope
  readonly timeoutMs: number
  readonly priority: number
  /** Not due before. With ASYNC_ONLY only. */
  readonly availableAt?: Date
  /** Which rule named the strategy. */
  readonly decidedBy: Receipt['decidedBy']
}

/** What each rule says, the most specific first. */
export interface PolicyRules {
  readonly call?: PublishConfig | undefined
  /** `configureEvent`. */
  readonly event?: PublishConfig | undefined
  /** The event's own definition. */
  readonly definition?: PublishConfig | undefined
  readonly context?: PublishConfig | undefined
  readonly hasOutbox: boolean
  /** The event or context concerned, for errors. */
  readonly where: string
}

/** Limit of the in-process path, where no rule names one. */
export const DEFAULT_TIMEOUT_MS = 1_000
/** Priority, where no rule names one. */
export const DEFAULT_PRIORITY = 5

/**
 * The policy that follows from the rules, field by field.
 * @throws WaybillError `HYBRID_FAST_ACROSS_CONTEXTS` | `NO_OUTBOX` | `INVALID_OPTION`
 */
export function resolvePolicy({ call, event, definition, context, hasOutbox, where }: PolicyRules): Policy {
  const scope = call?.scope ?? event?.scope ?? definition?.scope ?? context?.scope ?? 'INTRA_BC'
  const ofEvent = event?.strategy ?? definition?.strategy
  const named = call?.strategy ?? ofEvent ?? context?.strategy
  const strategy = named ?? defaultStrategy(scope, hasOutbox)
  if (strategy === 'HYBRID_FAST' && scope !== 'INTRA_BC') {
    throw new WaybillError(
      'HYBRID_FAST_ACROSS_CONTEXTS',
      'HYBRID_FAST retires the row once this process has handled it, so others would never see the event',
      {
        got: `HYBRID_FAST with scope ${scope}`,
        allowed: `scope INTRA_BC, or HYBRID_RELIABLE or ASYNC_ONLY with scope ${scope}`,
        where,
      },
    )
  }
  if (strategy !== 'SYNC_ONLY' && !hasOutbox) {
    throw new WaybillError('NO_OUTBOX', `${strategy} needs an outbox, and there is no database`, {
      got: strategy,
      allowed: 'SYNC_ONLY, or a database',
      where,
    })
  }
  if (call?.availableAt !== undefined && strategy !== 'ASYNC_ONLY') {
    throw new WaybillError('INVALID_OPTION', `what is for later can't be handled in process now, as ${strategy} would`, {
      got: `availableAt with ${strategy}`,
      allowed: "availableAt with strategy: 'ASYNC_ONLY'",
      where,
    })
  }
  return Object.freeze({
    strategy,
    scope,
    timeoutMs: call?.timeoutMs ?? event?.timeoutMs ?? definition?.timeoutMs ?? context?.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    priority: call?.priority ?? event?.priority ?? definition?.priority ?? context?.priority ?? DEFAULT_PRIORITY,
    ...(call?.availableAt === undefined ? {} : { availableAt: call.availableAt }),
    decidedBy: call?.strategy !== undefined ? 'call' : ofEvent !== undefined ? 'event' : named !== undefined ? 'context' : 'default',
  })
}

function defaultStrategy(scope: EventScope, hasOutbox: boolean): PublishStrategy {
  if (scope !== 'INTRA_BC') return 'ASYNC_ONLY'
  return hasOutbox ? 'HYBRID_FAST' : 'SYNC_ONLY'
}

/** The policies of a bus, as they stand now. */
export interface Policies {
  /**
   * The policy of the next publish of a declared event.
   * @throws WaybillError `UNKNOWN_STRATEGY` | `INVALID_OPTION` | `HYBRID_FAST_ACROSS_CONTEXTS` | `NO_OUTBOX` | `UNKNOWN_EVENT`
   */
  of(eventType: string, call?: PublishConfig | PublishPreset): Policy
  /**
   * Says how an event travels from the next publish on, in place of what was said before; `{}` takes it back. Refused as a whole, changing
   * nothing, where it is wrong.
   * @throws WaybillError `UNKNOWN_EVENT` | `UNKNOWN_STRATEGY` | `INVALID_OPTION` | `HYBRID_FAST_ACROSS_CONTEXTS` | `HYBRID_WITHOUT_CONSUMER` | `NO_OUTBOX`
   */
  configureEvent(event: EventType | string, config: PublishConfig | PublishPreset): void
  /**
   * Says how a bounded context's events travel from the next publish on, in place of what was said before. Refused as a whole, changing nothing,
   * where it is wrong by itself or for one of the context's events.
   * @throws WaybillError `UNKNOWN_STRATEGY` | `INVALID_OPTION` | `HYBRID_FAST_ACROSS_CONTEXTS` | `NO_OUTBOX`
   */
  configureBoundedContext(context: string, config: PublishConfig | PublishPreset): void
}

export interface PoliciesOptions {
  readonly registry: EventRegistry
  /** The bounded contexts, and how their events travel by default. */
  readonly contexts: readonly { readonly name: string; readonly publish?: PublishConfig | PublishPreset | undefined }[]
  readonly hasOutbox: boolean
  /** Refuses, by throwing, a policy that could not be kept: asked before a change at run time is taken. */
  readonly check?: (eventType: string, policy: Policy) => void
}

/**
 * Holds what each rule says. An event's policy is worked out once, and again after a change that concerns it.
 * @throws WaybillError `UNKNOWN_STRATEGY` | `INVALID_OPTION`
 */
export function createPolicies({ registry, contexts, hasOutbox, check = () => {} }: PoliciesOptions): Policies {
  const definitions = new Map(
    registry.types.map((eventType) => [eventType.type, resolvePublishConfig(eventType.options.publish, `publish of ${eventType.type}`)]),
  )
  const ofContexts = new Map(contexts.map(({ name, publish }) => [name, resolvePublishConfig(publish, `publish of ${name}`)]))
  const ofEvents = new Map<string, PublishConfig>()
  const resolved = new Map<string, Policy>()

  function contextConfig(eventType: string): PublishConfig | undefined {
    const owner = registry.contextOf(eventType)
    return owner === undefined ? undefined : ofContexts.get(owner)
  }

  function resolve(eventType: string, changes: Partial<PolicyRules> = {}): Policy {
    const rules = {
      event: ofEvents.get(eventType),
      definition: definitions.get(eventType),
      context: contextConfig(eventType),
      hasOutbox,
      where: eventType,
    }
    return resolvePolicy({ ...rules, ...changes })
  }

  function isSound(eventType: string): boolean {
    try {
      resolve(eventType)
      return true
    } catch {
      return false
    }
  }

  function contextNames(): readonly string[] {
    const owners = registry.types.map(({ type }) => registry.contextOf(type)).filter((owner) => owner !== undefined)
    return [...new Set([...ofContexts.keys(), ...owners])]
  }

  return {
    of(eventType, call) {
      if (call !== undefined) {
        registry.get(eventType)
        return resolve(eventType, { call: resolvePublishCall(call, `publish of ${eventType}`) })
      }
      const known = resolved.get(eventType)
      if (known !== undefined) return known
      registry.get(eventType)
      const policy = resolve(eventType)
      resolved.set(eventType, policy)
      return policy
    },
    configureEvent(event, config) {
      const { type } = registry.get(typeof event === 'string' ? event : event?.type)
      // A copy, so that nobody changes a policy behind our back.
      const next = { ...resolvePublishConfig(config, `configureEvent of ${type}`) }
      check(type, resolve(type, { event: next }))
      ofEvents.set(type, next)
      resolved.delete(type)
    },
    configureBoundedContext(context, config) {
      const names = contextNames()
      if (!names.includes(context)) {
        throw new WaybillError('INVALID_OPTION', 'there is no bounded context of this name', {
          got: context,
          allowed: names.join(', ') || 'none: no contexts are declared',
          where: 'configureBoundedContext',
        })
      }
      const next = { ...resolvePublishConfig(config, `configureBoundedContext of ${context}`) }
      resolvePolicy({ context: next, hasOutbox, where: context })
      const own = registry.types.map(({ type }) => type).filter((type) => registry.contextOf(type) === context)
      // One that was unsound before is not this change's doing, and says so when it is published.
      for (const type of own.filter(isSound)) check(type, resolve(type, { context: next }))
      ofContexts.set(context, next)
      for (const type of own) resolved.delete(type)
    },
  }
}
