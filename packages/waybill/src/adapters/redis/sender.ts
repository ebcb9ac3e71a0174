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
    const numbers = new Map<string, number>()
    const streams: string[] = []
    const sent: number[] = []
    const streamOf: number[] = []
    const parts: Part[] = []
    for (const [index, message] of messages.entries()) {
      let partitions = topics.known(message.topic)
      try {
        partitions ??= await topics.ensure(message.topic)
      } catch (error) {
        outcomes[index] = notSent(error, where)
        continue
      }
      const stream = keys.stream(message.topic, redisPartition(message.key, partitions))
      let number = numbers.get(stream)
      if (number === undefined) {
        streams.push(stream)
        numbers.set(stream, (number = streams.length))
        onStream(stream)
      }
      sent.push(index)
      streamOf.push(number)
      parts.push(partOf(message, number))
    }
    if (sent.length === 0) return outcomes
    let reply: unknown
    try {
      reply = await link.script(PUBLISH, streams, [packed(parts)])
    } catch (error) {
      const outcome = failed(error, where)
      for (const index of sent) outcomes[index] = outcome
      return outcomes
    }
    const refusals = Array.isArray(reply) ? refusalsOf(reply, where) : undefined
    for (let at = 0; at < sent.length; at++) {
      const refusal = refusals?.get(streamOf[at]!)
      outcomes[sent[at]!] = refusal === undefined || at < refusal.first ? STORED : refusal.outcome
    }
    return outcomes
  }
}

interface Part {
  readonly stream: number
  readonly key: string
  readonly headers: string
  readonly id: string
  readonly body: Uint8Array
}

function partOf({ id, key, headers, body }: Message, stream: number): Part {
  // What the headers tell already is not told twice.
  return { stream, key, headers: JSON.stringify(headers), id: headers['event_id'] === id ? '' : id, body }
}

function packed(parts: readonly Part[]): Buffer {
  let most = 0
  // A UTF-16 unit is at most three bytes of UTF-8.
  for (const { key, headers, id, body } of parts) most += HEAD_BYTES + 3 * (key.length + headers.length + id.length) + body.byteLength
  const buffer = Buffer.allocUnsafe(most)
  let at = 0
  for (const { stream, key, headers, id, body } of parts) {
    const head = at
    at += HEAD_BYTES
    const keyBytes = buffer.write(key, at)
    at += keyBytes
    const headersBytes = buffer.write(headers, at)
    at += headersBytes
    const idBytes = id === '' ? 0 : buffer.write(id, at)
    at += idBytes
    buffer.set(body, at)
    at += body.byteLength
    buffer.writeUInt16BE(stream, head)
    buffer.writeUInt16BE(keyBytes, head + 2)
    buffer.writeUInt32BE(headersBytes, head + 4)
    buffer.writeUInt16BE(idBytes, head + 8)
    buffer.writeUInt32BE(body.byteLength, head + 10)
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
