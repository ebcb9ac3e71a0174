import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { newId } from '../core/ids.ts'
import type { Delivery, Message, PublishOutcome, Source, Transport } from '../core/transport.ts'

/** One subscription, read step by step. */
export interface Reader {
  /** The next `count` deliveries; fails if they do not come in time. */
  take(count: number): Promise<Delivery[]>
  /** What comes until nothing has come for a while. */
  takeAll(): Promise<Delivery[]>
  /** Calls `handle` with each array until the reader leaves. */
  each(handle: (deliveries: readonly Delivery[]) => Promise<void>): Promise<void>
  leave(): Promise<void>
}

/** A publish on its way. */
export interface Sent {
  /** Resolves once the messages are with the transport: where it acknowledges only what is handled, at once. */
  readonly underway: Promise<void>
  /** Resolves once all are reported stored. */
  readonly stored: Promise<void>
}

/** What one contract test works with: a transport, and names that no other test uses. */
export interface Bench {
  readonly transport: Transport
  topic(): string
  group(topics: readonly string[]): Promise<string>
  read(source: Source): Reader
  publish(messages: readonly Message[], signal?: AbortSignal): Promise<readonly PublishOutcome[]>
  send(messages: readonly Message[]): Sent
  within<T>(what: string, promise: Promise<T>): Promise<T>
  /** Waits until the group has so many members, where the transport can tell. */
  joined(topic: string, group: string, members: number): Promise<void>
}

export interface BenchOptions {
  readonly deadlineMs: number
  readonly quietMs: number
}

const never = new AbortController().signal

export function createBench(transport: Transport, { deadlineMs, quietMs }: BenchOptions): Bench & { end(): Promise<void> } {
  const unique = newId().slice(-12)
  const leaving: (() => Promise<void>)[] = []
  let names = 0

  async function within<T>(what: string, promise: Promise<T>): Promise<T> {
    const timer = new AbortController()
    const late = delay(deadlineMs, undefined, { signal: timer.signal }).then(
      () => assert.fail(`waited ${deadlineMs} ms in vain for ${what}`),
      () => undefined,
    )
    try {
      return (await Promise.race([promise, late])) as T
    } finally {
      timer.abort()
    }
  }

  function read(source: Source): Reader {
    const stop = new AbortController()
    const iterator = transport.subscribe(source, stop.signal)[Symbol.asyncIterator]()
    let pending: Promise<IteratorResult<readonly Delivery[]>> | undefined
    let left: Delivery[] = []
    const pull = (): Promise<IteratorResult<readonly Delivery[]>> => (pending ??= iterator.next())
    async function more(what: string): Promise<boolean> {
      const { done, value } = await within(what, pull())
      pending = undefined
      if (done === true) return false
      left.push(...value)
      return true
    }
    const reader: Reader = {
      async take(count) {
        while (left.length < count) {
          assert.ok(await more(`delivery ${left.length + 1} of ${count} in ${source.topics.join()}`), 'the subscription ended by itself')
        }
        return left.splice(0, count)
      },
      async takeAll() {
        for (;;) {
          const came = await Promise.race([pull().then(() => true), delay(quietMs).then(() => false)])
          if (!came || !(await more('a delivery'))) break
        }
        const all = left
        left = []
        return all
      },
      async each(handle) {
        for (;;) {
          const { done, value } = await pull()
          pending = undefined
          if (done === true) return
          await handle(value)
        }
      },
      async leave() {
        stop.abort()
        await within(
          'a subscription to end',
          pull().then(async () => void (await iterator.return?.())),
        )
      },
    }
    leaving.push(() => reader.leave())
    return reader
  }

  const publish = (messages: readonly Message[], signal = never): Promise<readonly PublishOutcome[]> => transport.publish(messages, signal)

  return {
    transport,
    topic: () => `contract.t${unique}-${++names}`,
    async group(topics) {
      const group = `contract/g${unique}-${++names}`
      await transport.declareGroups(topics.map((topic) => ({ topic, group })))
      return group
    },
    read,
    publish,
    send(messages) {
      const stored = publish(messages).then(assertStored)
      // Whoever does not wait for it has a test in which it need not come true.
      stored.catch(() => undefined)
      return { stored, underway: transport.capabilities.acknowledges === 'handled' ? Promise.resolve() : stored }
    },
    within,
    joined: (topic, group, members) => within(`${members} members of ${group}`, untilJoined(transport, topic, group, members)),
    async end() {
      await within('the transport to close', transport.close())
      await Promise.all(leaving.map((leave) => leave()))
    },
  }
}

const JOIN_POLL_MS = 50

async function untilJoined({ admin }: Transport, topic: string, group: string, members: number): Promise<void> {
  if (admin === undefined) return
  for (;;) {
    const [report] = await admin.topics([topic], never)
    const found = report?.groups.find((each) => each.group === group)
    if (found?.members === undefined || found.members === members) return
    await delay(JOIN_POLL_MS)
  }
}

export function assertStored(outcomes: readonly PublishOutcome[]): void {
  for (const [index, outcome] of outcomes.entries()) {
    assert.equal(outcome.kind, 'stored', `message ${index}: ${outcome.kind === 'stored' ? '' : outcome.error.message}`)
  }
}

/** A small message; its id and body tell its key and number. */
export function message(topic: string, key: string, number = 0, extra: Partial<Message> = {}): Message {
  const id = newId()
  return {
    id,
    topic,
    key,
    headers: { event_id: id, event_type: 'contract.Tested', content_type: 'text/plain' },
    body: Buffer.from(`${key}#${number}`),
    ...extra,
  }
}

/** `count` messages for each of `keys`, keys alternating. */
export function messages(topic: string, keys: readonly string[], count: number): Message[] {
  return Array.from({ length: count }, (_, number) => keys.map((key) => message(topic, key, number))).flat()
}

export const numberOf = ({ body }: Message): number => Number(Buffer.from(body).toString().split('#').at(-1))
export const textOf = ({ body }: Message): string => Buffer.from(body).toString()
export const texts = (deliveries: readonly Delivery[]): string[] => deliveries.map((delivery) => textOf(delivery.message))
export const keysNamed = (count: number): string[] => Array.from({ length: count }, (_, index) => `key-${index}`)

export async function ackAll(deliveries: readonly Delivery[]): Promise<void> {
  for (const delivery of deliveries) await delivery.ack()
}

/** Fails where a key's numbers do not rise one by one from 0, repeats left out. */
export function assertOrder(seen: readonly Message[], keys: readonly string[], count: number): void {
  const next = new Map<string, number>(keys.map((key) => [key, 0]))
  for (const each of seen) {
    const expected = next.get(each.key)
    assert.ok(expected !== undefined, `a message of an unknown key: ${each.key}`)
    const number = numberOf(each)
    if (number < expected) continue
    assert.equal(number, expected, `order of ${each.key}`)
    next.set(each.key, expected + 1)
  }
  for (const [key, number] of next) assert.equal(number, count, `messages of ${key}`)
}
