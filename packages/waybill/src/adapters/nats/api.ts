import { WaybillError } from '../../core/errors.ts'
import type { NatsMessage } from './client.ts'
import type { Connection } from './connection.ts'
import { JetStreamError } from './failures.ts'
import { headersOf, rawHeaders } from './headers.ts'
import type { ReplyTarget } from './replies.ts'

/** JetStream's API as far as it is used: JSON questions and answers. */
export interface JetStreamApi {
  /**
   * Asks `{prefix}.{path}`.
   * @throws JetStreamError; WaybillError `TRANSPORT_UNAVAILABLE` | `UNKNOWN_OUTCOME` | `ACCESS_DENIED`
   */
  ask<T>(path: string, body?: object): Promise<T>
  /**
   * Stores `payload` if the newest message of `subject` is the one of sequence `expected`, 0 for none; gives back its sequence.
   * @throws as `ask`
   */
  replace(subject: string, payload: string, expected: number): Promise<number>
}

const decoder = new TextDecoder()

/** Reads an answer. @throws JetStreamError */
export function readAnswer(message: NatsMessage, what: string): unknown {
  if (message.data.byteLength === 0 && headersOf(message)?.code === 503) throw new JetStreamError(503, 0, `nobody answers ${what}`)
  const answer: unknown = JSON.parse(decoder.decode(message.data))
  if (typeof answer === 'object' && answer !== null && 'error' in answer) {
    const { code = 500, err_code = 0, description = '' } = answer.error as { code?: number; err_code?: number; description?: string }
    throw new JetStreamError(code, err_code, description)
  }
  return answer
}

export function createApi(
  connection: Connection,
  { apiPrefix, requestTimeoutMs }: { readonly apiPrefix: string; readonly requestTimeoutMs: number },
): JetStreamApi {
  async function request(subject: string, payload: string, headers?: Uint8Array): Promise<unknown> {
    await connection.ready()
    const answer = await new Promise<NatsMessage>((resolve, reject) => {
      const target: ReplyTarget = {
        onReply: resolve,
        onLost(why) {
          const text =
            why === 'timeout'
              ? `${subject} was not answered within ${requestTimeoutMs} ms`
              : `the connection was lost before ${subject} was answered`
          reject(new WaybillError('UNKNOWN_OUTCOME', text, { where: 'nats transport' }))
        },
        onDenied: reject,
      }
      const client = connection.current()
      const reply = connection.replies.take(target, 0, subject, requestTimeoutMs)
      if (client === undefined || reply === undefined) {
        reject(new WaybillError('TRANSPORT_UNAVAILABLE', 'the connection is away', { where: 'nats transport' }))
        return
      }
      try {
        client.publish(subject, payload, headers === undefined ? { reply } : { reply, headers: rawHeaders(headers) })
      } catch (cause) {
        reject(new WaybillError('TRANSPORT_UNAVAILABLE', `${subject} could not be asked`, { where: 'nats transport', cause }))
      }
    })
    return readAnswer(answer, subject)
  }

  return {
    ask: async <T>(path: string, body?: object) =>
      (await request(`${apiPrefix}.${path}`, body === undefined ? '' : JSON.stringify(body))) as T,
    async replace(subject, payload, expected) {
      const headers = Buffer.from(`NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: ${expected}\r\n\r\n`)
      return ((await request(subject, payload, headers)) as { seq: number }).seq
    },
  }
}
