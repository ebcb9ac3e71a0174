import { WaybillError } from './errors.ts'

/** Longest event, topic, context and handler name, in characters: the shortest limit of the brokers that carry them, less room for prefixes. */
export const NAME_MAX = 200
/** Longest key or aggregate id, in UTF-8 bytes. */
export const KEY_MAX_BYTES = 512
/** Longest id of a message, in characters. */
export const ID_MAX = 200
/** Most headers that one message may carry. */
export const HEADERS_MAX = 64
/** Longest header value, in UTF-8 bytes. */
export const HEADER_VALUE_MAX_BYTES = 4096

const NAME = /^[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9][A-Za-z0-9_-]*)*$/
const KNOWN_NAMES_MAX = 256
const HEADER_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/
// What most texts are made of: nothing to look for, and a byte for each character. Every message is checked, so that this is worth asking first.
const PRINTABLE_ASCII = /^[ -~]*$/
// C0 and C1 controls, line separators, and the invisible characters that make two names look alike.
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]/u

/**
 * Checks a dotted name (`order.OrderPlaced`, `Genesis.Session.Started`, `domain.events`): segments of ASCII letters, digits, `_` and `-`,
 * joined by single dots. No broker needs more, and nothing in it can be a wildcard, a path or a header break anywhere.
 * @throws WaybillError `INVALID_NAME`
 */
export function checkName(value: unknown, what: string): string {
  if (typeof value === 'string' && value.length <= NAME_MAX && NAME.test(value)) return value
  throw new WaybillError('INVALID_NAME', `${what} is not a usable name`, {
    got: value,
    allowed: `1 to ${NAME_MAX} characters: segments of letters, digits, "_" and "-", joined by dots`,
    where: what,
  })
}

/**
 * Checks a topic: a name that every broker can carry. Pulsar takes what ends in `-partition-` and digits for a part of another topic, so that such
 * a name is refused for all.
 * @throws WaybillError `INVALID_NAME`
 */
export function checkTopic(value: unknown): string {
  const name = checkName(value, 'topic')
  if (!/-partition-\d+$/.test(name)) return name
  throw new WaybillError('INVALID_NAME', 'topic is not a usable name', {
    got: value,
    allowed: 'a name that does not end in "-partition-" and a number',
    where: 'topic',
  })
}

/**
 * Checks a group, which is named like a handler: names joined by slashes, at most 200 characters together.
 * @throws WaybillError `INVALID_NAME`
 */
export function checkGroup(value: unknown): string {
  if (typeof value !== 'string' || value.length > NAME_MAX) return checkName(value, 'group')
  for (const part of value.split('/')) checkName(part, 'group')
  return value
}

/**
 * Checks an ordering key or an aggregate id: any text that every transport and database can carry.
 * @throws WaybillError `INVALID_KEY`
 */
export function checkKey(value: unknown, what: string): string {
  if (isKey(value)) return value
  throw new WaybillError('INVALID_KEY', `${what} is not a usable key`, {
    got: value,
    allowed: `1 to ${KEY_MAX_BYTES} bytes of UTF-8 without control or invisible characters`,
    where: what,
  })
}

/** What {@link checkKey} asks for. */
export function isKey(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && isSafeText(value, KEY_MAX_BYTES)
}

/** Whether a message's id arrives as it was sent everywhere: an inbox knows repeats by it. */
export function isMessageId(value: unknown): value is string {
  return isKey(value) && value.length <= ID_MAX
}

/**
 * Checks what a transport is given beside topic and key: the id, the headers, and that the body is bytes.
 * @throws WaybillError `MESSAGE_REJECTED` | `INVALID_HEADER`
 */
export function checkContent({
  id,
  headers,
  body,
}: {
  readonly id: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
}): void {
  if (!isMessageId(id))
    throw new WaybillError('MESSAGE_REJECTED', 'the id of a message is not usable', {
      got: id,
      allowed: `1 to ${ID_MAX} characters, none of them control or invisible`,
      where: 'message.id',
    })
  if (!(body instanceof Uint8Array))
    throw new WaybillError('MESSAGE_REJECTED', 'the body is not bytes', {
      got: body,
      allowed: 'a Uint8Array',
      where: `body of message ${id}`,
    })
  checkHeaders(headers, `headers of message ${id}`)
}

/** What is wrong with a header: its name, its value, or nothing. */
export function headerFault(name: string, value: unknown): 'name' | 'value' | undefined {
  const known = usable.get(name)
  if (known === undefined && !HEADER_NAME.test(name)) return 'name'
  if (known !== undefined && known.value === value) return undefined
  if (typeof value !== 'string' || !isSafeText(value, HEADER_VALUE_MAX_BYTES)) return 'value'
  if (known !== undefined) known.value = value
  else if (usable.size < KNOWN_NAMES_MAX) usable.set(name, { value })
  return undefined
}

/** Names that were found usable, each with the last value that was: there are few, they come with each message, and most with the same value again. */
const usable = new Map<string, { value: string }>()

/**
 * Checks headers at the edge: count, names and values.
 * @throws WaybillError `INVALID_HEADER`
 */
export function checkHeaders(headers: Readonly<Record<string, string>>, where: string): void {
  const names = Object.keys(headers)
  if (names.length > HEADERS_MAX)
    throw new WaybillError('INVALID_HEADER', 'too many headers', { got: names.length, allowed: `at most ${HEADERS_MAX}`, where })
  for (const name of names) {
    const value = headers[name]
    const fault = headerFault(name, value)
    if (fault === 'name')
      throw new WaybillError('INVALID_HEADER', 'a header name is not usable', {
        got: name,
        allowed: 'letters, digits, "_", "." and "-", 1 to 128 characters',
        where,
      })
    if (fault === 'value') {
      throw new WaybillError('INVALID_HEADER', `the value of header "${name}" is not usable`, {
        got: value,
        allowed: `at most ${HEADER_VALUE_MAX_BYTES} bytes of UTF-8 without control or invisible characters`,
        where,
      })
    }
  }
}

function isSafeText(value: string, maxBytes: number): boolean {
  if (value.length > maxBytes) return false
  return PRINTABLE_ASCII.test(value) || (!UNSAFE.test(value) && value.isWellFormed() && Buffer.byteLength(value) <= maxBytes)
}
