import { receivedMessage } from '../../core/received.ts'
import type { Message } from '../../core/transport.ts'
import type { NatsHeaders, NatsMessage, NatsReceivedHeaders } from './client.ts'

/** The header that carries a message's key. */
export const KEY_HEADER = 'waybill-key'
const ID_HEADER = 'Nats-Msg-Id'
/** Before a header name that would mean something to the server, or to us. */
const NAME_MARK = 'waybill-h-'
/** Before a value that would not survive as it is. */
const VALUE_MARK = '%%'
const RESERVED_NAME = /^(?:nats-|waybill-)/i
// Clients trim values, and a line break would be a header of its own.
const FRAGILE_VALUE = /^\s|\s$|^%%|[\r\n\0]/
// What most values are: asked first, since it is asked for each of every message.
const PLAIN_VALUE = /^[!-$&-~][!-~]*$/
/** Names that are remembered as they travel: most come again and again. */
const NAMES_MAX = 256

/** A header's value as it travels: as it is, or percent-encoded behind `%%` where its edges are white space. */
export function encodeValue(value: string): string {
  return !PLAIN_VALUE.test(value) && FRAGILE_VALUE.test(value) ? VALUE_MARK + encodeURIComponent(value.toWellFormed()) : value
}

/** Undoes {@link encodeValue}; what others wrote stays as it is. */
export function decodeValue(value: string): string {
  if (!value.startsWith(VALUE_MARK)) return value
  try {
    return decodeURIComponent(value.slice(VALUE_MARK.length))
  } catch {
    return value
  }
}

const lineStarts = new Map<string, string>()

/** What stands before a header's value: the end of the line before it, and its name. */
function lineStart(name: string): string {
  const known = lineStarts.get(name)
  if (known !== undefined) return known
  const start = `\r\n${RESERVED_NAME.test(name) ? NAME_MARK + name : name}: `
  if (lineStarts.size < NAMES_MAX) lineStarts.set(name, start)
  return start
}

/** What is between a publisher and the server; a look at the first letter is enough for most names. */
const isOfServer = (name: string): boolean => (name[0] === 'N' || name[0] === 'n') && /^nats-/i.test(name)

/** Headers that are bytes already. */
export const rawHeaders = (bytes: Uint8Array): NatsHeaders => ({ encode: () => bytes })

/** The headers of a message: its id, by which the server knows repeats, its key, and its own. */
export function encodeHeaders({ id, key, headers }: Message): Uint8Array {
  let text = `NATS/1.0\r\n${ID_HEADER}: ${encodeValue(id)}\r\n${KEY_HEADER}: ${encodeValue(key)}`
  for (const name in headers) text += lineStart(name) + encodeValue(headers[name]!)
  return Buffer.from(`${text}\r\n\r\n`)
}

/** The client reads headers when it is asked for them, and throws at those of a foreign message that are none to it: it has none then. */
export function headersOf(message: NatsMessage): NatsReceivedHeaders | undefined {
  try {
    return message.headers
  } catch {
    return undefined
  }
}

/** A stored message as ours; `place` stands for an id that it does not have. It never throws, whoever wrote the message. */
export function decodeMessage(topic: string, place: () => string, message: NatsMessage): Message {
  const headers = headersOf(message)
  let id: string | undefined
  let key: string | undefined
  const kept: (readonly [string, string])[] = []
  if (headers !== undefined) {
    for (const [name, values] of headers) {
      const value = values[0] ?? ''
      if (name === ID_HEADER) id = decodeValue(value)
      else if (name === KEY_HEADER) key = decodeValue(value)
      else if (name.startsWith(NAME_MARK)) kept.push([name.slice(NAME_MARK.length), decodeValue(value)])
      else if (!isOfServer(name)) kept.push([name, decodeValue(value)])
    }
  }
  return receivedMessage({ topic, place, id, key, headers: kept, body: message.data })
}
