import { burstNow } from './clock.ts'
import type { MessageEnvelope } from './envelope.ts'
import { WaybillError } from './errors.ts'
import { newId } from './ids.ts'
import { checkKey, checkName } from './names.ts'
import { checkFunction, checkInteger } from './options.ts'
import { type PublishConfig, type PublishPreset, resolvePublishConfig } from './publish-config.ts'
import type { SchemaLike } from './schema.ts'
import { currentScope } from './scope.ts'

/** What {@link defineEvent} is told about an event type. */
export interface EventOptions<Payload> {
  /** Any Standard Schema (zod, valibot, arktype ...). Without one, payloads are checked by TypeScript alone. */
  readonly schema?: SchemaLike<Payload>
  /** Version of the payload's schema, as it stands on the wire. @default 1 */
  readonly version?: string | number
  /** The business object the event is about: its type, and where in the payload its id stands. */
  readonly aggregate?: { readonly type: string; readonly id: (payload: Payload) => string }
  /** The part of the business that owns the event. Default: the context that declares it. */
  readonly boundedContext?: string
  /** Topic it travels on; types whose order matters to each other share one. @default the event's name */
  readonly topic?: string
  /** What must stay in order. Default: the aggregate id, or no order where there is none. */
  readonly key?: (payload: Payload) => string
  /** How it travels; a call or `configureEvent` may say otherwise. */
  readonly publish?: PublishConfig | PublishPreset
}

/** What may be said of one event beside its payload. What is left out is filled in. */
export interface EventAttributes {
  /** @default a new version 7 UUID */
  readonly id?: string
  /** When it happened. @default now */
  readonly occurredAt?: Date
  /** Rises by one with each event of the same aggregate. */
  readonly aggregateVersion?: number
  /** Overrides the definition's key. */
  readonly key?: string
  /** @default the scope's correlation id, else the event's own id */
  readonly correlationId?: string
  /** @default id of the event being handled, if any */
  readonly causationId?: string
  /** @default the scope's trace id, if any */
  readonly traceId?: string
  /** Added to the scope's metadata. */
  readonly metadata?: Readonly<Record<string, string>>
}

/** A kind of event. Call it with a payload to make one. */
// Any, not unknown: an event type takes its payload, so a list of types of every payload could be typed no other way.
// oxlint-disable-next-line typescript/no-explicit-any
export interface EventType<Payload = any, Name extends string = string> {
  (payload: Payload, attributes?: EventAttributes): DomainEvent<Payload, Name>
  /** `{domain}.{EventName}` by convention; any dotted name. */
  readonly type: Name
  readonly options: Readonly<EventOptions<Payload>>
  readonly topic: string
  readonly version: string | number
}

/** The payload's type of an event type. */
export type PayloadOf<T> = T extends EventType<infer Payload, string> ? Payload : never

/**
 * Defines a kind of event.
 * @throws WaybillError `INVALID_NAME` | `INVALID_OPTION` | `UNKNOWN_STRATEGY`
 */
export function defineEvent<Payload, const Name extends string = string>(
  name: Name,
  options: EventOptions<Payload> = {},
): EventType<Payload, Name> {
  checkName(name, 'event name')
  const topic = options.topic === undefined ? name : checkName(options.topic, `topic of ${name}`)
  if (options.boundedContext !== undefined) checkName(options.boundedContext, `bounded context of ${name}`)
  if (options.aggregate !== undefined) {
    checkName(options.aggregate.type, `aggregate type of ${name}`)
    checkFunction(options.aggregate.id, `aggregate.id of ${name}`)
  }
  if (options.key !== undefined) checkFunction(options.key, `key of ${name}`)
  if (options.schema !== undefined && typeof options.schema['~standard']?.validate !== 'function') {
    throw new WaybillError('INVALID_OPTION', 'the schema does not implement Standard Schema', {
      allowed: 'zod, valibot, arktype or any other Standard Schema',
      where: `schema of ${name}`,
    })
  }
  const version = options.version ?? 1
  if (!(typeof version === 'number' ? Number.isSafeInteger(version) && version >= 0 : /^[A-Za-z0-9._-]{1,32}$/.test(version))) {
    throw new WaybillError('INVALID_OPTION', 'the schema version is not usable', {
      got: version,
      allowed: 'a whole number, or 1 to 32 letters, digits, ".", "_" and "-"',
      where: `version of ${name}`,
    })
  }
  resolvePublishConfig(options.publish, `publish of ${name}`)
  const create = (payload: Payload, attributes?: EventAttributes): DomainEvent<Payload, Name> =>
    new DomainEvent(eventType, payload, attributes)
  const eventType: EventType<Payload, Name> = Object.freeze(
    Object.assign(create, { type: name, options: Object.freeze({ ...options }), topic, version }),
  )
  return eventType
}

