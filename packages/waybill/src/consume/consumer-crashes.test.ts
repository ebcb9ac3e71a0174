import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { memoryStorage } from '../adapters/memory/storage.ts'
import { memoryTransport } from '../adapters/memory/transport.ts'
import { jsonCodec } from '../codecs/json.ts'
import { envelopeOf } from '../core/envelope.ts'
import { defineEvent } from '../core/event.ts'
import type { RegisteredHandler } from '../core/handler.ts'
import { inboxOnce } from '../core/inbox.ts'
import { createRegistry } from '../core/registry.ts'
import type { DeadLetterStore } from '../core/stores.ts'
import type { Message, Subscriber } from '../core/transport.ts'
import type { RunUnit, UnitScope } from '../core/unit.ts'
import { createFakeClock } from '../testing/fake-clock.ts'
import { type Consumer, type ConsumerOptions, createConsumer } from './consumer.ts'

// A history: messages of a few keys, some of which fail for a while or for ever, and processes that consume them for a while and then stop or die.

interface Sent {
  readonly key: number
  /** Attempts that fail; -1: all. */
  readonly fails: number
  readonly turns: number
}
interface Process {
  readonly publishes: readonly Sent[]
  readonly members: number
  readonly turns: number
  readonly ends: 'stops' | 'dies'
}
interface History {
  readonly processes: readonly Process[]
  readonly batchMax: number
  readonly concurrency: number
  readonly queueMax: number
}

const sent: fc.Arbitrary<Sent> = fc.record({
  key: fc.nat(3),
  fails: fc.oneof(
    { weight: 6, arbitrary: fc.constant(0) },
    { weight: 2, arbitrary: fc.integer({ min: 1, max: 2 }) },
    { weight: 1, arbitrary: fc.constant(-1) },
  ),
  turns: fc.nat(2),
})
const history: fc.Arbitrary<History> = fc.record({
  processes: fc.array(
    fc.record({
      publishes: fc.array(sent, { maxLength: 15 }),
      members: fc.integer({ min: 1, max: 3 }),
      turns: fc.nat(30),
      ends: fc.constantFrom('stops' as const, 'dies' as const),
    }),
    { minLength: 1, maxLength: 4 },
  ),
  batchMax: fc.constantFrom(1, 3, 50),
  concurrency: fc.integer({ min: 1, max: 4 }),
  queueMax: fc.constantFrom(1, 5, 1000),
})

