import type { Arrival } from '../../core/member.ts'
import { receivedMessage } from '../../core/received.ts'
import { sequenceOf } from './stream-id.ts'

/** Entries as a script gives them, with Buffers. */
export type RawEntry = readonly [id: Buffer, fields: readonly Buffer[] | null]

const SHARED_MAX = 2

export interface EntrySource {
  readonly topic: string
  readonly partition: number
  readonly redelivered: Arrival<string>['redelivered']
}

/** Entries to arrivals, whose place is the entry's id. */
export function arrivalsOf(entries: readonly RawEntry[], source: EntrySource): Arrival<string>[] {
  return entries.map(([id, fields]) => arrivalOf(id.toString('latin1'), fields ?? [], source))
}

/** Bytes of the largest of these, 1 where there is none. */
export function largestOf(entries: readonly RawEntry[]): number {
  let most = 1
  for (const [, fields] of entries) {
    let bytes = 0
    for (const field of fields ?? []) bytes += field.byteLength
    if (bytes > most) most = bytes
  }
  return most
}

function arrivalOf(id: string, fields: readonly Buffer[], { topic, partition, redelivered }: EntrySource): Arrival<string> {
  let ownId: string | undefined
  let key: Buffer | undefined
  let body: Buffer | undefined
  const headers: [string, string | Buffer][] = []
  const others: [string, Buffer][] = []
  for (let at = 0; at + 1 < fields.length; at += 2) {
    const value = fields[at + 1]!
    const name = fields[at]!
    if (spells(name, 'body')) body = detached(value)
    else if (spells(name, 'key')) key = value
    else if (spells(name, 'headers')) readHeaders(value, headers)
    else if (spells(name, 'id')) ownId = value.toString('utf8')
    else others.push([name.toString('utf8'), value])
  }
  if (body === undefined) body = bodyOf(others)
  else for (const other of others) headers.push(other)
  const message = receivedMessage({ topic, place: () => `redis:${topic}:${partition}:${id}`, id: ownId, key, headers, body })
  return { message, sequence: sequenceOf(id), redelivered, place: id }
}

/** Whether the bytes are those of an ASCII text: for a few of them this is quicker than to decode them. */
function spells(bytes: Buffer, text: string): boolean {
  if (bytes.length !== text.length) return false
  for (let at = 0; at < text.length; at++) if (bytes[at] !== text.charCodeAt(at)) return false
  return true
}

/** What was read together shares its memory: a message that is held for long must not hold all of it. */
const detached = (value: Buffer): Buffer => (value.buffer.byteLength > SHARED_MAX * value.byteLength ? Buffer.from(value) : value)

function readHeaders(value: Buffer, into: [string, string | Buffer][]): void {
  try {
    const parsed: unknown = JSON.parse(value.toString('utf8'))
    if (typeof parsed !== 'object' || parsed === null) return
    for (const header of Object.entries(parsed)) if (typeof header[1] === 'string') into.push(header)
  } catch {
    // A foreign message whose headers are no JSON: it has none then.
  }
}

/** A foreign entry without a body: its only field, or all of them as JSON. */
function bodyOf(fields: readonly (readonly [string, Buffer])[]): Buffer {
  if (fields.length === 1) return fields[0]![1]
  return Buffer.from(JSON.stringify(Object.fromEntries(fields.map(([name, value]) => [name, value.toString('utf8')]))))
}
