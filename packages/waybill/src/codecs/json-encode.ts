import { Buffer } from 'node:buffer'
import type { EncodedEnvelope } from '../core/codec.ts'
import type { MessageEnvelope } from '../core/envelope.ts'
import { isWaybillError, WaybillError } from '../core/errors.ts'
import { checkAttribute, EVENT_ID_MAX, isPlainText, type TextAttribute, tooLarge, traceparentOf } from './attributes.ts'
import { JSON_CONTENT_TYPE, looksLikeJson, refuseFlaw } from './json-value.ts'

/** The encoding half of the JSON codec. `extra` are headers that every message gets. */
export function createJsonEncoder(
  maxBytes: number,
  maxDepth: number,
  extra: Readonly<Record<string, string>>,
): (envelope: MessageEnvelope) => EncodedEnvelope {
  const constantsOf = createConstants(extra)
  return (envelope) => {
    const constants = constantsOf(envelope)
    const headers = headersOf(envelope, constants)
    const text = constants.json + attributesJson(envelope, headers) + ',"payload":' + payloadJson(envelope.payload, maxDepth) + '}'
    // Before turning it into bytes: there are at least as many of them as characters.
    const body = text.length > maxBytes ? undefined : Buffer.from(text)
    if (body !== undefined && body.length <= maxBytes) return { headers, body }
    throw tooLarge(body === undefined ? `at least ${text.length} bytes` : body.length, maxBytes, envelope.event_type)
  }
}

/** What is the same in all events of a type: made once. */
interface Constants {
  readonly source: string
  readonly version: string | number
  readonly aggregateType: string | undefined
  readonly boundedContext: string | undefined
  /** `{"event_type":"...","source":...`, open at its end. */
  readonly json: string
  readonly versionText: string
  readonly extra: Readonly<Record<string, string>> | undefined
}

const CONSTANTS_MAX = 1024

function createConstants(extra: Readonly<Record<string, string>>): (envelope: MessageEnvelope) => Constants {
  const known = new Map<string, Constants>()
  let last: Constants | undefined
  let lastType: string | undefined
  return (envelope) => {
    const found = envelope.event_type === lastType ? last : known.get(envelope.event_type)
    const fits =
      found !== undefined &&
      found.source === envelope.source &&
      found.version === envelope.version &&
      found.aggregateType === envelope.aggregate_type &&
      found.boundedContext === envelope.bounded_context
    const constants = fits ? found : makeConstants(envelope, extra)
    if (!fits) {
      // Types are few. Where they are not, starting over is cheaper than remembering which are still in use.
      if (known.size >= CONSTANTS_MAX) known.clear()
      known.set(envelope.event_type, constants)
    }
    lastType = envelope.event_type
    last = constants
    return constants
  }
}

function makeConstants(envelope: MessageEnvelope, extra: Readonly<Record<string, string>>): Constants {
  const { event_type, source, version, aggregate_type, bounded_context } = envelope
  checkAttribute('event_type', event_type, 'NOT_SERIALIZABLE')
  checkAttribute('version', version, typeof version === 'string' ? 'INVALID_HEADER' : 'NOT_SERIALIZABLE')
  let json = `{"event_type":${JSON.stringify(event_type)},"source":${quoted('source', source)},"version":${JSON.stringify(version)}`
  if (aggregate_type !== undefined) json += `,"aggregate_type":${quoted('aggregate_type', aggregate_type)}`
  if (bounded_context !== undefined) json += `,"bounded_context":${quoted('bounded_context', bounded_context)}`
  return {
    source,
    version,
    versionText: String(version),
    aggregateType: aggregate_type,
    boundedContext: bounded_context,
    json,
    extra: Object.keys(extra).length === 0 ? undefined : extra,
  }
}

/** Headers of the attributes that every event of the type has; {@link attributesJson} adds the others. */
function headersOf({ event_id, event_type, occurred_at, source }: MessageEnvelope, constants: Constants): Record<string, string> {
  const { versionText, aggregateType, boundedContext, extra } = constants
  const headers: Record<string, string> = {
    event_id,
    event_type,
    content_type: JSON_CONTENT_TYPE,
    occurred_at,
    source,
    version: versionText,
  }
  if (aggregateType !== undefined) headers['aggregate_type'] = aggregateType
  if (boundedContext !== undefined) headers['bounded_context'] = boundedContext
  if (extra !== undefined) Object.assign(headers, extra)
  return headers
}

