import type { Clock } from '../../core/clock.ts'
import { checkInteger } from '../../core/options.ts'
import type { SqlExecutor } from '../../core/database.ts'
import type { OutboxEntry, OutboxFilter, OutboxStore, RowFailure } from '../../core/stores.ts'
import type { MemoryDatabase, MemoryTransaction } from './database.ts'
import { assertRoom, createOutboxRows, keyIdOf, matches, recordOf, type Row, shardOf, slotOf } from './outbox-rows.ts'
import { createShardLeases } from './shard-leases.ts'

const PUBLISHED_MAX = 10_000
const LIMIT_MAX = 10_000

/** An outbox in memory. `rowsMax` bounds the rows that wait; of published ones the last 10,000 are kept. */
export function createMemoryOutbox(database: MemoryDatabase, clock: Clock, rowsMax: number): OutboxStore {
  const rows = createOutboxRows(PUBLISHED_MAX)
  const leases = createShardLeases(clock, (rowId) => {
    const row = rows.byId.get(rowId)
    if (row?.status === 'pending') row.suspect = true
  })
  let lastId = 0
  let uncommitted = 0

  async function appendIn(transaction: MemoryTransaction, entries: readonly OutboxEntry[]): Promise<readonly string[]> {
    assertRoom(rows.pending + rows.parked + uncommitted, entries.length, rowsMax, 'the outbox')
    const slots = new Set(entries.map((entry) => slotOf(keyIdOf(entry.message))))
    for (const slot of [...slots].toSorted((a, b) => a - b)) await transaction.lock(`outbox:${slot}`)
    assertRoom(rows.pending + rows.parked + uncommitted, entries.length, rowsMax, 'the outbox')
    // Numbers are drawn under the locks: within a key their order is the order of commits.
    const added = entries.map((entry) => rowOf(entry, ++lastId, clock.now()))
    uncommitted += added.length
    transaction.onRollback(() => {
      uncommitted -= added.length
    })
    transaction.onCommit(() => {
      uncommitted -= added.length
      for (const row of added) rows.add(row)
    })
    return added.map((row) => String(row.id))
  }

  /** The rows of `rowIds` that `relayId` may change. */
  const owned = (relayId: string, rowIds: readonly string[]): readonly Row[] =>
    rowIds.flatMap((rowId) => rows.byId.get(Number(rowId)) ?? []).filter((row) => leases.holds(relayId, row.shard))

  const fail = (relayId: string, failures: readonly RowFailure[], change: (row: Row) => void): void => {
    const errors = new Map(failures.map(({ rowId, error }) => [rowId, error]))
    for (const row of owned(relayId, [...errors.keys()])) {
      if (row.status !== 'pending') continue
      leases.settled(row.shard, row.id)
      row.attempts++
      row.suspect = false
      row.lastError = errors.get(String(row.id))
      change(row)
    }
  }

  const store: OutboxStore = {
    async append(sql: SqlExecutor, entries) {
      database.assertOpen()
      return entries.length === 0 ? [] : database.join(sql, (transaction) => appendIn(transaction, entries))
    },
    async acquire(relayId, leaseMs) {
      database.assertOpen()
      return leases.acquire(relayId, leaseMs)
    },
    relays: async () => leases.relays(),
    async relinquish(relayId) {
      leases.relinquish(relayId)
    },
    async claim(relayId, { limit, busy, without = [] }) {
      database.assertOpen()
      checkInteger(limit, 'claim.limit', 1, LIMIT_MAX)
      const busyKeys = new Set(busy.map(keyIdOf))
      const excluded = new Set(without)
      const held = leases.heldBy(relayId)
      const claimed = rows.due(
        clock.now(),
        limit,
        (row) => held.has(row.shard) && !busyKeys.has(row.keyId) && !excluded.has(row.destination),
      )
      // Whoever polls in a loop would keep everything else from running: a claim that finds nothing takes a turn, as one of a database does.
      if (claimed.length === 0) await new Promise((resolve) => setImmediate(resolve))
      for (const row of claimed) leases.claimed(row.shard, row.id)
      return claimed.map((row) => ({
        rowId: String(row.id),
        destination: row.destination,
        message: row.entry.message,
        attempts: row.attempts,
        suspect: row.suspect,
      }))
    },
    async markPublished(relayId, rowIds) {
      database.assertOpen()
      const marked = owned(relayId, rowIds).filter((row) => row.status === 'pending')
      for (const row of marked) {
        leases.settled(row.shard, row.id)
        rows.publish(row, clock.now())
      }
      return marked.length
    },
    async charge(relayId, rowId) {
      database.assertOpen()
      for (const row of owned(relayId, [rowId])) row.attempts++
    },
    async hold(relayId, failures, holdMs) {
      database.assertOpen()
      fail(relayId, failures, (row) => {
        row.heldUntil = clock.now() + holdMs
      })
    },
    async park(relayId, failures) {
      database.assertOpen()
      fail(relayId, failures, (row) => rows.setParked(row, true))
    },
    async retire(rowIds) {
      database.assertOpen()
      for (const rowId of rowIds) {
        const row = rows.byId.get(Number(rowId))
        if (row === undefined) continue
        leases.settled(row.shard, row.id)
        rows.publish(row, clock.now())
      }
    },
    async release(rowIds) {
      database.assertOpen()
      for (const rowId of rowIds) {
        const row = rows.byId.get(Number(rowId))
        if (row?.status === 'pending') row.heldUntil = 0
      }
    },
    ...listing(),
  }
  return store

  function listing(): Pick<OutboxStore, 'retry' | 'list' | 'stats' | 'sweep'> {
    return {
      async retry(filter) {
        database.assertOpen()
        const now = clock.now()
        const chosen = select(
          rows.byId.values(),
          filter,
          (row) => row.status === 'parked' || (row.status === 'pending' && row.heldUntil > now),
        )
        for (const row of chosen) {
          rows.setParked(row, false)
          row.heldUntil = 0
          row.attempts = 0
          row.suspect = false
        }
        return chosen.length
      },
      async list(filter) {
        database.assertOpen()
        const now = clock.now()
        return select(rows.byId.values(), filter, () => true).map((row) => recordOf(row, now))
      },
      async stats() {
        database.assertOpen()
        const oldest = rows.oldestPendingAt()
        return { pending: rows.pending, parked: rows.parked, oldestPendingMs: oldest === undefined ? 0 : Math.max(0, clock.now() - oldest) }
      },
      async sweep(keepMs, limit) {
        database.assertOpen()
        return rows.sweep(clock.now() - keepMs, limit)
      },
    }
  }
}

function rowOf(entry: OutboxEntry, id: number, now: number): Row {
  const keyId = keyIdOf(entry.message)
  return {
    id,
    entry,
    keyId,
    shard: shardOf(slotOf(keyId)),
    destination: entry.destination ?? 'default',
    priority: checkInteger(entry.priority ?? 5, 'priority', 0, 9),
    createdAt: now,
    scheduledFor: entry.availableAt?.getTime() ?? 0,
    heldUntil: entry.holdMs === undefined || entry.holdMs === 0 ? 0 : now + entry.holdMs,
    status: 'pending',
    attempts: 0,
    suspect: false,
    lastError: undefined,
    publishedAt: 0,
  }
}

function select(rows: Iterable<Row>, filter: OutboxFilter, also: (row: Row) => boolean): Row[] {
  const limit = checkInteger(filter.limit ?? 100, 'limit', 1, LIMIT_MAX)
  const chosen: Row[] = []
  for (const row of rows) {
    if (chosen.length >= limit) break
    if (matches(row, filter) && also(row)) chosen.push(row)
  }
  return chosen.toSorted((a, b) => a.id - b.id)
}
