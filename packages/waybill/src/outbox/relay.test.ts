import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  bench,
  type Bench,
  DOWN,
  driven,
  entryOf,
  type ManualClock,
  manualClock,
  recorder,
  REFUSED,
  settle,
  STORED,
  UNKNOWN,
} from '../../test/relay-bench.ts'
import { memoryStorage } from '../adapters/memory/storage.ts'
import { WaybillError } from '../core/errors.ts'
import type { WaybillEvent } from '../core/observe.ts'
import type { OutboxStore, Storage } from '../core/stores.ts'
import type { Capabilities, Message, PublishOutcome } from '../core/transport.ts'
import { createRelay } from './relay.ts'

test('what was committed is published in the order of each key, and marked after the answer, never before', async () => {
  await using b = bench()
  await b.add('a:1', 'b:1', 'a:2', 'b:2')
  const marked: number[] = []
  b.publisher.answer = async () => {
    marked.push((await b.storage.outbox.list({ status: 'published' })).length)
    return STORED
  }
  assert.equal(await b.drain(), 4)
  assert.deepEqual(b.publisher.stored, ['a:1', 'b:1', 'a:2', 'b:2'])
  assert.deepEqual(marked, [0, 0, 0, 0])
  assert.deepEqual(await b.storage.outbox.stats(), { pending: 0, scheduled: 0, parked: 0, oldestPendingMs: 0 })
  assert.equal(b.relay.stats().published, 4)
})

test('publishAllPending goes through any backlog in batches, and leaves what is held', async () => {
  await using b = bench({ batchSize: 10, inFlightMax: 20 })
  for (let at = 0; at < 95; at++) await b.add(`key-${at % 7}:${at}`)
  await b.storage.outbox.append(b.storage.database, [{ ...entryOf('held:1'), holdMs: 3_600_000 }, entryOf('held:2')])
  assert.equal(await b.drain(), 95)
  assert.ok(b.publisher.calls.every((call) => call.length <= 10))
  assert.equal((await b.storage.outbox.stats()).pending, 2)
  assert.equal(await b.drain(), 0)
  assert.equal(b.relay.stats().running, false)
})

test('publishAllPending works beside run, and two of them at once both come to an end', async () => {
  await using b = bench()
  const run = b.start()
  await b.clock.advance(5_000)
  await b.add('a:1', 'b:1')
  const [first, second] = await driven(b.clock, Promise.all([b.relay.publishAllPending(), b.relay.publishAllPending()]))
  assert.deepEqual([first, second], [2, 2])
  assert.equal(b.relay.stats().running, true)
  run.stop()
  await driven(b.clock, run.done)
  assert.equal(b.relay.stats().running, false)
})

test('publishAllPending ends when its signal aborts', async () => {
  await using b = bench({ capabilities: { acknowledges: 'handled' } })
  await b.add('a:1')
  b.publisher.answer = (_message, signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve(UNKNOWN)))
  const controller = new AbortController()
  const done = b.relay.publishAllPending(controller.signal)
  await b.clock.advance(1_000)
  controller.abort()
  assert.equal(await driven(b.clock, done), 0)
})

test('run can run once at a time, and again after it has stopped', async () => {
  await using b = bench()
  const first = b.start()
  await assert.rejects(b.relay.run(new AbortController().signal), { code: 'DUPLICATE' })
  first.stop()
  await driven(b.clock, first.done)
  await b.add('a:1')
  b.start()
  await b.clock.advance(1_000)
  assert.deepEqual(b.publisher.stored, ['a:1'])
})

test('a key stops at its first failure; the others go on', async () => {
  await using b = bench()
  await b.add('a:1', 'bad:1', 'a:2', 'bad:2', 'bad:3', 'b:1')
  b.publisher.answer = (message) => (message.id === 'bad:1' ? REFUSED : STORED)
  assert.equal(await b.drain(), 3)
  assert.deepEqual(b.publisher.stored, ['a:1', 'a:2', 'b:1'])
  assert.deepEqual(await b.statuses(), {
    'a:1': 'published',
    'a:2': 'published',
    'b:1': 'published',
    'bad:1': 'pending 1',
    'bad:2': 'pending',
    'bad:3': 'pending',
  })
  assert.deepEqual(
    b.observed.find((event) => event.type === 'relay.held'),
    { type: 'relay.held', rowId: '2', topic: 'orders', key: 'bad', holdMs: 100, error: 'not this one' },
  )
})

