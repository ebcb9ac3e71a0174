import { isUtf8 } from 'node:buffer'
import { type Delivery, type Message, type MessageEnvelope, type Position, jsonCodec } from 'waybill'
import { messageOf, printable } from '../cli/printable.ts'
import type { Output } from '../cli/output.ts'

/** A message as it passed by, and what could be made of it. */
export interface Seen {
  readonly message: Message
  readonly position: Position
  /** Undefined where the body is none of ours. */
  readonly envelope: MessageEnvelope | undefined
  /** Why not. */
  readonly problem: string | undefined
}

const MIB = 1024 * 1024
const SHOWN_MAX = 10_000
// A watcher must not be stricter than what carries the events.
const codec = jsonCodec({ maxBytes: 64 * MIB, maxDepth: 256 })

/** Decodes a delivery; what is no envelope is shown as it is. Never throws. */
export function seenOf({ message, position }: Pick<Delivery, 'message' | 'position'>): Seen {
  try {
    return { message, position, envelope: codec.decode(message), problem: undefined }
  } catch (error) {
    return { message, position, envelope: undefined, problem: messageOf(error) }
  }
}

/** One JSON object in one line. `sequence` is text, as it may have more digits than a number keeps. */
export function jsonLine({ message: { topic, id, key, headers, body }, position, envelope, problem }: Seen): string {
  const place = { topic, partition: position.partition, sequence: position.sequence?.toString() ?? null }
  const text = textOf(body)
  const content =
    envelope !== undefined
      ? { envelope }
      : { problem, ...(text === undefined ? { encoding: 'base64', body: base64Of(body) } : { encoding: 'text', body: text }) }
  // Within JSON what is not ASCII stands in texts only, so that it can be escaped there, and means the same.
  return JSON.stringify({ ...place, id, key, headers, ...content }).replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (character) =>
    Array.from({ length: character.length }, (_, at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`).join(''),
  )
}

/** One line for people. */
export function humanLine({ message, position, envelope, problem }: Seen, output: Output): string {
  const { topic, key, body } = message
  const { partition, sequence } = position
  // Where the partition's name begins with the topic's, once is enough.
  const where = partition.startsWith(topic) ? partition : `${topic} ${partition}`
  const place = `${printable(where)}${sequence === undefined ? '' : `@${sequence}`}`
  if (envelope === undefined) {
    const text = textOf(body)
    // Without what was got: that stands before it.
    const [reason = ''] = (problem ?? '').split(' (got ')
    const shown = text === undefined ? `base64 ${base64Of(body)}` : printable(text)
    return [
      output.paint('dim', place),
      output.paint('yellow', 'no envelope'),
      printable(key),
      cut(shown),
      output.paint('dim', `(${printable(reason)})`),
    ].join('  ')
  }
  const { occurred_at: time, event_type: type, payload } = envelope
  return [
    output.paint('dim', `${time}  ${place}`),
    output.paint('cyan', printable(type)),
    output.paint('bold', printable(key)),
    cut(printable(JSON.stringify(payload))),
  ].join('  ')
}

function cut(text: string): string {
  return text.length <= SHOWN_MAX ? text : `${text.slice(0, SHOWN_MAX)}… (cut; --json shows all)`
}

function textOf(body: Uint8Array): string | undefined {
  return isUtf8(body) ? new TextDecoder().decode(body) : undefined
}

function base64Of(body: Uint8Array): string {
  return Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('base64')
}
