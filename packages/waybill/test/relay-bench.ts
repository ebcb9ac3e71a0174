import assert from 'node:assert/strict'
import { memoryStorage } from '../src/adapters/memory/storage.ts'
import type { Clock } from '../src/core/clock.ts'
import { WaybillError } from '../src/core/errors.ts'
import type { WaybillEvent } from '../src/core/observe.ts'
import type { OutboxEntry, OutboxStore, Storage } from '../src/core/stores.ts'
import type { Capabilities, Message, Publisher, PublishOutcome } from '../src/core/transport.ts'
import { createRelay, type Relay, type RelayOptions } from '../src/outbox/relay.ts'

// What the tests of the relay share: a clock that they move, a transport that records, and a relay over a store in memory.

/** Lets everything run that waits for nothing but its turn. */
export async function settle(turns = 12): Promise<void> {
  for (let left = turns; left > 0; left--) await new Promise((resolve) => setImmediate(resolve))
}

export interface ManualClock extends Clock {
  /** Moves time on, from one sleeper's end to the next. */
  advance(ms: number): Promise<void>
  /** Changes the time of day, and nothing else. */
  setTime(byMs: number): void
  /** The process stands still: time goes on, `meanwhile` happens elsewhere, and only then anything that slept here runs on. */
  freeze(ms: number, meanwhile?: () => Promise<void>): Promise<void>
}

export function manualClock(): ManualClock {
  const sleepers = new Set<{ readonly until: number; readonly wake: () => void }>()
  let nowMs = 1_700_000_000_000
  let shiftMs = 0
  return {
    now: () => nowMs + shiftMs,
    monotonic: () => nowMs,
    setTime(byMs) {
      shiftMs += byMs
    },
    async freeze(ms, meanwhile) {
      nowMs += ms
      await meanwhile?.()
      for (const sleeper of sleepers) if (sleeper.until <= nowMs) sleeper.wake()
      await settle()
    },
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (signal?.aborted === true) return resolve()
        const sleeper = {
          until: nowMs + ms,
          wake: () => {
            sleepers.delete(sleeper)
            resolve()
          },
        }
        sleepers.add(sleeper)
        signal?.addEventListener('abort', sleeper.wake, { once: true })
      }),
    async advance(ms) {
      const end = nowMs + ms
      await settle()
      for (;;) {
        const next = [...sleepers].toSorted((a, b) => a.until - b.until)[0]
        if (next === undefined || next.until > end) break
        nowMs = Math.max(nowMs, next.until)
        next.wake()
        await settle()
      }
      nowMs = end
      await settle()
    },
  }
}

export const STORED: PublishOutcome = { kind: 'stored' }
export const REFUSED: PublishOutcome = { kind: 'rejected', error: new WaybillError('MESSAGE_REJECTED', 'not this one') }
export const DOWN = { kind: 'rejected', error: new WaybillError('TRANSPORT_UNAVAILABLE', 'down') } as const satisfies PublishOutcome
export const UNKNOWN: PublishOutcome = { kind: 'unknown', error: new WaybillError('UNKNOWN_OUTCOME', 'cut') }

export interface Recorder extends Publisher {
  readonly calls: Message[][]
  /** Ids of what was stored, in order. */
  readonly stored: string[]
  answer: (message: Message, signal: AbortSignal) => PublishOutcome | Promise<PublishOutcome>
}

export function recorder(capabilities: Partial<Capabilities> = {}): Recorder {
  const made: Recorder = {
    capabilities: { ordering: 'key', stopsKeyAtFailure: true, acknowledges: 'stored', delay: false, ...capabilities },
    calls: [],
    stored: [],
    answer: () => STORED,
    async publish(messages, signal) {
      made.calls.push([...messages])
      const stopped = new Map<string, PublishOutcome>()
      const outcomes: PublishOutcome[] = []
      for (const message of messages) {
        const behind = made.capabilities.stopsKeyAtFailure ? stopped.get(message.key) : undefined
        const outcome = behind ?? (await made.answer(message, signal))
        if (outcome.kind === 'stored') made.stored.push(message.id)
        else stopped.set(message.key, DOWN)
        outcomes.push(outcome)
      }
      return outcomes
    },
  }
  return made
}

