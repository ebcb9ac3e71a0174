import { WaybillError } from './errors.ts'
import type { DomainEvent } from './event.ts'

/**
 * An event on the wire. The field names are the wire's own, so that services in other languages read them as they are.
 * Optional fields that are absent are omitted.
 */
export interface MessageEnvelope<Payload = unknown> {
  readonly event_id: string
  /** `{domain}.{EventName}` by convention; any dotted name. */
  readonly event_type: string
  /** RFC 3339, UTC. */
  readonly occurred_at: string
  /** The system that published it. */
  readonly source: string
  readonly correlation_id?: string
  readonly causation_id?: string
  /** Version of the payload's schema. */
  readonly version: string | number
  readonly aggregate_type?: string
  readonly aggregate_id?: string
  /** Rises by one with each event of the same aggregate. */
  readonly aggregate_version?: number
  readonly bounded_context?: string
  /** W3C trace id. */
  readonly trace_id?: string
  readonly metadata?: Readonly<Record<string, string>>
  readonly payload: Payload
}

/**
 * The envelope of `event`.
 * @throws WaybillError `NOT_SERIALIZABLE` where `occurredAt` is no date; `INVALID_KEY`, `INVALID_OPTION` where the event's attributes are not usable
 */
export function envelopeOf<Payload>(
  event: DomainEvent<Payload>,
  source: string,
  boundedContext: string | undefined,
): MessageEnvelope<Payload> {
  const { aggregateId, aggregateType, aggregateVersion, causationId, traceId, metadata, occurredAt } = event
  if (Number.isNaN(occurredAt.getTime()))
    throw new WaybillError('NOT_SERIALIZABLE', 'occurredAt is not a date', {
      got: 'Invalid Date',
      allowed: 'a valid Date',
      where: `${event.type}.occurredAt`,
    })
  return {
    event_id: event.id,
    event_type: event.type,
    occurred_at: occurredAt.toISOString(),
    source,
    correlation_id: event.correlationId,
    ...(causationId === undefined ? {} : { causation_id: causationId }),
    version: event.eventType.version,
    ...(aggregateType === undefined ? {} : { aggregate_type: aggregateType }),
    ...(aggregateId === undefined ? {} : { aggregate_id: aggregateId }),
    ...(aggregateVersion === undefined ? {} : { aggregate_version: aggregateVersion }),
    ...(boundedContext === undefined ? {} : { bounded_context: boundedContext }),
    ...(traceId === undefined ? {} : { trace_id: traceId }),
    ...(Object.keys(metadata).length === 0 ? {} : { metadata }),
    payload: event.payload,
  }
}
