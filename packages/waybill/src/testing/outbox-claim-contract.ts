import assert from 'node:assert/strict'
import { OUTBOX_SHARDS, type Storage } from '../core/stores.ts'
import { until, type withStorage } from './contract-tools.ts'
import { LEASE_MS, OTHER, RELAY, append, claimAs, entry } from './outbox-contract-tools.ts'

type Declare = ReturnType<typeof withStorage>

const HOUR_MS = 3_600_000

/** What many relays rely on: who works on what, in which order, and what a death leaves behind. */
export function outboxClaimContract(declare: Declare): void {
  sharing(declare)
  dying(declare)
  ordering(declare)
}

function sharing(declare: Declare): void {
  declare('shards are spread evenly, when a relay joins and when one leaves', async (storage) => {
    const relays = [RELAY, OTHER, 'relay-c']
    const spread = async (who: readonly string[]): Promise<readonly number[]> => {
      // Twice round: the first gives up what the last has to take.
      for (const relayId of who) await storage.outbox.acquire(relayId, LEASE_MS)
      const held = []
      for (const relayId of who) held.push((await storage.outbox.acquire(relayId, LEASE_MS)).shards)
      assert.equal(new Set(held.flat()).size, held.flat().length, 'no shard with two')
      return held.map(({ length }) => length)
    }
    assert.deepEqual(await spread(relays.slice(0, 1)), [OUTBOX_SHARDS])
    await spread(relays)
    assert.deepEqual(
      (await spread(relays)).toSorted((left, right) => left - right),
      [21, 21, 22],
    )
    await storage.outbox.relinquish(OTHER)
    await spread([RELAY, 'relay-c'])
    assert.deepEqual(await spread([RELAY, 'relay-c']), [32, 32])
  })

  declare('a shard that is in use is kept until it is not, but nothing more is claimed from it', async (storage) => {
    const { shards } = await storage.outbox.acquire(RELAY, LEASE_MS)
    const rowIds = await append(
      storage,
      Array.from({ length: 60 }, (_, index) => entry(`key-${index}`)),
    )
    await storage.outbox.acquire(OTHER, LEASE_MS)
    const { shards: kept, leaving } = await storage.outbox.acquire(RELAY, LEASE_MS, shards)
    assert.deepEqual(kept, shards, 'all are in use')
    assert.equal(leaving.length, OUTBOX_SHARDS / 2)
    assert.deepEqual((await storage.outbox.acquire(OTHER, LEASE_MS)).shards, [])
    const claimed = await storage.outbox.claim(RELAY, { limit: 100, busy: [], leaving })
    assert.ok(claimed.length > 0 && claimed.length < rowIds.length)
    assert.ok(claimed.every(({ shard }) => !leaving.includes(shard)))
    const { shards: rest, leaving: none } = await storage.outbox.acquire(RELAY, LEASE_MS)
    assert.deepEqual([rest.length, none], [OUTBOX_SHARDS / 2, []])
    assert.equal((await storage.outbox.acquire(OTHER, LEASE_MS)).shards.length, OUTBOX_SHARDS / 2)
  })

  declare('shards are shared whatever is in use: the work is spread too', async (storage) => {
    await storage.outbox.acquire(RELAY, LEASE_MS)
    await storage.outbox.acquire(OTHER, LEASE_MS)
    const busy = Array.from({ length: OUTBOX_SHARDS / 2 }, (_, index) => index * 2)
    const { shards, leaving } = await storage.outbox.acquire(RELAY, LEASE_MS, busy)
    assert.deepEqual([shards.length, leaving.length], [OUTBOX_SHARDS * 0.75, OUTBOX_SHARDS / 4])
    assert.ok(leaving.every((shard) => busy.includes(shard)))
  })

  declare('a relay is told whether anything waits', async (storage) => {
    const pending = async (): Promise<boolean> => (await storage.outbox.acquire(RELAY, LEASE_MS)).pending
    assert.equal(await pending(), false)
    await append(storage, [entry('a', { availableAt: new Date(Date.now() + HOUR_MS) })])
    assert.equal(await pending(), false, 'what is not due for long can wait')
    await append(storage, [entry('a')])
    assert.equal(await pending(), true)
  })
}

