import { isUtf8 } from 'node:buffer'
import { headerFault, HEADERS_MAX, isKey, isMessageId } from './names.ts'
import type { Message } from './transport.ts'

/** What came from a broker, before anybody has looked at it: another system may have put it there. */
export interface ReceivedParts {
  readonly topic: string
  /** Its place at the broker, for a message that brings no usable id: `kafka:orders:3:1207`. Asked for by few. */
  readonly place: () => string
  readonly id: string | undefined
  readonly key: string | Uint8Array | undefined
  readonly headers: Iterable<readonly [name: string, value: string | Uint8Array]>
  readonly body: Uint8Array
}

/**
 * A message out of whatever came over the wire. It never throws, since a foreign message must not stop a group: what can't be carried on is left
 * out (a header that is no text), or stands for itself (a place instead of an id, the id instead of a key). The body stays as it came.
 */
export function receivedMessage({ topic, place, id, key, headers, body }: ReceivedParts): Message {
  const kept = usableHeaders(headers)
  const ownId = id ?? kept['event_id']
  const finalId = isMessageId(ownId) ? ownId : place()
  const keyText = textOf(key)
  return { id: finalId, topic, key: keyText !== undefined && isKey(keyText) ? keyText : finalId, headers: kept, body }
}

function textOf(value: string | Uint8Array | undefined): string | undefined {
  if (typeof value === 'string') return value
  // Some clients give `null` where there is nothing.
  if (!(value instanceof Uint8Array)) return undefined
  const text = (Buffer.isBuffer(value) ? value : Buffer.from(value.buffer, value.byteOffset, value.byteLength)).toString('utf8')
  // What is no UTF-8 becomes this mark, which may also have been sent; looking for it costs less than looking at the bytes.
  return text.includes('\uFFFD') && !isUtf8(value) ? undefined : text
}

function usableHeaders(headers: ReceivedParts['headers']): Record<string, string> {
  const kept: Record<string, string> = {}
  let count = 0
  for (const [name, value] of headers) {
    const text = typeof value === 'string' ? value : textOf(value)
    // `__proto__`, which an assignment would make no header, is no name of one.
    if (text === undefined || headerFault(name, text) !== undefined) continue
    // The count is too high where names came twice.
    if (count >= HEADERS_MAX) count = Object.keys(kept).length
    if (count >= HEADERS_MAX && !Object.hasOwn(kept, name)) continue
    kept[name] = text
    count++
  }
  return kept
}
