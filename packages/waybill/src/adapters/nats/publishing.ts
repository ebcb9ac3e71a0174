import { WaybillError } from '../../core/errors.ts'
import type { Message, PublishOutcome } from '../../core/transport.ts'
import { readAnswer } from './api.ts'
import type { NatsLike, NatsMessage } from './client.ts'
import type { Connection } from './connection.ts'
import { JetStreamError, toPublishError, toWaybillError } from './failures.ts'
import { encodeHeaders } from './headers.ts'
import { natsPartitionOf } from './names.ts'
import type { CheckedNatsOptions } from './options.ts'
import type { ReplyTarget } from './replies.ts'
import type { Streams } from './streams.ts'

export interface PublishingParts {
  readonly connection: Connection
  readonly streams: Streams
  readonly options: CheckedNatsOptions
  /** Resolves once nobody is on its way into the topic who is to see what is published now. */
  joined(topic: string): Promise<unknown> | undefined
}

const STORED: PublishOutcome = Object.freeze({ kind: 'stored' })
/** A short outage is waited for; a longer one is the caller's to know. */
const OUTAGE_WAIT_MS = 2000
/** `{"stream":...` and not `{"error":...`: the server writes them so. */
const FIRST_LETTER_OF_SUCCESS = 0x73

/** The sending part of a publish queue: no key twice in `messages`. */
export function createSend(parts: PublishingParts): (messages: readonly Message[]) => Promise<readonly PublishOutcome[]> {
  const { connection, streams, options } = parts

  async function prepare(messages: readonly Message[]): Promise<Map<string, WaybillError> | undefined> {
    let failed: Map<string, WaybillError> | undefined
    let last = ''
    for (const { topic } of messages) {
      if (topic === last) continue
      last = topic
      const joining = parts.joined(topic)
      if (joining !== undefined) await joining
      if (streams.known(topic) !== undefined) continue
      try {
        await streams.open(topic)
      } catch (error) {
        ;(failed ??= new Map()).set(topic, unsent(toWaybillError(error, topic), topic))
      }
    }
    return failed
  }

  return async (messages) => {
    try {
      if (!connection.isUp) await connection.ready(Math.min(OUTAGE_WAIT_MS, options.requestTimeoutMs))
    } catch (error) {
      const refusal = toWaybillError(error, 'nats transport')
      return messages.map(() => ({ kind: 'rejected', error: refusal }))
    }
    const failed = await prepare(messages)
    const client = connection.current()
    if (client === undefined) {
      const refusal = new WaybillError('TRANSPORT_UNAVAILABLE', 'the connection is away', { where: 'nats transport' })
      return messages.map(() => ({ kind: 'rejected', error: refusal }))
    }
    const outcomes = await sendBatch(parts, client, messages, failed)
    const missing = outcomes.map((outcome, index) => (outcome === NOBODY ? index : -1)).filter((index) => index >= 0)
    return missing.length === 0 ? outcomes : sendMissing(parts, messages, outcomes, missing)
  }
}

/** Nothing was sent yet, so that what is unknown about the stream is no unknown outcome. */
const unsent = (error: WaybillError, where: string): WaybillError =>
  error.code === 'UNKNOWN_OUTCOME'
    ? new WaybillError('TRANSPORT_UNAVAILABLE', 'the stream could not be asked for', { where, cause: error })
    : error

/** Marks a message that no stream wanted. */
const NOBODY: PublishOutcome = {
  kind: 'rejected',
  error: new WaybillError('TOPIC_MISSING', 'no stream takes messages of the topic', { where: 'nats transport' }),
}

/** What no stream wanted was not stored for certain: the stream is looked for, or made, and it is sent once more. */
async function sendMissing(
  parts: PublishingParts,
  messages: readonly Message[],
  outcomes: readonly PublishOutcome[],
  missing: readonly number[],
): Promise<readonly PublishOutcome[]> {
  const all = [...outcomes]
  const failed = new Map<string, WaybillError>()
  for (const topic of new Set(missing.map((index) => messages[index]!.topic))) {
    parts.streams.forget(topic)
    try {
      await parts.streams.open(topic)
    } catch (error) {
      failed.set(topic, unsent(toWaybillError(error, topic), topic))
    }
  }
  const client = parts.connection.current()
  if (client === undefined) return all
  const again = await sendBatch(
    parts,
    client,
    missing.map((index) => messages[index]!),
    failed,
  )
  for (const [at, index] of missing.entries()) all[index] = again[at]!
  return all
}

