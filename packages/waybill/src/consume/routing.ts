import type { Codec } from '../core/codec.ts'
import { isWaybillError, WaybillError } from '../core/errors.ts'
import { type DomainEvent, receivedEvent } from '../core/event.ts'
import type { RegisteredHandler } from '../core/handler.ts'
import type { EventRegistry } from '../core/registry.ts'
import { validate } from '../core/schema.ts'
import type { Message } from '../core/transport.ts'

/** What a message turned out to be for one handler. */
export type Content =
  | { readonly kind: 'event'; readonly event: DomainEvent }
  /** Of a type that the handler does not handle. */
  | { readonly kind: 'other' }
  | { readonly kind: 'undecodable'; readonly error: unknown }

export interface Routing {
  /** False where the headers alone tell that the handler has nothing to do with it. */
  concerns(message: Message): boolean
  /** Reads the message; a promise only where codec or schema need one. Never throws or rejects: what can't be read is a content of its own. */
  read(message: Message): Content | Promise<Content>
}

const OTHER: Content = { kind: 'other' }

export function createRouting(handler: RegisteredHandler, registry: EventRegistry, codec: Codec): Routing {
  function eventOf(message: Message, envelope: Awaited<ReturnType<Codec['decode']>>): Content | Promise<Content> {
    if (!handler.eventTypes.has(envelope.event_type)) return OTHER
    const eventType = registry.get(envelope.event_type)
    const { schema } = eventType.options
    const accept = (payload: unknown): Content => ({
      kind: 'event',
      event: receivedEvent(eventType, { ...envelope, payload }, message.key),
    })
    if (schema === undefined) return accept(envelope.payload)
    const payload = validate(schema, envelope.payload, envelope.event_type)
    return payload instanceof Promise ? payload.then(accept).catch(undecodable) : accept(payload)
  }

  return {
    concerns({ headers }) {
      const { event_type: eventType } = headers
      return eventType === undefined || handler.eventTypes.has(eventType)
    },
    read(message) {
      try {
        const envelope = codec.decode(message)
        return envelope instanceof Promise
          ? envelope.then((decoded) => eventOf(message, decoded)).catch(undecodable)
          : eventOf(message, envelope)
      } catch (error) {
        return undecodable(error)
      }
    },
  }
}

function undecodable(error: unknown): Content {
  return {
    kind: 'undecodable',
    error: isWaybillError(error) ? error : new WaybillError('DECODE_FAILED', 'the message could not be read', { cause: error }),
  }
}
