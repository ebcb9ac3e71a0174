import { WaybillError } from '../../core/errors.ts'
import { WebSocketMessageId } from './message-id.ts'
import type { PulsarOptions } from './options.ts'
import type { PulsarConsumerConfig, PulsarIncomingLike, PulsarLike, PulsarMessageIdLike, PulsarReaderConfig } from './pulsar-like.ts'
import { tlsOptions } from './rest.ts'
import { type WatchedSocket, type WebSocketConstructor, openSocket } from './web-socket.ts'
import { createWebSocketProducer } from './web-socket-producer.ts'

/** A client over Pulsar's WebSocket API, shaped like the package `pulsar-client`. It reconnects nothing: whoever uses it does. */
export function createWebSocketClient(WebSocket: WebSocketConstructor, options: PulsarOptions): PulsarLike {
  const { webSocketUrl, token, requestTimeoutMs, prefetchMaxBytes, webSocketFrameMaxBytes } = options
  const tls = tlsOptions(options.tls)
  const open = (path: string, query: Record<string, string>, what: string, onMessage: (text: Buffer) => void): Promise<WatchedSocket> => {
    const url = new URL(`${webSocketUrl.href.replace(/\/$/, '')}/ws/v2/${path}`)
    url.search = new URLSearchParams(query).toString()
    return openSocket({ WebSocket, url, what, token, tls, requestTimeoutMs, onMessage })
  }

  return {
    createProducer: ({ topic, sendTimeoutMs, batchingEnabled, hashingScheme }) =>
      createWebSocketProducer({
        topic,
        requestTimeoutMs,
        frameMaxBytes: webSocketFrameMaxBytes,
        open: (onMessage) =>
          open(
            `producer/${pathOf(topic)}`,
            { sendTimeoutMillis: String(sendTimeoutMs), batchingEnabled: String(batchingEnabled), hashingScheme },
            `publishing to ${topic}`,
            onMessage,
          ),
      }),
    subscribe: (config) => createConsumer(config, prefetchMaxBytes, open),
    createReader: (config) => createReader(config, open),
    close: async () => undefined,
  }
}

type Open = (path: string, query: Record<string, string>, what: string, onMessage: (text: Buffer) => void) => Promise<WatchedSocket>

/** `persistent://public/default/orders` as the path of an address. */
export const pathOf = (topic: string): string => topic.replace('://', '/').split('/').map(encodeURIComponent).join('/')

