import { WaybillError, isWaybillError } from '../../core/errors.ts'
import type { Message, PublishOutcome } from '../../core/transport.ts'
import type { Link } from './link.ts'
import { type RedisKeys, redisPartition } from './names.ts'
import { replyCode, replyError } from './redis-errors.ts'
import { PUBLISH } from './scripts.ts'
import type { Topics } from './topics.ts'

export interface SenderOptions {
  readonly where: string
  readonly link: Link
  readonly keys: RedisKeys
  readonly topics: Topics
  /** Told of each stream that something is written to. */
  onStream(stream: string): void
}

const STORED: PublishOutcome = Object.freeze({ kind: 'stored' })
/** The number of the stream and the four lengths. */
const HEAD_BYTES = 14

/** Stores batches of messages, one script call each. */
export function createSender({
  where,
  link,
  keys,
  topics,
  onStream,
}: SenderOptions): (messages: readonly Message[]) => Promise<readonly PublishOutcome[]> {
  return async function send(messages) {
    const outcomes: PublishOutcome[] = []
    const streams: string[] = []
    // By topic and partition, the place in `streams`, from one on.
    const numbers = new Map<string, number[]>()
    const parts: Part[] = []
    for (let index = 0; index < messages.length; index++) {
      const message = messages[index]!
      const { topic } = message
      let partitions = topics.known(topic)
      try {
        partitions ??= await topics.ensure(topic)
      } catch (error) {
        outcomes[index] = notSent(error, where)
        continue
      }
      const partition = redisPartition(message.key, partitions)
      let known = numbers.get(topic)
      if (known === undefined) numbers.set(topic, (known = []))
      let stream = known[partition]
      if (stream === undefined) {
        const name = keys.stream(topic, partition)
        known[partition] = stream = streams.push(name)
        onStream(name)
      }
      parts.push({ index, stream, message, headers: JSON.stringify(message.headers) })
    }
    if (parts.length === 0) return outcomes
    let reply: unknown
    try {
      reply = await link.script(PUBLISH, streams, [packed(parts)])
    } catch (error) {
      const outcome = failed(error, where)
      for (const { index } of parts) outcomes[index] = outcome
      return outcomes
    }
    const refusals = Array.isArray(reply) ? refusalsOf(reply, where) : undefined
    for (let at = 0; at < parts.length; at++) {
      const { index, stream } = parts[at]!
      const refusal = refusals?.get(stream)
      outcomes[index] = refusal === undefined || at < refusal.first ? STORED : refusal.outcome
    }
    return outcomes
  }
}

interface Part {
  readonly index: number
  readonly stream: number
  readonly message: Message
  readonly headers: string
}

function packed(parts: readonly Part[]): Buffer {
  let most = 0
  // A UTF-16 unit is at most three bytes of UTF-8.
  for (const { message, headers } of parts)
    most += HEAD_BYTES + 3 * (message.key.length + headers.length + message.id.length) + message.body.byteLength
  const buffer = Buffer.allocUnsafe(most)
  let at = 0
  for (const { stream, message, headers } of parts) {
    const { id, key, body } = message
    // What the headers tell already is not told twice.
    const idBytes = message.headers['event_id'] === id ? 0 : buffer.write(id, at + 4)
    buffer.writeUInt16BE(stream, at)
    buffer.writeUInt16BE(idBytes, at + 2)
    at += 4 + idBytes
    const keyBytes = buffer.write(key, at + 2)
    buffer.writeUInt16BE(keyBytes, at)
    at += 2 + keyBytes
    const headersBytes = buffer.write(headers, at + 4)
    buffer.writeUInt32BE(headersBytes, at)
    at += 4 + headersBytes
    buffer.writeUInt32BE(body.byteLength, at)
    buffer.set(body, at + 4)
    at += 4 + body.byteLength
  }
  return buffer.subarray(0, at)
}

function refusalsOf(reply: readonly unknown[], where: string): Map<number, { readonly first: number; readonly outcome: PublishOutcome }> {
  const refusals = new Map<number, { readonly first: number; readonly outcome: PublishOutcome }>()
  for (let at = 0; at + 2 < reply.length; at += 3) {
    const cause = new Error(String(reply[at + 2]))
    refusals.set(Number(reply[at]), {
      first: Number(reply[at + 1]),
      outcome: { kind: 'rejected', error: replyError(replyCode(cause) ?? 'ERR', cause, where) },
    })
  }
  return refusals
}

function notSent(error: unknown, where: string): PublishOutcome {
  if (isWaybillError(error, 'UNKNOWN_OUTCOME') || !isWaybillError(error))
    return {
      kind: 'rejected',
      error: new WaybillError('TRANSPORT_UNAVAILABLE', 'the topic could not be looked up', { where, cause: error }),
    }
  return { kind: 'rejected', error }
}

function failed(error: unknown, where: string): PublishOutcome {
  if (!isWaybillError(error))
    return { kind: 'unknown', error: new WaybillError('UNKNOWN_OUTCOME', 'sending failed', { where, cause: error }) }
  return { kind: error.code === 'UNKNOWN_OUTCOME' ? 'unknown' : 'rejected', error }
}
