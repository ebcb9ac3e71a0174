import { fullJitterMs } from '../../core/backoff.ts'
import { monotonicOf } from '../../core/clock.ts'
import { WaybillError, isWaybillError } from '../../core/errors.ts'
import { placeOf } from './ack-subject.ts'
import type { JetStreamApi } from './api.ts'
import type { NatsMessage } from './client.ts'
import type { Connection } from './connection.ts'
import { toWaybillError } from './failures.ts'
import { headersOf } from './headers.ts'
import { uniqueToken } from './names.ts'
import type { CheckedNatsOptions } from './options.ts'
import type { StreamInfo, Streams, TopicStream } from './streams.ts'

/** A message with what its reply subject says of it. */
export interface Read {
  readonly message: NatsMessage
  readonly sequence: number
}

/** Where reading begins: at a sequence, or at the first message of a time or later. */
export type ReadFrom = { readonly sequence: number } | { readonly at: string }

export interface ReaderParts {
  readonly connection: Connection
  readonly api: JetStreamApi
  readonly streams: Streams
  readonly options: CheckedNatsOptions
}

export interface ReaderOptions {
  readonly stream: TopicStream
  /** When the stream was made that `from` means. */
  readonly created: string
  readonly subjects: readonly string[]
  readonly from: ReadFrom
  /** What followed `from` when it was last looked at, as far as anybody knew. */
  readonly unread: number
  /** How many more messages may come now. */
  room(): number
  /** In the stream's order, each once. */
  onMessages(messages: readonly Read[]): void
  /** All up to here that are to be read were read. */
  onCaughtUp(sequence: number): void
  /** The broker no longer has messages that were not read; reading goes on after them. */
  onGap(error: WaybillError, missing: number | undefined): void
  /** The stream is another one than before. Reading has ended. */
  onStreamChanged(error: WaybillError): void
  /** It can't go on. Reading has ended. */
  onFailed(error: WaybillError): void
}

/**
 * Reads a stream's messages in order, over a consumer of the server's that keeps no state worth keeping: when it, or the connection, is lost, another one
 * goes on after the last message that came.
 */
export interface Reader {
  /** Resolves once the server has the first consumer, or it can't be. */
  readonly started: Promise<void>
  /** There may be room again. */
  pull(): void
  /** To be called now and then: notices a server that has fallen silent. */
  check(): void
  /** Messages that followed the last one when it came. */
  readonly unread: number
  stop(): void
}

const PULL_MAX = 256
const PULL_EXPIRES_MS = 30_000
const HEARTBEAT_MS = 5000
/** A consumer that nobody asks any more is removed by the server after this. */
const INACTIVE_MS = 60_000
const PULL_MAX_BYTES = 2 * 1024 * 1024
const HEADER_ROOM_BYTES = 512 * 1024
/** How often the stream is looked at while all is well. */
const LOOK_MS = 20_000
const NANOS = 1_000_000
const PAUSE = { baseMs: 50, maxMs: 2000 }

