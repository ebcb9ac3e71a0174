import type { Clock } from '../../core/clock.ts'
import type { SqlExecutor } from '../../core/database.ts'
import { checkInteger } from '../../core/options.ts'
import type { OutboxEntry, OutboxStore, RowFailure } from '../../core/stores.ts'
import type { MemoryDatabase, MemoryTransaction } from './database.ts'
import { createMemoryOperator } from './outbox-operator.ts'
import { type Row, assertRoom, createOutboxRows, keyIdOf, shardOf, slotOf } from './outbox-rows.ts'
import { createShardLeases } from './shard-leases.ts'

const FINISHED_MAX = 10_000
const LIMIT_MAX = 10_000

/** An outbox in memory. `rowsMax` bounds the rows that wait; of published and skipped ones the last 10,000 are kept. */
export function createMemoryOutbox(database: MemoryDatabase, clock: Clock, rowsMax: number): OutboxStore {
  const rows = createOutboxRows(FINISHED_MAX)
  const leases = createShardLeases(clock, (rowId) => rows.byId.get(rowId)?.status === 'pending')
  let lastId = 0
  let uncommitted = 0

  const waiting = (): number => rows.count('pending') + rows.count('scheduled') + rows.count('parked') + uncommitted

  async function appendIn(transaction: MemoryTransaction, entries: readonly OutboxEntry[]): Promise<readonly string[]> {
    assertRoom(waiting(), entries.length, rowsMax, 'the outbox')
    const slots = new Set(entries.map((entry) => slotOf(keyIdOf(entry.message))))
    for (const slot of [...slots].toSorted((a, b) => a - b)) await transaction.lock(`outbox:${slot}`)
    assertRoom(waiting(), entries.length, rowsMax, 'the outbox')
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

  const found = (rowIds: readonly string[]): readonly Row[] => rowIds.flatMap((rowId) => rows.byId.get(Number(rowId)) ?? [])

  /** The rows of `rowIds` that wait, and that `relayId` may change. */
  const owned = (relayId: string, rowIds: readonly string[]): readonly Row[] =>
    found(rowIds).filter((row) => row.status === 'pending' && leases.holds(relayId, row.shard))

  const fail = (relayId: string, failures: readonly RowFailure[], change: (row: Row) => void): void => {
    const byRow = new Map(failures.map((failure) => [failure.rowId, failure]))
    for (const row of owned(relayId, [...byRow.keys()])) {
      const { error, charged = false } = byRow.get(String(row.id))!
      if (!charged) row.attempts++
      row.lastError = error
      change(row)
    }
  }

  return {
    async append(sql: SqlExecutor, entries) {
      database.assertOpen()
      return entries.length === 0 ? [] : database.join(sql, (transaction) => appendIn(transaction, entries))
    },
    async acquire(relayId, leaseMs, inUse = []) {
      database.assertOpen()
      const held = leases.acquire(relayId, leaseMs, inUse)
      return { ...held, pending: rows.count('pending') > 0 || rows.wakes(clock.now()) }
    },
    relays: async () => leases.relays(),
    leases: async () => leases.list(),
    async relinquish(relayId) {
      leases.relinquish(relayId)
    },
    async claim(relayId, { limit, busy, without = [], leaving = [], inFlight = [] }) {
      database.assertOpen()
      checkInteger(limit, 'claim.limit', 1, LIMIT_MAX)
      const now = clock.now()
      const busyKeys = new Set(busy.map(keyIdOf))
      const excluded = new Set(without)
      const left = new Set(leaving)
      const held = leases.heldBy(relayId)
      rows.wake(now, (row) => held.has(row.shard))
      const due = rows.due(
        now,
        limit,
        (row) => held.has(row.shard) && !left.has(row.shard) && !busyKeys.has(row.keyId) && !excluded.has(row.destination),
      )
      for (const { row, behind } of due.stopped) {
        row.behind = behind
        rows.move(row, 'parked', now)
      }
      // Whoever polls in a loop would keep everything else from running: a claim that finds nothing takes a turn, as one of a database does.
      if (due.rows.length === 0) await new Promise((resolve) => setImmediate(resolve))
      const suspects = leases.suspects()
      leases.claimed(relayId, [...due.rows.map((row) => row.id), ...inFlight.map(Number)])
      return due.rows.map((row) => ({
        rowId: String(row.id),
        destination: row.destination,
        message: row.entry.message,
        attempts: row.attempts,
        suspect: suspects.has(row.id),
        shard: row.shard,
      }))
    },
    async markPublished(relayId, rowIds) {
      database.assertOpen()
      const marked = owned(relayId, rowIds)
      for (const row of marked) rows.move(row, 'published', clock.now())
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
      fail(relayId, failures, (row) => {
        row.heldUntil = 0
        rows.move(row, 'parked', clock.now())
      })
    },
    async retire(rowIds) {
      database.assertOpen()
      for (const row of found(rowIds)) {
        const followed = row.status === 'parked'
        rows.move(row, 'published', clock.now())
        if (followed) rows.free(row, clock.now())
      }
    },
    async release(rowIds) {
      database.assertOpen()
      for (const row of found(rowIds)) row.heldUntil = 0
    },
    ...createMemoryOperator(rows, clock, () => database.assertOpen()),
  }
}

function rowOf(entry: OutboxEntry, id: number, now: number): Row {
  const keyId = keyIdOf(entry.message)
  const scheduledFor = entry.availableAt?.getTime() ?? 0
  return {
    id,
    entry,
    keyId,
    shard: shardOf(slotOf(keyId)),
    destination: entry.destination ?? 'default',
    priority: checkInteger(entry.priority ?? 5, 'priority', 0, 9),
    createdAt: now,
    scheduledFor,
    heldUntil: entry.holdMs === undefined || entry.holdMs === 0 ? 0 : now + entry.holdMs,
    status: scheduledFor > now ? 'scheduled' : 'pending',
    attempts: 0,
    lastError: undefined,
    behind: undefined,
    movedAt: 0,
  }
}