/** What has come and waits to be fetched. */
function createInbox(): {
  add(text: Buffer): number
  /** Resolves with all that waits, once something does; rejects when `fail` was called. */
  take(): Promise<PulsarIncomingLike[]>
  fail(error: WaybillError): void
} {
  let waiting: PulsarIncomingLike[] = []
  let failure: WaybillError | undefined
  let wake = (): void => {}
  return {
    add(text) {
      waiting.push(new WebSocketIncoming(parseMessage(text)))
      wake()
      return text.byteLength
    },
    async take() {
      while (waiting.length === 0) {
        if (failure !== undefined) throw failure
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
      const all = waiting
      waiting = []
      return all
    },
    fail(error) {
      failure = error
      wake()
    },
  }
}

/** As the WebSocket service writes it. */
interface WireMessage {
  readonly messageId: string
  readonly payload: string
  readonly properties?: Record<string, string> | null
  readonly redeliveryCount?: number
  readonly key?: string | null
}

function parseMessage(text: Buffer): WireMessage {
  const parsed: unknown = JSON.parse(text.toString('utf8'))
  if (typeof parsed === 'object' && parsed !== null && 'messageId' in parsed && 'payload' in parsed) return parsed as WireMessage
  throw new WaybillError('DECODE_FAILED', 'the WebSocket service sent what is no message', { where: 'pulsar transport' })
}

class WebSocketIncoming implements PulsarIncomingLike {
  readonly #wire: WireMessage

  constructor(wire: WireMessage) {
    this.#wire = wire
  }

  getProperties(): { [name: string]: string } {
    return this.#wire.properties ?? {}
  }
  getData(): Buffer {
    return Buffer.from(this.#wire.payload, 'base64')
  }
  getMessageId(): PulsarMessageIdLike {
    return new WebSocketMessageId(this.#wire.messageId)
  }
  getRedeliveryCount(): number {
    return this.#wire.redeliveryCount ?? 0
  }
  getPartitionKey(): string {
    return this.#wire.key ?? ''
  }
}

const SUBSCRIPTION_TYPE = { KeyShared: 'Key_Shared', Shared: 'Shared', Failover: 'Failover', Exclusive: 'Exclusive' } as const
/** Until sizes are known. */
const FIRST_PERMITS = 16

/**
 * In pull mode: the service sends as many messages as it was permitted, so that what waits here is bounded by number and, by the size of those seen so far,
 * by bytes.
 */
async function createConsumer(config: PulsarConsumerConfig, bytesMax: number, open: Open): ReturnType<PulsarLike['subscribe']> {
  const { topic, subscription, receiverQueueSize } = config
  const inbox = createInbox()
  let permitted = 0
  let waiting = 0
  let window = Math.min(FIRST_PERMITS, receiverQueueSize)
  let largest = 1

  const socket = await open(
    `consumer/${pathOf(topic)}/${encodeURIComponent(subscription)}`,
    {
      pullMode: 'true',
      subscriptionType: SUBSCRIPTION_TYPE[config.subscriptionType],
      subscriptionInitialPosition: config.subscriptionInitialPosition,
      receiverQueueSize: String(receiverQueueSize),
    },
    `subscribing to ${topic}`,
    (text) => {
      permitted--
      waiting++
      // The largest of late: one large message must not narrow the window for ever.
      largest = Math.max(inbox.add(text), largest * 0.99)
    },
  )
  void socket.closed.then((error) => inbox.fail(error))

  function permit(): void {
    const room = Math.max(1, Math.min(window, Math.floor(bytesMax / largest))) - permitted - waiting
    // In portions, since each is a message of its own; but none is held back while nothing else would come.
    if (!socket.isOpen || room <= 0 || (permitted > 0 && room < window / 4)) return
    permitted += room
    socket.send(`{"type":"permit","permitMessages":${room}}`)
  }
  permit()

  return {
    async batchReceive() {
      permit()
      const messages = await inbox.take()
      waiting -= messages.length
      window = Math.min(window * 2, receiverQueueSize)
      permit()
      return messages
    },
    async acknowledgeId(messageId) {
      socket.send(ackOf(messageId))
      await socket.barrier()
    },
    async acknowledgeIds(messageIds) {
      for (const messageId of messageIds) socket.send(ackOf(messageId))
      await socket.barrier()
    },
    close: () => socket.close(),
  }
}

const textOf = (messageId: PulsarMessageIdLike): string =>
  messageId instanceof WebSocketMessageId ? messageId.text : messageId.serialize().toString('base64')
// Base64 holds nothing that JSON would escape.
const ackOf = (messageId: PulsarMessageIdLike): string => `{"messageId":"${textOf(messageId)}"}`

async function createReader(
  { topic, startMessageId, receiverQueueSize }: PulsarReaderConfig,
  open: Open,
): ReturnType<PulsarLike['createReader']> {
  const inbox = createInbox()
  const socket = await open(
    `reader/${pathOf(topic)}`,
    { messageId: textOf(startMessageId), receiverQueueSize: String(receiverQueueSize) },
    `reading ${topic}`,
    (text) => void inbox.add(text),
  )
  void socket.closed.then((error) => inbox.fail(error))
  async function readBatch(): Promise<PulsarIncomingLike[]> {
    const messages = await inbox.take()
    // Nothing is settled by it: it asks for the next ones.
    for (const message of messages) if (socket.isOpen) socket.send(ackOf(message.getMessageId()))
    return messages
  }
  let read: PulsarIncomingLike[] = []
  return {
    readBatch,
    async readNext() {
      if (read.length === 0) read = (await readBatch()).toReversed()
      return read.pop()!
    },
    close: () => socket.close(),
  }
}