export function createReader(parts: ReaderParts, options: ReaderOptions): Reader {
  const { connection, api, streams } = parts
  const { stream } = options
  const now = monotonicOf(parts.options.clock)
  const stopped = new AbortController()
  const started = Promise.withResolvers<void>()
  let { from, unread } = options
  /** Of the consumer that is in use: its name, and how many messages it has sent. */
  let consumer: string | undefined
  let delivered = 0
  let asked = 0
  let heardAt = now()
  let mailbox: ReturnType<Connection['mailbox']> | undefined
  let opening = false
  let lookedAt = now()
  /** The stream's end when it was last looked at: once the consumer is idle after that, nothing before it is missing. */
  let tip: number | undefined
  let pending: Read[] = []
  let knowsUnread = options.unread > 0

  const stopWatching = connection.onChange((isUp) => {
    if (isUp) void reopen()
    else consumer = undefined
  })

  async function reopen(): Promise<void> {
    consumer = undefined
    if (opening || stopped.signal.aborted) return
    opening = true
    asked = 0
    try {
      for (let attempt = 1; !stopped.signal.aborted; attempt++) {
        try {
          await open()
          break
        } catch (cause) {
          const error = toWaybillError(cause, stream.topic)
          if (stopped.signal.aborted) return
          if (!error.retryable && error.code !== 'MESSAGE_REJECTED') return fail(error)
          await parts.options.clock.sleep(fullJitterMs(PAUSE, attempt, Math.random), stopped.signal)
        }
      }
    } finally {
      opening = false
      started.resolve()
    }
    pull()
  }

  function fail(error: WaybillError): void {
    if (stopped.signal.aborted) return
    stop()
    options.onFailed(error)
  }

  async function open(): Promise<void> {
    const info = await lookAtStream()
    if (info === undefined || stopped.signal.aborted) return
    const name = `waybill-${uniqueToken()}`
    await api.ask(`CONSUMER.CREATE.${stream.name}.${name}`, {
      stream_name: stream.name,
      action: 'create',
      config: {
        name,
        ack_policy: 'none',
        replay_policy: 'instant',
        mem_storage: true,
        num_replicas: 1,
        inactive_threshold: INACTIVE_MS * NANOS,
        ...('at' in from
          ? { deliver_policy: 'by_start_time', opt_start_time: from.at }
          : { deliver_policy: 'by_start_sequence', opt_start_seq: Math.max(from.sequence, 1) }),
        ...(options.subjects.length === 1 ? { filter_subject: options.subjects[0] } : { filter_subjects: options.subjects }),
      },
    })
    mailbox?.close()
    const token = `.${name}.`
    mailbox = connection.mailbox((message) => {
      if (name === consumer) receive(token, message)
    })
    consumer = name
    delivered = 0
    asked = 0
    heardAt = now()
  }

  /** Gives back nothing where the stream is another one now, which ends the reading. */
  async function lookAtStream(): Promise<StreamInfo | undefined> {
    let info: StreamInfo
    try {
      info = await streams.info(stream)
    } catch (error) {
      if (!isWaybillError(error, 'TOPIC_MISSING')) throw error
      streams.forget(stream.topic)
      await streams.open(stream.topic)
      info = await streams.info(stream)
    }
    lookedAt = now()
    if (info.created !== options.created) {
      stop()
      options.onStreamChanged(
        new WaybillError('POSITION_LOST', `stream ${stream.name} was deleted and made again`, { where: stream.topic }),
      )
      return undefined
    }
    // A consumer that is asked, and knew of nothing more, has been given all there was.
    if (!('at' in from) && (unread > 0 || (knowsUnread && asked === 0)) && info.state.first_seq > from.sequence) {
      knowsUnread = false
      unread = 0
      options.onGap(
        new WaybillError(
          'POSITION_LOST',
          `stream ${stream.name} begins at ${info.state.first_seq}, the next message was to be ${from.sequence} or later`,
          { where: stream.topic },
        ),
        undefined,
      )
    }
    tip = info.state.last_seq
    return info
  }

  function look(): void {
    lookedAt = now()
    lookAtStream().catch((error: unknown) => {
      parts.options.observe({ type: 'transport.failed', transport: 'nats', error })
    })
  }

  function pull(): void {
    if (consumer === undefined || asked > PULL_MAX / 2) return
    const client = connection.current()
    const batch = Math.min(PULL_MAX, options.room() - asked - pending.length)
    if (client === undefined || mailbox === undefined || batch < 1) return
    asked += batch
    client.publish(
      `${parts.options.apiPrefix}.CONSUMER.MSG.NEXT.${stream.name}.${consumer}`,
      JSON.stringify({
        batch,
        expires: PULL_EXPIRES_MS * NANOS,
        idle_heartbeat: HEARTBEAT_MS * NANOS,
        max_bytes: Math.max(PULL_MAX_BYTES, parts.options.messageMaxBytes + HEADER_ROOM_BYTES),
      }),
      { reply: mailbox.subject },
    )
  }

  /** `token`: the consumer's name between dots. */
  function receive(token: string, message: NatsMessage): void {
    const { reply } = message
    if (reply === undefined || reply === '') {
      heardAt = now()
      receiveStatus(message)
      return
    }
    const place = placeOf(reply, token)
    if (place?.delivery !== delivered + 1) {
      // Something was sent that did not arrive: it is asked for again.
      void reopen()
      return
    }
    delivered = place.delivery
    asked--
    noteUnread(place.pending)
    if (pending.push({ message, sequence: place.sequence }) === 1) queueMicrotask(flush)
  }

  /** One more has come: of those that were known to follow, at most one is fewer, unless some are gone. */
  function noteUnread(left: number): void {
    const missing = knowsUnread ? unread - 1 - left : 0
    unread = left
    knowsUnread = true
    if (missing > 0) {
      flush()
      options.onGap(
        new WaybillError('POSITION_LOST', `stream ${stream.name} no longer has ${missing} messages or more that were not read`, {
          where: stream.topic,
        }),
        missing,
      )
    }
  }

  function flush(): void {
    if (pending.length === 0) return
    const messages = pending
    pending = []
    heardAt = now()
    from = { sequence: messages.at(-1)!.sequence + 1 }
    try {
      if (!stopped.signal.aborted) options.onMessages(messages)
    } catch (error) {
      // Nobody above this waits for it: what is thrown here would end the process.
      return fail(toWaybillError(error, stream.topic))
    }
    pull()
  }

  function receiveStatus(message: NatsMessage): void {
    const headers = headersOf(message)
    const code = headers?.code ?? 0
    if (code === 100) {
      // Sent only where nothing is left to be sent.
      flush()
      if (tip !== undefined && !stopped.signal.aborted) {
        if (!('at' in from) && tip >= from.sequence) from = { sequence: tip + 1 }
        options.onCaughtUp(tip)
      }
      tip = undefined
      return
    }
    // What the question that has ended will not bring any more.
    const left = Number(headers?.get('Nats-Pending-Messages') ?? '0')
    asked = Math.max(asked - (Number.isInteger(left) ? left : asked), 0)
    // 408: time is up. 409: what it says; the consumer may be gone.
    if (code === 408 || (code === 409 && /batch completed|maxbytes|max_bytes/i.test(headers?.description ?? ''))) pull()
    else void reopen()
  }

  function stop(): void {
    if (stopped.signal.aborted) return
    stopped.abort()
    started.resolve()
    stopWatching()
    mailbox?.close()
    const client = connection.current()
    // Nobody waits for the answer: the server removes it by itself where this does not arrive.
    if (client !== undefined && consumer !== undefined)
      client.publish(`${parts.options.apiPrefix}.CONSUMER.DELETE.${stream.name}.${consumer}`, '')
    consumer = undefined
  }

  void reopen()
  return {
    started: started.promise,
    pull,
    check() {
      if (opening || !connection.isUp || stopped.signal.aborted) return
      if (consumer === undefined) void reopen()
      else if (asked > 0 && now() - heardAt > 3 * HEARTBEAT_MS) void reopen()
      else if (now() - lookedAt > LOOK_MS) look()
    },
    get unread() {
      return unread
    },
    stop,
  }
}
