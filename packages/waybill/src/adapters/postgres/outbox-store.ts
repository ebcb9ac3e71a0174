import type { Database } from '../../core/database.ts'
import { checkInteger } from '../../core/options.ts'
import type { ClaimedRow, OutboxEntry, OutboxFilter, OutboxRecord, OutboxStore, RowFailure } from '../../core/stores.ts'
import { type OutboxSql, outboxSql } from './outbox-sql.ts'
import { type Run, base64Of, idList, joined, parseHeaders, standalone, storable } from './statements.ts'
import type { Tables } from './tables.ts'

export interface OutboxStoreOptions {
  /** Keep published rows, marked, for the sweep to remove later. 0: delete them at once. */
  readonly keepPublishedMs: number
  /** Nobody but this process can have the database open: an owner that it does not know is dead, and its leases need not run out. */
  readonly soleOwner: boolean
}

interface ClaimedColumns {
  row_id: string
  event_id: string
  destination: string
  topic: string
  key: string
  headers: string
  body: string
  attempts: number
  suspect: boolean
}

interface ListedColumns {
  row_id: string
  event_id: string
  event_type: string
  topic: string
  key: string
  status: OutboxRecord['status']
  attempts: number
  priority: number
  created_ms: number
  due_ms: number | null
  last_error: string | null
}

// Larger appends go in several statements: a single parameter can't be endless.
const CHUNK_ROWS_MAX = 1000
const CHUNK_BYTES_MAX = 8 * 1024 * 1024
const ERROR_MAX = 4096
// An embedded database has no autovacuum: every deleted row would be stepped over by each claim, for ever.
const VACUUM_EVERY_ROWS = 5_000

