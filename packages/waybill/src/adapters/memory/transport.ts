import { type Clock, systemClock } from '../../core/clock.ts'
import { WaybillError } from '../../core/errors.ts'
import { checkGroup, checkContent, checkKey, checkTopic } from '../../core/names.ts'
import { checkInteger } from '../../core/options.ts'
import { checkSource } from '../../core/source.ts'
import type { Capabilities, Message, PublishOutcome, Transport } from '../../core/transport.ts'
import type { Stored } from './topic-log.ts'
import { createMember, type Member } from './transport-member.ts'
import { createTopic, type Topic } from './transport-topic.ts'

export interface MemoryTransportOptions {
  /**
   * When `publish` reports stored. `handled`: once each declared group of the topic has acked the message, so that whoever keeps it until then (an
   * outbox) loses nothing though this transport forgets everything with its process. @default 'stored'
   */
  readonly acknowledge?: 'stored' | 'handled'
  /** Most unsettled messages per topic and group, 1 to 10,000,000; a full group rejects with `QUEUE_FULL`. @default 100000 */
  readonly queueMax?: number
  /** Messages that a topic keeps for groups and tails that begin at `earliest` later, 0 to 1,000,000. @default 10000 */
  readonly retainMax?: number
  /** Largest body in bytes, 1 to 64 MiB. @default 1048576 (1 MiB) */
  readonly messageMaxBytes?: number
  /** Times the delay of `Delivery.retry`. @default the machine's */
  readonly clock?: Clock
}

const MIB = 1024 * 1024
const TOPICS_MAX = 10_000
const STORED: PublishOutcome = Object.freeze({ kind: 'stored' })

/**
 * A transport inside this process: topics, keys, groups, tails, redelivery. Order holds per (topic, key) and the order of calls is the order of
 * messages. A key that has unsettled messages with a member stays with it; what a member leaves unsettled goes to others, in order.
 * A group holds its position as long as the transport lives, also while it has no member. A tail that is slower than `retainMax` misses messages.
 * @throws WaybillError `INVALID_OPTION`
 */
export function memoryTransport(options: MemoryTransportOptions = {}): Transport {
  const { acknowledge = 'stored', clock = systemClock } = options
  if (acknowledge !== 'stored' && acknowledge !== 'handled') {
    throw new WaybillError('INVALID_OPTION', 'acknowledge is not known', {
      got: acknowledge,
      allowed: "'stored' or 'handled'",
      where: 'memoryTransport',
    })
  }
  const queueMax = checkInteger(options.queueMax ?? 100_000, 'memoryTransport.queueMax', 1, 10_000_000)
  const retainMax = checkInteger(options.retainMax ?? 10_000, 'memoryTransport.retainMax', 0, 1_000_000)
  const messageMaxBytes = checkInteger(options.messageMaxBytes ?? MIB, 'memoryTransport.messageMaxBytes', 1, 64 * MIB)
  const capabilities: Capabilities = Object.freeze({
    ordering: 'key',
    stopsKeyAtFailure: true,
    acknowledges: acknowledge,
    delay: true,
    survives: false,
  })
  const topics = new Map<string, Topic>()
  const members = new Set<Member>()
  const closing = new AbortController()
  const stopped = createStoppedKeys()
  const cuts = new Set<() => void>()
  let joined = 0

  function topicOf(name: string): Topic {
    const known = topics.get(name)
    if (known !== undefined) return known
    checkTopic(name)
    if (topics.size >= TOPICS_MAX)
      throw new WaybillError('QUEUE_FULL', 'too many topics', {
        got: topics.size,
        allowed: `at most ${TOPICS_MAX}`,
        where: 'memory transport',
      })
    const topic = createTopic(name, retainMax)
    topics.set(name, topic)
    return topic
  }

  /** @throws WaybillError for whatever keeps the message from being stored */
  function store(message: Message): { readonly topic: Topic; readonly stored: Stored } {
    const topic = topicOf(message.topic)
    checkKey(message.key, `key of message ${message.id}`)
    checkContent(message)
    if (message.body.byteLength > messageMaxBytes) {
      throw new WaybillError('PAYLOAD_TOO_LARGE', 'the message is too large', {
        got: message.body.byteLength,
        allowed: `at most ${messageMaxBytes} bytes`,
        where: message.topic,
      })
    }
    if (stopped.has(message))
      throw new WaybillError('PUBLISH_FAILED', 'an earlier message of its key was not stored', { got: message.key, where: message.topic })
    if (acknowledge === 'handled' && topic.declared === 0) {
      throw new WaybillError('UNSUPPORTED', `no group is declared for topic ${message.topic}: nobody could ever report it handled`, {
        allowed: 'topics of which a handler is declared; an event that shares its topic with others is appended with that topic',
        where: message.topic,
      })
    }
    if (!topic.hasRoom(queueMax))
      throw new WaybillError('QUEUE_FULL', 'a group of the topic has no room', {
        allowed: `at most ${queueMax} unsettled messages`,
        where: message.topic,
      })
    return { topic, stored: topic.append(message) }
  }

  function publish(messages: readonly Message[], signal: AbortSignal): Promise<readonly PublishOutcome[]> {
    const aborted = signal.aborted
      ? new WaybillError('TRANSPORT_UNAVAILABLE', 'the call was aborted before anything was sent', { where: 'memory transport' })
      : undefined
    const outcomes: (PublishOutcome | undefined)[] = []
    const pending = new Map<number, Stored>()
    const touched = new Set<Topic>()
    const failed: Message[] = []
    for (const [index, message] of messages.entries()) {
      try {
        if (aborted !== undefined) throw aborted
        const { topic, stored } = store(message)
        touched.add(topic)
        if (acknowledge === 'handled') pending.set(index, stored)
        else outcomes[index] = STORED
      } catch (error) {
        outcomes[index] = { kind: 'rejected', error: toWaybillError(error) }
        stopped.add(message)
        failed.push(message)
      }
    }
    for (const topic of touched) topic.announce()
    const result = pending.size === 0 ? Promise.resolve(outcomes as PublishOutcome[]) : handled(outcomes, pending, signal, cuts)
    // Before the caller hears of it: whatever it sends then is not concurrent any more.
    if (failed.length > 0) void result.then(() => stopped.remove(failed))
    return result
  }

  function leaveOn(signal: AbortSignal, member: Member): void {
    signal.addEventListener('abort', () => member.leave(), { once: true })
    if (signal.aborted) member.leave()
  }

  function assertOpen(): void {
    if (closing.signal.aborted) throw new WaybillError('CLOSED', 'the transport is closed', { where: 'memory transport' })
  }

  return {
    name: 'memory',
    capabilities,
    // Not an async function, though it never throws: the promise must be the one that `stopped` is cleared on.
    publish(messages, signal) {
      if (closing.signal.aborted)
        return Promise.reject(new WaybillError('CLOSED', 'the transport is closed', { where: 'memory transport' }))
      return publish(messages, signal)
    },
    subscribe(source, signal) {
      assertOpen()
      const { topics: names, group, start, batchMax } = checkSource(source, false)
      const member = createMember({
        id: `memory-${++joined}`,
        topics: names.map(topicOf),
        group,
        start: start === 'latest' ? 'latest' : 'earliest',
        batchMax,
        clock,
        closing: closing.signal,
        onLeave: (left) => members.delete(left),
      })
      members.add(member)
      leaveOn(signal, member)
      return member.pull()
    },
    async declareGroups(groups) {
      assertOpen()
      for (const { topic, group } of groups) topicOf(topic).declare(checkGroup(group))
    },
    async close() {
      closing.abort()
      for (const member of members) member.leave()
      for (const cut of cuts) cut()
      topics.clear()
    },
  }
}

