import assert from 'node:assert/strict'
import type { Storage } from '../core/stores.ts'
import type { withStorage } from './contract-tools.ts'
import { LEASE_MS, RELAY, append, claimAs, entry, keysOf } from './outbox-contract-tools.ts'

type Declare = ReturnType<typeof withStorage>

const HOUR_MS = 3_600_000

/** What a person at the command line relies on. */
export function outboxOperatorContract(declare: Declare): void {
  choosing(declare)
  changing(declare)
  looking(declare)
}

/** A key whose first row is parked, and the others behind it. Gives back their numbers. */
async function parkedKey(storage: Storage, key: string, followers: number, error = 'refused'): Promise<readonly string[]> {
  const rowIds = await append(
    storage,
    Array.from({ length: followers + 1 }, () => entry(key)),
  )
  await claimAs(storage, RELAY)
  await storage.outbox.park(RELAY, [{ rowId: rowIds[0]!, error }])
  await claimAs(storage, RELAY)
  return rowIds
}

async function statuses(storage: Storage): Promise<readonly unknown[]> {
  return (await storage.outbox.list({})).map(({ rowId, status, behind }) => [rowId, status, behind])
}

function choosing(declare: Declare): void {
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

  declare('topic, age and error narrow too, all together', async (storage) => {
    const plain = entry('a')
    const [first, second] = await append(storage, [plain, { ...plain, message: { ...entry('b').message, topic: 'shared' } }])
    await claimAs(storage, RELAY)
    await storage.outbox.hold(RELAY, [{ rowId: second!, error: 'Broker said NO_ROUTE' }], HOUR_MS)
    const list = async (filter: Parameters<typeof storage.outbox.list>[0]) => (await storage.outbox.list(filter)).map((row) => row.rowId)
    assert.deepEqual(await list({ topic: 'shared' }), [second])
    assert.deepEqual(await list({ error: 'no_route' }), [second])
    assert.deepEqual(await list({ error: '%' }), [])
    assert.deepEqual(await list({ olderThanMs: 0 }), [first, second])
    assert.deepEqual(await list({ olderThanMs: HOUR_MS }), [])
    assert.deepEqual(await list({ topic: 'shared', error: 'said', key: 'b', status: 'pending' }), [second])
    assert.deepEqual(await list({ topic: 'shared', key: 'a' }), [])
  })
}

function changing(declare: Declare): void {
  declare('retry lets a parked row go on with what is parked behind it, in order, its attempts forgotten', async (storage) => {
    const rowIds = await parkedKey(storage, 'a', 2)
    const [other] = await parkedKey(storage, 'b', 0)
    assert.equal(await storage.outbox.retry({ rowIds: [rowIds[0]!] }), 1)
    assert.deepEqual(await statuses(storage), [...rowIds.map((rowId) => [rowId, 'pending', undefined]), [other, 'parked', undefined]])
    const rows = await claimAs(storage, RELAY)
    assert.deepEqual(
      rows.map((row) => [row.rowId, row.attempts]),
      rowIds.map((rowId) => [rowId, 0]),
    )
  })

  declare('a row that is parked behind another matches neither retry nor skip', async (storage) => {
    const [head, follower] = await parkedKey(storage, 'a', 1)
    assert.equal(await storage.outbox.retry({ rowIds: [follower!] }), 0)
    assert.equal(await storage.outbox.skip({ rowIds: [follower!] }), 0)
    assert.deepEqual(await statuses(storage), [
      [head, 'parked', undefined],
      [follower, 'parked', head],
    ])
  })

  declare('retry frees a held row', async (storage) => {
    const [held] = await append(storage, [entry('a'), entry('a')])
    await claimAs(storage, RELAY)
    await storage.outbox.hold(RELAY, [{ rowId: held!, error: 'later' }], 60_000)
    assert.equal(await storage.outbox.retry({}), 1)
    assert.equal(await storage.outbox.retry({}), 0, 'what is due is left as it is')
    assert.deepEqual(
      (await claimAs(storage, RELAY)).map((row) => row.attempts),
      [0, 0],
    )
  })

  declare('skip lets a key go on without its parked row, which is kept, and can still be retried', async (storage) => {
    const [head, second, third] = await parkedKey(storage, 'a', 2)
    assert.equal(await storage.outbox.skip({ key: 'a' }), 1)
    assert.deepEqual(
      (await claimAs(storage, RELAY)).map(({ rowId }) => rowId),
      [second, third],
    )
    assert.equal(await storage.outbox.sweep(0, 100), 0, 'it is kept for days')
    assert.deepEqual((await statuses(storage))[0], [head, 'skipped', undefined])
    assert.equal(await storage.outbox.retry({ status: 'skipped' }), 1)
    assert.equal((await claimAs(storage, RELAY))[0]!.rowId, head)
  })

  declare('suspend parks what waits, with its reason, and stops its key; what waits is not skipped', async (storage) => {
    const [first, second] = await append(storage, [entry('a'), entry('a'), entry('b')])
    assert.equal(await storage.outbox.skip({}), 0)
    assert.equal(await storage.outbox.suspend({ rowIds: [first!] }, 'maintenance'), 1)
    assert.equal(await storage.outbox.suspend({ rowIds: [first!] }, 'again'), 0)
    assert.deepEqual(keysOf(await claimAs(storage, RELAY)), ['b'])
    const [row] = await storage.outbox.list({ rowIds: [first!] })
    assert.deepEqual([row!.status, row!.lastError], ['parked', 'maintenance'])
    assert.equal(await storage.outbox.retry({ rowIds: [first!] }), 1)
    assert.deepEqual(
      (await claimAs(storage, RELAY)).flatMap(({ rowId, message }) => (message.key === 'a' ? [rowId] : [])),
      [first, second],
    )
  })

  declare('a scheduled row that was suspended waits for its time again', async (storage) => {
    const [rowId] = await append(storage, [entry('a', { availableAt: new Date(Date.now() + HOUR_MS) })])
    assert.equal(await storage.outbox.suspend({ status: 'scheduled' }, 'stop'), 1)
    assert.equal(await storage.outbox.retry({ rowIds: [rowId!] }), 1)
    const [row] = await storage.outbox.list({})
    assert.equal(row!.status, 'scheduled')
    assert.ok(row!.dueAt! > new Date())
    assert.deepEqual(await claimAs(storage, RELAY), [])
  })

  declare('a sweep deletes what was published so many at a time, and says how many', async (storage) => {
    const rowIds = await append(storage, [entry('a'), entry('b'), entry('c'), entry('d')])
    await claimAs(storage, RELAY)
    await storage.outbox.markPublished(RELAY, rowIds.slice(0, 3))
    // A store that keeps none has deleted them already.
    const kept = (await storage.outbox.list({ status: 'published' })).length
    assert.ok(kept === 3 || kept === 0)
    assert.equal(await storage.outbox.sweep(HOUR_MS, 100), 0)
    const swept = [await storage.outbox.sweep(0, 2), await storage.outbox.sweep(0, 2), await storage.outbox.sweep(0, 2)]
    assert.deepEqual(swept, kept === 0 ? [0, 0, 0] : [2, 1, 0])
    assert.deepEqual(await statuses(storage), [[rowIds[3], 'pending', undefined]])
  })
}

