import type { RetryPolicy } from './core/backoff.ts'
import { resolveRetryPolicy } from './core/backoff.ts'
import type { SqlExecutor } from './core/database.ts'
import { WaybillError } from './core/errors.ts'
import type { DomainEvent, EventType, PayloadOf } from './core/event.ts'
import { checkName } from './core/names.ts'
import { checkFunction, checkInteger } from './core/options.ts'
import { type PublishConfig, type PublishPreset, resolvePublishConfig } from './core/publish-config.ts'
import type { Receipt } from './core/unit.ts'

/** What a handler is given beside its event. */
export interface HandlerContext {
  /** Runs statements in the handler's own transaction, the one in which the event is recorded as handled. */
  readonly sql: SqlExecutor
  /** Publishes with that transaction; correlation and causation are carried along. */
  publish(event: DomainEvent, config?: PublishConfig | PublishPreset): Promise<Receipt>
  /** Aborts on timeout and on shutdown's hard limit. */
  readonly signal: AbortSignal
  /** 1 for the first try. */
  readonly attempt: number
  /** Gives the message up at once: it goes to the dead letters with this reason. @throws WaybillError `DEAD_LETTERED`, always */
  deadLetter(reason: string): never
}

/** How a handler is run. */
export interface HandlerOptions {
  /** Served by the durable road only, so that it sees each key's events in order, always. @default false */
  readonly ordered?: boolean
  /** Tries before a message is parked. @default 5 attempts, 100 ms doubling to 10 s, full jitter */
  readonly retry?: Partial<RetryPolicy>
  /** Limit of one try, 1 to 3,600,000. @default 30000 */
  readonly timeoutMs?: number
  /** Keys handled at the same time, 1 to 10,000. @default 16 */
  readonly concurrency?: number
  /** Whether messages behind a parked one of their key are parked too, in order. @default true */
  readonly parkFollowers?: boolean
}

/** What a batch handler is told beside. */
export interface BatchHandlerOptions extends HandlerOptions {
  /** Most events in one call and one transaction, 2 to 10,000. @default 200 */
  readonly batchMax?: number
}

/** The event a handler of `Types` gets. */
export type EventOf<Types extends readonly EventType[]> = {
  [Index in keyof Types]: DomainEvent<PayloadOf<Types[Index]>, Types[Index]['type']>
}[number]

/** A handler before it has a name: made by {@link on} and {@link onBatch}. */
export interface HandlerDefinition {
  readonly eventTypes: readonly EventType[]
  readonly run: (events: readonly DomainEvent[], context: HandlerContext) => void | Promise<void>
  readonly ordered: boolean
  readonly batchMax: number
  readonly retry: RetryPolicy
  readonly timeoutMs: number
  readonly concurrency: number
  readonly parkFollowers: boolean
}

/**
 * A handler of one event at a time. What it does in `context.sql` happens once per event, however often the event arrives.
 * @throws WaybillError `INVALID_OPTION`
 */
export function on<const Types extends readonly EventType[]>(
  eventTypes: Types,
  handle: (event: EventOf<Types>, context: HandlerContext) => void | Promise<void>,
  options: HandlerOptions = {},
): HandlerDefinition {
  checkFunction(handle, 'handler')
  return define(eventTypes, (events, context) => handle(events[0] as EventOf<Types>, context), options, 1)
}

/**
 * A handler of many events in one transaction: for read models and ledgers, where a transaction for each event would be the cost. Per key the
 * events are in order. When it fails, its events are handled one by one.
 * @throws WaybillError `INVALID_OPTION`
 */
export function onBatch<const Types extends readonly EventType[]>(
  eventTypes: Types,
  handle: (events: readonly EventOf<Types>[], context: HandlerContext) => void | Promise<void>,
  { batchMax = 200, ...options }: BatchHandlerOptions = {},
): HandlerDefinition {
  checkFunction(handle, 'handler')
  return define(
    eventTypes,
    (events, context) => handle(events as readonly EventOf<Types>[], context),
    options,
    checkInteger(batchMax, 'batchMax', 2, 10_000),
  )
}

function define(
  eventTypes: readonly EventType[],
  run: HandlerDefinition['run'],
  options: HandlerOptions,
  batchMax: number,
): HandlerDefinition {
  if (
    !Array.isArray(eventTypes) ||
    eventTypes.length === 0 ||
    !eventTypes.every((type) => typeof type === 'function' && typeof type.type === 'string')
  ) {
    throw new WaybillError('INVALID_OPTION', 'a handler needs the event types that it handles', {
      got: eventTypes,
      allowed: 'a list of one or more event types',
      where: 'on',
    })
  }
  return Object.freeze({
    eventTypes,
    run,
    ordered: options.ordered ?? false,
    batchMax,
    retry: resolveRetryPolicy(options.retry, 'handler retry'),
    timeoutMs: checkInteger(options.timeoutMs ?? 30_000, 'handler timeoutMs', 1, 3_600_000),
    concurrency: checkInteger(options.concurrency ?? 16, 'handler concurrency', 1, 10_000),
    parkFollowers: options.parkFollowers ?? true,
  })
}

/** What a bounded context owns. */
export interface ContextOptions<Events extends readonly EventType[] = readonly EventType[]> {
  /** The events that it publishes. */
  readonly events?: Events
  /** What it does with its own and others' events. The handler `invoice` of context `billing` is known everywhere as `billing/invoice`. */
  readonly handlers?: Readonly<Record<string, HandlerDefinition>>
  /** How its events travel, where neither the call nor the event says. */
  readonly publish?: PublishConfig | PublishPreset
}

/** A part of the business with its own model. */
export interface BoundedContext<Events extends readonly EventType[] = readonly EventType[]> {
  readonly name: string
  readonly events: Events
  readonly handlers: ReadonlyMap<string, HandlerDefinition>
  readonly publish: PublishConfig
}

/**
 * Defines a bounded context: its events and its handlers.
 * @throws WaybillError `INVALID_NAME` | `INVALID_OPTION` | `UNKNOWN_STRATEGY`
 */
export function defineContext<const Events extends readonly EventType[] = readonly []>(
  name: string,
  options: ContextOptions<Events> = {},
): BoundedContext<Events> {
  checkName(name, 'bounded context')
  const handlers = new Map<string, HandlerDefinition>()
  for (const [handlerName, definition] of Object.entries(options.handlers ?? {})) {
    checkName(handlerName, `handler of ${name}`)
    if (typeof definition?.run !== 'function') {
      throw new WaybillError('INVALID_OPTION', 'a handler is made by on() or onBatch()', {
        got: definition,
        allowed: 'on([EventType], function)',
        where: `${name}/${handlerName}`,
      })
    }
    handlers.set(handlerName, definition)
  }
  return Object.freeze({
    name,
    events: options.events ?? ([] as readonly EventType[] as Events),
    handlers,
    publish: resolvePublishConfig(options.publish, `publish of ${name}`),
  })
}
