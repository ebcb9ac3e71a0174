import { Buffer, isAscii, isUtf8 } from 'node:buffer'
import type { Codec, EncodedEnvelope } from '../core/codec.ts'
import type { MessageEnvelope } from '../core/envelope.ts'
import { WaybillError, type WaybillErrorCode } from '../core/errors.ts'
import { HEADER_VALUE_MAX_BYTES } from '../core/names.ts'
import { checkInteger } from '../core/options.ts'
import {
  checkAttribute,
  checkExtraHeaders,
  EVENT_ID_MAX,
  isPlainText,
  isTimestamp,
  traceparentOf,
  type TextAttribute,
} from './attributes.ts'
import { findFlaw, looksLikeJson } from './json-value.ts'

/** Options of {@link jsonCodec}. */
export interface JsonCodecOptions {
  /** Largest body, in bytes, both ways; 1 KiB to 64 MiB. @default 1048576 (1 MiB) */
  readonly maxBytes?: number
  /** Most levels of arrays and objects in a payload, both ways; 1 to 256. @default 64 */
  readonly maxDepth?: number
  /** Put on every message beside the envelope's own headers. Names of attributes are reserved. @default none */
  readonly headers?: Readonly<Record<string, string>>
}

/** A {@link Codec} that needs no promises. */
export interface JsonCodec extends Codec {
  encode(envelope: MessageEnvelope): EncodedEnvelope
  decode(encoded: EncodedEnvelope): MessageEnvelope
}

const CONTENT_TYPE = 'application/json'
const JSON_TYPE = /^application\/(?:[\w.-]+\+)?json(?:\s*;.*)?$/i
const MIB = 1024 * 1024
// A body below this can't nest deeply enough to cost anything.
const SCAN_FROM_BYTES = 4096
// No text in a body that is shorter than a header's value may be is longer than one.
const PLAIN_MAX = HEADER_VALUE_MAX_BYTES

/**
 * The default codec: one JSON object with the names of {@link MessageEnvelope}, in UTF-8.
 *
 * - Headers: `event_id`, `event_type`, `content_type`; `traceparent` where the trace id is a W3C one (its span id is made from the event id); and
 *   all other attributes that are set, except `metadata`, which stands in the body only.
 * - Whatever would not come back equal is refused with its path: NaN, Infinity, -0, BigInt, functions, symbols, `undefined` in arrays, holes, class
 *   instances (also `Date`, `Map`, typed arrays), cycles, lone surrogates, a `__proto__` key, more than `maxDepth` levels. A property that is
 *   `undefined` counts as absent, an object without prototype as a plain one. What `Object.keys` doesn't list (symbol keys, hidden properties,
 *   properties of arrays beside their items) is not part of a value.
 * - From the wire: fields we don't know are ignored, an optional one that is null counts as absent, and of a repeated name the last one counts. Numbers are doubles, so whole
 *   ones beyond 2^53 lose digits: send those as text. `event_id` and `event_type` must be the same in headers and body, where both have them.
 *
 * @throws WaybillError `INVALID_OPTION` | `INVALID_HEADER`
 */
export function jsonCodec(options: JsonCodecOptions = {}): JsonCodec {
  const maxBytes = checkInteger(options.maxBytes ?? MIB, 'maxBytes', 1024, 64 * MIB)
  const maxDepth = checkInteger(options.maxDepth ?? 64, 'maxDepth', 1, 256)
  const extra = Object.freeze({ ...options.headers })
  checkExtraHeaders(extra, 'headers of jsonCodec')
  const constantsOf = createConstants(extra)
  return {
    contentType: CONTENT_TYPE,
    encode(envelope) {
      const constants = constantsOf(envelope)
      const headers = headersOf(envelope, constants)
      const text = constants.json + attributesJson(envelope, headers) + ',"payload":' + payloadJson(envelope.payload, maxDepth) + '}'
      // Before turning it into bytes: there are at least as many of them as characters.
      const body = text.length > maxBytes ? undefined : Buffer.from(text)
      if (body !== undefined && body.length <= maxBytes) return { headers, body }
      throw tooLarge(body === undefined ? `more than ${text.length}` : body.length, maxBytes, envelope.event_type)
    },
    decode({ headers, body }) {
      checkMessage(body, headers, maxBytes)
      const text = textOf(body)
      if (body.length >= SCAN_FROM_BYTES) checkNesting(body, maxDepth + 1)
      const fields = parse(text)
      agree('event_id', headers, fields)
      agree('event_type', headers, fields)
      // ASCII without escapes: then no text in it needs a closer look.
      const plain = text.length === body.length && text.length <= PLAIN_MAX && !text.includes('\\') && !text.includes('\u007f')
      checkPayload(fields.payload, plain ? '' : text, maxDepth)
      return envelopeFrom(fields, plain)
    },
  }
}

