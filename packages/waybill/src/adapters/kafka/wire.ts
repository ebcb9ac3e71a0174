import { receivedMessage } from '../../core/received.ts'
import type { Message } from '../../core/transport.ts'
import type { KafkaRecordIn, KafkaRecordOut } from './client.ts'

/** Carries a message's id where its `event_id` header is not it. Not given on to handlers. */
const ID_HEADER = 'waybill_message_id'
/** Bytes that a record takes beside its key, value and headers, rounded up, and those of a header beside its name and value. */
const RECORD_BYTES = 40
const HEADER_BYTES = 10
const NAMES_MAX = 1000

/** A header as bytes. */
interface Header {
  readonly name: Buffer
  text: string
  value: Buffer
}

const kept = new Map<string, Header>()

/** Names come again and again, and most values come several times in a row, so the bytes of both are kept; of so many names at most. */
function headerOf(name: string, text: string): Header {
  const known = kept.get(name)
  if (known === undefined) {
    const fresh = { name: Buffer.from(name), text, value: Buffer.from(text) }
    if (kept.size < NAMES_MAX) kept.set(name, fresh)
    return fresh
  }
  if (known.text !== text) {
    known.text = text
    known.value = Buffer.from(text)
  }
  return known
}

/** Gives about how many bytes it takes. */
function add(headers: Map<Buffer, Buffer>, name: string, text: string): number {
  const header = headerOf(name, text)
  headers.set(header.name, header.value)
  return HEADER_BYTES + header.name.length + header.value.length
}

/** A record on its way out, and about how many bytes it takes, never fewer. */
export interface OutRecord {
  readonly record: KafkaRecordOut
  readonly bytes: number
}

/** A message as Kafka carries it, in the topic of that name there. Its partition is still to be chosen. */
export function toRecord(message: Message, topic: string): OutRecord {
  const key = Buffer.from(message.key)
  const { body } = message
  const value = body instanceof Buffer ? body : Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  const headers = new Map<Buffer, Buffer>()
  let bytes = RECORD_BYTES + key.length + value.length
  for (const name in message.headers) bytes += add(headers, name, message.headers[name]!)
  if (message.headers['event_id'] !== message.id) bytes += add(headers, ID_HEADER, message.id)
  return { record: { topic, partition: 0, key, value, headers }, bytes }
}

const EMPTY = Buffer.alloc(0)

/** A message out of a record, whoever wrote it. */
export function fromRecord(topic: string, partition: number, offset: bigint, record: KafkaRecordIn): Message {
  let id: string | undefined
  const headers: (readonly [string, Uint8Array])[] = []
  for (const [name, value] of record.headers) {
    if (name === null || value === null) continue
    const text = name.toString('latin1')
    if (text === ID_HEADER) id = value.toString()
    else headers.push([text, value])
  }
  return receivedMessage({
    topic,
    place: () => `kafka:${topic}:${partition}:${offset}`,
    id,
    key: record.key ?? undefined,
    headers,
    body: record.value ?? EMPTY,
  })
}
