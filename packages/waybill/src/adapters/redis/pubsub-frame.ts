import { receivedMessage } from '../../core/received.ts'
import type { Message } from '../../core/transport.ts'

/**
 * A message on a channel: one line of JSON with id, key and headers, then the body as it is. What does not begin so is a body without headers, from
 * somebody else.
 */
export function framed({ id, key, headers, body }: Message): Buffer {
  const line = `${START}"id":${JSON.stringify(id)},"key":${JSON.stringify(key)},"headers":${JSON.stringify(headers)}}\n`
  return Buffer.concat([Buffer.from(line), body])
}

const START = '{"waybill":1,'
const LINE_END = 0x0a

/** The message in what came. `place` stands in for a missing id. */
export function unframed(bytes: Buffer, topic: string, place: () => string): Message {
  const raw = { topic, place, id: undefined, key: undefined, headers: [], body: bytes }
  if (bytes.toString('latin1', 0, START.length) !== START) return receivedMessage(raw)
  const end = bytes.indexOf(LINE_END)
  const head = end === -1 ? undefined : parsed(bytes.toString('utf8', 0, end))
  if (head === undefined) return receivedMessage(raw)
  return receivedMessage({ topic, place, ...head, body: bytes.subarray(end + 1) })
}

function parsed(
  line: string,
): { readonly id: string; readonly key: string; readonly headers: readonly (readonly [string, string])[] } | undefined {
  try {
    const { id, key, headers } = JSON.parse(line) as Readonly<Record<string, unknown>>
    if (typeof id !== 'string' || typeof key !== 'string' || typeof headers !== 'object' || headers === null) return undefined
    return { id, key, headers: Object.entries(headers).filter((entry): entry is [string, string] => typeof entry[1] === 'string') }
  } catch {
    return undefined
  }
}
