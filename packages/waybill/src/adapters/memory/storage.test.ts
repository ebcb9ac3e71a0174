import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '../../core/clock.ts'
import type { SqlExecutor } from '../../core/database.ts'
import type { DeadLetter, OutboxEntry, Storage } from '../../core/stores.ts'
import { deadLetterStoreContract } from '../../testing/dead-letter-store-contract.ts'
import { inboxStoreContract } from '../../testing/inbox-store-contract.ts'
import { outboxStoreContract } from '../../testing/outbox-store-contract.ts'
import { memoryStorage } from './storage.ts'

for (const contract of [outboxStoreContract, inboxStoreContract, deadLetterStoreContract]) {
  contract(
    (name, run) => test(`contract: ${name}`, run),
    async () => memoryStorage(),
    { sql: false },
  )
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

function manualClock(): Clock & { nowMs: number } {
  return {
    nowMs: 1_000_000,
    now() {
      return this.nowMs
    },
    sleep: async () => {},
  }
}

let made = 0
function entry(key: string, more: Partial<OutboxEntry> = {}): OutboxEntry {
  return {
    message: { id: `event-${++made}`, topic: 'orders', key, headers: {}, body: new Uint8Array([made]) },
    eventType: 'order.Placed',
    ...more,
  }
}

const append = (storage: Storage, ...entries: OutboxEntry[]): Promise<readonly string[]> =>
  storage.database.transaction((sql) => storage.outbox.append(sql, entries))

/** Claims as the only relay, and gives back the rows' numbers. */
async function claimAll(storage: Storage, relayId = 'relay', limit = 1000): Promise<string[]> {
  await storage.outbox.acquire(relayId, 10_000)
  return (await storage.outbox.claim(relayId, { limit, busy: [] })).map((row) => row.rowId)
}

test('what a transaction appends is there after its commit, all at once, and not before', async () => {
  const storage = memoryStorage()
  await storage.database.transaction(async (sql) => {
    await storage.outbox.append(sql, [entry('a'), entry('b')])
    assert.equal((await storage.outbox.stats()).pending, 0)
    assert.deepEqual(await claimAll(storage), [])
  })
  assert.equal((await storage.outbox.stats()).pending, 2)
})

test('a rolled-back transaction leaves nothing, rejects with its own error, and frees its locks', async () => {
  const storage = memoryStorage()
  const mine = new Error('mine')
  await assert.rejects(
    storage.database.transaction(async (sql) => {
      await storage.outbox.append(sql, [entry('a')])
      await storage.inbox.record(sql, 'billing/invoice', ['e1'])
      throw mine
    }),
    (error) => error === mine,
  )
  assert.equal((await storage.outbox.stats()).pending, 0)
  assert.deepEqual(await storage.database.transaction((sql) => storage.inbox.record(sql, 'billing/invoice', ['e1'])), new Set(['e1']))
  await append(storage, entry('a'))
})

test('transactions run concurrently, and wait for each other only where they share a key', async () => {
  const storage = memoryStorage()
  const gate = Promise.withResolvers<void>()
  const order: string[] = []
  const first = storage.database.transaction(async (sql) => {
    await storage.outbox.append(sql, [entry('a')])
    await gate.promise
    order.push('first')
  })
  await turn()
  const sameKey = append(storage, entry('a')).then(() => order.push('same key'))
  await append(storage, entry('b'))
  order.push('other key')
  gate.resolve()
  await Promise.all([first, sameKey])
  assert.deepEqual(order, ['other key', 'first', 'same key'])
})

test('within a key the order of row numbers is the order of commits, however transactions overlap', async () => {
  const storage = memoryStorage()
  const commits: string[] = []
  await Promise.all(
    Array.from({ length: 40 }, async (_, index) => {
      const item = entry(`key-${index % 3}`)
      await storage.database.transaction(async (sql) => {
        for (let turns = index % 5; turns > 0; turns--) await turn()
        await storage.outbox.append(sql, [item])
        for (let turns = (index * 7) % 4; turns > 0; turns--) await turn()
        commits.push(item.message.id)
      })
    }),
  )
  const rows = await storage.outbox.list({ limit: 100 })
  for (const key of ['key-0', 'key-1', 'key-2']) {
    const byNumber = rows.filter((row) => row.key === key).map((row) => row.eventId)
    assert.deepEqual(
      byNumber,
      commits.filter((id) => byNumber.includes(id)),
    )
    assert.ok(byNumber.length >= 13)
  }
})

test('two transactions that wait for each other are told so, and the one that is not can go on', async () => {
  const storage = memoryStorage()
  const bothHold = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const
  const run = (own: string, other: string, mine: 0 | 1): Promise<void> =>
    storage.database.transaction(async (sql) => {
      await storage.inbox.record(sql, 'h', [own])
      bothHold[mine].resolve()
      await bothHold[1 - mine]!.promise
      await storage.inbox.record(sql, 'h', [other])
    })
  const results = await Promise.allSettled([run('a', 'b', 0), run('b', 'a', 1)])
  const failed = results.filter((result) => result.status === 'rejected')
  assert.equal(failed.length, 1)
  assert.equal(failed[0]!.reason.code, 'SESSION_BUSY')
  assert.equal(failed[0]!.reason.cause.code, '40P01')
})

test('a transaction that waits for a lock of the one it was begun in is refused, and does not hang', async () => {
  const storage = memoryStorage()
  await storage.database.transaction(async (sql) => {
    await storage.outbox.append(sql, [entry('a')])
    await assert.rejects(append(storage, entry('a')), { code: 'SESSION_BUSY' })
  })
})

test('an executor is good until its transaction ends', async () => {
  const storage = memoryStorage()
  let kept!: SqlExecutor
  await storage.database.transaction(async (sql) => {
    kept = sql
  })
  await assert.rejects(storage.outbox.append(kept, [entry('a')]), { code: 'UNIT_CLOSED' })
})

test('there is no SQL, and it says so', async () => {
  const storage = memoryStorage()
  await assert.rejects(storage.database.query('select 1'), { code: 'UNSUPPORTED' })
  await assert.rejects(
    storage.database.transaction((sql) => sql.query('select 1')),
    { code: 'UNSUPPORTED' },
  )
  await assert.rejects(storage.outbox.append({ query: async () => ({ rows: [] }) }, [entry('a')]), { code: 'UNSUPPORTED' })
})

test('a derived executor still stands for its transaction', async () => {
  const storage = memoryStorage()
  await storage.database.transaction((sql) => storage.outbox.append(Object.create(sql), [entry('a')]))
  assert.equal((await storage.outbox.stats()).pending, 1)
})

test('appending outside a transaction takes one of its own', async () => {
  const storage = memoryStorage()
  assert.equal((await storage.outbox.append(storage.database, [entry('a')])).length, 1)
  assert.equal((await storage.outbox.stats()).pending, 1)
})

test('a held or parked row blocks its key; a scheduled one does not, and joins when it is due', async () => {
  const clock = manualClock()
  const storage = memoryStorage({ clock })
  const [held, behind, other, scheduled, overtaking] = await append(
    storage,
    entry('a', { holdMs: 100 }),
    entry('a'),
    entry('b'),
    entry('c', { availableAt: new Date(clock.nowMs + 100) }),
    entry('c'),
  )
  assert.deepEqual(await claimAll(storage), [other, overtaking])
  clock.nowMs += 101
  assert.deepEqual(await claimAll(storage), [held, behind, other, scheduled, overtaking])
  await storage.outbox.park('relay', [{ rowId: held!, error: 'no' }])
  assert.deepEqual(await claimAll(storage), [other, scheduled, overtaking])
  assert.equal(await storage.outbox.retry({ rowIds: [held!] }), 1)
  assert.deepEqual(await claimAll(storage), [held, behind, other, scheduled, overtaking])
})

test('priority orders keys, never the rows of a key', async () => {
  const storage = memoryStorage()
  const [low, high, top] = await append(storage, entry('a', { priority: 1 }), entry('a', { priority: 9 }), entry('b', { priority: 5 }))
  assert.deepEqual(await claimAll(storage), [top, low, high])
})

test('busy keys and destinations that are left out are not claimed, and do not use up the limit', async () => {
  const storage = memoryStorage()
  const [, , last] = await append(storage, entry('a'), entry('b', { destination: 'down' }), entry('c'))
  await storage.outbox.acquire('relay', 10_000)
  const rows = await storage.outbox.claim('relay', { limit: 1, busy: [{ topic: 'orders', key: 'a' }], without: ['down'] })
  assert.deepEqual(
    rows.map((row) => row.rowId),
    [last],
  )
})

test('two relays share the shards fairly, and neither claims or marks what the other holds', async () => {
  const storage = memoryStorage()
  const ids = await append(storage, ...Array.from({ length: 200 }, (_, index) => entry(`key-${index}`)))
  assert.equal((await storage.outbox.acquire('one', 10_000)).shards.length, 64)
  await storage.outbox.acquire('two', 10_000)
  const { shards: one } = await storage.outbox.acquire('one', 10_000)
  const { shards: two } = await storage.outbox.acquire('two', 10_000)
  assert.deepEqual([one.length, two.length], [32, 32])
  assert.equal(new Set([...one, ...two]).size, 64)
  const claim = async (relayId: string): Promise<string[]> =>
    (await storage.outbox.claim(relayId, { limit: 1000, busy: [] })).map((row) => row.rowId)
  const [ofOne, ofTwo] = [await claim('one'), await claim('two')]
  assert.deepEqual([...ofOne, ...ofTwo].toSorted(), [...ids].toSorted())
  assert.equal(await storage.outbox.markPublished('one', ofTwo), 0)
  assert.equal(await storage.outbox.markPublished('two', ofTwo), ofTwo.length)
})

test('what was in flight when a lease ran out is suspect for the next relay; after a relinquish nothing is', async () => {
  const clock = manualClock()
  const storage = memoryStorage({ clock })
  const [marked, inFlight] = await append(storage, entry('a'), entry('a'))
  await storage.outbox.acquire('dead', 1_000)
  await storage.outbox.claim('dead', { limit: 10, busy: [] })
  await storage.outbox.markPublished('dead', [marked!])
  const later = await append(storage, entry('b'))
  clock.nowMs += 1_001
  assert.equal(await storage.outbox.markPublished('dead', [inFlight!]), 0)
  await storage.outbox.acquire('next', 1_000)
  const rows = await storage.outbox.claim('next', { limit: 10, busy: [] })
  assert.deepEqual(
    rows.map((row) => [row.rowId, row.suspect]),
    [
      [inFlight, true],
      [later[0], false],
    ],
  )
  await storage.outbox.charge('next', inFlight!)
  await storage.outbox.relinquish('next')
  await storage.outbox.acquire('third', 1_000)
  const again = await storage.outbox.claim('third', { limit: 10, busy: [] })
  assert.deepEqual(
    again.map((row) => [row.suspect, row.attempts]),
    [
      [true, 1],
      [false, 0],
    ],
  )
})

test('failures count an attempt and say why; a retry forgets the attempts', async () => {
  const clock = manualClock()
  const storage = memoryStorage({ clock })
  const [rowId] = await append(storage, entry('a'))
  await claimAll(storage)
  await storage.outbox.hold('relay', [{ rowId: rowId!, error: 'too big' }], 500)
  assert.deepEqual(await claimAll(storage), [])
  const [listed] = await storage.outbox.list({})
  assert.deepEqual([listed!.attempts, listed!.lastError, listed!.dueAt], [1, 'too big', new Date(clock.nowMs + 500)])
  assert.equal(await storage.outbox.retry({ status: 'pending' }), 1)
  assert.deepEqual(await claimAll(storage), [rowId])
  assert.equal((await storage.outbox.list({}))[0]!.attempts, 0)
})

test('retire and release need no lease: the one ends a row, the other makes it due', async () => {
  const storage = memoryStorage()
  const [retired, released] = await append(storage, entry('a', { holdMs: 60_000 }), entry('b', { holdMs: 60_000 }))
  await storage.outbox.retire([retired!])
  await storage.outbox.release([released!])
  assert.deepEqual(await claimAll(storage), [released])
  assert.deepEqual(
    (await storage.outbox.list({})).map((row) => row.status),
    ['published', 'pending'],
  )
})

test('sweep deletes published rows only, the old ones, and no more than asked', async () => {
  const clock = manualClock()
  const storage = memoryStorage({ clock })
  const ids = await append(storage, entry('a'), entry('b'), entry('c'))
  await claimAll(storage)
  await storage.outbox.markPublished('relay', ids.slice(0, 2))
  assert.equal(await storage.outbox.sweep(1_000, 10), 0)
  clock.nowMs += 1_000
  assert.equal(await storage.outbox.sweep(1_000, 1), 1)
  assert.equal(await storage.outbox.sweep(1_000, 10), 1)
  assert.deepEqual(await storage.outbox.stats(), { pending: 1, scheduled: 0, parked: 0, oldestPendingMs: 1_000 })
})

test('a full store refuses and stays whole; published rows do not fill it', async () => {
  const storage = memoryStorage({ rowsMax: 2 })
  const ids = await append(storage, entry('a'), entry('b'))
  await assert.rejects(append(storage, entry('c')), { code: 'QUEUE_FULL' })
  await claimAll(storage)
  await storage.outbox.markPublished('relay', ids)
  await append(storage, entry('c'), entry('d'))
  await assert.rejects(
    storage.database.transaction(async (sql) => storage.inbox.record(sql, 'h', ['1', '2', '3'])),
    { code: 'QUEUE_FULL' },
  )
})

test('rows of transactions that are still open count against the limit', async () => {
  const storage = memoryStorage({ rowsMax: 1 })
  await storage.database.transaction(async (sql) => {
    await storage.outbox.append(sql, [entry('a')])
    await assert.rejects(append(storage, entry('b')), { code: 'QUEUE_FULL' })
  })
})

test('a concurrent duplicate waits for the end of the first, and then finds its record', async () => {
  const storage = memoryStorage()
  const gate = Promise.withResolvers<void>()
  const first = storage.database.transaction(async (sql) => {
    assert.deepEqual(await storage.inbox.record(sql, 'h', ['1', '2']), new Set(['1', '2']))
    assert.deepEqual(await storage.inbox.record(sql, 'h', ['1']), new Set())
    await gate.promise
  })
  await turn()
  let second: ReadonlySet<string> | undefined
  const waiting = storage.database.transaction(async (sql) => {
    second = await storage.inbox.record(sql, 'h', ['2', '3'])
  })
  assert.deepEqual(await storage.database.transaction((sql) => storage.inbox.record(sql, 'other', ['2'])), new Set(['2']))
  await turn()
  assert.equal(second, undefined)
  gate.resolve()
  await Promise.all([first, waiting])
  assert.deepEqual(second, new Set(['3']))
})

test('attempts are counted outside the transaction, and forgotten when the event is recorded', async () => {
  const storage = memoryStorage()
  assert.equal(await storage.inbox.countAttempt('h', '1'), 1)
  await assert.rejects(
    storage.database.transaction(async (sql) => {
      await storage.inbox.record(sql, 'h', ['1'])
      throw new Error('failed')
    }),
  )
  assert.equal(await storage.inbox.countAttempt('h', '1'), 2)
  await storage.database.transaction((sql) => storage.inbox.record(sql, 'h', ['1']))
  assert.equal(await storage.inbox.countAttempt('h', '1'), 1)
})

test('a dead letter is kept once, in the order of arrival, and its key is known as parked', async () => {
  const storage = memoryStorage()
  const letter = (id: string, key: string, handler = 'h'): DeadLetter => ({
    handler,
    message: { id, topic: 'orders', key, headers: {}, body: new Uint8Array() },
    eventType: 'order.Placed',
    reason: 'failed',
    error: 'no',
    attempts: 3,
    partition: '0',
    sequence: 1n,
  })
  await storage.deadLetters.park([letter('2', 'a'), letter('1', 'b')])
  await storage.deadLetters.park([letter('2', 'a'), letter('3', 'a'), letter('2', 'a', 'other')])
  assert.deepEqual(
    (await storage.deadLetters.list({ handler: 'h' })).map(({ message }) => message.id),
    ['2', '1', '3'],
  )
  assert.deepEqual(await storage.deadLetters.parkedKeys('h'), [
    { topic: 'orders', key: 'a' },
    { topic: 'orders', key: 'b' },
  ])
  assert.equal(await storage.deadLetters.count(), 4)
  assert.equal((await storage.deadLetters.list({ limit: 1 })).length, 1)
})

test('a closed storage refuses, and closes again without complaint', async () => {
  const storage = memoryStorage()
  await storage.check()
  assert.deepEqual(await storage.migrate(), [])
  await storage.close()
  await storage.close()
  await assert.rejects(storage.check(), { code: 'CLOSED' })
  await assert.rejects(append(storage, entry('a')), { code: 'CLOSED' })
})
