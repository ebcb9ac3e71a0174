import { WaybillError } from '../../core/errors.ts'
import type { PulsarOutgoing, PulsarProducerLike } from './pulsar-like.ts'
import type { WatchedSocket } from './web-socket.ts'

export interface WebSocketProducerOptions {
  readonly topic: string
  readonly requestTimeoutMs: number
  /** Largest text frame that the service takes. */
  readonly frameMaxBytes: number
  open(onMessage: (text: Buffer) => void): Promise<WatchedSocket>
}

interface Waiting {
  readonly resolve: (answer: unknown) => void
  readonly reject: (error: WaybillError) => void
  readonly sentAt: number
}

const WHERE = 'pulsar transport'

/** Sends without waiting for answers, which carry the number of what they answer. */
export async function createWebSocketProducer({
  topic,
  requestTimeoutMs,
  frameMaxBytes,
  open,
}: WebSocketProducerOptions): Promise<PulsarProducerLike> {
  const waiting = new Map<string, Waiting>()
  let numbers = 0
  const socket = await open(onAnswer)
  // The service has the same limit, and answers then; this one is for a service that does not.
  const timer = setInterval(() => {
    const oldest = waiting.values().next().value
    if (oldest !== undefined && performance.now() - oldest.sentAt > requestTimeoutMs * 1.5)
      socket.cut(new Error(`no answer within ${Math.round(requestTimeoutMs * 1.5)} ms`))
  }, requestTimeoutMs / 4)
  timer.unref()
  void socket.closed.then((cause) => {
    clearInterval(timer)
    for (const { reject } of waiting.values())
      reject(
        new WaybillError('UNKNOWN_OUTCOME', `the connection ended before Pulsar had answered: ${cause.message}`, { where: WHERE, cause }),
      )
    waiting.clear()
  })

  function onAnswer(text: Buffer): void {
    const answer = JSON.parse(text.toString('utf8')) as {
      readonly result?: string
      readonly errorMsg?: string
      readonly context?: string | null
    }
    const sent = waiting.get(answer.context ?? '')
    if (sent === undefined) return
    waiting.delete(answer.context!)
    if (answer.result === 'ok') sent.resolve(answer)
    else sent.reject(refusal(topic, answer.result ?? '', answer.errorMsg ?? ''))
  }

  return {
    send(message) {
      const context = String(++numbers)
      const frame = frameOf(message, context)
      const bytes = Buffer.byteLength(frame)
      if (bytes > frameMaxBytes)
        return Promise.reject(
          new WaybillError('PAYLOAD_TOO_LARGE', 'the message is too large for the WebSocket service, as JSON with its body in base64', {
            got: bytes,
            allowed: `at most ${frameMaxBytes} bytes; webSocketFrameMaxBytes where webSocketMaxTextFrameSize at the server is larger`,
            where: WHERE,
          }),
        )
      if (!socket.isOpen)
        return Promise.reject(
          new WaybillError('TRANSPORT_UNAVAILABLE', 'the connection had ended before the message was sent', { where: WHERE }),
        )
      return new Promise((resolve, reject) => {
        waiting.set(context, { resolve, reject, sentAt: performance.now() })
        socket.send(frame)
      })
    },
    isConnected: () => socket.isOpen,
    close: () => socket.close(),
  }
}

function frameOf({ data, properties, partitionKey }: PulsarOutgoing, context: string): string {
  return `{"payload":"${data.toString('base64')}","properties":${JSON.stringify(properties)},"key":${JSON.stringify(partitionKey)},"context":"${context}"}`
}

/** Most failures leave open whether the message was stored; few don't. */
function refusal(topic: string, result: string, text: string): WaybillError {
  const details = { where: WHERE, got: `${result} ${text}` }
  if (/exceeds|bigger than|too large|InvalidMessage/i.test(text))
    return new WaybillError('PAYLOAD_TOO_LARGE', 'the message is larger than the broker takes (its maxMessageSize)', details)
  if (/queue is full|memory/i.test(text))
    return new WaybillError('QUEUE_FULL', 'the WebSocket service has no room for more messages', details)
  if (/not authorized|authorization/i.test(text)) return new WaybillError('ACCESS_DENIED', `Pulsar refuses publishing to ${topic}`, details)
  if (/terminated/i.test(text)) return new WaybillError('MESSAGE_REJECTED', `the topic ${topic} takes no more messages`, details)
  if (/encoding|de-serialize|Base64/i.test(text))
    return new WaybillError('MESSAGE_REJECTED', "the WebSocket service can't read the message", details)
  return new WaybillError('UNKNOWN_OUTCOME', 'Pulsar has not confirmed the message', details)
}
