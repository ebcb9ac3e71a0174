import assert from 'node:assert/strict'
import { newId } from '../core/ids.ts'
import type { ClaimedRow, OutboxEntry, Storage } from '../core/stores.ts'
import { type ContractTest, type StorageTraits, until, withStorage } from './contract-tools.ts'
import { outboxOrderContract } from './outbox-order-contract.ts'

const LEASE_MS = 60_000
const RELAY = 'relay-a'
const OTHER = 'relay-b'

/**
 * What every outbox store must do. Runner-agnostic: hand in `test` of `node:test` or `it` of vitest, and a function that makes a storage with empty
 * tables; each test closes its own.
 */
export function outboxStoreContract(test: ContractTest, make: () => Promise<Storage>, traits: StorageTraits = {}): void {
  const declare = withStorage(test, make)
  transactionTests(declare)
  waitingTests(declare)
  leaseTests(declare)
  operatorTests(declare)
  outboxOrderContract(declare, traits)
}

type Declare = ReturnType<typeof withStorage>

function transactionTests(declare: Declare): void {
  declare('a row is there with its transaction, and a rolled-back one leaves nothing', async (storage) => {
    const failure = new Error('rolled back on purpose')
    await assert.rejects(
      storage.database.transaction(async (sql) => {
        await storage.outbox.append(sql, [entry('a')])
        throw failure
      }),
      failure,
    )
    assert.deepEqual(await storage.outbox.list({}), [])
    const [rowId] = await append(storage, [entry('a')])
    assert.deepEqual(
      (await storage.outbox.list({})).map((row) => row.rowId),
      [rowId],
    )
  })

  declare('a claimed row is the message as it was appended', async (storage) => {
    const message = {
      id: newId(),
      topic: 'order',
      key: 'clé "1"\\{},',
      headers: { event_type: 'a.B', note: 'ü"\\ {}' },
      body: Uint8Array.from({ length: 256 }, (_, byte) => byte),
    }
    const empty = { ...message, id: newId(), headers: {}, body: new Uint8Array() }
    await append(storage, [
      { message, eventType: 'a.B', destination: 'elsewhere' },
      { message: empty, eventType: 'a.B' },
    ])
    const [first, second] = await claimAs(storage, RELAY)
    assert.deepEqual(plain(first!), {
      destination: 'elsewhere',
      attempts: 0,
      suspect: false,
      message: { ...message, headers: { ...message.headers }, body: [...message.body] },
    })
    assert.deepEqual(plain(second!), { destination: 'default', attempts: 0, suspect: false, message: { ...empty, headers: {}, body: [] } })
  })

  declare('row numbers come back by index, and rise with it, however many there are', async (storage) => {
    const entries = Array.from({ length: 2100 }, (_, index) => entry(`key-${index % 7}`))
    const rowIds = await append(storage, entries)
    assert.equal(rowIds.length, entries.length)
    assert.deepEqual(
      rowIds,
      rowIds.toSorted((left, right) => (BigInt(left) < BigInt(right) ? -1 : 1)),
    )
    const byId = new Map((await storage.outbox.list({ limit: 10_000 })).map((row) => [row.rowId, row.eventId]))
    assert.deepEqual(
      rowIds.map((rowId) => byId.get(rowId)),
      entries.map(({ message }) => message.id),
    )
    assert.deepEqual(await append(storage, []), [])
  })

  declare('migrating again, and twice at once, changes nothing', async (storage) => {
    await append(storage, [entry('a')])
    const applied = await Promise.all([storage.migrate(), storage.migrate(), storage.migrate()])
    assert.deepEqual(applied, [[], [], []])
    await storage.check()
    assert.equal((await storage.outbox.stats()).pending, 1)
  })
}