function tooLarge(got: unknown, maxBytes: number, where: string): WaybillError {
  return new WaybillError('PAYLOAD_TOO_LARGE', 'the message is too large', { got, allowed: `at most ${maxBytes} bytes`, where })
}

// --- out ---

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
  const headers: Record<string, string> = { event_id, event_type, content_type: CONTENT_TYPE, occurred_at, source, version: versionText }
  if (aggregateType !== undefined) headers['aggregate_type'] = aggregateType
  if (boundedContext !== undefined) headers['bounded_context'] = boundedContext
  if (extra !== undefined) Object.assign(headers, extra)
  return headers
}

// Events come in bursts of one millisecond.
let lastTime: string | undefined

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
  if (!looksLikeJson(payload, maxDepth)) refuseFlaw(payload, maxDepth, false, 'NOT_SERIALIZABLE')
  const json = stringify(payload)
  // JSON.stringify escapes surrogates only where they stand alone.
  if (json.includes('\\ud')) refuseFlaw(payload, maxDepth, false, 'NOT_SERIALIZABLE')
  return json
}

function stringify(payload: unknown): string {
  try {
    return JSON.stringify(payload)
  } catch (cause) {
    // No tree that was looked through makes it throw, except one whose text is longer than any string may be, or a getter.
    throw new WaybillError(
      cause instanceof RangeError ? 'PAYLOAD_TOO_LARGE' : 'NOT_SERIALIZABLE',
      'the payload could not be written as JSON',
      { where: 'payload', cause },
    )
  }
}

function refuseFlaw(payload: unknown, maxDepth: number, negativeZero: boolean, code: WaybillErrorCode): void {
  const flaw = findFlaw(payload, 'payload', { maxDepth, negativeZero })
  if (flaw !== undefined) throw new WaybillError(code, flaw.problem, { got: flaw.got, allowed: flaw.allowed, where: flaw.path })
}

// --- in ---

type Fields = Partial<Record<keyof MessageEnvelope, unknown>>

function checkMessage(body: Uint8Array, headers: Readonly<Record<string, string>>, maxBytes: number): void {
  if (!(body instanceof Uint8Array))
    throw new WaybillError('DECODE_FAILED', 'the body is not made of bytes', { got: typeof body, allowed: 'a Uint8Array', where: 'body' })
  if (body.length > maxBytes) throw tooLarge(body.length, maxBytes, 'body')
  const type = headers['content_type']
  if (type !== undefined && type !== CONTENT_TYPE && !JSON_TYPE.test(type))
    throw new WaybillError('DECODE_FAILED', 'the message was written by another codec', {
      got: type,
      allowed: CONTENT_TYPE,
      where: 'content_type',
    })
}

function textOf(body: Uint8Array): string {
  const bytes = body instanceof Buffer ? body : Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  if (isAscii(bytes)) return bytes.toString('latin1')
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf)
    throw new WaybillError('DECODE_FAILED', 'the body begins with a byte order mark', {
      got: 'EF BB BF',
      allowed: 'UTF-8 without one',
      where: 'body',
    })
  if (!isUtf8(bytes))
    throw new WaybillError('DECODE_FAILED', 'the body is not UTF-8', { got: `${body.length} bytes`, allowed: 'UTF-8', where: 'body' })
  return bytes.toString('utf8')
}

function parse(text: string): Fields {
  let fields: unknown
  try {
    fields = JSON.parse(text)
  } catch (cause) {
    throw new WaybillError('DECODE_FAILED', 'the body is not JSON', {
      got: text.slice(0, 40),
      allowed: 'one JSON object',
      where: 'body',
      cause,
    })
  }
  if (typeof fields !== 'object' || fields === null || Array.isArray(fields))
    throw new WaybillError('DECODE_FAILED', 'the body is not an object', {
      got: text.slice(0, 40),
      allowed: 'one JSON object',
      where: 'body',
    })
  if (Object.hasOwn(fields, '__proto__'))
    throw new WaybillError('DECODE_FAILED', 'a property is called __proto__', {
      got: '__proto__',
      allowed: 'any other name',
      where: '__proto__',
    })
  return fields
}