test('what is refused by content is tried attemptsMax times, then parked with its followers behind it, until somebody retries it', async () => {
  await using b = bench({ retry: { attemptsMax: 3, baseMs: 100, maxMs: 1_000 } })
  b.start()
  await b.add('bad:1', 'bad:2', 'a:1')
  let refuse = true
  b.publisher.answer = (message) => (refuse && message.id === 'bad:1' ? REFUSED : STORED)
  await b.clock.advance(5_000)
  assert.deepEqual(await b.statuses(), { 'bad:1': 'parked 3', 'bad:2': 'parked', 'a:1': 'published' })
  assert.equal(b.publisher.calls.flat().filter(({ id }) => id === 'bad:1').length, 3)
  assert.equal(b.observed.filter((event) => event.type === 'relay.parked').length, 1)
  refuse = false
  await b.storage.outbox.retry({ status: 'parked' })
  await b.clock.advance(1_000)
  assert.deepEqual(b.publisher.stored, ['a:1', 'bad:1', 'bad:2'])
})

test("a destination that is down opens its breaker and spends nobody's attempts; the other destinations go on; it drains when it is back", async () => {
  const up = recorder()
  const down = recorder()
  await using b = bench({ publishers: (name) => ({ up, down })[name], batchSize: 5, breaker: { failuresMax: 3, openMs: 1_000 } })
  b.start()
  let isDown = true
  down.answer = () => (isDown ? DOWN : STORED)
  const lost = Array.from({ length: 50 }, (_, at) => `d${at % 20}:${at}`)
  await b.addTo('down', ...lost)
  await b.clock.advance(3_000)
  assert.deepEqual(b.relay.stats().breakers, { down: 'open' })
  const [opened] = b.observed.filter((event) => event.type === 'breaker.changed')
  assert.deepEqual(opened, { type: 'breaker.changed', path: 'relay:down', from: 'closed', to: 'open', error: DOWN.error })
  const callsWhileOpen = down.calls.length
  await b.addTo('up', ...Array.from({ length: 30 }, (_, at) => `u${at}:1`))
  await b.clock.advance(300)
  assert.equal(up.stored.length, 30)
  await b.clock.advance(60_000)
  // One probe at a time, at doubling distances: an outage of a minute is a handful of calls.
  assert.ok(down.calls.length - callsWhileOpen <= 8, `${down.calls.length - callsWhileOpen} calls`)
  assert.ok(Object.values(await b.statuses()).every((status) => status === 'pending' || status === 'published'))
  isDown = false
  await b.clock.advance(31_000)
  assert.equal(down.stored.length, 50)
  assert.deepEqual(b.relay.stats().breakers, { down: 'closed', up: 'closed' })
  for (let key = 0; key < 20; key++)
    assert.deepEqual(
      down.stored.filter((id) => id.startsWith(`d${key}:`)),
      lost.filter((id) => id.startsWith(`d${key}:`)),
    )
})

test('where calls of one key each fail, the breaker opens all the same, and is half-open with one of them', async () => {
  await using b = bench({ capabilities: { acknowledges: 'handled' }, breaker: { failuresMax: 5, openMs: 1_000 } })
  b.publisher.answer = () => DOWN
  await b.add(...Array.from({ length: 40 }, (_, at) => `k${at}:1`))
  b.start()
  await b.clock.advance(900)
  assert.deepEqual(b.relay.stats().breakers, { default: 'open' })
  const before = b.publisher.calls.length
  await b.clock.advance(600)
  assert.equal(b.publisher.calls.length, before + 1)
  b.publisher.answer = () => STORED
  await b.clock.advance(5_000)
  assert.equal(b.publisher.stored.length, 40)
})

