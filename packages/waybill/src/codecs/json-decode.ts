import { Buffer, isAscii, isUtf8 } from 'node:buffer'
import type { EncodedEnvelope } from '../core/codec.ts'
import type { MessageEnvelope } from '../core/envelope.ts'
import { WaybillError } from '../core/errors.ts'
import { HEADER_VALUE_MAX_BYTES } from '../core/names.ts'
import { checkAttribute, EVENT_ID_MAX, isTimestamp, tooLarge } from './attributes.ts'
import { JSON_CONTENT_TYPE, refuseFlaw } from './json-value.ts'

const JSON_TYPE = /^application\/(?:[\w.-]+\+)?json(?:\s*;.*)?$/i
// A body below this can't nest deeply enough to cost anything.
const SCAN_FROM_BYTES = 4096
// No text in a body that is shorter than a header's value may be is longer than one.
const PLAIN_MAX = HEADER_VALUE_MAX_BYTES

/** The decoding half of the JSON codec. */
export function decodeJson({ headers, body }: EncodedEnvelope, maxBytes: number, maxDepth: number): MessageEnvelope {
  checkMessage(body, headers, maxBytes)
  const text = textOf(body)
  if (body.length >= SCAN_FROM_BYTES) checkNesting(body, maxDepth + 1)
  const fields = parse(text)
  agree('event_id', headers['event_id'], fields.event_id)
  agree('event_type', headers['event_type'], fields.event_type)
  // ASCII without escapes: then no text in it needs a closer look.
  const plain = text.length === body.length && text.length <= PLAIN_MAX && !text.includes('\\') && !text.includes('\u007f')
  checkPayload(fields.payload, plain ? '' : text, maxDepth)
  return envelopeFrom(fields, plain)
}

type Fields = Partial<Record<keyof MessageEnvelope, unknown>>

function checkMessage(body: Uint8Array, headers: Readonly<Record<string, string>>, maxBytes: number): void {
  if (!(body instanceof Uint8Array))
    throw new WaybillError('DECODE_FAILED', 'the body is not made of bytes', { got: typeof body, allowed: 'a Uint8Array', where: 'body' })
  if (body.length > maxBytes) throw tooLarge(body.length, maxBytes, 'body')
  const type = headers['content_type']
  if (type !== undefined && type !== JSON_CONTENT_TYPE && !JSON_TYPE.test(type))
    throw new WaybillError('DECODE_FAILED', 'the message was written by another codec', {
      got: type,
      allowed: JSON_CONTENT_TYPE,
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
function agree(name: string, header: string | undefined, field: unknown): void {
  if (header !== undefined && header !== field)
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
  if (!looksUsable(payload, maxDepth) || text.includes('\\ud') || text.includes('\\uD'))
    refuseFlaw(payload, { maxDepth, negativeZero: true }, 'DECODE_FAILED')
}

/** A fast look at what JSON.parse made, which is never of a class, cyclic or undefined: `false` means "look closer", not "no". */
function looksUsable(value: unknown, levels: number): boolean {
  if (typeof value === 'number') return value - value === 0
  if (typeof value !== 'object' || value === null) return true
  if (levels === 0) return false
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) if (!looksUsable(value[index], levels - 1)) return false
    return true
  }
  for (const key in value) {
    const item = (value as Record<string, unknown>)[key]
    if (key === '__proto__' || (typeof item !== 'string' && !looksUsable(item, levels - 1))) return false
  }
  return true
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
  checkTime(occurred_at)
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

// Events come in bursts of one millisecond, often of one type. NaN equals nothing, and so none that is missing.
let lastTime: unknown = NaN
let lastType: unknown = NaN

function checkTime(occurredAt: unknown): void {
  if (occurredAt === lastTime) return
  if (!isTimestamp(occurredAt)) checkAttribute('occurred_at', occurredAt, 'DECODE_FAILED')
  lastTime = occurredAt
}

function checkType(eventType: unknown): void {
  if (eventType === lastType) return
  if (!typesSeen.has(eventType)) {
    checkAttribute('event_type', eventType, 'DECODE_FAILED')
    if (typesSeen.size >= TYPES_MAX) typesSeen.clear()
    typesSeen.add(eventType)
  }
  lastType = eventType
}
