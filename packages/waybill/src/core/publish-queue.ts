import { type WaybillErrorCode, WaybillError, isWaybillError } from './errors.ts'
import { checkContent, checkKey, checkTopic } from './names.ts'
import type { Message, PublishOutcome } from './transport.ts'

export interface PublishQueueOptions {
  /** For errors: `kafka transport`. */
  readonly where: string
  /** Largest body that the broker takes. */
  readonly messageMaxBytes: number
  /**
   * Hands messages to the broker and says by index what became of them. What it rejects with counts as unknown for all of them. Called for
   * several batches at once, whose keys never overlap. Must come to an end by itself: until then its keys wait.
   */
  send(messages: readonly Message[]): Promise<readonly PublishOutcome[]>
  /** Whether one batch may hold several messages of a key: only where the broker stores none of them after one that it did not. */
  readonly keysTogether: boolean
  /** Most messages in a batch. */
  readonly batchMax: number
  /** Most bytes of bodies in a batch, one message excepted. */
  readonly batchMaxBytes: number
  /** Most batches on their way at once. */
  readonly inFlightMax: number
  /** Most messages that wait; more are refused with `QUEUE_FULL`. @default 100000 */
  readonly queueMax?: number
  /** Most bytes of bodies that wait; more are refused with `QUEUE_FULL`. @default 67108864 (64 MiB) */
  readonly queueMaxBytes?: number
  /** Keys that are remembered though nothing of them waits: most come again, and finding costs less than making. @default 4096 */
  readonly idleKeysMax?: number
}

/** The publishing half of a transport over a broker, but for the sending itself. */
export interface PublishQueue {
  /**
   * As `Publisher.publish`. Messages of one (topic, key) go one batch after the other, and where one is not stored, those of its key that were asked
   * for before its caller could hear of it are not sent either.
   */
  publish(messages: readonly Message[], signal: AbortSignal): Promise<readonly PublishOutcome[]>
  /** Refuses what waits and what comes with `CLOSED`; resolves when nothing is on its way any more, or at `signal`, when what is becomes unknown. */
  close(signal: AbortSignal): Promise<void>
}

interface Call {
  readonly signal: AbortSignal
  readonly outcomes: PublishOutcome[]
  left: number
  readonly resolve: (outcomes: readonly PublishOutcome[]) => void
  /** Keys that stand still until the caller has heard. */
  stopped: Line[] | undefined
}

interface Entry {
  readonly message: Message
  readonly line: Line
  readonly call: Call
  readonly index: number
  state: 'waiting' | 'sent' | 'settled'
}

/** What waits of one key of a topic, in order. */
interface Line {
  readonly topic: string
  readonly key: string
  entries: Entry[]
  at: number
  /** `ready`: among those that go next; `busy`: some of it is on its way, and the rest waits for that. */
  state: 'idle' | 'ready' | 'busy'
  failed: boolean
  /** Calls that have not heard yet that a message of this key was not stored. */
  stops: number
}

const STORED: PublishOutcome = Object.freeze({ kind: 'stored' })
const QUEUE_MAX = 100_000
const QUEUE_MAX_BYTES = 64 * 1024 * 1024
const PASSED_MAX = 4096
const IDLE_KEYS_MAX = 4096

