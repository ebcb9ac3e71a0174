import type { Database } from '../../core/database.ts'
import type { OutboxStore, RowFailure } from '../../core/stores.ts'
import { appendRows } from './outbox-append.ts'
import { createClaims } from './outbox-claims.ts'
import { createOutboxOperator } from './outbox-operator.ts'
import { outboxSql } from './outbox-sql.ts'
import { idList, joined, standalone, storable } from './statements.ts'
import type { Tables } from './tables.ts'

export interface OutboxStoreOptions {
  /** Keep published rows, marked, for the sweep to remove later. 0: delete them at once. */
  readonly keepPublishedMs: number
  /** Nobody but this process can have the database open: an owner that it does not know is dead, and its leases need not run out. */
  readonly soleOwner: boolean
}

const ERROR_MAX = 4096
// An embedded database has no autovacuum: every deleted row would be stepped over by each claim, for ever.
const VACUUM_EVERY_ROWS = 5_000

/** The outbox in SQL, for PGlite and PostgreSQL alike. */
export function createOutboxStore(database: Database, tables: Tables, { keepPublishedMs, soleOwner }: OutboxStoreOptions): OutboxStore {
  const sql = outboxSql(tables, keepPublishedMs > 0)
  const run = standalone(database, tables)
  const claims = createClaims(run, sql)
  const ownRelays = new Set<string>()
  let deleted = 0

  async function settle(text: string, relayId: string, failures: readonly RowFailure[], ...more: number[]): Promise<void> {
    if (failures.length === 0) return
    idList(failures.map(({ rowId }) => rowId))
    const rows = failures.map(({ rowId, error, charged = false }) => ({ id: rowId, error: storable(error, ERROR_MAX), charged }))
    await run(text, [relayId, JSON.stringify(rows), ...more])
  }

  async function noteDeleted(rows: number): Promise<number> {
    deleted += rows
    if (soleOwner && deleted >= VACUUM_EVERY_ROWS) {
      deleted = 0
      await run(`vacuum ${tables.outbox}, ${tables.relay}, ${tables.lease}`)
    }
    return rows
  }

  return {
    async append(caller, entries) {
      return entries.length === 0 ? [] : appendRows(joined(caller, tables), sql, entries)
    },
    async acquire(relayId, leaseMs, inUse = []) {
      const isNew = !ownRelays.has(relayId)
      const own = JSON.stringify([...ownRelays, relayId])
      const [row] = await run<{ shards: string; leaving: string; pending: boolean }>(sql.acquire, [
        relayId,
        leaseMs,
        soleOwner,
        own,
        isNew,
        idList(inUse.map(String)),
      ])
      // Only now: were it not known whether it was written, what a namesake had in flight has to be asked for again.
      ownRelays.add(relayId)
      return { shards: numbers(row?.shards ?? ''), leaving: numbers(row?.leaving ?? ''), pending: row?.pending ?? true }
    },
    async relays() {
      const ids = (await run<{ id: string }>(sql.relays)).map(({ id }) => id)
      return soleOwner ? ids.filter((id) => ownRelays.has(id)) : ids
    },
    async relinquish(relayId) {
      claims.forget(relayId)
      await run(sql.relinquish, [relayId])
      ownRelays.delete(relayId)
    },
    async claim(relayId, options) {
      const { claimed, broken } = await claims.claim(relayId, options)
      await settle(sql.park, relayId, broken)
      return claimed
    },
    async markPublished(relayId, rowIds) {
      if (rowIds.length === 0) return 0
      const [row] = await run<{ n: number }>(sql.markPublished, [relayId, idList(rowIds)])
      const marked = Number(row?.n ?? 0)
      // Those that are still there must come again before their followers do.
      if (marked === rowIds.length) claims.settled(relayId, rowIds)
      else claims.forget(relayId)
      return noteDeleted(marked)
    },
    async charge(relayId, rowId) {
      idList([rowId])
      await run(sql.charge, [relayId, rowId])
    },
    hold: (relayId, failures, holdMs) => settle(sql.hold, relayId, failures, holdMs),
    park: (relayId, failures) => settle(sql.park, relayId, failures),
    async retire(rowIds) {
      if (rowIds.length === 0) return
      await run(sql.retire, [idList(rowIds)])
      await noteDeleted(rowIds.length)
    },
    async release(rowIds) {
      if (rowIds.length > 0) await run(sql.release, [idList(rowIds)])
    },
    ...createOutboxOperator(database, tables, { onDeleted: noteDeleted }),
  }
}

function numbers(list: string): readonly number[] {
  return list === '' ? [] : list.split(',').map(Number)
}
