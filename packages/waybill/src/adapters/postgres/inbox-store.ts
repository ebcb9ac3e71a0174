import type { Database } from '../../core/database.ts'
import type { InboxStore } from '../../core/stores.ts'
import { joined, standalone } from './statements.ts'
import type { Tables } from './tables.ts'

// Attempts that this process has counted and may have to forget. Those beyond are left to the sweep.
const COUNTED_MAX = 10_000

/** The inbox in SQL: the primary key makes a concurrent duplicate wait for the transaction that is recording the same event. */
export function createInboxStore(database: Database, tables: Tables): InboxStore {
  const run = standalone(database, tables)
  const sql = inboxSql(tables)
  const counted = new Set<string>()

  return {
    async record(caller, handler, eventIds) {
      if (eventIds.length === 0) return new Set()
      // A statement that deletes costs more: only where there is something to forget. The transaction may yet roll back, so the entry stays.
      const text =
        counted.size > 0 && eventIds.some((eventId) => counted.has(attemptKey(handler, eventId))) ? sql.recordAndForget : sql.record
      const rows = await joined(caller, tables)<{ event_id: string }>(text, [handler, JSON.stringify(eventIds)])
      return new Set(rows.map(({ event_id }) => event_id))
    },
    async countAttempt(handler, eventId) {
      const key = attemptKey(handler, eventId)
      if (counted.size >= COUNTED_MAX && !counted.has(key)) counted.delete(counted.values().next().value!)
      counted.add(key)
      const [row] = await run<{ attempts: number }>(sql.countAttempt, [handler, eventId])
      return Number(row?.attempts ?? 1)
    },
    async sweep(keepMs, limit) {
      const [row] = await run<{ n: number }>(sql.sweep, [keepMs, limit])
      return Number(row?.n ?? 0)
    },
  }
}

function inboxSql({ inbox, inboxAttempt }: Tables) {
  // Sorted, so that two batches that share events wait for each other instead of deadlocking.
  const recorded = `recorded as (
    insert into ${inbox} (event_id, handler)
    select i.event_id, $1::text from (select distinct e.id as event_id from json_array_elements_text($2::text::json) as e (id) order by 1) i
    on conflict do nothing returning event_id)`
  const old = (table: string, column: string) => `
    delete from ${table} t where (t.event_id, t.handler) in (
      select s.event_id, s.handler from ${table} s where s.${column} < clock_timestamp() - $1::float8 * interval '1 millisecond'
      order by s.${column} limit $2::int)`
  return {
    record: `with ${recorded} select r.event_id from recorded r`,
    recordAndForget: `with ${recorded}, forgotten as (
      delete from ${inboxAttempt} a where a.handler = $1::text and a.event_id in (select e.id from json_array_elements_text($2::text::json) as e (id)))
      select r.event_id from recorded r`,
    countAttempt: `
      insert into ${inboxAttempt} as a (event_id, handler, attempts) values ($2::text, $1::text, 1)
      on conflict (event_id, handler) do update set attempts = a.attempts + 1, at = clock_timestamp() returning a.attempts`,
    sweep: `with gone as (${old(inbox, 'handled_at')} returning 1), attempts as (${old(inboxAttempt, 'at')}) select count(*)::int as n from gone`,
  }
}

function attemptKey(handler: string, eventId: string): string {
  return `${handler}\n${eventId}`
}