/** Micro-batches: what is asked for within one turn, or while batches are on their way, goes together. */
export function createPublishQueue(options: PublishQueueOptions): PublishQueue {
  const {
    where,
    send,
    keysTogether,
    batchMax,
    batchMaxBytes,
    inFlightMax,
    queueMax = QUEUE_MAX,
    queueMaxBytes = QUEUE_MAX_BYTES,
    idleKeysMax = IDLE_KEYS_MAX,
  } = options
  /** By topic, then key: where something waits, is on its way or stands still. By two maps, since joining two texts for each message costs more. */
  const topics = new Map<string, Map<string, Line>>()
  let known = 0
  let ready: Line[] = []
  let readyAt = 0
  const underway = new Set<readonly Entry[]>()
  let waiting = 0
  let waitingBytes = 0
  let kicked = false
  let closed = false
  const onQuiet: (() => void)[] = []

  const error = (code: WaybillErrorCode, message: string, details: object = {}): WaybillError =>
    new WaybillError(code, message, { where, ...details })

  const follower = (message: Message): WaybillError =>
    error('PUBLISH_FAILED', 'an earlier message of its key was not stored', { got: message.key })

  function refusal(message: Message, line: Line): WaybillError | undefined {
    checkContent(message)
    const { byteLength } = message.body
    if (byteLength > options.messageMaxBytes)
      return error('PAYLOAD_TOO_LARGE', 'the message is too large', {
        got: byteLength,
        allowed: `at most ${options.messageMaxBytes} bytes`,
      })
    if (line.stops > 0) return follower(message)
    if (waiting >= queueMax || waitingBytes + byteLength > queueMaxBytes)
      return error('QUEUE_FULL', 'too much waits to be sent', { allowed: `at most ${queueMax} messages and ${queueMaxBytes} bytes` })
    return undefined
  }

  function admit(message: Message, index: number, call: Call): void {
    let line: Line | undefined
    let refused: WaybillError | undefined
    try {
      // A topic and a key that something is known of have been checked.
      line =
        topics.get(message.topic)?.get(message.key) ??
        newLine(checkTopic(message.topic), checkKey(message.key, `key of message ${message.id}`))
      refused = call.signal.aborted
        ? error('TRANSPORT_UNAVAILABLE', 'the call was aborted before anything was sent')
        : refusal(message, line)
      if (refused === undefined) return enqueue({ message, line, call, index, state: 'waiting' })
    } catch (cause) {
      refused = isWaybillError(cause) ? cause : error('MESSAGE_REJECTED', 'the message is none', { cause })
    }
    answer(call, index, line, { kind: 'rejected', error: refused })
  }

  function newLine(topic: string, key: string): Line {
    const line: Line = { topic, key, entries: [], at: 0, state: 'idle', failed: false, stops: 0 }
    const lines = topics.get(topic)
    if (lines === undefined) topics.set(topic, new Map([[key, line]]))
    else lines.set(key, line)
    known++
    return line
  }

  /** Forgets a key of which nothing is left to know, unless there is room to remember it. */
  function release(line: Line): void {
    if (line.state !== 'idle' || line.stops > 0 || known <= idleKeysMax) return
    known--
    const lines = topics.get(line.topic)
    lines?.delete(line.key)
    if (lines?.size === 0) topics.delete(line.topic)
  }

  function enqueue(entry: Entry): void {
    const { line, message } = entry
    line.entries.push(entry)
    waiting++
    waitingBytes += message.body.byteLength
    if (line.state === 'idle') makeReady(line)
  }

  function makeReady(line: Line): void {
    line.state = 'ready'
    ready.push(line)
  }

  function settle(entry: Entry, outcome: PublishOutcome): void {
    if (entry.state === 'settled') return
    if (entry.state === 'waiting') leaveQueue(entry)
    entry.state = 'settled'
    answer(entry.call, entry.index, entry.line, outcome)
  }

  function answer(call: Call, index: number, line: Line | undefined, outcome: PublishOutcome): void {
    call.outcomes[index] = outcome
    if (outcome.kind !== 'stored' && line !== undefined) {
      ;(call.stopped ??= []).push(line)
      line.stops++
    }
    if (--call.left === 0) finish(call)
  }

  /** Its keys go on just before the caller hears of it: what it sends then, in that same turn too, is not concurrent any more. */
  function finish(call: Call): void {
    const { stopped } = call
    if (stopped !== undefined)
      queueMicrotask(() => {
        for (const line of stopped) {
          line.stops--
          release(line)
        }
      })
    aborts.remove(call.signal)
    call.resolve(call.outcomes)
  }

  function leaveQueue(entry: Entry): void {
    waiting--
    waitingBytes -= entry.message.body.byteLength
  }

  function kick(): void {
    if (kicked || underway.size >= inFlightMax) return
    kicked = true
    queueMicrotask(() => {
      kicked = false
      while (underway.size < inFlightMax) {
        const batch = nextBatch()
        if (batch.length === 0) break
        void dispatch(batch)
      }
    })
  }

  function nextBatch(): readonly Entry[] {
    const batch: Entry[] = []
    let bytes = 0
    while (readyAt < ready.length && batch.length < batchMax) {
      const line = ready[readyAt]!
      const before = batch.length
      bytes = fill(batch, bytes, line)
      if (batch.length > before) line.state = 'busy'
      else if (line.at < line.entries.length) break
      else {
        line.state = 'idle'
        release(line)
      }
      readyAt++
    }
    if (readyAt === ready.length) {
      ready = []
      readyAt = 0
    } else if (readyAt > PASSED_MAX) {
      ready = ready.slice(readyAt)
      readyAt = 0
    }
    return batch
  }

  /** Takes what fits: the first of the line, or as many as there are where a key's may go together. */
  function fill(batch: Entry[], bytesBefore: number, line: Line): number {
    let bytes = bytesBefore
    while (line.at < line.entries.length && batch.length < batchMax) {
      const entry = line.entries[line.at]!
      const { byteLength } = entry.message.body
      if (batch.length > 0 && bytes + byteLength > batchMaxBytes) break
      line.at++
      bytes += byteLength
      leaveQueue(entry)
      entry.state = 'sent'
      batch.push(entry)
      if (!keysTogether) break
    }
    if (line.at === line.entries.length) {
      line.entries.length = 0
      line.at = 0
    } else if (line.at > PASSED_MAX) {
      line.entries = line.entries.slice(line.at)
      line.at = 0
    }
    return bytes
  }

  async function dispatch(batch: readonly Entry[]): Promise<void> {
    underway.add(batch)
    let outcomes: readonly PublishOutcome[]
    try {
      outcomes = await send(batch.map(({ message }) => message))
    } catch (cause) {
      const unknown = isWaybillError(cause, 'UNKNOWN_OUTCOME')
        ? cause
        : error('UNKNOWN_OUTCOME', 'the broker was asked, and gave no usable answer', { cause })
      outcomes = batch.map(() => ({ kind: 'unknown', error: unknown }))
    }
    underway.delete(batch)
    for (let index = 0; index < batch.length; index++) {
      const entry = batch[index]!
      const outcome = outcomes[index] ?? {
        kind: 'unknown',
        error: error('UNKNOWN_OUTCOME', 'the adapter left a message without an answer'),
      }
      if (outcome.kind !== 'stored') entry.line.failed = true
      settle(entry, outcome.kind === 'stored' ? STORED : outcome)
    }
    for (const { line } of batch) if (line.state === 'busy') resume(line)
    if (underway.size === 0) for (const resolve of onQuiet.splice(0)) resolve()
    kick()
  }

  /** The key's next messages: to be sent, or refused where one before them was not stored. */
  function resume(line: Line): void {
    if (line.failed) refuseFrom(line, line.at)
    line.failed = false
    line.state = 'idle'
    if (line.at < line.entries.length) makeReady(line)
    else release(line)
  }

  function refuseFrom(line: Line, at: number): void {
    for (const entry of line.entries.splice(at)) settle(entry, { kind: 'rejected', error: follower(entry.message) })
    // What was sent stands before these, and would be kept with a line that is remembered.
    if (line.at === line.entries.length) {
      line.entries.length = 0
      line.at = 0
    }
  }

  /** What waits is not sent, nor what others have put behind it; what is on its way decides by its answer about what waits for that. */
  function cutShort(signal: AbortSignal): void {
    for (const batch of underway)
      for (const entry of batch)
        if (entry.call.signal === signal)
          settle(entry, { kind: 'unknown', error: error('UNKNOWN_OUTCOME', 'the call was aborted before the broker had answered') })
    for (const line of allLines()) {
      const cut = line.entries.findIndex(({ call }, at) => at >= line.at && call.signal === signal)
      if (cut === -1) continue
      for (const entry of line.entries.slice(cut))
        if (entry.call.signal === signal)
          settle(entry, { kind: 'rejected', error: error('TRANSPORT_UNAVAILABLE', 'the call was aborted before the message was sent') })
      refuseFrom(line, cut)
    }
  }

  const allLines = (): readonly Line[] => [...topics.values()].flatMap((lines) => [...lines.values()])
  const aborts = createAborts(cutShort)

  return {
    publish(messages, signal) {
      if (closed) return Promise.reject(error('CLOSED', 'the transport is closed'))
      if (messages.length === 0) return Promise.resolve([])
      return new Promise((resolve) => {
        const call: Call = { signal, outcomes: [], left: messages.length, stopped: undefined, resolve }
        aborts.add(signal)
        for (let index = 0; index < messages.length; index++) admit(messages[index]!, index, call)
        kick()
      })
    },
    async close(signal) {
      closed = true
      for (const line of allLines()) {
        for (const entry of line.entries.splice(line.at))
          settle(entry, { kind: 'rejected', error: error('CLOSED', 'the transport was closed before the message was sent') })
      }
      if (underway.size > 0) {
        const { promise, resolve } = Promise.withResolvers<void>()
        onQuiet.push(resolve)
        signal.addEventListener('abort', () => resolve(), { once: true })
        if (!signal.aborted) await promise
      }
      for (const batch of underway)
        for (const entry of batch)
          settle(entry, { kind: 'unknown', error: error('UNKNOWN_OUTCOME', 'the transport was closed before the broker had answered') })
    },
  }
}

/** One listener for each signal, however many calls share it: a target looks through all its listeners whenever one is added. */
function createAborts(cut: (signal: AbortSignal) => void): { add(signal: AbortSignal): void; remove(signal: AbortSignal): void } {
  const watched = new Map<AbortSignal, { calls: number; readonly listener: () => void }>()
  return {
    add(signal) {
      const known = watched.get(signal)
      if (known !== undefined) return void known.calls++
      const listener = (): void => cut(signal)
      watched.set(signal, { calls: 1, listener })
      signal.addEventListener('abort', listener, { once: true })
    },
    remove(signal) {
      const known = watched.get(signal)
      if (known === undefined || --known.calls > 0) return
      watched.delete(signal)
      signal.removeEventListener('abort', known.listener)
    },
  }
}
