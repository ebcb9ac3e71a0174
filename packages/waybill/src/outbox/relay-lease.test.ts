import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bench, type Bench, driven, entryOf, manualClock, recorder, settle, STORED } from '../../test/relay-bench.ts'
import { memoryStorage } from '../adapters/memory/storage.ts'
import type { OutboxStore } from '../core/stores.ts'
import type { Message, PublishOutcome } from '../core/transport.ts'
import { createShards } from './relay-shards.ts'

/** Keys of which the shard is `shard`, as the rows that were claimed say. */
async function shardOf(b: Bench, id: string): Promise<number> {
  const [rowId] = await b.storage.outbox.append(b.storage.database, [entryOf(id)])
  await b.storage.outbox.acquire('finder', 60_000)
  const rows = await b.storage.outbox.claim('finder', { limit: 10_000, busy: [] })
  await b.storage.outbox.retire([rowId!])
  await b.storage.outbox.relinquish('finder')
  return rows.find((row) => row.rowId === rowId)!.shard
}

test('an idle relay asks the database twice a second at most, whether it holds all shards or shares them', async () => {
  for (const shared of [false, true]) {
    await using b = bench()
    b.start()
    const other = async (): Promise<unknown> => (shared ? b.storage.outbox.acquire('other', 60_000) : undefined)
    await other()
    await b.clock.advance(10_000)
    assert.equal(b.relay.stats().shards, shared ? 32 : 64)
    b.asked()
    for (let second = 0; second < 60; second++) {
      await b.clock.advance(1_000)
      if (second % 20 === 0) await other()
    }
    const asked = b.asked()
    const queries = Object.values(asked).reduce((sum, count) => sum + count, 0)
    assert.ok(queries <= 120, `${queries} queries in 60 s: ${JSON.stringify(asked)}`)
    // And it does look: half a second after a commit that woke nobody.
    await b.add(...Array.from({ length: 40 }, (_, at) => `k${at}:1`))
    await b.clock.advance(501)
    assert.ok(b.publisher.stored.length > (shared ? 5 : 39), `${b.publisher.stored.length} stored`)
  }
})

test('a shard is handed over as soon as nothing of it is in flight: not before, not long after, and nothing more is claimed from it meanwhile', async () => {
  await using b = bench({ capabilities: { acknowledges: 'handled' } })
  const gates = new Map<string, (outcome: PublishOutcome) => void>()
  b.publisher.answer = (message) => new Promise((resolve) => gates.set(message.id, resolve))
  b.start()
  const keys = Array.from({ length: 200 }, (_, at) => `k${at}`)
  await b.add(...keys.map((key) => `${key}:1`))
  await b.clock.advance(1_000)
  assert.equal(gates.size, 200)
  const rival = async (): Promise<readonly number[]> => (await b.storage.outbox.acquire('rival', 60_000)).shards
  assert.deepEqual(await rival(), [])
  // At its next renewal the relay learns that there is another.
  await b.clock.advance(6_000)
  assert.deepEqual(await rival(), [])
  // What comes for a shard that leaves is left for its next owner; the others go on.
  await b.add(...keys.map((key) => `late-${key}:1`))
  await b.clock.advance(2_000)
  const own = gates.size - 200
  assert.ok(own > 0 && own < 200, `${own} of 200 claimed`)
  for (const resolve of gates.values()) resolve(STORED)
  await b.clock.advance(30)
  assert.equal((await rival()).length, 32)
  const claimed = await b.storage.outbox.claim('rival', { limit: 1_000, busy: [] })
  assert.ok(claimed.every((row) => !row.suspect && row.message.id.startsWith('late-')))
  assert.equal(claimed.length, 200 - own)
})

test('what is claimed says which rows and shards are in flight', async () => {
  const told: unknown[] = []
  const around = (store: OutboxStore): OutboxStore => ({
    ...store,
    acquire: (relayId, leaseMs, inUse) => (told.push({ inUse }), store.acquire(relayId, leaseMs, inUse)),
    claim: (relayId, options) => (told.push(options), store.claim(relayId, options)),
  })
  await using b = bench({ capabilities: { acknowledges: 'handled' }, around, leaseMs: 3_000, batchSize: 50 })
  const shard = await shardOf(b, 'slow:0')
  b.publisher.answer = (message) => (message.key === 'slow' ? new Promise(() => {}) : STORED)
  const [rowId] = await b.add('slow:1', 'a:1')
  b.start()
  await b.clock.advance(100)
  told.length = 0
  await b.clock.advance(3_000)
  assert.deepEqual(told.filter((one) => 'inUse' in (one as object)).at(-1), { inUse: [shard] })
  const claim = told.filter((one) => 'limit' in (one as object)).at(-1)
  assert.deepEqual(claim, { limit: 50, busy: [{ topic: 'orders', key: 'slow' }], inFlight: [rowId] })
})