export interface Bench extends AsyncDisposable {
  readonly storage: Storage
  readonly clock: ManualClock
  readonly publisher: Recorder
  readonly observed: WaybillEvent[]
  readonly relay: Relay
  /** Commits rows `key:n`. */
  add(...ids: string[]): Promise<readonly string[]>
  addTo(destination: string, ...ids: string[]): Promise<readonly string[]>
  /** Starts `run`; it is stopped when the bench is left. */
  start(): { readonly done: Promise<void>; readonly stop: () => void }
  drain(): Promise<number>
  statuses(): Promise<Record<string, string>>
  /** How often the store was asked what, since the last time this was read. */
  asked(): Record<string, number>
}

export type BenchOptions = Partial<RelayOptions> & {
  readonly capabilities?: Partial<Capabilities>
  /** Wraps the relay's store. */
  readonly around?: (store: OutboxStore) => OutboxStore
}

/** Counts each call. */
function counted(store: OutboxStore, counts: Map<string, number>): OutboxStore {
  return new Proxy(store, {
    get(target, name) {
      const value: unknown = target[name as keyof OutboxStore]
      if (typeof value !== 'function') return value
      return (...args: unknown[]): unknown => {
        counts.set(String(name), (counts.get(String(name)) ?? 0) + 1)
        return value.apply(target, args)
      }
    },
  })
}

export function bench(options: BenchOptions = {}): Bench {
  const { capabilities, around = (store) => store, ...relayOptions } = options
  const clock = manualClock()
  const storage = memoryStorage({ clock })
  const counts = new Map<string, number>()
  const publisher = recorder(capabilities)
  const observed: WaybillEvent[] = []
  const relay = createRelay({
    store: around(counted(storage.outbox, counts)),
    publishers: new Map([['default', publisher]]),
    clock,
    random: () => 0.999,
    observe: (event) => observed.push(event),
    ...relayOptions,
  })
  const stops: (() => Promise<void>)[] = []
  const addTo = (destination: string, ...ids: string[]): Promise<readonly string[]> =>
    storage.outbox.append(
      storage.database,
      ids.map((id) => entryOf(id, destination)),
    )
  return {
    storage,
    clock,
    publisher,
    observed,
    relay,
    add: (...ids) => addTo('default', ...ids),
    addTo,
    start() {
      const controller = new AbortController()
      const done = relay.run(controller.signal)
      done.catch(() => {})
      stops.push(async () => {
        controller.abort()
        await clock.advance(20_000)
        await done.catch(() => {})
      })
      return { done, stop: () => controller.abort() }
    },
    drain: () => driven(clock, relay.publishAllPending()),
    async statuses() {
      const rows = await storage.outbox.list({ limit: 10_000 })
      return Object.fromEntries(rows.map((row) => [row.eventId, row.attempts === 0 ? row.status : `${row.status} ${row.attempts}`]))
    },
    asked() {
      const answer = Object.fromEntries(counts)
      counts.clear()
      return answer
    },
    async [Symbol.asyncDispose]() {
      for (const stop of stops) await stop()
    },
  }
}

export function entryOf(id: string, destination = 'default'): OutboxEntry {
  return {
    message: { id, topic: 'orders', key: id.split(':')[0]!, headers: {}, body: new Uint8Array() },
    eventType: 'order.Placed',
    destination,
  }
}

/** Moves time on until `promise` settles. */
export async function driven<T>(clock: ManualClock, promise: Promise<T>): Promise<T> {
  let settled = false
  const watch = promise.finally(() => {
    settled = true
  })
  watch.catch(() => {})
  for (let step = 0; !settled; step++) {
    assert.ok(step < 10_000, 'it never settles')
    await settle()
    if (!settled) await clock.advance(50)
  }
  return promise
}