test('publishAllPending goes on behind what ends while it looks', async () => {
  let claims = 0
  await using b = bench({
    batchSize: 1,
    around: (store) => ({
      ...store,
      async claim(...args) {
        const rows = await store.claim(...args)
        // The answer to the second look comes late: when it was asked, the key was in flight, and is no more.
        if (++claims === 2) await b.clock.sleep(1_000)
        return rows
      },
    }),
  })
  b.publisher.answer = async () => {
    await b.clock.sleep(100)
    return STORED
  }
  await b.add('a:1', 'a:2', 'a:3')
  assert.equal(await b.drain(), 3)
})

test('publishAllPending does not wait for a destination whose breaker is open', async () => {
  await using b = bench()
  await b.add('a:1')
  b.publisher.answer = () => DOWN
  assert.equal(await b.drain(), 0)
  assert.equal(b.publisher.calls.length, 5)
  assert.deepEqual(await b.statuses(), { 'a:1': 'pending' })
})

test('what may have been sent is sent again, says so, and is charged nothing', async () => {
  await using b = bench()
  await b.add('a:1', 'a:2')
  b.publisher.answer = (message) => (message.id === 'a:1' && message.resent !== true ? UNKNOWN : STORED)
  assert.equal(await b.drain(), 2)
  assert.deepEqual(
    b.publisher.calls.map((call) => call.map(({ id, resent }) => `${id}${resent === true ? ' resent' : ''}`)),
    [
      ['a:1', 'a:2'],
      ['a:1 resent', 'a:2'],
    ],
  )
  assert.deepEqual(await b.statuses(), { 'a:1': 'published', 'a:2': 'published' })
})

test('a transport that throws, or gives too few outcomes, loses nothing', async () => {
  await using b = bench()
  await b.add('a:1', 'b:1')
  let calls = 0
  const { publish } = b.publisher
  b.publisher.publish = async (messages, signal) => {
    calls++
    if (calls === 1) throw new Error('a bug')
    const outcomes = await publish(messages, signal)
    return calls === 3 ? [] : outcomes
  }
  assert.equal(await b.drain(), 2)
  assert.deepEqual(
    b.publisher.calls.map((call) => call.map(({ id }) => id)),
    [['a:1'], ['b:1'], ['b:1']],
    'after a throw each half by itself, and what had no outcome once more',
  )
})

test('a row for a destination that the relay has not is held, then parked, and blocks nobody else', async () => {
  await using b = bench({ retry: { attemptsMax: 2 } })
  b.start()
  await b.addTo('nowhere', 'n:1', 'n:2')
  await b.add('a:1')
  await b.clock.advance(3_000)
  assert.deepEqual(await b.statuses(), { 'n:1': 'parked 2', 'n:2': 'parked', 'a:1': 'published' })
  assert.match((await b.storage.outbox.list({ status: 'parked' }))[0]!.lastError!, /no publisher for the destination "nowhere"/)
})

test('where the transport reports handled, a slow key takes its time and the others go on', async () => {
  await using b = bench({ capabilities: { acknowledges: 'handled' } })
  b.start()
  const slow = Promise.withResolvers<PublishOutcome>()
  b.publisher.answer = (message) => (message.key === 'slow' ? slow.promise : STORED)
  await b.add('slow:1', 'a:1', 'slow:2', 'a:2', 'b:1')
  await b.clock.advance(1_000)
  await b.add('a:3', 'slow:3')
  await b.clock.advance(1_000)
  assert.deepEqual(b.publisher.stored, ['a:1', 'b:1', 'a:2', 'a:3'])
  assert.deepEqual(
    b.publisher.calls[0]!.map(({ id }) => id),
    ['slow:1', 'slow:2'],
  )
  slow.resolve(STORED)
  await b.clock.advance(1_000)
  assert.deepEqual(
    b.publisher.stored.filter((id) => id.startsWith('slow')),
    ['slow:1', 'slow:2', 'slow:3'],
  )
})

