import { type WaybillErrorCode, WaybillError, isWaybillError } from './errors.ts'
import { checkHeaders, checkKey, checkTopic } from './names.ts'
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
  readonly outcomes: PublishOutcome[]
  left: number
  readonly resolve: (outcomes: readonly PublishOutcome[]) => void
  /** Keys that stand still until the caller has heard. */
  stopped: string[] | undefined
}

interface Entry {
  readonly message: Message
  readonly line: Line
  readonly call: Call
  readonly index: number
  state: 'waiting' | 'sent' | 'settled'
}

/** What waits of one key, in order. */
interface Line {
  readonly keyId: string
  entries: Entry[]
  at: number
  /** `ready`: among those that go next; `busy`: some of it is on its way, and the rest waits for that. */
  state: 'idle' | 'ready' | 'busy'
  failed: boolean
}

const STORED: PublishOutcome = Object.freeze({ kind: 'stored' })
const QUEUE_MAX = 100_000
const QUEUE_MAX_BYTES = 64 * 1024 * 1024
const PASSED_MAX = 4096

/** Micro-batches: what is asked for within one turn, or while batches are on their way, goes together. */
export function createPublishQueue(options: PublishQueueOptions): PublishQueue {
  const { where, send, keysTogether, batchMax, batchMaxBytes, inFlightMax, queueMax = QUEUE_MAX, queueMaxBytes = QUEUE_MAX_BYTES } = options
  /** Of each key of which something waits or is on its way. */
  const lines = new Map<string, Line>()
  let ready: Line[] = []
  let readyAt = 0
  const stopped = new Map<string, number>()
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

  function refusal(message: Message, keyId: string): WaybillError | undefined {
    checkHeaders(message.headers, `headers of message ${message.id}`)
    const { byteLength } = message.body
    if (byteLength > options.messageMaxBytes)
      return error('PAYLOAD_TOO_LARGE', 'the message is too large', {
        got: byteLength,
        allowed: `at most ${options.messageMaxBytes} bytes`,
      })
    if (stopped.size > 0 && stopped.has(keyId)) return follower(message)
    if (waiting >= queueMax || waitingBytes + byteLength > queueMaxBytes)
      return error('QUEUE_FULL', 'too much waits to be sent', { allowed: `at most ${queueMax} messages and ${queueMaxBytes} bytes` })
    return undefined
  }

  function admit(message: Message, index: number, call: Call, aborted: boolean): Entry | undefined {
    let keyId: string | undefined
    let refused: WaybillError | undefined
    try {
      checkTopic(message.topic)
      checkKey(message.key, `key of message ${message.id}`)
      keyId = `${message.topic}\n${message.key}`
      refused = aborted ? error('TRANSPORT_UNAVAILABLE', 'the call was aborted before anything was sent') : refusal(message, keyId)
    } catch (cause) {
      refused = isWaybillError(cause) ? cause : error('MESSAGE_REJECTED', 'the message is none', { cause })
    }
    if (refused !== undefined || keyId === undefined) {
      answer(call, index, keyId, { kind: 'rejected', error: refused ?? error('MESSAGE_REJECTED', 'the message is none') })
      return undefined
    }
    return enqueue(message, keyId, index, call)
  }

  function enqueue(message: Message, keyId: string, index: number, call: Call): Entry {
    let line = lines.get(keyId)
    if (line === undefined) {
      line = { keyId, entries: [], at: 0, state: 'idle', failed: false }
      lines.set(keyId, line)
    }
    const entry: Entry = { message, line, call, index, state: 'waiting' }
    line.entries.push(entry)
    waiting++
    waitingBytes += message.body.byteLength
    if (line.state === 'idle') makeReady(line)
    return entry
  }

  function makeReady(line: Line): void {
    line.state = 'ready'
    ready.push(line)
  }

  function settle(entry: Entry, outcome: PublishOutcome): void {
    if (entry.state === 'settled') return
    if (entry.state === 'waiting') leaveQueue(entry)
    entry.state = 'settled'
    answer(entry.call, entry.index, entry.line.keyId, outcome)
  }

  function answer(call: Call, index: number, keyId: string | undefined, outcome: PublishOutcome): void {
    call.outcomes[index] = outcome
    if (outcome.kind !== 'stored' && keyId !== undefined) {
      ;(call.stopped ??= []).push(keyId)
      stopped.set(keyId, (stopped.get(keyId) ?? 0) + 1)
    }
    if (--call.left === 0) finish(call)
  }

  /** Its keys go on just before the caller hears of it: what it sends then, in that same turn too, is not concurrent any more. */
  function finish(call: Call): void {
    const keys = call.stopped
    if (keys !== undefined)
      queueMicrotask(() => {
        for (const keyId of keys) {
          const count = stopped.get(keyId)! - 1
          if (count === 0) stopped.delete(keyId)
          else stopped.set(keyId, count)
        }
      })
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
      else lines.delete(line.keyId)
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
    for (const [index, entry] of batch.entries()) {
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
    line.state = 'idle'
    if (line.at < line.entries.length) makeReady(line)
    else lines.delete(line.keyId)
  }

  function refuseFrom(line: Line, at: number): void {
    for (const entry of line.entries.splice(at)) settle(entry, { kind: 'rejected', error: follower(entry.message) })
  }

  /** What waits is not sent, nor what others have put behind it; what is on its way decides by its answer about what waits for that. */
  function cutShort(entries: readonly Entry[]): void {
    const cut = new Map<Line, number>()
    for (const entry of entries) {
      if (entry.state === 'waiting') {
        if (!cut.has(entry.line)) cut.set(entry.line, entry.line.entries.indexOf(entry, entry.line.at))
        settle(entry, { kind: 'rejected', error: error('TRANSPORT_UNAVAILABLE', 'the call was aborted before the message was sent') })
      } else settle(entry, { kind: 'unknown', error: error('UNKNOWN_OUTCOME', 'the call was aborted before the broker had answered') })
    }
    for (const [line, at] of cut) refuseFrom(line, at)
  }

  const aborts = createAborts(cutShort)

  return {
    publish(messages, signal) {
      if (closed) return Promise.reject(error('CLOSED', 'the transport is closed'))
      if (messages.length === 0) return Promise.resolve([])
      return new Promise((resolve) => {
        const entries: Entry[] = []
        const call: Call = {
          outcomes: [],
          left: messages.length,
          stopped: undefined,
          resolve(outcomes) {
            aborts.remove(signal, entries)
            resolve(outcomes)
          },
        }
        for (const [index, message] of messages.entries()) {
          const entry = admit(message, index, call, signal.aborted)
          if (entry !== undefined) entries.push(entry)
        }
        if (entries.length === 0) return
        aborts.add(signal, entries)
        kick()
      })
    },
    async close(signal) {
      closed = true
      for (const line of lines.values()) {
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
function createAborts<Call extends object>(
  cut: (call: Call) => void,
): {
  add(signal: AbortSignal, call: Call): void
  remove(signal: AbortSignal, call: Call): void
} {
  const watched = new Map<AbortSignal, { readonly calls: Set<Call>; readonly listener: () => void }>()
  return {
    add(signal, call) {
      const known = watched.get(signal)
      if (known !== undefined) return void known.calls.add(call)
      const calls = new Set([call])
      const listener = (): void => calls.forEach(cut)
      watched.set(signal, { calls, listener })
      signal.addEventListener('abort', listener, { once: true })
    },
    remove(signal, call) {
      const known = watched.get(signal)
      if (known === undefined || !known.calls.delete(call) || known.calls.size > 0) return
      watched.delete(signal)
      signal.removeEventListener('abort', known.listener)
    },
  }
}