const Happened = defineEvent<{ key: number; index: number }>('thing.Happened', { topic: 'thing', key: ({ key }) => `k${key}` })
const NAME = 'world/watch'
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Lives through the history, then checks that nothing was lost, doubled or out of order. */
async function live({ processes, batchMax, concurrency, queueMax }: History, make: (options: ConsumerOptions) => Consumer): Promise<void> {
  const clock = createFakeClock()
  const transport = memoryTransport({ clock })
  const storage = memoryStorage({ clock })
  const codec = jsonCodec()
  const script: Sent[] = []
  const failed = new Map<number, number>()
  const effects: number[] = []
  let process = { alive: true }

  const runUnit: RunUnit = async (fn) => ({
    result: await storage.database.transaction((sql) => fn({ sql, closed: false } as UnitScope)),
    receipts: [],
  })
  const handlerOf = (of: { readonly alive: boolean }): RegisteredHandler => ({
    name: NAME,
    context: 'world',
    eventTypes: new Set([Happened.type]),
    topics: ['thing'],
    ordered: false,
    batchMax,
    once: inboxOnce(
      storage.inbox,
      runUnit,
      NAME,
    )(async ({ events }) => {
      for (const event of events) {
        const { index } = event.payload
        for (let count = 0; count < script[index]!.turns; count++) await turn()
        if (!of.alive) throw new Error('a dead process does nothing')
        const already = failed.get(index) ?? 0
        const { fails } = script[index]!
        if (fails !== -1 && already >= fails) continue
        failed.set(index, already + 1)
        throw new Error('not yet')
      }
      effects.push(...events.map((event) => event.payload.index))
    }),
    plain: async () => {},
  })
  const deadLetters: DeadLetterStore = {
    ...storage.deadLetters,
    park: (letters) => (process.alive ? storage.deadLetters.park(letters) : Promise.reject(new Error('a dead process does nothing'))),
  }
  const publish = (publishes: readonly Sent[]): Promise<unknown> =>
    transport.publish(
      publishes.map((each): Message => {
        const event = Happened({ key: each.key, index: script.push(each) - 1 })
        const { headers, body } = codec.encode(envelopeOf(event, 'test', 'world')) as { headers: Record<string, string>; body: Uint8Array }
        return { id: event.id, topic: 'thing', key: event.key, headers, body }
      }),
      new AbortController().signal,
    )

  await transport.declareGroups([{ topic: 'thing', group: NAME }])
  const last: Process = { publishes: [], members: 1, turns: Infinity, ends: 'stops' }
  for (const { publishes, members, turns, ends } of [...processes, last]) {
    const present = { alive: true }
    process = present
    const stop = new AbortController()
    const cut = new AbortController()
    const subscriber: Subscriber = { subscribe: (source, signal) => transport.subscribe(source, AbortSignal.any([signal, cut.signal])) }
    const running = Array.from({ length: members }, () =>
      make({
        subscriber,
        deadLetters,
        inbox: storage.inbox,
        registry: createRegistry([{ name: 'world', events: [Happened] }]),
        codec,
        handler: handlerOf(present),
        retry: { attemptsMax: 30, baseMs: 0, maxMs: 0 },
        concurrency,
        queueMax,
        clock,
        random: () => 0,
      }).run(stop.signal),
    )
    const half = publishes.length >>> 1
    await publish(publishes.slice(0, half))
    await turn()
    await publish(publishes.slice(half))
    if (turns === Infinity) await settled()
    else for (let count = 0; count < turns; count++) await turn()
    if (ends === 'dies') {
      present.alive = false
      cut.abort()
    }
    stop.abort()
    await Promise.all(running)
  }

  /** Until all is handled or parked, or nothing has happened for long. */
  async function settled(): Promise<void> {
    for (let quiet = 0, before = 0; quiet < 300; quiet++) {
      const now = effects.length + (await storage.deadLetters.count())
      if (now >= script.length) return
      if (now !== before) quiet = 0
      before = now
      await turn()
    }
  }

  const letters = (await storage.deadLetters.list({ handler: NAME, limit: 10_000 })).map(
    ({ message }) => message.key + '/' + JSON.parse(Buffer.from(message.body).toString()).payload.index,
  )
  for (const key of new Set(script.map((each) => each.key))) {
    const indexes = [...script.keys()].filter((index) => script[index]!.key === key)
    const poison = indexes.findIndex((index) => script[index]!.fails === -1)
    const good = poison === -1 ? indexes : indexes.slice(0, poison)
    assert.deepEqual(
      effects.filter((index) => script[index]!.key === key),
      good,
      `effects of key ${key}`,
    )
    assert.deepEqual(
      letters.filter((letter) => letter.startsWith(`k${key}/`)),
      indexes.slice(good.length).map((index) => `k${key}/${index}`),
      `letters of key ${key}`,
    )
  }
  await transport.close()
}

test('property: through failures, stops and deaths each effect happens once, in order per key, and what fails for good is parked with its followers', async () => {
  await fc.assert(
    fc.asyncProperty(history, (each) => live(each, createConsumer)),
    { numRuns: 200 },
  )
})

/** Like `createConsumer`, but the message is settled before its handler runs. */
function createHastyConsumer(options: ConsumerOptions): Consumer {
  const subscriber: Subscriber = {
    async *subscribe(source, signal) {
      for await (const deliveries of options.subscriber.subscribe(source, signal)) {
        for (const delivery of deliveries) await delivery.ack()
        yield deliveries
      }
    },
  }
  return createConsumer({ ...options, subscriber })
}

test('the same property is red for a consumer that acks before it handles: what a death interrupts is lost', async () => {
  await assert.rejects(
    fc.assert(
      fc.asyncProperty(history, (each) => live(each, createHastyConsumer)),
      { numRuns: 200, endOnFailure: true, seed: 1 },
    ),
  )
})

for (const batchMax of [1, 50]) {
  test(`a transport that delivers everything twice: each effect is still there once (batches of ${batchMax})`, async () => {
    const stutter = (options: ConsumerOptions): Consumer => {
      const subscriber: Subscriber = {
        async *subscribe(source, signal) {
          for await (const deliveries of options.subscriber.subscribe(source, signal))
            yield deliveries.flatMap((delivery) => [delivery, delivery])
        },
      }
      return createConsumer({ ...options, subscriber })
    }
    const publishes = [0, 1, 0, 2, 0].map((key) => ({ key, fails: 0, turns: 0 }))
    await live({ processes: [{ publishes, members: 1, turns: 50, ends: 'stops' }], batchMax, concurrency: 4, queueMax: 10 }, stutter)
  })
}