test('a renewal that is answered late takes back nothing of what a stop has given back', async () => {
  let slowMs = 0
  const gate = Promise.withResolvers<PublishOutcome>()
  await using b = bench({
    leaseMs: 3_000,
    around: (store) => ({
      ...store,
      async acquire(...args) {
        await b.clock.sleep(slowMs)
        return store.acquire(...args)
      },
    }),
  })
  b.publisher.answer = () => gate.promise
  await b.add('a:1')
  const { done, stop } = b.start()
  await b.clock.advance(900)
  slowMs = 500
  stop()
  // A renewal is under way while what was in flight ends.
  await b.clock.advance(300)
  gate.resolve(STORED)
  await driven(b.clock, done)
  await b.clock.advance(1_000)
  assert.deepEqual(await b.storage.outbox.leases(), [])
  assert.equal((await b.storage.outbox.acquire('next', 3_000)).shards.length, 64)
})

test('a relay that was frozen until its lease ran out sends nothing of what it had claimed, and goes on by itself', async () => {
  const claims: (() => void)[] = []
  let slow = true
  const around = (store: OutboxStore): OutboxStore => ({
    ...store,
    async claim(relayId, options) {
      const rows = await store.claim(relayId, options)
      // Frozen between the database's answer and its reading.
      if (slow && rows.length > 0) await new Promise<void>((resolve) => claims.push(resolve))
      return rows
    },
  })
  await using b = bench({ around, leaseMs: 1_000 })
  await b.add('a:1', 'b:1')
  b.start()
  await b.clock.advance(100)
  assert.equal(claims.length, 1)
  await b.clock.freeze(5_000)
  await b.storage.outbox.acquire('other', 2_000)
  assert.equal((await b.storage.outbox.claim('other', { limit: 10, busy: [] })).length, 2)
  slow = false
  claims[0]!()
  await b.clock.advance(500)
  assert.deepEqual(b.publisher.calls, [])
  // The other one dies: what it had in flight is claimed again, one at a time.
  await b.clock.advance(10_000)
  assert.deepEqual(b.publisher.stored, ['a:1', 'b:1'])
})

test('publishAllPending does not take what it claimed too late for nothing', async () => {
  let slow = true
  const around = (store: OutboxStore): OutboxStore => ({
    ...store,
    async claim(relayId, options) {
      const rows = await store.claim(relayId, options)
      if (slow && rows.length > 0) await b.clock.sleep(2_000)
      if (rows.length > 0) slow = false
      return rows
    },
  })
  await using b = bench({ around, leaseMs: 1_000 })
  b.start()
  await b.clock.advance(5_000)
  await b.add('a:1')
  assert.equal(await b.drain(), 1)
})

test('a lease runs out by the time that has passed, whatever was done to the time of day', async () => {
  const clock = manualClock()
  const { outbox } = memoryStorage({ clock: manualClock() })
  const shards = createShards({
    store: outbox,
    relayId: 'r',
    leaseMs: 10_000,
    clock,
    observe: () => {},
    beforeTakeOver: async () => {},
    inUse: () => [],
    lost: () => {},
  })
  await shards.renew()
  const mine = shards.tenure()
  await clock.advance(6_000)
  clock.setTime(-5_000)
  assert.equal(mine(), true)
  assert.equal(shards.renewInMs(), 0)
  await clock.advance(4_000)
  assert.equal(mine(), false)
  // A machine that has slept: only the time of day knows.
  await shards.renew()
  const next = shards.tenure()
  assert.equal(next(), true)
  clock.setTime(10_000)
  assert.equal(next(), false)
})

test('what was claimed under a lease that was lost is not sent under the next one', async () => {
  await using b = bench({ leaseMs: 1_000, capabilities: { stopsKeyAtFailure: false } })
  const gate = Promise.withResolvers<PublishOutcome>()
  b.publisher.answer = () => gate.promise
  const rowIds = await b.add('a:1', 'a:2', 'a:3')
  b.start()
  await b.clock.advance(100)
  const { outbox } = b.storage
  await b.clock.freeze(5_000, async () => {
    await outbox.acquire('other', 1_000)
    assert.equal((await outbox.claim('other', { limit: 10, busy: [] })).length, 3)
    await outbox.markPublished('other', rowIds)
    await outbox.relinquish('other')
  })
  await b.clock.advance(2_000)
  assert.equal(b.relay.stats().shards, 64)
  gate.resolve(STORED)
  await b.clock.advance(2_000)
  assert.deepEqual(b.publisher.stored, ['a:1'])
})

test('suspects that wait are left to the next owner of their shard: it need not wait for the one that is on its way', async () => {
  await using b = bench({ capabilities: { acknowledges: 'handled' } })
  await b.add(...Array.from({ length: 100 }, (_, at) => `k${at}:1`))
  await b.storage.outbox.acquire('dead', 1_000)
  await b.storage.outbox.claim('dead', { limit: 1_000, busy: [] })
  await b.clock.advance(1_001)
  b.publisher.answer = () => new Promise<PublishOutcome>(() => {})
  b.start()
  await b.clock.advance(1_000)
  assert.equal(b.relay.stats().suspectsWaiting, 99)
  await b.storage.outbox.acquire('rival', 60_000)
  await b.clock.advance(6_000)
  const { shards } = await b.storage.outbox.acquire('rival', 60_000)
  // All that is its due, but for the one that is in flight.
  assert.ok(shards.length >= 31)
  const claimed = await b.storage.outbox.claim('rival', { limit: 1_000, busy: [] })
  assert.ok(claimed.length > 20 && claimed.every((row) => row.suspect))
  const inBoth = claimed.length + b.relay.stats().suspectsWaiting
  assert.ok(inBoth <= 99 && inBoth > 90, `${inBoth} suspects`)
})