test('never more than inFlightMax rows are in flight, and never two calls with the same key', async () => {
  await using b = bench({ capabilities: { acknowledges: 'handled' }, inFlightMax: 12, batchSize: 5 })
  const gates: { readonly message: Message; readonly resolve: (outcome: PublishOutcome) => void }[] = []
  b.publisher.answer = (message) => new Promise((resolve) => gates.push({ message, resolve }))
  await b.add(...Array.from({ length: 60 }, (_, at) => `k${at % 30}:${at}`))
  b.start()
  let most = 0
  for (let round = 0; round < 200 && b.publisher.stored.length < 60; round++) {
    await b.clock.advance(30)
    most = Math.max(most, b.relay.stats().rowsInFlight)
    const keys = gates.map(({ message }) => message.key)
    assert.equal(new Set(keys).size, keys.length)
    gates.splice(round % Math.max(1, gates.length), 1)[0]?.resolve(STORED)
  }
  assert.equal(b.publisher.stored.length, 60)
  assert.ok(most <= 12 && most > 5, `${most} in flight`)
})

test('where the transport does not stop a key at its failure, one message of a key is in flight', async () => {
  await using b = bench({ capabilities: { stopsKeyAtFailure: false } })
  await b.add('a:1', 'a:2', 'b:1', 'a:3', 'b:2')
  b.publisher.answer = (message) => (message.id === 'b:1' ? REFUSED : STORED)
  assert.equal(await b.drain(), 3)
  assert.deepEqual(
    b.publisher.calls.map((call) => call.map(({ id }) => id)),
    [['a:1', 'b:1'], ['a:2'], ['a:3']],
  )
})

/** Leaves rows in flight with a relay that died. */
async function die(b: Bench, relayId = 'dead'): Promise<void> {
  await b.storage.outbox.acquire(relayId, 1_000)
  await b.storage.outbox.claim(relayId, { limit: 1_000, busy: [] })
  await b.clock.advance(1_001)
}

test('after a crash the suspects go one at a time, each charged before; the others do not wait for them', async () => {
  await using b = bench({ capabilities: { acknowledges: 'handled' } })
  await b.add('a:1', 'a:2', 'b:1', 'c:1')
  await die(b)
  await b.add('new:1')
  const alone: string[] = []
  const gates: ((outcome: PublishOutcome) => void)[] = []
  b.publisher.answer = async (message) => {
    if (message.key === 'new') return STORED
    const row = (await b.storage.outbox.list({})).find(({ eventId }) => eventId === message.id)!
    alone.push(`${message.id} attempts ${row.attempts}${message.resent === true ? ' resent' : ''}`)
    return new Promise((resolve) => gates.push(resolve))
  }
  b.start()
  await b.clock.advance(100)
  assert.deepEqual([b.publisher.stored, alone], [['new:1'], ['a:1 attempts 1 resent']])
  for (let step = 0; step < 4; step++) {
    assert.equal(gates.length, 1)
    gates.pop()!(STORED)
    await b.clock.advance(1_000)
  }
  assert.deepEqual(alone, ['a:1 attempts 1 resent', 'b:1 attempts 1 resent', 'c:1 attempts 1 resent', 'a:2 attempts 1 resent'])
  assert.equal((await b.storage.outbox.stats()).pending, 0)
})

test('a row that was in flight attemptsMax times when its relay died is parked', async () => {
  await using b = bench({ retry: { attemptsMax: 2 } })
  const [rowId] = await b.add('a:1', 'b:1')
  await die(b, 'first')
  for (const relayId of ['second', 'third']) {
    await b.storage.outbox.acquire(relayId, 1_000)
    await b.storage.outbox.claim(relayId, { limit: 10, busy: [] })
    await b.storage.outbox.charge(relayId, rowId!)
    await b.clock.advance(1_001)
  }
  assert.equal(await b.drain(), 1)
  assert.deepEqual(b.publisher.stored, ['b:1'])
  const [parked] = await b.storage.outbox.list({ status: 'parked' })
  assert.match(parked!.lastError!, /in flight 2 times when its relay died/)
})