/**
 * Something that happened: a payload, and what is known about it. A value: nothing about it changes once it was read.
 * Ids and texts are made when they are first read, so an event that never leaves the process costs next to nothing.
 */
// oxlint-disable-next-line typescript/no-explicit-any -- as above
export class DomainEvent<Payload = any, Name extends string = string> {
  // Any: a function that takes an event of some payload must take an event of a more particular one, which an event type in place here would forbid.
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly eventType: EventType<any, Name>
  readonly payload: Payload
  readonly #occurredMs: number
  readonly #attributes: EventAttributes | undefined
  #scope = currentScope()
  #id: string | undefined

  constructor(eventType: EventType<Payload, Name>, payload: Payload, attributes?: EventAttributes) {
    this.eventType = eventType
    this.payload = payload
    this.#attributes = attributes
    this.#id = attributes?.id
    this.#occurredMs = attributes?.occurredAt?.getTime() ?? burstNow()
  }

  /** The same event with another payload: what a schema made of the one given. A key that was given stays, one that follows from the payload follows. */
  withPayload(payload: Payload): DomainEvent<Payload, Name> {
    const copy = new DomainEvent(this.eventType, payload, { ...this.#attributes, id: this.id, occurredAt: this.occurredAt })
    copy.#scope = this.#scope
    return copy
  }

  get type(): Name {
    return this.eventType.type
  }

  get id(): string {
    return (this.#id ??= newId())
  }

  get occurredAt(): Date {
    return new Date(this.#occurredMs)
  }

  get correlationId(): string {
    return this.#attributes?.correlationId ?? this.#scope.correlationId ?? this.id
  }

  get causationId(): string | undefined {
    return this.#attributes?.causationId ?? this.#scope.causationId
  }

  get traceId(): string | undefined {
    return this.#attributes?.traceId ?? this.#scope.traceId
  }

  get metadata(): Readonly<Record<string, string>> {
    return { ...this.#scope.metadata, ...this.#attributes?.metadata }
  }

  get aggregateType(): string | undefined {
    return this.eventType.options.aggregate?.type
  }

  /** @throws WaybillError `INVALID_KEY` */
  get aggregateId(): string | undefined {
    const { aggregate } = this.eventType.options
    return aggregate && checkKey(aggregate.id(this.payload), `aggregate id of ${this.type}`)
  }

  get aggregateVersion(): number | undefined {
    const version = this.#attributes?.aggregateVersion
    return version === undefined ? undefined : checkInteger(version, `aggregateVersion of ${this.type}`, 0, Number.MAX_SAFE_INTEGER)
  }

  /** What stays in order: events of one topic and key. Without key and aggregate it is the event's own id: no order. @throws WaybillError `INVALID_KEY` */
  get key(): string {
    const key = this.#attributes?.key ?? this.eventType.options.key?.(this.payload)
    return key === undefined ? (this.aggregateId ?? this.id) : checkKey(key, `key of ${this.type}`)
  }
}

/** An event as it came over the wire: the envelope's own attributes, none of the running scope's. */
export function receivedEvent<Payload>(eventType: EventType<Payload>, envelope: MessageEnvelope, key: string): DomainEvent<Payload> {
  return new DomainEvent(eventType, envelope.payload as Payload, {
    id: envelope.event_id,
    occurredAt: new Date(envelope.occurred_at),
    key,
    correlationId: envelope.correlation_id ?? envelope.event_id,
    ...(envelope.causation_id === undefined ? {} : { causationId: envelope.causation_id }),
    ...(envelope.trace_id === undefined ? {} : { traceId: envelope.trace_id }),
    ...(envelope.aggregate_version === undefined ? {} : { aggregateVersion: envelope.aggregate_version }),
    ...(envelope.metadata === undefined ? {} : { metadata: envelope.metadata }),
  })
}
