import { WaybillError } from './errors.ts'
import type { EventType } from './event.ts'

/** The event types of a bus, by name. */
export interface EventRegistry {
  /** @throws WaybillError `UNKNOWN_EVENT` */
  get(eventType: string): EventType
  find(eventType: string): EventType | undefined
  /** The bounded context that owns the type. */
  contextOf(eventType: string): string | undefined
  readonly types: readonly EventType[]
}

/** @throws WaybillError `DUPLICATE` where two definitions share a name */
export function createRegistry(contexts: readonly { readonly name: string; readonly events: readonly EventType[] }[]): EventRegistry {
  const types = new Map<string, EventType>()
  const owners = new Map<string, string>()
  for (const context of contexts) {
    for (const eventType of context.events) {
      if (types.has(eventType.type))
        throw new WaybillError('DUPLICATE', 'two contexts declare an event of this name', {
          got: eventType.type,
          allowed: 'one owner per event',
          where: `${owners.get(eventType.type)} and ${context.name}`,
        })
      types.set(eventType.type, eventType)
      owners.set(eventType.type, eventType.options.boundedContext ?? context.name)
    }
  }
  return {
    get(name) {
      const found = types.get(name)
      if (found !== undefined) return found
      throw new WaybillError('UNKNOWN_EVENT', 'no context declares this event', {
        got: name,
        allowed: [...types.keys()].slice(0, 20).join(', ') || 'none: no events are declared',
        where: 'contexts',
      })
    },
    find: (name) => types.get(name),
    contextOf: (name) => owners.get(name),
    types: [...types.values()],
  }
}