function dying(declare: Declare): void {
  /** Lets `RELAY` claim by `claims` under a lease that runs out at once; gives back what is suspect for the next. */
  async function suspectsAfter(storage: Storage, rows: number, claims: () => Promise<unknown>): Promise<readonly string[]> {
    await until('the relay claims under its short lease', async () => {
      await storage.outbox.acquire(RELAY, 150)
      return ((await claims()) as readonly unknown[]).length > 0
    })
    const claimed = await until('the lease has run out', async () => {
      const found = await claimAs(storage, OTHER)
      return found.length === rows && found
    })
    return claimed.filter(({ suspect }) => suspect).map(({ rowId }) => rowId)
  }

  declare('after a claim by priority exactly what was claimed is suspect, whatever has a lower number', async (storage) => {
    const [, urgent] = await append(storage, [entry('a'), entry('b', { priority: 9 }), entry('c')])
    const suspects = await suspectsAfter(storage, 3, async () =>
      (await storage.outbox.claim(RELAY, { limit: 1, busy: [] })).filter(({ rowId }) => rowId === urgent),
    )
    assert.deepEqual(suspects, [urgent])
  })

  declare('what is still in flight from an earlier claim is suspect too, and what was settled is not', async (storage) => {
    const [first, second] = await append(storage, [entry('a'), entry('b'), entry('c')])
    const suspects = await suspectsAfter(storage, 3, async () => {
      await storage.outbox.claim(RELAY, { limit: 3, busy: [] })
      const busy = [{ topic: 'ledger', key: 'a' }]
      return storage.outbox.claim(RELAY, { limit: 1, busy, inFlight: [first!] })
    })
    assert.deepEqual(suspects, [first, second])
  })
}

function ordering(declare: Declare): void {
  /** All that waits, claim after claim, each marked before the next. One may find nothing while it is looked into what may overtake what. */
  async function drained(storage: Storage, limit = 100): Promise<readonly string[]> {
    const rowIds: string[] = []
    await until('nothing waits', async () => {
      await storage.outbox.acquire(RELAY, LEASE_MS)
      const rows = (await storage.outbox.claim(RELAY, { limit, busy: [] })).map(({ rowId }) => rowId)
      rowIds.push(...rows)
      await storage.outbox.markPublished(RELAY, rows)
      return (await storage.outbox.stats()).pending === 0
    })
    return rowIds
  }

  declare('priority orders keys', async (storage) => {
    const [low, usual, high, highest] = await append(storage, [
      entry('a', { priority: 0 }),
      entry('b'),
      entry('c', { priority: 6 }),
      entry('d', { priority: 9 }),
    ])
    assert.deepEqual(await drained(storage), [highest, high, usual, low])
  })

  declare('priority never orders the rows of a key', async (storage) => {
    const rowIds = await append(
      storage,
      [5, 9, 0, 7, 5].map((priority) => entry('a', { priority })),
    )
    assert.deepEqual(await drained(storage), rowIds)
  })

  declare('what comes to a stopped key does not overtake what is parked in it once it goes on, whatever its priority', async (storage) => {
    const stopped = await append(storage, [entry('a', { priority: 9 }), entry('a')])
    await claimAs(storage, RELAY)
    await storage.outbox.park(RELAY, [{ rowId: stopped[0]!, error: 'refused' }])
    await claimAs(storage, RELAY)
    // It comes beyond what a full claim looks at.
    await append(
      storage,
      Array.from({ length: 20 }, (_, index) => entry(`other-${index}`)),
    )
    const [late] = await append(storage, [entry('a', { priority: 9 })])
    assert.equal((await storage.outbox.claim(RELAY, { limit: 10, busy: [] })).length, 10)
    assert.equal(await storage.outbox.retry({ key: 'a' }), 1)
    const ofKey = [...stopped, late!]
    assert.deepEqual(
      (await drained(storage, 2)).filter((rowId) => ofKey.includes(rowId)),
      ofKey,
    )
  })

  declare('a row that waits for its time holds up nobody, and joins when it has come', async (storage) => {
    const [later, follower] = await append(storage, [entry('a', { availableAt: new Date(Date.now() + 200) }), entry('a')])
    const rows = await until('its time has come', async () => {
      const claimed = await claimAs(storage, RELAY)
      assert.ok(claimed.some(({ rowId }) => rowId === follower))
      return claimed.length === 2 && claimed
    })
    assert.deepEqual(
      rows.map(({ rowId }) => rowId),
      [later, follower],
      'then it has its place again',
    )
  })
}