function looking(declare: Declare): void {
  declare('a row is shown with what it carries', async (storage) => {
    const [rowId] = await append(storage, [entry('a', { destination: 'mail', priority: 9 })])
    const row = (await storage.outbox.show(rowId!))!
    assert.deepEqual(
      { ...row.headers, key: row.key, destination: row.destination, priority: row.priority, body: [...row.body] },
      { event_type: 'ledger.Raised', key: 'a', destination: 'mail', priority: 9, body: [1, 2, 3] },
    )
    assert.equal(await storage.outbox.show('9223372036854775807'), undefined)
  })

  declare('keys that stand still are told with why, and with what waits behind them', async (storage) => {
    const [parked] = await parkedKey(storage, 'parked', 3)
    const [held] = await append(storage, [entry('held'), entry('held'), entry('goes on')])
    await claimAs(storage, RELAY)
    await storage.outbox.hold(RELAY, [{ rowId: held!, error: 'timeout' }], HOUR_MS)
    await append(storage, [entry('grace', { holdMs: HOUR_MS })])
    const stuck = await storage.outbox.stuckKeys(10)
    const rest = { topic: 'ledger', attempts: 1 }
    assert.deepEqual(
      stuck.map(({ ageMs, ...key }) => ({ ...key, aged: ageMs >= 0 })),
      [
        { ...rest, key: 'parked', rowId: parked, status: 'parked', lastError: 'refused', followers: 3, aged: true },
        { ...rest, key: 'held', rowId: held, status: 'held', lastError: 'timeout', followers: 1, aged: true },
      ],
    )
    assert.equal((await storage.outbox.stuckKeys(1)).length, 1)
    await assert.rejects(storage.outbox.stuckKeys(0), { code: 'INVALID_OPTION' })
  })

  declare('stats count what waits; a sweep takes no row that was not published', async (storage) => {
    assert.deepEqual(await storage.outbox.stats(), { pending: 0, scheduled: 0, parked: 0, oldestPendingMs: 0 })
    await append(storage, [entry('later', { availableAt: new Date(Date.now() + HOUR_MS) })])
    await parkedKey(storage, 'a', 1)
    const [published] = await append(storage, [entry('b'), entry('c')])
    await claimAs(storage, RELAY)
    await storage.outbox.markPublished(RELAY, [published!])
    await storage.outbox.sweep(0, 100)
    const { oldestPendingMs, ...counts } = await storage.outbox.stats()
    assert.deepEqual(counts, { pending: 1, scheduled: 1, parked: 2 })
    assert.ok(oldestPendingMs >= 0)
  })

  declare('who is registered is told with its shards and its time', async (storage) => {
    const { shards } = await storage.outbox.acquire(RELAY, LEASE_MS)
    const [lease] = await storage.outbox.leases()
    assert.deepEqual([lease!.relayId, lease!.shards], [RELAY, shards.length])
    assert.ok(lease!.expiresInMs > 0 && lease!.expiresInMs <= LEASE_MS)
    await storage.outbox.relinquish(RELAY)
    assert.deepEqual(await storage.outbox.leases(), [])
  })
}