function sendBatch(
  { connection, streams, options }: PublishingParts,
  client: NatsLike,
  messages: readonly Message[],
  failed: ReadonlyMap<string, WaybillError> | undefined,
): Promise<readonly PublishOutcome[]> {
  const { replies } = connection
  const { requestTimeoutMs } = options
  const payloadMax = connection.info?.max_payload ?? Number.MAX_SAFE_INTEGER
  return new Promise((resolve) => {
    const outcomes: PublishOutcome[] = Array.from({ length: messages.length })
    let left = messages.length
    const settle = (index: number, outcome: PublishOutcome): void => {
      outcomes[index] = outcome
      if (--left === 0) resolve(outcomes)
    }
    const target: ReplyTarget = {
      onReply: (answer, index) => settle(index, readPublishAnswer(answer, messages[index]!.topic)),
      onLost: (why, index) => settle(index, { kind: 'unknown', error: lostAnswer(why, messages[index]!, requestTimeoutMs) }),
      onDenied: (error, index) => settle(index, { kind: 'rejected', error: toWaybillError(error, messages[index]!.topic) }),
    }
    // The client has read them when `publish` returns, so that the whole batch can do with the same.
    let bytes: Uint8Array
    const sent = { reply: '', headers: { encode: () => bytes } }
    for (let index = 0; index < messages.length; index++) {
      const message = messages[index]!
      const failure = failed?.get(message.topic)
      if (failure !== undefined) {
        settle(index, { kind: 'rejected', error: failure })
        continue
      }
      const stream = streams.known(message.topic)
      if (stream === undefined) {
        settle(index, NOBODY)
        continue
      }
      const headers = encodeHeaders(message)
      const size = headers.byteLength + message.body.byteLength
      if (size > payloadMax) {
        settle(index, { kind: 'rejected', error: tooLarge(size, payloadMax, message) })
        continue
      }
      const subject = stream.subjects[natsPartitionOf(message.key, stream.partitions)]!
      const reply = replies.take(target, index, subject, requestTimeoutMs)
      if (reply === undefined) {
        settle(index, {
          kind: 'rejected',
          error: new WaybillError('QUEUE_FULL', 'too many messages are on their way', { where: message.topic }),
        })
        continue
      }
      sent.reply = reply
      bytes = headers
      client.publish(subject, message.body, sent)
    }
  })
}

function readPublishAnswer(answer: NatsMessage, topic: string): PublishOutcome {
  if (answer.data[2] === FIRST_LETTER_OF_SUCCESS) return STORED
  try {
    readAnswer(answer, topic)
    return STORED
  } catch (error) {
    if (error instanceof JetStreamError && error.code === 503 && error.errCode === 0) return NOBODY
    if (error instanceof JetStreamError) return { kind: 'rejected', error: toPublishError(error, topic) }
    return {
      kind: 'unknown',
      error: new WaybillError('UNKNOWN_OUTCOME', "the answer of the server can't be read", { where: topic, cause: error }),
    }
  }
}

function lostAnswer(why: 'timeout' | 'cut', { topic }: Message, requestTimeoutMs: number): WaybillError {
  const text =
    why === 'timeout' ? `the server did not answer within ${requestTimeoutMs} ms` : 'the connection was lost before the server had answered'
  return new WaybillError('UNKNOWN_OUTCOME', text, { where: topic })
}

const tooLarge = (size: number, allowed: number, { topic }: Message): WaybillError =>
  new WaybillError('PAYLOAD_TOO_LARGE', 'the message is too large for the server, headers included', {
    got: size,
    allowed: `at most ${allowed} bytes (max_payload)`,
    where: topic,
  })