function waitingTests(declare: Declare): void {
  declare('a row in its grace holds up its key and no other; released it is due, retired it is gone', async (storage) => {
    const [graced, retired] = await append(storage, [
      entry('a', { holdMs: 60_000 }),
      entry('b', { holdMs: 60_000 }),
      entry('a'),
      entry('b'),
      entry('c'),
    ])
    assert.deepEqual(keysOf(await claimAs(storage, RELAY)), ['c'])
    await storage.outbox.release([graced!])
    await storage.outbox.retire([retired!])
    const rows = await claimAs(storage, RELAY)
    assert.deepEqual(keysOf(rows).toSorted(), ['a', 'a', 'b', 'c'])
    assert.equal(rows.find(({ message }) => message.key === 'a')!.rowId, graced)
    assert.ok(rows.every((row) => row.rowId !== retired))
  })

  declare('a grace ends by itself', async (storage) => {
    const [graced] = await append(storage, [entry('a', { holdMs: 30 }), entry('a')])
    const rows = await until('the grace has ended', async () => {
      const claimed = await claimAs(storage, RELAY)
      return claimed.length > 0 && claimed
    })
    assert.equal(rows[0]!.rowId, graced)
    assert.equal(rows.length, 2)
  })

  declare('a held row counts an attempt and stops its key only', async (storage) => {
    const [failed] = await append(storage, [entry('a'), entry('a'), entry('b')])
    await claimAs(storage, RELAY)
    await storage.outbox.hold(RELAY, [{ rowId: failed!, error: 'broker said no' }], 60_000)
    assert.deepEqual(keysOf(await claimAs(storage, RELAY)), ['b'])
    const row = (await storage.outbox.list({ rowIds: [failed!] }))[0]!
    assert.equal(row.status, 'pending')
    assert.equal(row.attempts, 1)
    assert.equal(row.lastError, 'broker said no')
    assert.ok(row.dueAt instanceof Date)
  })

  declare('a parked row stops its key only, until somebody retries it', async (storage) => {
    const [poison] = await append(storage, [entry('a'), entry('a'), entry('b')])
    await claimAs(storage, RELAY)
    await storage.outbox.charge(RELAY, poison!)
    await storage.outbox.park(RELAY, [{ rowId: poison!, error: 'not acceptable' }])
    assert.deepEqual(keysOf(await claimAs(storage, RELAY)), ['b'])
    assert.deepEqual(
      (await storage.outbox.list({ status: 'parked' })).map((row) => [row.rowId, row.lastError]),
      [[poison, 'not acceptable']],
    )
    assert.equal(await storage.outbox.retry({ rowIds: [poison!] }), 1)
    const rows = await claimAs(storage, RELAY)
    assert.deepEqual(keysOf(rows).toSorted(), ['a', 'a', 'b'])
    assert.deepEqual(rows.filter(({ message }) => message.key === 'a').map((row) => [row.rowId, row.attempts])[0], [poison, 0])
  })

  declare('a row scheduled for later lets its followers pass, and joins when it is due', async (storage) => {
    const [later, past] = await append(storage, [
      entry('a', { availableAt: new Date(Date.now() + 3_600_000) }),
      entry('b', { availableAt: new Date(0) }),
      entry('a'),
    ])
    const rows = await claimAs(storage, RELAY)
    assert.deepEqual(keysOf(rows).toSorted(), ['a', 'b'])
    assert.ok(rows.every((row) => row.rowId !== later))
    assert.ok(rows.some((row) => row.rowId === past))
  })

  declare('keys that are busy are passed over', async (storage) => {
    await append(storage, [entry('a'), entry('b'), entry('a'), { ...entry('a'), message: { ...entry('a').message, topic: 'other' } }])
    await storage.outbox.acquire(RELAY, LEASE_MS)
    const rows = await storage.outbox.claim(RELAY, { limit: 10, busy: [{ topic: 'ledger', key: 'a' }] })
    assert.deepEqual(rows.map(({ message }) => `${message.topic}/${message.key}`).toSorted(), ['ledger/b', 'other/a'])
  })

  declare('rows for a destination that is to be left alone are passed over', async (storage) => {
    await append(storage, [entry('a', { destination: 'down' }), entry('b'), entry('c', { destination: 'up' })])
    await storage.outbox.acquire(RELAY, LEASE_MS)
    assert.deepEqual(keysOf(await storage.outbox.claim(RELAY, { limit: 10, busy: [], without: ['down'] })).toSorted(), ['b', 'c'])
    assert.deepEqual(keysOf(await storage.outbox.claim(RELAY, { limit: 10, busy: [], without: [] })).toSorted(), ['a', 'b', 'c'])
  })

  declare('a limit takes the oldest of a key', async (storage) => {
    const rowIds = await append(
      storage,
      Array.from({ length: 5 }, () => entry('a')),
    )
    await storage.outbox.acquire(RELAY, LEASE_MS)
    const rows = await storage.outbox.claim(RELAY, { limit: 3, busy: [] })
    assert.deepEqual(
      rows.map((row) => row.rowId),
      rowIds.slice(0, 3),
    )
  })
}