test('while the leases can not be renewed, nothing more is begun than they last for; then it goes on by itself', async () => {
  let down = false
  const around = (store: OutboxStore): OutboxStore => ({
    ...store,
    acquire: async (...given) => {
      if (down) throw new Error('no database')
      return store.acquire(...given)
    },
  })
  // One message of a key in flight: the next is begun when the one before is stored.
  await using b = bench({ around, leaseMs: 3_000, capabilities: { stopsKeyAtFailure: false } })
  b.publisher.answer = async () => {
    await b.clock.sleep(1_000)
    return STORED
  }
  await b.add(...Array.from({ length: 20 }, (_, at) => `a:${at}`))
  b.start()
  await b.clock.advance(1_500)
  down = true
  await b.clock.advance(10_000)
  const begun = b.publisher.calls.length
  assert.ok(begun >= 2 && begun <= 5, `${begun} begun`)
  down = false
  await b.clock.advance(40_000)
  assert.equal((await b.storage.outbox.stats()).pending, 0)
  assert.deepEqual(
    [...new Set(b.publisher.stored)],
    Array.from({ length: 20 }, (_, at) => `a:${at}`),
  )
})

test('a clock that is set back or ahead neither stretches the stop nor keeps the leases from being renewed', async () => {
  for (const byMs of [-3_600_000, 3_600_000]) {
    await using b = bench({ capabilities: { acknowledges: 'handled' }, shutdownMs: 3_000 })
    b.publisher.answer = ({ key }) => (key === 'a' ? new Promise(() => {}) : STORED)
    const run = b.start()
    await b.add('a:1')
    await b.clock.advance(1_000)
    b.clock.setTime(byMs)
    b.asked()
    await b.add('b:1')
    await b.clock.advance(30_000)
    const renewals = b.asked()['acquire']!
    assert.ok(renewals >= 5 && renewals <= 10, `${renewals} renewals in 30 s`)
    assert.deepEqual(b.publisher.stored, ['b:1'])
    run.stop()
    await b.clock.advance(1_000)
    b.clock.setTime(byMs)
    let ended = false
    void run.done.then(() => {
      ended = true
    })
    await b.clock.advance(3_100)
    assert.equal(ended, true)
  }
})

test('a stop ends in time also where the database does not answer any more', async () => {
  for (const mute of ['acquire', 'claim', 'relinquish'] as const) {
    let hangs = false
    const around = (store: OutboxStore): OutboxStore => ({
      ...store,
      [mute]: (...given: unknown[]) => (hangs ? new Promise(() => {}) : (store[mute] as (...all: unknown[]) => unknown)(...given)),
    })
    await using b = bench({ around, shutdownMs: 2_000 })
    const run = b.start()
    await b.clock.advance(1_000)
    hangs = true
    await b.clock.advance(10_000)
    run.stop()
    let ended = false
    void run.done.then(() => {
      ended = true
    })
    await b.clock.advance(10_000)
    assert.equal(ended, true, `${mute} keeps it`)
  }
})

test('what is sent keeps the order of priorities that the store gives', async () => {
  for (const acknowledges of ['stored', 'handled'] as const) {
    for (const stopsKeyAtFailure of [true, false]) {
      await using b = bench({ capabilities: { acknowledges, stopsKeyAtFailure }, inFlightMax: 1_000 })
      await b.storage.outbox.append(
        b.storage.database,
        Array.from({ length: 40 }, (_, at) => ({ ...entryOf(`k${at}:1`), priority: (at * 7) % 10 })),
      )
      await b.drain()
      const sent = b.publisher.calls.flat().map((message: Message) => (Number(message.key.slice(1)) * 7) % 10)
      assert.deepEqual(
        sent,
        sent.toSorted((left, right) => right - left),
      )
    }
  }
})

test('rows of one key for two destinations: the key is not claimed again before both are settled', async () => {
  const slow = recorder({ acknowledges: 'handled' })
  const fast = recorder({ acknowledges: 'handled' })
  const gate = Promise.withResolvers<PublishOutcome>()
  slow.answer = () => gate.promise
  await using b = bench({ publishers: (name) => ({ slow, fast })[name] })
  await b.addTo('slow', 'a:1')
  await b.addTo('fast', 'a:2')
  b.start()
  await b.clock.advance(2_000)
  assert.deepEqual([slow.calls.length, fast.calls.length], [1, 1])
  gate.resolve(STORED)
  await driven(b.clock, b.relay.publishAllPending())
  assert.deepEqual([slow.stored, fast.stored], [['a:1'], ['a:2']])
  await settle()
})