/** Whoever routes by the header must not send another event than the one that the body holds. */
function agree(name: 'event_id' | 'event_type', headers: Readonly<Record<string, string>>, fields: Fields): void {
  const header = headers[name]
  if (header !== undefined && header !== fields[name])
    throw new WaybillError('DECODE_FAILED', `header and body differ in ${name}`, { got: header, allowed: 'the same in both', where: name })
}

/** Parsing half a million levels takes long, and nobody can use them: counted first. */
function checkNesting(body: Uint8Array, levelsMax: number): void {
  let levels = 0
  let inText = false
  for (let index = 0; index < body.length; index++) {
    const byte = body[index]!
    if (inText) {
      if (byte === 0x5c) index++
      else if (byte === 0x22) inText = false
    } else if (byte === 0x22) inText = true
    else if (byte === 0x7b || byte === 0x5b) {
      if (++levels > levelsMax)
        throw new WaybillError('DECODE_FAILED', 'nested too deeply', {
          got: `more than ${levelsMax} levels`,
          allowed: `at most ${levelsMax} levels`,
          where: `body, byte ${index}`,
        })
    } else if (byte === 0x7d || byte === 0x5d) levels--
  }
}

function checkPayload(payload: unknown, text: string, maxDepth: number): void {
  if (payload === undefined) return
  // An escaped surrogate may stand alone; whether it does, and whether in the payload, shows the closer look.
  if (!looksLikeJson(payload, maxDepth) || text.includes('\\ud') || text.includes('\\uD'))
    refuseFlaw(payload, maxDepth, true, 'DECODE_FAILED')
}

/** The envelope, field by field: what we don't know stays behind. */
function envelopeFrom(fields: Fields, plain: boolean): MessageEnvelope {
  const {
    event_id,
    event_type,
    occurred_at,
    source,
    version,
    correlation_id,
    causation_id,
    aggregate_type,
    aggregate_id,
    aggregate_version,
    bounded_context,
    trace_id,
    metadata,
    payload,
  } = fields
  if (!(plain && typeof event_id === 'string' && event_id.length > 0 && event_id.length <= EVENT_ID_MAX))
    checkAttribute('event_id', event_id, 'DECODE_FAILED')
  checkType(event_type)
  if (!isTimestamp(occurred_at)) checkAttribute('occurred_at', occurred_at, 'DECODE_FAILED')
  if (!(plain && typeof source === 'string')) checkAttribute('source', source, 'DECODE_FAILED')
  if (!(Number.isSafeInteger(version) && (version as number) > 0)) checkAttribute('version', version, 'DECODE_FAILED')
  if (payload === undefined) checkAttribute('payload', payload, 'DECODE_FAILED')
  const envelope: Fields = { event_id, event_type, occurred_at, source, version, payload }
  if (isThere(correlation_id, 'correlation_id', plain)) envelope.correlation_id = correlation_id
  if (isThere(causation_id, 'causation_id', plain)) envelope.causation_id = causation_id
  if (isThere(aggregate_type, 'aggregate_type', plain)) envelope.aggregate_type = aggregate_type
  if (isThere(aggregate_id, 'aggregate_id', plain)) envelope.aggregate_id = aggregate_id
  if (isThere(bounded_context, 'bounded_context', plain)) envelope.bounded_context = bounded_context
  if (isThere(trace_id, 'trace_id', plain)) envelope.trace_id = trace_id
  if (isThere(aggregate_version, 'aggregate_version', false)) envelope.aggregate_version = aggregate_version
  if (isThere(metadata, 'metadata', false)) envelope.metadata = metadata
  return envelope as unknown as MessageEnvelope
}

/** Whether an optional attribute is set; `plain` says that any text will do. */
function isThere(value: unknown, name: keyof MessageEnvelope, plain: boolean): boolean {
  if (value === undefined || value === null) return false
  if (!(plain && typeof value === 'string')) checkAttribute(name, value, 'DECODE_FAILED')
  return true
}

// Names are few, and checking one costs as much as a small JSON.parse.
const TYPES_MAX = 1024
const typesSeen = new Set<unknown>()

function checkType(eventType: unknown): void {
  if (typesSeen.has(eventType)) return
  checkAttribute('event_type', eventType, 'DECODE_FAILED')
  if (typesSeen.size >= TYPES_MAX) typesSeen.clear()
  typesSeen.add(eventType)
}
