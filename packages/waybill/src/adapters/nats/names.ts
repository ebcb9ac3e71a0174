import { createHash, randomBytes } from 'node:crypto'

/** Longest stream name of ours that spells its topic out; the server takes 255 characters, and a bucket's name adds some. */
const STREAM_NAME_MAX = 220

/**
 * A name of ours as one token of a subject: `_` becomes `__`, `.` becomes `_`, `/` becomes `_-`. Segments begin with a letter or a digit, so that it can
 * be undone.
 */
export function natsToken(name: string): string {
  return name.replaceAll('_', '__').replaceAll('/', '_-').replaceAll('.', '_')
}

/** Undoes {@link natsToken}. */
export function fromNatsToken(token: string): string {
  return token.replaceAll(/__|_-|_/g, (mark) => (mark === '__' ? '_' : mark === '_-' ? '/' : '.'))
}

/**
 * The stream of a topic: `{prefix}-` and the topic as a token. One that would be too long for a stream's name ends in a hash instead; the topic is
 * in the stream's subjects in any case.
 */
export function natsStreamName(prefix: string, topic: string): string {
  const name = `${prefix}-${natsToken(topic)}`
  if (name.length <= STREAM_NAME_MAX) return name
  // `_.` can't be in a token of ours, nor can three marks in a row that end it: no short name looks like this.
  return `${name.slice(0, 160)}=${createHash('sha256').update(topic).digest('hex').slice(0, 32)}`
}

/** The subject of a topic without its partition: where anybody may publish, in any language. */
export const natsSubject = (prefix: string, topic: string): string => `${prefix}.${topic}`

/** The subject of one of a topic's partitions. `_` is no segment of a topic, so that no other topic has it. */
export const natsPartitionSubject = (prefix: string, topic: string, partition: number): string => `${prefix}.${topic}._.${partition}`

/** Undoes {@link natsSubject} and {@link natsPartitionSubject}; undefined for other subjects. */
export function fromNatsSubject(prefix: string, subject: string): { readonly topic: string; readonly partition: number } | undefined {
  if (!subject.startsWith(`${prefix}.`)) return undefined
  const rest = subject.slice(prefix.length + 1)
  const at = rest.lastIndexOf('._.')
  if (at === -1) return { topic: rest, partition: 0 }
  const partition = Number(rest.slice(at + 3))
  return Number.isInteger(partition) ? { topic: rest.slice(0, at), partition } : undefined
}

/** A token that nobody else has: 72 random bits. Short, since it is part of every message that comes: client and server look at each of its bytes. */
export const uniqueToken = (): string => randomBytes(9).toString('base64url')

/** The partition of a key: FNV-1a over its UTF-8 bytes, 32 bits, modulo the number of partitions. */
export function natsPartitionOf(key: string, partitions: number): number {
  let hash = 0x811c9dc5
  for (let at = 0; at < key.length; at++) {
    const code = key.charCodeAt(at)
    if (code > 0x7f) return partitionOfBytes(Buffer.from(key), partitions)
    hash = Math.imul(hash ^ code, 0x01000193)
  }
  return (hash >>> 0) % partitions
}

function partitionOfBytes(bytes: Uint8Array, partitions: number): number {
  let hash = 0x811c9dc5
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193)
  return (hash >>> 0) % partitions
}
