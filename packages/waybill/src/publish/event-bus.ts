import { WaybillError } from '../core/errors.ts'
import type { DomainEvent, EventType } from '../core/event.ts'
import { checkFunction, checkInteger } from '../core/options.ts'

/** A function that hears events. What it returns is awaited where it is a promise. */
// Any, not unknown: a listener takes its payload, so a list of listeners could be typed no other way.
// oxlint-disable-next-line typescript/no-explicit-any
export type EventListener<Payload = any, Name extends string = string> = (event: DomainEvent<Payload, Name>) => unknown

export interface EventBusOptions {
  /** Most handlers of one event type, 1 to 100,000. @default 1000 */
  readonly handlersMax?: number
}

/** What an event bus has seen since it was made. */
export interface EventBusMetrics {
  readonly emitted: number
  /** Calls of handlers that failed. */
  readonly failures: number
  /** Events that nobody had subscribed to. */
  readonly unheard: number
  /** Emitted events of each type that has, or had, a handler. */
  readonly byEventType: Readonly<Record<string, number>>
}

/**
 * Calls functions of this process when an event of exactly their type is emitted. Nothing is kept, nothing is tried again, and handlers run in
 * the emitter's own scope.
 */
export interface EventBus {
  /**
   * Hears events of this type from the next emit on; the function given back ends it.
   * @throws WaybillError `INVALID_OPTION` where the handler is no function, `DUPLICATE` where it is subscribed already, `QUEUE_FULL` at the limit
   */
  subscribe<Payload, Name extends string>(eventType: EventType<Payload, Name>, handler: EventListener<Payload, Name>): () => void
  /** Does nothing where it was not subscribed. */
  unsubscribe<Payload, Name extends string>(eventType: EventType<Payload, Name>, handler: EventListener<Payload, Name>): void
  /**
   * Calls all handlers, in the order in which they subscribed, without waiting in between. Gives back a promise only where a handler did; it
   * settles when all have. Where some fail the others run all the same, and then it throws (or the promise rejects).
   * @throws WaybillError `HANDLER_FAILED`; its cause is what was thrown, in an `AggregateError` where several handlers failed
   */
  emit(event: DomainEvent): void | Promise<void>
  /** How many handlers this event type has. */
  handlerCount(eventType: string): number
  metrics(): EventBusMetrics
}

/** One subscription. What is to be done when its handler fails is made once, here, and not with every event. */
interface Subscription {
  readonly handler: EventListener
  readonly rejected: (cause: unknown) => never
}

/** The handlers of one type. Counters are plain fields: they are written with every event. */
interface Route {
  readonly type: string
  /** Replaced as a whole when somebody comes or goes, so that an emit under way goes on with those it began with. */
  subscriptions: readonly Subscription[]
  emitted: number
  failures: number
}

