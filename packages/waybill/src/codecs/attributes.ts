import { WaybillError, type WaybillErrorCode } from '../core/errors.ts'
import { checkHeaders, checkKey, checkName } from '../core/names.ts'
import type { MessageEnvelope } from '../core/envelope.ts'

/** Longest event id, in characters. */
export const EVENT_ID_MAX = 128

/** Headers that the codecs write: nobody else may set them. */
export const RESERVED_HEADERS: ReadonlySet<string> = new Set([
  'event_id',
  'event_type',
  'content_type',
  'traceparent',
  'tracestate',
  'occurred_at',
  'source',
  'correlation_id',
  'causation_id',
  'version',
  'aggregate_id',
  'aggregate_type',
  'aggregate_version',
  'bounded_context',
  'trace_id',
  'metadata',
  'payload',
])

/**
 * Checks headers that a user adds to those of the envelope.
 * @throws WaybillError `INVALID_HEADER` where a name is reserved, or a name or value can't be carried everywhere
 */
export function checkExtraHeaders(headers: Readonly<Record<string, string>>, where: string): void {
  checkHeaders(headers, where)
  for (const name of Object.keys(headers)) {
    // Some transports don't keep the case of names.
    if (RESERVED_HEADERS.has(name.toLowerCase()))
      throw new WaybillError('INVALID_HEADER', 'a header name is reserved', {
        got: name,
        allowed: 'a name that no attribute of the envelope has',
        where,
      })
  }
}

const TIMESTAMP = /^\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-]00:00)$/

/** Whether `text` is a time as RFC 3339 writes it, in UTC (`Z` or `+00:00`), of a day that exists. Leap seconds are refused: no `Date` can hold them. */
export function isTimestamp(text: unknown): text is string {
  if (typeof text !== 'string' || text.length > 40 || !TIMESTAMP.test(text)) return false
  const month = digits(text, 5)
  const day = digits(text, 8)
  return month >= 1 && month <= 12 && day >= 1 && (day <= 28 || day <= daysOf(digits(text, 0) * 100 + digits(text, 2), month))
}

function digits(text: string, at: number): number {
  return text.charCodeAt(at) * 10 + text.charCodeAt(at + 1) - 528
}

function daysOf(year: number, month: number): number {
  if (month === 2) return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31
}

/** Attributes that are text, and travel as headers too. */
export type TextAttribute =
  | 'source'
  | 'correlation_id'
  | 'causation_id'
  | 'aggregate_type'
  | 'aggregate_id'
  | 'bounded_context'
  | 'trace_id'

// Printable ASCII without `"` and `\`: fits into a header and into JSON as it is.
const NOT_PLAIN = /[^ !#-[\]-~]/
const PLAIN_MAX = 1024

/** Whether `text` needs neither a closer look nor escaping. */
export function isPlainText(text: unknown): text is string {
  return typeof text === 'string' && text.length <= PLAIN_MAX && !NOT_PLAIN.test(text)
}

/**
 * Checks the attributes of an envelope on its way in or out, so that what one side accepts the other does too.
 * @throws WaybillError `code`, with the attribute as `where`
 */
export function checkAttribute(name: keyof MessageEnvelope, value: unknown, code: WaybillErrorCode): void {
  const allowed = CHECKS[name](value, name)
  if (allowed === undefined) return
  throw new WaybillError(code, `the envelope's ${name} is not usable`, { got: value, allowed, where: name })
}

/** What each attribute may be: gives back the rule that is broken, if any. */
const CHECKS: Readonly<Record<keyof MessageEnvelope, (value: unknown, name: string) => string | undefined>> = {
  event_id: (value) =>
    typeof value === 'string' &&
    value.length > 0 &&
    value.length <= EVENT_ID_MAX &&
    (isPlainText(value) || passes(() => checkKey(value, 'event_id')))
      ? undefined
      : `1 to ${EVENT_ID_MAX} characters without control or invisible ones`,
  event_type: (value) => (passes(() => checkName(value, 'event_type')) ? undefined : 'a dotted name of letters, digits, "_" and "-"'),
  occurred_at: (value) => (isTimestamp(value) ? undefined : 'a time in UTC as in RFC 3339: 2024-05-17T09:30:00.000Z'),
  version: (value) =>
    typeof value === 'number'
      ? Number.isFinite(value) && !Object.is(value, -0)
        ? undefined
        : 'a finite number or text'
      : headerText(value),
  aggregate_version: (value) =>
    Number.isSafeInteger(value) && !Object.is(value, -0) && (value as number) >= 0
      ? undefined
      : `a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`,
  source: headerText,
  correlation_id: headerText,
  causation_id: headerText,
  aggregate_type: headerText,
  aggregate_id: headerText,
  bounded_context: headerText,
  trace_id: headerText,
  metadata: (value) => (isTextMap(value) ? undefined : 'an object whose values are all text'),
  payload: (value) => (value === undefined ? 'any JSON value' : undefined),
}

function headerText(value: unknown): string | undefined {
  if (isPlainText(value) || (typeof value === 'string' && passes(() => checkHeaders({ value }, 'value')))) return undefined
  return 'text without control or invisible characters, at most 4096 bytes'
}

function isTextMap(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  return Object.entries(value).every(
    ([key, text]) => typeof text === 'string' && text.isWellFormed() && key.isWellFormed() && key !== '__proto__',
  )
}

function passes(check: () => unknown): boolean {
  try {
    check()
    return true
  } catch {
    // The caller says what was wrong, with the name and the code that fit its side.
    return false
  }
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
const TRACE_ID = /^(?!0{32})[0-9a-f]{32}$/

/**
 * The W3C `traceparent` of an event: its trace, and a span id made from its event id (the last 16 digits of a UUID, else a hash), so that
 * every copy of the event carries the same one. `undefined` where the trace id is none of W3C's.
 */
export function traceparentOf(traceId: string, eventId: string): string | undefined {
  const trace = traceId.toLowerCase()
  if (!TRACE_ID.test(trace)) return undefined
  const span = UUID.test(eventId) ? eventId.slice(19, 23) + eventId.slice(24) : hash32(eventId, 0x811c9dc5) + hash32(eventId, 0x9e3779b9)
  return `00-${trace}-${span === '0000000000000000' ? '0000000000000001' : span}-01`
}

/** FNV-1a over UTF-16 units, in hexadecimal. */
function hash32(text: string, seed: number): string {
  let hash = seed
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  return (hash >>> 0).toString(16).padStart(8, '0')
}

/** The error for a message beyond the limit. */
export function tooLarge(got: unknown, maxBytes: number, where: string): WaybillError {
  return new WaybillError('PAYLOAD_TOO_LARGE', 'the message is too large', { got, allowed: `at most ${maxBytes} bytes`, where })
}