/** The outbox in SQL, for PGlite and PostgreSQL alike. */
export function createOutboxStore(database: Database, tables: Tables, { keepPublishedMs, soleOwner }: OutboxStoreOptions): OutboxStore {
  const sql = outboxSql(tables, keepPublishedMs > 0)
  const run = standalone(database, tables)
  const ownRelays = new Set<string>()
  let deleted = 0

  async function settle(text: string, relayId: string, failures: readonly RowFailure[], ...more: number[]): Promise<void> {
    if (failures.length === 0) return
    idList(failures.map(({ rowId }) => rowId))
    await run(text, [
      relayId,
      JSON.stringify(failures.map(({ rowId, error }) => ({ id: rowId, error: storable(error, ERROR_MAX) }))),
      ...more,
    ])
  }

  async function noteDeleted(rows: number): Promise<number> {
    deleted += rows
    if (soleOwner && deleted >= VACUUM_EVERY_ROWS) {
      deleted = 0
      await run(`vacuum ${tables.outbox}`)
    }
    return rows
  }

  return {
    async append(caller, entries) {
      if (entries.length === 0) return []
      return append(joined(caller, tables), sql, entries)
    },
    async acquire(relayId, leaseMs) {
      const isNew = !ownRelays.has(relayId)
      ownRelays.add(relayId)
      const rows = await run<{ shard: number }>(sql.acquire, [relayId, leaseMs, soleOwner, JSON.stringify([...ownRelays]), isNew])
      return rows.map(({ shard }) => Number(shard))
    },
    async relays() {
      const ids = (await run<{ id: string }>(sql.relays)).map(({ id }) => id)
      return soleOwner ? ids.filter((id) => ownRelays.has(id)) : ids
    },
    async relinquish(relayId) {
      await run(sql.relinquish, [relayId])
      ownRelays.delete(relayId)
    },
    async claim(relayId, { limit, busy, without = [] }) {
      const rows = await run<ClaimedColumns>(sql.claim, [
        relayId,
        JSON.stringify(busy.map(({ topic, key }) => ({ topic, key }))),
        limit,
        JSON.stringify(without),
      ])
      const { claimed, broken } = readClaimed(rows)
      await settle(sql.park, relayId, broken)
      return claimed
    },
    async markPublished(relayId, rowIds) {
      if (rowIds.length === 0) return 0
      return noteDeleted(countOf(await run(sql.markPublished, [relayId, idList(rowIds)])))
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
    async retry(filter) {
      return countOf(await run(sql.retry, filterParams(filter)))
    },
    async list(filter) {
      return (await run<ListedColumns>(sql.list, filterParams(filter))).map(readListed)
    },
    async stats() {
      const [row] = await run<{ pending: number; parked: number; oldest_ms: number }>(sql.stats)
      return {
        pending: Number(row?.pending ?? 0),
        parked: Number(row?.parked ?? 0),
        oldestPendingMs: Math.max(0, Number(row?.oldest_ms ?? 0)),
      }
    },
    async sweep(keepMs, limit) {
      return countOf(await run(sql.sweep, [keepMs, limit]))
    },
  }
}

async function append(
  run: Run,
  sql: Pick<OutboxSql, 'append' | 'appendOne' | 'lockSlots'>,
  entries: readonly OutboxEntry[],
): Promise<string[]> {
  if (entries.length === 1) return (await run<{ row_id: string }>(sql.appendOne, toParams(entries[0]!))).map(({ row_id }) => row_id)
  const chunks = chunked(entries)
  // All locks first: chunk by chunk they would be taken in an order that can deadlock.
  if (chunks.length > 1) await run(sql.lockSlots, [JSON.stringify(entries.map(({ message: { topic, key } }) => ({ topic, key })))])
  const rowIds: string[] = []
  for (const chunk of chunks) {
    const rows = await run<{ row_id: string }>(sql.append, [JSON.stringify(chunk.map(toColumns))])
    // Numbers are drawn in the order of the entries, but no order of the answer is promised.
    rowIds.push(...rows.map(({ row_id }) => row_id).toSorted(byNumber))
  }
  return rowIds
}

function chunked(entries: readonly OutboxEntry[]): OutboxEntry[][] {
  const chunks: OutboxEntry[][] = [[]]
  let bytes = 0
  for (const entry of entries) {
    const size = entry.message.body.byteLength
    if (chunks.at(-1)!.length > 0 && (chunks.at(-1)!.length >= CHUNK_ROWS_MAX || bytes + size > CHUNK_BYTES_MAX)) {
      chunks.push([])
      bytes = 0
    }
    chunks.at(-1)!.push(entry)
    bytes += size
  }
  return chunks
}

function toColumns({
  message,
  eventType,
  destination = 'default',
  priority = 5,
  holdMs = 0,
  availableAt,
}: OutboxEntry): Record<string, unknown> {
  return {
    event_id: message.id,
    event_type: eventType,
    destination,
    topic: message.topic,
    key: message.key,
    priority,
    headers: JSON.stringify(message.headers),
    body: base64Of(message.body),
    ...(holdMs > 0 ? { hold_ms: holdMs } : {}),
    ...(availableAt === undefined ? {} : { available_at: availableAt.toISOString() }),
  }
}

function toParams({ message, eventType, destination = 'default', priority = 5, holdMs = 0, availableAt }: OutboxEntry): unknown[] {
  const { id, topic, key, headers, body } = message
  return [
    id,
    eventType,
    destination,
    topic,
    key,
    priority,
    JSON.stringify(headers),
    base64Of(body),
    holdMs > 0 ? holdMs : null,
    availableAt?.toISOString() ?? null,
  ]
}

function byNumber(left: string, right: string): number {
  return left.length - right.length || (left < right ? -1 : 1)
}

/** Rows that somebody has edited into nonsense are parked, and their followers wait, so that the others go on. */
function readClaimed(rows: readonly ClaimedColumns[]): { claimed: ClaimedRow[]; broken: RowFailure[] } {
  const claimed: ClaimedRow[] = []
  const broken: RowFailure[] = []
  const stopped = new Set<string>()
  for (const { row_id: rowId, event_id: id, destination, topic, key, headers: text, body, attempts, suspect } of rows) {
    if (stopped.size > 0 && stopped.has(`${topic}\n${key}`)) continue
    const headers = parseHeaders(text)
    if (headers === undefined) {
      stopped.add(`${topic}\n${key}`)
      broken.push({ rowId, error: 'the headers of this row are not a JSON object of strings' })
    } else {
      claimed.push({
        rowId,
        destination,
        message: { id, topic, key, headers, body: Buffer.from(body, 'base64') },
        attempts: Number(attempts),
        suspect,
      })
    }
  }
  return { claimed, broken }
}

function readListed(row: ListedColumns): OutboxRecord {
  return {
    rowId: row.row_id,
    eventId: row.event_id,
    eventType: row.event_type,
    topic: row.topic,
    key: row.key,
    status: row.status,
    attempts: Number(row.attempts),
    priority: Number(row.priority),
    createdAt: new Date(Number(row.created_ms)),
    dueAt: row.due_ms === null ? undefined : new Date(Number(row.due_ms)),
    lastError: row.last_error ?? undefined,
  }
}

function filterParams({ status, eventType, key, rowIds, limit = 100 }: OutboxFilter): unknown[] {
  return [
    status ?? null,
    eventType ?? null,
    key ?? null,
    rowIds === undefined ? null : idList(rowIds),
    checkInteger(limit, 'limit', 1, 10_000),
  ]
}

function countOf(rows: readonly { n: number }[]): number {
  return Number(rows[0]?.n ?? 0)
}