test('an outage charges a suspect once, however long it lasts', async () => {
  await using b = bench({ retry: { attemptsMax: 3 } })
  await b.add('a:1')
  await die(b)
  b.publisher.answer = () => DOWN
  b.start()
  await b.clock.advance(120_000)
  assert.deepEqual(await b.statuses(), { 'a:1': 'pending 1' })
  assert.ok(b.publisher.calls.length > 5)
  b.publisher.answer = () => STORED
  await b.clock.advance(31_000)
  assert.deepEqual(b.publisher.stored, ['a:1'])
})

test('a stop waits for what is in flight, marks it, claims no more, and leaves nothing suspect', async () => {
  await using b = bench({ capabilities: { acknowledges: 'handled' } })
  const gate = Promise.withResolvers<PublishOutcome>()
  b.publisher.answer = () => gate.promise
  const run = b.start()
  await b.add('a:1')
  await b.clock.advance(1_000)
  run.stop()
  await b.add('b:1')
  await b.clock.advance(2_000)
  assert.equal(b.relay.stats().running, true)
  gate.resolve(STORED)
  await settle()
  await run.done
  assert.deepEqual(await b.statuses(), { 'a:1': 'published', 'b:1': 'pending' })
  await b.storage.outbox.acquire('next', 10_000)
  assert.deepEqual(
    (await b.storage.outbox.claim('next', { limit: 10, busy: [] })).map((row) => row.suspect),
    [false],
  )
})

test('a stop cuts off what takes longer than shutdownMs, and ends even where the transport does not listen', async () => {
  for (const listens of [true, false]) {
    await using b = bench({ capabilities: { acknowledges: 'handled' }, shutdownMs: 3_000 })
    b.publisher.answer = (_message, signal) =>
      new Promise((resolve) => {
        if (listens) signal.addEventListener('abort', () => resolve(STORED))
      })
    const run = b.start()
    await b.add('a:1')
    await b.clock.advance(1_000)
    run.stop()
    let ended = false
    void run.done.then(() => {
      ended = true
    })
    await b.clock.advance(2_900)
    assert.equal(ended, false)
    await b.clock.advance(1_200)
    assert.equal(ended, true)
    // It was stored at the last moment: that is still written.
    assert.deepEqual(await b.statuses(), { 'a:1': listens ? 'published' : 'pending' })
    assert.deepEqual(b.relay.stats().breakers, { default: 'closed' })
  }
})

/** A store whose calls fail while `broken` says so. */
function breakable(store: OutboxStore, broken: () => Error | undefined): OutboxStore {
  return new Proxy(store, {
    get(target, name) {
      const value: unknown = target[name as keyof OutboxStore]
      if (typeof value !== 'function') return value
      return async (...args: unknown[]): Promise<unknown> => {
        const error = broken()
        if (error !== undefined) throw error
        return value.apply(target, args)
      }
    },
  })
}

test('a database that fails is asked again, for ever, and what was stored meanwhile is marked when it is back', async () => {
  const clock = manualClock()
  const storage = memoryStorage({ clock })
  const publisher = recorder()
  const observed: WaybillEvent[] = []
  let error: Error | undefined = new Error('gone')
  const store = breakable(storage.outbox, () => error)
  const relay = createRelay({ store, publishers: new Map([['default', publisher]]), clock, observe: (event) => observed.push(event) })
  const controller = new AbortController()
  const done = relay.run(controller.signal)
  await storage.outbox.append(storage.database, [entryOf('a:1'), entryOf('b:1')])
  await clock.advance(60_000)
  assert.equal(publisher.calls.length, 0)
  assert.ok(observed.length > 5 && observed.every((event) => event.type === 'relay.failed'))
  publisher.answer = () => {
    error = new Error('gone again')
    return STORED
  }
  error = undefined
  await clock.advance(8_000)
  assert.equal(publisher.calls.length, 1)
  assert.equal((await storage.outbox.stats()).pending, 2)
  error = undefined
  await clock.advance(6_000)
  assert.equal(publisher.calls.length, 1)
  assert.equal((await storage.outbox.stats()).pending, 0)
  controller.abort()
  await driven(clock, done)
})