function leaseTests(declare: Declare): void {
  declare('a relay without a lease claims nothing, and what it marks, holds or parks stays as it is', async (storage) => {
    const rowIds = await append(storage, [entry('a'), entry('b')])
    await storage.outbox.acquire(RELAY, LEASE_MS)
    assert.deepEqual(await storage.outbox.claim(OTHER, { limit: 10, busy: [] }), [])
    assert.equal(await storage.outbox.markPublished(OTHER, rowIds), 0)
    const failures = rowIds.map((rowId) => ({ rowId, error: 'from a stranger' }))
    await storage.outbox.hold(OTHER, failures, 60_000)
    await storage.outbox.park(OTHER, failures)
    await storage.outbox.charge(OTHER, rowIds[0]!)
    const rows = await storage.outbox.claim(RELAY, { limit: 10, busy: [] })
    assert.deepEqual(
      rows.map((row) => [row.rowId, row.attempts]),
      rowIds.map((rowId) => [rowId, 0]),
    )
    assert.equal(await storage.outbox.markPublished(RELAY, rowIds), 2)
    assert.equal(await storage.outbox.markPublished(RELAY, rowIds), 0, 'a row is retired once')
    assert.equal((await storage.outbox.stats()).pending, 0)
  })

  declare('what was in flight when a relay died is suspect for the next, and nothing else is', async (storage) => {
    await append(storage, [entry('a'), entry('b')])
    const inFlight = await until('the relay has claimed under its short lease', async () => {
      await storage.outbox.acquire(RELAY, 100)
      const rows = await storage.outbox.claim(RELAY, { limit: 10, busy: [] })
      return rows.length > 0 && rows
    })
    const [fresh] = await append(storage, [entry('c')])
    const rows = await until('the lease has run out', async () => {
      const claimed = await claimAs(storage, OTHER)
      return claimed.length === 3 && claimed
    })
    assert.deepEqual(
      rows.filter((row) => row.suspect).map((row) => row.rowId),
      inFlight.map((row) => row.rowId),
    )
    assert.equal(rows.find((row) => row.rowId === fresh)!.suspect, false)
    assert.equal(
      await storage.outbox.markPublished(
        RELAY,
        rows.map((row) => row.rowId),
      ),
      0,
      'the dead one can retire nothing',
    )
    await storage.outbox.charge(OTHER, inFlight[0]!.rowId)
    assert.equal((await claimAs(storage, OTHER)).find((row) => row.rowId === inFlight[0]!.rowId)!.attempts, 1)
  })

  declare('leases that were given back are free at once, and leave nothing suspect', async (storage) => {
    await append(storage, [entry('a'), entry('b')])
    assert.equal((await claimAs(storage, RELAY)).length, 2)
    await storage.outbox.relinquish(RELAY)
    assert.deepEqual(await storage.outbox.claim(RELAY, { limit: 10, busy: [] }), [])
    assert.deepEqual(
      (await claimAs(storage, OTHER)).map((row) => row.suspect),
      [false, false],
    )
  })

  declare('a shard is with one relay at a time, and relays get fair shares', async (storage) => {
    const alone = await storage.outbox.acquire(RELAY, LEASE_MS)
    assert.ok(alone.length > 1)
    assert.deepEqual(await storage.outbox.acquire(OTHER, LEASE_MS), [], 'nothing is taken from the living')
    const kept = await storage.outbox.acquire(RELAY, LEASE_MS)
    const given = await storage.outbox.acquire(OTHER, LEASE_MS)
    assert.deepEqual(
      [...kept, ...given].toSorted((left, right) => left - right),
      [...alone].toSorted((left, right) => left - right),
    )
    assert.ok(Math.abs(kept.length - given.length) <= 1, `${kept.length} and ${given.length}`)
    const entries = Array.from({ length: 40 }, (_, index) => entry(`key-${index}`))
    const rowIds = await append(storage, entries)
    const mine = await storage.outbox.claim(RELAY, { limit: 100, busy: [] })
    const others = await storage.outbox.claim(OTHER, { limit: 100, busy: [] })
    assert.ok(mine.length > 0 && others.length > 0)
    assert.deepEqual([...mine, ...others].map((row) => row.rowId).toSorted(), [...rowIds].toSorted(), 'each row with exactly one of them')
  })
}

