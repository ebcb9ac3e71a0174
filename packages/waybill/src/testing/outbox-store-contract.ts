import assert from 'node:assert/strict'
import { newId } from '../core/ids.ts'
import type { ClaimedRow, Storage } from '../core/stores.ts'
import { type ContractTest, type StorageTraits, until, withStorage } from './contract-tools.ts'
import { outboxClaimContract } from './outbox-claim-contract.ts'
import { LEASE_MS, RELAY, append, claimAs, entry, keysOf } from './outbox-contract-tools.ts'
import { outboxLeaseContract } from './outbox-lease-contract.ts'
import { outboxOperatorContract } from './outbox-operator-contract.ts'
import { outboxOrderContract } from './outbox-order-contract.ts'

/**
 * What every outbox store must do. Runner-agnostic: hand in `test` of `node:test` or `it` of vitest, and a function that makes a storage with empty
 * tables; each test closes its own.
 */
export function outboxStoreContract(test: ContractTest, make: () => Promise<Storage>, traits: StorageTraits = {}): void {
  const declare = withStorage(test, make)
  transactionTests(declare)
  waitingTests(declare)
  outboxLeaseContract(declare)
  outboxClaimContract(declare)
  outboxOperatorContract(declare)
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
    const [poison, follower] = await append(storage, [entry('a'), entry('a'), entry('b')])
    await claimAs(storage, RELAY)
    await storage.outbox.charge(RELAY, poison!)
    await storage.outbox.park(RELAY, [{ rowId: poison!, error: 'not acceptable' }])
    assert.deepEqual(keysOf(await claimAs(storage, RELAY)), ['b'])
    assert.deepEqual(
      (await storage.outbox.list({ status: 'parked' })).map((row) => [row.rowId, row.lastError, row.behind]),
      [
        [poison, 'not acceptable', undefined],
        [follower, undefined, poison],
      ],
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

/** Without the number; bytes as an array, since one store gives a Buffer and another a plain one. */
function plain({ destination, attempts, suspect, message: { id, topic, key, headers, body } }: ClaimedRow): unknown {
  return { destination, attempts, suspect, message: { id, topic, key, headers: { ...headers }, body: [...body] } }
}