test('a database without tables ends the run, and publishAllPending, with that error', async () => {
  const storage = memoryStorage()
  const store = breakable(storage.outbox, () => new WaybillError('NOT_MIGRATED', 'no tables'))
  const relay = createRelay({ store, publishers: new Map() })
  await assert.rejects(relay.run(new AbortController().signal), { code: 'NOT_MIGRATED' })
  await assert.rejects(relay.publishAllPending(), { code: 'NOT_MIGRATED' })
  assert.equal(relay.stats().running, false)
})

test('a commit that wakes the relay is published without waiting for the poll; many wakes are one look', async () => {
  await using b = bench()
  const run = b.start()
  await b.clock.advance(10_000)
  b.asked()
  await b.storage.outbox.append(b.storage.database, [entryOf('a:1')])
  for (let times = 0; times < 100; times++) b.relay.wake()
  await settle()
  assert.deepEqual(b.publisher.stored, ['a:1'])
  assert.ok(b.asked()['claim']! <= 3)
  run.stop()
  await driven(b.clock, run.done)
  b.relay.wake()
})

test('leases are renewed while calls take long, and a shard with something in flight is not given to another relay', async () => {
  await using b = bench({ capabilities: { acknowledges: 'handled' }, leaseMs: 3_000 })
  const gate = Promise.withResolvers<PublishOutcome>()
  b.publisher.answer = () => gate.promise
  b.start()
  await b.add('a:1')
  await b.clock.advance(1_000)
  let rivals = 0
  for (let at = 0; at < 20; at++) {
    rivals = (await b.storage.outbox.acquire('rival', 3_000)).shards.length
    assert.equal((await b.storage.outbox.claim('rival', { limit: 1, busy: [] })).length, 0)
    await b.clock.advance(1_000)
  }
  assert.deepEqual([rivals, b.relay.stats().shards], [31, 33], 'the one in use is above its share')
  gate.resolve(STORED)
  await b.clock.advance(10)
  assert.equal((await b.storage.outbox.stats()).pending, 0)
  assert.equal((await b.storage.outbox.acquire('rival', 3_000)).shards.length, 32)
})

test('wrong options are refused by name', () => {
  const store = memoryStorage().outbox
  for (const [name, value] of [
    ['batchSize', 0],
    ['inFlightMax', NaN],
    ['leaseMs', 1],
    ['pollIntervalMs', -1],
    ['shutdownMs', 1e9],
  ] as const) {
    assert.throws(() => createRelay({ store, publishers: new Map(), [name]: value }), { code: 'INVALID_OPTION', where: `relay.${name}` })
  }
  assert.throws(() => createRelay({ store, publishers: new Map(), breaker: { failuresMax: 0 } }), { code: 'INVALID_OPTION' })
})

type Act =
  | { readonly kind: 'add'; readonly key: number; readonly rows: number }
  | { readonly kind: 'pass'; readonly ms: number }
  | { readonly kind: 'crash' | 'zombie' }

const act: fc.Arbitrary<Act> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('add' as const), key: fc.nat(3), rows: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.constantFrom(0, 5, 30, 400, 2_500) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('crash' as const, 'zombie' as const) }) },
)

const capabilities = fc.record({ acknowledges: fc.constantFrom('stored' as const, 'handled' as const), stopsKeyAtFailure: fc.boolean() })
const faults = fc.array(fc.constantFrom('none', 'none', 'down', 'lost', 'slow', 'cut'), { minLength: 8, maxLength: 40 })