/** Resolves once everything in `pending` is handled, `signal` aborts or its member of `cuts` is called: what is not handled by then is unknown. */
function handled(
  outcomes: (PublishOutcome | undefined)[],
  pending: Map<number, Stored>,
  signal: AbortSignal,
  cuts: Set<() => void>,
): Promise<readonly PublishOutcome[]> {
  return new Promise((resolve) => {
    const finish = (): void => {
      signal.removeEventListener('abort', cut)
      cuts.delete(cut)
      resolve(outcomes as PublishOutcome[])
    }
    const cut = (): void => {
      for (const [index, stored] of pending) {
        stored.onHandled = undefined
        const error = new WaybillError('UNKNOWN_OUTCOME', 'the wait ended before the message was handled', { where: stored.message.topic })
        outcomes[index] = { kind: 'unknown', error }
      }
      finish()
    }
    for (const [index, stored] of pending) {
      stored.onHandled = () => {
        outcomes[index] = STORED
        pending.delete(index)
        if (pending.size === 0) finish()
      }
    }
    signal.addEventListener('abort', cut)
    cuts.add(cut)
  })
}

/** Keys of which a message was refused in a call that has not been answered yet: what is sent after it must not pass it. */
function createStoppedKeys(): { has(message: Message): boolean; add(message: Message): void; remove(messages: readonly Message[]): void } {
  const counts = new Map<string, number>()
  const idOf = ({ topic, key }: Message): string => `${topic}\n${key}`
  return {
    has: (message) => counts.size > 0 && counts.has(idOf(message)),
    add(message) {
      counts.set(idOf(message), (counts.get(idOf(message)) ?? 0) + 1)
    },
    remove(messages) {
      for (const message of messages) {
        const count = counts.get(idOf(message)) ?? 1
        if (count === 1) counts.delete(idOf(message))
        else counts.set(idOf(message), count - 1)
      }
    },
  }
}

function toWaybillError(error: unknown): WaybillError {
  if (error instanceof WaybillError) return error
  return new WaybillError('MESSAGE_REJECTED', 'the message is none', { cause: error, where: 'memory transport' })
}