function operatorTests(declare: Declare): void {
  declare('list and retry choose by status, type, key, number and limit', async (storage) => {
    const [first, second, third] = await append(storage, [entry('a'), entry('b'), entry('c', { eventType: 'other.Type' })])
    await claimAs(storage, RELAY)
    await storage.outbox.park(
      RELAY,
      [first!, second!, third!].map((rowId) => ({ rowId, error: 'no' })),
    )
    const list = async (filter: Parameters<typeof storage.outbox.list>[0]) => (await storage.outbox.list(filter)).map((row) => row.rowId)
    assert.deepEqual(await list({}), [first, second, third])
    assert.deepEqual(await list({ status: 'pending' }), [])
    assert.deepEqual(await list({ eventType: 'other.Type' }), [third])
    assert.deepEqual(await list({ key: 'b' }), [second])
    assert.deepEqual(await list({ rowIds: [first!, third!] }), [first, third])
    assert.deepEqual(await list({ rowIds: [] }), [])
    assert.deepEqual(await list({ limit: 2 }), [first, second])
    await assert.rejects(storage.outbox.list({ limit: 0 }), { code: 'INVALID_OPTION' })
    assert.equal(await storage.outbox.retry({ status: 'pending' }), 0)
    assert.equal(await storage.outbox.retry({ limit: 1 }), 1)
    assert.deepEqual(await list({ status: 'parked' }), [second, third])
    assert.equal(await storage.outbox.retry({ key: 'b' }), 1)
    assert.equal(await storage.outbox.retry({ eventType: 'other.Type' }), 1)
    assert.equal((await claimAs(storage, RELAY)).length, 3)
  })

  declare('retry frees a held row', async (storage) => {
    const [held] = await append(storage, [entry('a'), entry('a')])
    await claimAs(storage, RELAY)
    await storage.outbox.hold(RELAY, [{ rowId: held!, error: 'later' }], 60_000)
    assert.equal(await storage.outbox.retry({}), 1)
    assert.deepEqual(
      (await claimAs(storage, RELAY)).map((row) => row.attempts),
      [0, 0],
    )
  })

  declare('stats count what waits; a sweep takes no row that was not published', async (storage) => {
    assert.deepEqual(await storage.outbox.stats(), { pending: 0, parked: 0, oldestPendingMs: 0 })
    const [parked, published] = await append(storage, [entry('a'), entry('b'), entry('c')])
    await claimAs(storage, RELAY)
    await storage.outbox.park(RELAY, [{ rowId: parked!, error: 'no' }])
    await storage.outbox.markPublished(RELAY, [published!])
    await storage.outbox.sweep(0, 100)
    const stats = await storage.outbox.stats()
    assert.deepEqual([stats.pending, stats.parked], [1, 1])
    assert.ok(stats.oldestPendingMs >= 0)
  })
}

function entry(key: string, more: Partial<OutboxEntry> = {}): OutboxEntry {
  return {
    eventType: 'ledger.Raised',
    message: { id: newId(), topic: 'ledger', key, headers: { event_type: 'ledger.Raised' }, body: new Uint8Array([1, 2, 3]) },
    ...more,
  }
}

function append(storage: Storage, entries: readonly OutboxEntry[]): Promise<readonly string[]> {
  return storage.database.transaction((sql) => storage.outbox.append(sql, entries))
}

async function claimAs(storage: Storage, relayId: string): Promise<readonly ClaimedRow[]> {
  await storage.outbox.acquire(relayId, LEASE_MS)
  return storage.outbox.claim(relayId, { limit: 100, busy: [] })
}

function keysOf(rows: readonly ClaimedRow[]): string[] {
  return rows.map(({ message }) => message.key)
}

/** Without the number; bytes as an array, since one store gives a Buffer and another a plain one. */
function plain({ destination, attempts, suspect, message: { id, topic, key, headers, body } }: ClaimedRow): unknown {
  return { destination, attempts, suspect, message: { id, topic, key, headers: { ...headers }, body: [...body] } }
}
