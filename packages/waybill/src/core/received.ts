import { isUtf8 } from 'node:buffer'
import { checkHeaders, checkKey, HEADERS_MAX } from './names.ts'
import type { Message } from './transport.ts'

/** What came from a broker, before anybody has looked at it: another system may have put it there. */
export interface ReceivedParts {
  readonly topic: string
  /** Its place at the broker, for a message that brings no usable id: `kafka:orders:3:1207`. */
  readonly place: string
  readonly id: string | undefined
  readonly key: string | Uint8Array | undefined
  readonly headers: Iterable<readonly [name: string, value: string | Uint8Array]>
  readonly body: Uint8Array
}

const ID_MAX = 200
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * A message out of whatever came over the wire. It never throws, since a foreign message must not stop a group: what can't be carried on is left
 * out (a header that is no text), or stands for itself (a place instead of an id, the id instead of a key). The body stays as it came.
 */
export function receivedMessage({ topic, place, id, key, headers, body }: ReceivedParts): Message {
  const kept = usableHeaders(headers)
  const ownId = id ?? kept['event_id']
  const finalId = ownId !== undefined && ownId.length <= ID_MAX && isUsableKey(ownId) ? ownId : place
  const keyText = textOf(key)
  return { id: finalId, topic, key: keyText !== undefined && isUsableKey(keyText) ? keyText : finalId, headers: kept, body }
}

function textOf(value: string | Uint8Array | undefined): string | undefined {
  if (typeof value === 'string') return value
  // Some clients give `null` where there is nothing.
  return value instanceof Uint8Array && isUtf8(value) ? decoder.decode(value) : undefined
}

function usableHeaders(headers: ReceivedParts['headers']): Record<string, string> {
  const all: (readonly [string, string])[] = []
  for (const [name, value] of headers) {
    const text = textOf(value)
    if (text !== undefined) all.push([name, text])
  }
  // Not by assignment: `__proto__` would be no header then.
  const whole = Object.fromEntries(all)
  return areUsable(whole) ? whole : Object.fromEntries(all.filter(([name, value]) => areUsable({ [name]: value })).slice(0, HEADERS_MAX))
}

function areUsable(headers: Record<string, string>): boolean {
  try {
    checkHeaders(headers, 'received')
    return true
  } catch {
    return false
  }
}

function isUsableKey(value: string): boolean {
  try {
    checkKey(value, 'received')
    return true
  } catch {
    return false
  }
}