// Events come in bursts of one millisecond. NaN equals nothing, and so no time that is missing.
let lastTime: unknown = NaN

/** What differs from event to event, as JSON; the headers of what is optional are added to `headers`. */
function attributesJson(envelope: MessageEnvelope, headers: Record<string, string>): string {
  const { event_id, occurred_at, correlation_id, causation_id, aggregate_id, aggregate_version, trace_id, metadata } = envelope
  const plainId = isPlainText(event_id) && event_id.length > 0 && event_id.length <= EVENT_ID_MAX
  if (!plainId)
    checkAttribute('event_id', event_id, typeof event_id === 'string' && event_id !== '' ? 'INVALID_HEADER' : 'NOT_SERIALIZABLE')
  if (occurred_at !== lastTime) {
    checkAttribute('occurred_at', occurred_at, 'NOT_SERIALIZABLE')
    lastTime = occurred_at
  }
  const id = plainId ? '"' + event_id + '"' : JSON.stringify(event_id)
  let json = ',"event_id":' + id + ',"occurred_at":"' + occurred_at + '"'
  // Where a conversation begins, its first event's id names it.
  if (correlation_id !== undefined)
    json += ',"correlation_id":' + (correlation_id === event_id ? id : quoted('correlation_id', correlation_id))
  if (causation_id !== undefined) json += ',"causation_id":' + quoted('causation_id', causation_id)
  if (aggregate_id !== undefined) json += ',"aggregate_id":' + quoted('aggregate_id', aggregate_id)
  if (trace_id !== undefined) json += ',"trace_id":' + quoted('trace_id', trace_id)
  if (correlation_id !== undefined) headers['correlation_id'] = correlation_id
  if (causation_id !== undefined) headers['causation_id'] = causation_id
  if (aggregate_id !== undefined) headers['aggregate_id'] = aggregate_id
  if (aggregate_version !== undefined) {
    if (!(Number.isSafeInteger(aggregate_version) && aggregate_version > 0))
      checkAttribute('aggregate_version', aggregate_version, 'NOT_SERIALIZABLE')
    json += ',"aggregate_version":' + aggregate_version
    headers['aggregate_version'] = String(aggregate_version)
  }
  if (trace_id !== undefined) {
    headers['trace_id'] = trace_id
    const traceparent = traceparentOf(trace_id, event_id)
    if (traceparent !== undefined) headers['traceparent'] = traceparent
  }
  if (metadata !== undefined) {
    checkAttribute('metadata', metadata, 'NOT_SERIALIZABLE')
    json += ',"metadata":' + JSON.stringify(metadata)
  }
  return json
}

function quoted(name: TextAttribute, value: string): string {
  if (isPlainText(value)) return '"' + value + '"'
  checkAttribute(name, value, typeof value === 'string' ? 'INVALID_HEADER' : 'NOT_SERIALIZABLE')
  return JSON.stringify(value)
}

function payloadJson(payload: unknown, maxDepth: number): string {
  try {
    if (!looksLikeJson(payload, maxDepth)) refuseFlaw(payload, { maxDepth, negativeZero: false }, 'NOT_SERIALIZABLE')
    const json = JSON.stringify(payload)
    // JSON.stringify escapes surrogates only where they stand alone.
    if (json.includes('\\ud')) refuseFlaw(payload, { maxDepth, negativeZero: false }, 'NOT_SERIALIZABLE')
    return json
  } catch (cause) {
    if (isWaybillError(cause)) throw cause
    // What is left is a getter that throws, or text longer than any string may be.
    const code = cause instanceof RangeError ? 'PAYLOAD_TOO_LARGE' : 'NOT_SERIALIZABLE'
    throw new WaybillError(code, 'the payload could not be written as JSON', { where: 'payload', cause })
  }
}
