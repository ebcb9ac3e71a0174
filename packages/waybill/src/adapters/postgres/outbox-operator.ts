import type { Database } from '../../core/database.ts'
import type { OutboxDetail, OutboxFilter, OutboxRecord, OutboxStore, StuckKey } from '../../core/stores.ts'
import { checkInteger } from '../../core/options.ts'
import { COUNT_MAX, ROW_ID_MIN, SKIPPED_KEEP_MS, type Statement, operatorSql } from './outbox-operator-sql.ts'
import { READ_COMMITTED, idList, joined, parseHeaders, sqlStateOf, standalone } from './statements.ts'
import type { Tables } from './tables.ts'

/** The half of an outbox that people and upkeep use; the other half is the relay's. */
export type OutboxOperator = Pick<OutboxStore, 'retry' | 'skip' | 'suspend' | 'list' | 'show' | 'stuckKeys' | 'stats' | 'leases' | 'sweep'>

export interface OutboxOperatorOptions {
  /** Told how many rows a sweep has deleted. */
  readonly onDeleted?: (rows: number) => Promise<unknown>
}

interface ListedColumns {
  row_id: string
  event_id: string
  event_type: string
  destination: string
  topic: string
  key: string
  status: OutboxRecord['status']
  attempts: number
  priority: number
  created_ms: number
  due_ms: number | null
  last_error: string | null
  behind: string | null
}

interface StuckColumns {
  row_id: string
  topic: string
  key: string
  status: StuckKey['status']
  attempts: number
  last_error: string | null
  followers: number
  age_ms: number
}

const TRIES_MAX = 5
// The furthest that a Date can tell.
const DATE_MAX_MS = 8.64e15

/** Looking at the outbox, and putting right what stands still, for PGlite and PostgreSQL alike. */
export function createOutboxOperator(database: Database, tables: Tables, { onDeleted }: OutboxOperatorOptions): OutboxOperator {
  const sql = operatorSql(tables)
  const run = standalone(database, tables)
  // The head to go on with; undefined: the first there is.
  let healFrom: string | undefined

  async function heal(): Promise<void> {
    const [row] = await run<{ row_id: string | null }>(sql.healOrphans, [healFrom ?? ROW_ID_MIN])
    healFrom = row?.row_id ?? undefined
  }

  // Two statements, since the second must see what was parked while the first waited for the lock of a head.
  async function changeOnce({ text, params }: Statement): Promise<number> {
    return database.transaction(async (caller) => {
      const within = joined(caller, tables)
      await within(READ_COMMITTED)
      const heads = await within<{ row_id: string }>(text, params)
      if (heads.length > 0) await within(sql.free, [idList(heads.map(({ row_id }) => row_id))])
      return heads.length
    })
  }

  async function change(statement: Statement): Promise<number> {
    // What is parked behind nothing is no head to be chosen: it goes on by itself.
    await heal()
    for (let attempt = 1; ; attempt++) {
      try {
        return await changeOnce(statement)
      } catch (error) {
        // Met another's locks the other way round, and rolled back: whole in itself, it is run again.
        if (!['40P01', '40001'].includes(sqlStateOf(error) ?? '') || attempt === TRIES_MAX) throw error
      }
    }
  }

  async function estimated(counted: number, where: string): Promise<number> {
    if (counted <= COUNT_MAX) return counted
    const [row] = await run<Record<string, unknown>>(sql.estimate(where))
    // One column, whose name some drivers change.
    return Math.max(COUNT_MAX, planRows(Object.values(row ?? {})[0]))
  }

  return {
    retry: async (filter) => change(sql.retry(filter)),
    skip: async (filter) => change(sql.skip(filter)),
    async suspend(filter, reason) {
      const { text, params } = sql.suspend(filter, reason)
      return (await run(text, params)).length
    },
    async list(filter: OutboxFilter) {
      const { text, params } = sql.list(filter)
      return (await run<ListedColumns>(text, params)).map(readListed)
    },
    async show(rowId) {
      idList([rowId])
      const [row] = await run<ListedColumns & { headers: string; body: string }>(sql.show, [rowId])
      return row === undefined ? undefined : readDetail(row)
    },
    async stuckKeys(limit) {
      return (await run<StuckColumns>(sql.stuckKeys, [checkInteger(limit, 'limit', 1, 1_000)])).map(readStuck)
    },
    async stats() {
      const [row] = await run<{ pending: number; scheduled: number; parked: number; oldest_ms: number }>(sql.stats)
      return {
        pending: await estimated(Number(row?.pending ?? 0), `o.status = 'pending'`),
        scheduled: await estimated(Number(row?.scheduled ?? 0), `o.status = 'scheduled'`),
        parked: await estimated(Number(row?.parked ?? 0), `o.status = 'parked'`),
        oldestPendingMs: ageOf(row?.oldest_ms ?? 0),
      }
    },
    async leases() {
      const rows = await run<{ id: string; shards: number; expires_ms: number }>(sql.leases)
      return rows.map(({ id, shards, expires_ms }) => ({ relayId: id, shards: Number(shards), expiresInMs: Number(expires_ms) }))
    },
    async sweep(keepMs, limit) {
      await heal()
      const published = await deleted(sql.sweepPublished, keepMs, limit)
      const skipped = published < limit ? await deleted(sql.sweepSkipped, Math.max(keepMs, SKIPPED_KEEP_MS), limit - published) : 0
      return published + skipped
    },
  }

  async function deleted(text: string, keepMs: number, limit: number): Promise<number> {
    const [row] = await run<{ n: number }>(text, [keepMs, limit])
    const rows = Number(row?.n ?? 0)
    if (rows > 0) await onDeleted?.(rows)
    return rows
  }
}

/** Somebody may have written 'infinity'. */
function dateOf(ms: number): Date {
  return new Date(Math.max(-DATE_MAX_MS, Math.min(DATE_MAX_MS, Number(ms))))
}

function ageOf(ms: number): number {
  return Math.max(0, Math.min(DATE_MAX_MS, Math.round(Number(ms))))
}

/** Some drivers give JSON back as it is, some as text. */
function planRows(plan: unknown): number {
  const parsed: unknown = typeof plan === 'string' ? JSON.parse(plan) : plan
  const [first] = parsed as readonly [{ readonly Plan: { readonly 'Plan Rows': number } }]
  return first.Plan['Plan Rows']
}

function readListed(row: ListedColumns): OutboxRecord {
  return {
    rowId: row.row_id,
    eventId: row.event_id,
    eventType: row.event_type,
    destination: row.destination,
    topic: row.topic,
    key: row.key,
    status: row.status,
    attempts: Number(row.attempts),
    priority: Number(row.priority),
    createdAt: dateOf(row.created_ms),
    dueAt: row.due_ms === null ? undefined : dateOf(row.due_ms),
    lastError: row.last_error ?? undefined,
    behind: row.behind ?? undefined,
  }
}

function readDetail(row: ListedColumns & { headers: string; body: string }): OutboxDetail {
  return { ...readListed(row), headers: parseHeaders(row.headers), body: Buffer.from(row.body, 'base64') }
}

function readStuck(row: StuckColumns): StuckKey {
  return {
    topic: row.topic,
    key: row.key,
    rowId: row.row_id,
    status: row.status,
    attempts: Number(row.attempts),
    lastError: row.last_error ?? undefined,
    followers: Number(row.followers),
    ageMs: ageOf(row.age_ms),
  }
}