/** @throws WaybillError `INVALID_OPTION` */
export function createEventBus(options: EventBusOptions = {}): EventBus {
  const handlersMax = checkInteger(options.handlersMax ?? 1_000, 'handlersMax', 1, 100_000)
  const routes = new Map<string, Route>()
  let unheard = 0

  function emit(event: DomainEvent): void | Promise<void> {
    const route = routes.get(event.eventType.type)
    if (route === undefined) {
      unheard++
      return undefined
    }
    route.emitted++
    const { subscriptions } = route
    if (subscriptions.length !== 1) return emitToMany(route, subscriptions, event)
    const { handler, rejected } = subscriptions[0]!
    let promise: Promise<void> | undefined
    try {
      const returned = handler(event)
      if (returned === undefined) return undefined
      promise = promiseOf(returned)
    } catch (cause) {
      rejected(cause)
    }
    return promise?.then(undefined, rejected)
  }

  /**
   * The promise given back hangs on the last handler's; the others count themselves down. In the usual case all have ended by then, and no
   * promise beyond one per handler was made. Each is listened to before this returns, so that none is ever rejected unheard.
   */
  function emitToMany(route: Route, subscriptions: readonly Subscription[], event: DomainEvent): void | Promise<void> {
    let causes: unknown[] | undefined
    let left = 0
    let last: Promise<void> | undefined
    let ended: (() => void) | undefined
    let endedBadly: ((cause: unknown) => void) | undefined
    let allEnded: (() => void) | undefined

    const failed = (cause: unknown): void => {
      route.failures++
      if (causes === undefined) causes = [cause]
      else causes.push(cause)
    }
    for (let i = 0; i < subscriptions.length; i++) {
      let promise: Promise<void> | undefined
      try {
        const returned = subscriptions[i]!.handler(event)
        if (returned === undefined) continue
        promise = promiseOf(returned)
      } catch (cause) {
        failed(cause)
        continue
      }
      if (promise === undefined) continue
      if (last !== undefined) {
        const countDown = (ended ??= () => {
          if (--left === 0) allEnded?.()
        })
        endedBadly ??= (cause) => {
          failed(cause)
          countDown()
        }
        left++
        last.then(ended, endedBadly)
      }
      last = promise
    }
    const settle = (): void | Promise<void> => {
      if (left > 0) {
        const others = new Promise<void>((resolve) => {
          allEnded = resolve
        })
        return others.then(settle)
      }
      if (causes !== undefined) throw handlerFailed(route, causes)
      return undefined
    }
    if (last === undefined) return settle()
    return last.then(settle, (cause: unknown) => {
      failed(cause)
      return settle()
    })
  }

  function subscribe<Payload, Name extends string>(
    eventType: EventType<Payload, Name>,
    listener: EventListener<Payload, Name>,
  ): () => void {
    const { type } = eventType
    // The route is found by this very type, so the handler is only ever called with events of it.
    const handler = checkFunction(listener, `handler of ${type}`) as EventListener
    const route: Route = routes.get(type) ?? { type, subscriptions: [], emitted: 0, failures: 0 }
    const { subscriptions } = route
    if (subscriptions.some((subscription) => subscription.handler === handler)) {
      throw new WaybillError('DUPLICATE', 'this handler is subscribed already', {
        got: handler,
        allowed: 'one subscription per function and event type',
        where: type,
      })
    }
    if (subscriptions.length >= handlersMax) {
      throw new WaybillError('QUEUE_FULL', 'too many handlers of one event type', {
        got: subscriptions.length + 1,
        allowed: `at most ${handlersMax}`,
        where: type,
      })
    }
    const added: Subscription = {
      handler,
      rejected(cause) {
        route.failures++
        throw handlerFailed(route, [cause])
      },
    }
    route.subscriptions = [...subscriptions, added]
    routes.set(type, route)
    // By subscription, not by function: it must not end a later one of the same function.
    return () => void (route.subscriptions = route.subscriptions.filter((subscription) => subscription !== added))
  }

  return {
    subscribe,
    unsubscribe(eventType, handler) {
      const route = routes.get(eventType.type)
      if (route !== undefined) route.subscriptions = route.subscriptions.filter((subscription) => subscription.handler !== handler)
    },
    emit,
    handlerCount: (eventType) => routes.get(eventType)?.subscriptions.length ?? 0,
    metrics() {
      let emitted = unheard
      let failures = 0
      const byEventType: Record<string, number> = {}
      for (const route of routes.values()) {
        emitted += route.emitted
        failures += route.failures
        byEventType[route.type] = route.emitted
      }
      return { emitted, failures, unheard, byEventType }
    },
  }
}

/** Query builders and the like only look like promises, and begin when they are awaited. */
function promiseOf(value: unknown): Promise<void> | undefined {
  if (value instanceof Promise) return value
  return typeof (value as { readonly then?: unknown } | null)?.then === 'function' ? Promise.resolve(value as PromiseLike<void>) : undefined
}

function handlerFailed(route: Route, causes: readonly unknown[]): WaybillError {
  const cause = causes.length === 1 ? causes[0] : new AggregateError(causes, `${causes.length} handlers failed`)
  return new WaybillError('HANDLER_FAILED', causes.length === 1 ? 'a handler failed' : `${causes.length} handlers failed`, {
    cause,
    where: route.type,
  })
}
