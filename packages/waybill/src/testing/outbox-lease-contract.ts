import assert from 'node:assert/strict'
import { type withStorage, until } from './contract-tools.ts'
import { LEASE_MS, OTHER, RELAY, append, claimAs, entry } from './outbox-contract-tools.ts'

type Declare = ReturnType<typeof withStorage>

/** Leases and fences: who may take a row, and what becomes of it when its relay dies. */
export function outboxLeaseContract(declare: Declare): void {
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

  declare('relays at work are known until they give their leases back', async (storage) => {
    assert.deepEqual(await storage.outbox.relays(), [])
    await storage.outbox.acquire(RELAY, LEASE_MS)
    await storage.outbox.acquire(OTHER, LEASE_MS)
    assert.deepEqual((await storage.outbox.relays()).toSorted(), [RELAY, OTHER].toSorted())
    await storage.outbox.relinquish(RELAY)
    assert.deepEqual(await storage.outbox.relays(), [OTHER])
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
    const { shards: alone } = await storage.outbox.acquire(RELAY, LEASE_MS)
    assert.ok(alone.length > 1)
    assert.deepEqual((await storage.outbox.acquire(OTHER, LEASE_MS)).shards, [], 'nothing is taken from the living')
    const { shards: kept } = await storage.outbox.acquire(RELAY, LEASE_MS)
    const { shards: given } = await storage.outbox.acquire(OTHER, LEASE_MS)
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
