import { createHash } from 'node:crypto'
import type { BoundedContext, HandlerContext, HandlerDefinition } from './context.ts'
import type { SqlExecutor } from './core/database.ts'
import { WaybillError } from './core/errors.ts'
import { type Handler, type RegisteredHandler, compose } from './core/handler.ts'
import { inTransaction, inboxOnce } from './core/inbox.ts'
import type { EventRegistry } from './core/registry.ts'
import { withScope } from './core/scope.ts'
import type { InboxStore } from './core/stores.ts'
import type { Capabilities } from './core/transport.ts'
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

/** A consumer group of a topic. */
export interface TopicGroup {
  readonly topic: string
  readonly group: string
}

/** The groups of these contexts' handlers. */
export function groupsOf(contexts: readonly BoundedContext[]): readonly TopicGroup[] {
  return contexts.flatMap((context) =>
    [...context.handlers].flatMap(([name, { eventTypes }]) =>
      [...new Set(eventTypes.map(({ topic }) => topic))].map((topic) => ({ topic, group: `${context.name}/${name}` })),
    ),
  )
}

/**
 * A mark of what a relay hands its rows to, at the end of its id. With a transport that reports handled it stands for the groups of its process; a row
 * is retired when these are done with it, so two relays of one outbox must have the same.
 */
export function relayMark(groups: readonly TopicGroup[], acknowledges: Capabilities['acknowledges']): string {
  if (acknowledges !== 'handled') return '~broker'
  const names = groups.map(({ topic, group }) => `${topic} ${group}`).toSorted()
  return `~${createHash('sha256').update(names.join('\n')).digest('hex').slice(0, 12)}`
}

/** @throws WaybillError `UNSUPPORTED` where a relay at work hands rows to other handlers than `relayId` would */
export function refuseOtherHandlers(relays: readonly string[], relayId: string): void {
  const markOf = (id: string): string => id.slice(id.lastIndexOf('~'))
  const other = relays.find((id) => id.includes('~') && markOf(id) !== markOf(relayId))
  if (other === undefined) return
  throw new WaybillError(
    'UNSUPPORTED',
    'another process relays this outbox to other handlers: each would retire rows that the other still needs',
    {
      got: other,
      allowed:
        'the same contexts in every process that shares the database, and no relay without them beside ("waybill relay --app" instead of "--transport")',
      where: 'contexts',
    },
  )
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