/** A life of a relay: after its death neither its store nor its transport answer any more; a zombie's go on, without the lease. */
function life(
  storage: Storage,
  clock: ManualClock,
  relayId: string,
  capabilities: Partial<Capabilities>,
  deliver: (message: Message) => Promise<PublishOutcome>,
): { readonly kill: () => void; readonly suspend: () => void; readonly stop: () => void } {
  let dead = false
  let suspended = false
  const unlessDead = async <T>(run: () => Promise<T>): Promise<T> => {
    if (dead) return new Promise<T>(() => {})
    const result = await run()
    return dead ? new Promise<T>(() => {}) : result
  }
  const store = new Proxy(storage.outbox, {
    get:
      (target, name) =>
      (...args: unknown[]) =>
        name === 'acquire' && suspended
          ? new Promise(() => {})
          : unlessDead(async () => (target[name as keyof OutboxStore] as (...given: unknown[]) => Promise<unknown>)(...args)),
  })
  const publisher = recorder(capabilities)
  publisher.answer = (message) => unlessDead(() => deliver(message))
  const controller = new AbortController()
  const relay = createRelay({
    store,
    relayId,
    publishers: new Map([['default', publisher]]),
    clock,
    random: () => 0.5,
    batchSize: 4,
    inFlightMax: 8,
    leaseMs: 1_000,
    breaker: { openMs: 100, openMaxMs: 100 },
  })
  void relay.run(controller.signal)
  return { kill: () => void (dead = true), suspend: () => void (suspended = true), stop: () => controller.abort() }
}

test('relays that die in the middle, or go on without their lease: nothing is lost, and first occurrences stay in the order of each key', async () => {
  let redelivered = 0
  await fc.assert(
    fc.asyncProperty(fc.array(act, { minLength: 3, maxLength: 14 }), capabilities, faults, async (acts, declared, faultPlan) => {
      const clock = manualClock()
      const storage = memoryStorage({ clock })
      const firsts: string[] = []
      const committed: string[] = []
      let calls = 0
      // What arrives, arrives at once; the answer may take its time, be lost, or be a refusal of the destination.
      const deliver = async (message: Message): Promise<PublishOutcome> => {
        const fault = calls < 200 ? faultPlan[calls++ % faultPlan.length] : 'none'
        if (fault === 'down') return DOWN
        if (fault === 'lost') return UNKNOWN
        if (firsts.includes(message.id)) redelivered++
        else firsts.push(message.id)
        if (fault === 'slow') await clock.sleep(700)
        return fault === 'cut' ? UNKNOWN : STORED
      }
      const lives = [life(storage, clock, 'relay-0', declared, deliver)]
      for (const [index, current] of acts.entries()) {
        if (current.kind === 'pass') await clock.advance(current.ms)
        if (current.kind === 'add') {
          const ids = Array.from({ length: current.rows }, (_, at) => `${current.key}:${index}-${at}`)
          await storage.outbox.append(
            storage.database,
            ids.map((id) => entryOf(id)),
          )
          committed.push(...ids)
          await settle(index % 3)
        }
        if (current.kind === 'crash' || current.kind === 'zombie') {
          // A zombie renews no lease any more, and is still at work when the next one takes over.
          if (current.kind === 'crash') lives.at(-1)!.kill()
          else lives.at(-1)!.suspend()
          lives.push(life(storage, clock, `relay-${lives.length}`, declared, deliver))
        }
      }
      for (let waited = 0; waited < 200 && (await storage.outbox.stats()).pending > 0; waited++) await clock.advance(1_000)
      assert.deepEqual(await storage.outbox.stats(), { pending: 0, scheduled: 0, parked: 0, oldestPendingMs: 0 })
      for (const key of ['0', '1', '2', '3']) {
        const ofKey = (ids: readonly string[]): string[] => ids.filter((id) => id.startsWith(`${key}:`))
        assert.deepEqual(ofKey(firsts), ofKey(committed))
      }
      for (const one of lives) one.stop()
      await clock.advance(10_000)
    }),
    { numRuns: 60 },
  )
  assert.ok(redelivered > 0, 'no run ever sent anything twice: nothing was tested')
})
