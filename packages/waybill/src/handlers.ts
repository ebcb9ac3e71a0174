import type { BoundedContext, HandlerContext, HandlerDefinition } from './context.ts'
import type { SqlExecutor } from './core/database.ts'
import { WaybillError } from './core/errors.ts'
import { type Handler, type RegisteredHandler, compose } from './core/handler.ts'
import { inTransaction, inboxOnce } from './core/inbox.ts'
import type { EventRegistry } from './core/registry.ts'
import { withScope } from './core/scope.ts'
import type { InboxStore } from './core/stores.ts'
import type { RunUnit } from './core/unit.ts'

/** A handler with its name, and with what it was defined with. */
export interface NamedHandler extends RegisteredHandler {
  readonly definition: HandlerDefinition
}

export interface HandlersOptions {
  readonly contexts: readonly BoundedContext[]
  readonly registry: EventRegistry
  readonly inbox: InboxStore
  readonly runUnit: RunUnit
  /** Whether there is a database: without one a handler has no transaction. */
  readonly durable: boolean
  readonly publish: HandlerContext['publish']
}

/**
 * Names each context's handlers, and puts inbox and transaction around them.
 * @throws WaybillError `UNKNOWN_EVENT` where one handles what no context declares
 */
export function registerHandlers({ contexts, registry, inbox, runUnit, durable, publish }: HandlersOptions): readonly NamedHandler[] {
  function register(context: string, handlerName: string, definition: HandlerDefinition): NamedHandler {
    const name = `${context}/${handlerName}`
    for (const { type } of definition.eventTypes) registry.get(type)
    const user: Handler = async ({ events, signal, attempt, unit }) => {
      await definition.run(events, {
        sql: unit?.sql ?? NO_TRANSACTION,
        publish: (event, config) => (unit === undefined ? publish(event, config) : withScope({ unit }, () => publish(event, config))),
        signal,
        attempt,
        deadLetter(reason) {
          throw new WaybillError('DEAD_LETTERED', reason, { where: name })
        },
      })
    }
    return {
      name,
      context,
      eventTypes: new Set(definition.eventTypes.map(({ type }) => type)),
      topics: [...new Set(definition.eventTypes.map(({ topic }) => topic))],
      ordered: definition.ordered,
      batchMax: definition.batchMax,
      once: compose(user, [inboxOnce(inbox, runUnit, name)]),
      plain: durable ? compose(user, [inTransaction(runUnit)]) : user,
      definition,
    }
  }
  return contexts.flatMap((context) => [...context.handlers].map(([name, definition]) => register(context.name, name, definition)))
}

/** Who handles which type. */
export function handlersByType(handlers: readonly RegisteredHandler[]): (eventType: string) => readonly RegisteredHandler[] {
  const byType = new Map<string, RegisteredHandler[]>()
  for (const handler of handlers) {
    for (const type of handler.eventTypes) byType.set(type, [...(byType.get(type) ?? []), handler])
  }
  const none: readonly RegisteredHandler[] = []
  return (eventType) => byType.get(eventType) ?? none
}

const NO_TRANSACTION: SqlExecutor = {
  query: () =>
    Promise.reject(
      new WaybillError('UNSUPPORTED', 'this handler has no transaction: no database was given', {
        allowed: 'createWaybill({ database })',
        where: 'context.sql',
      }),
    ),
}
