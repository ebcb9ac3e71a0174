import type { OutboxStore, Storage } from '../../core/stores.ts'
import { type PlainColumns, appendWithoutLock, deleteRows, readPlain } from './plain-rows.ts'

interface Columns extends PlainColumns {
  xid: string
}

/**
 * Broken on purpose: a cursor over (transaction id, number), up to the oldest transaction that is still open. It loses nothing, but a transaction gets
 * its id before it has waited for a row's lock, so ids are not in the order of a key's commits.
 */
export function withOrderByTransaction(storage: Storage): Storage {
  let cursor = { xid: '0', rowId: '0' }
  let busy = Promise.resolve<unknown>(undefined)
  const outbox: OutboxStore = {
    ...storage.outbox,
    append: appendWithoutLock,
    // One claim at a time, since all share the cursor.
    claim(_relayId, { limit }) {
      const claimed = busy.then(async () => {
        const { rows } = await storage.database.query<Columns>(
          `select o.id::text as row_id, o.xid::text as xid, o.event_id, o.topic, o.key, o.headers, o.body, o.shard from waybill_outbox o
           where o.xid < pg_snapshot_xmin(pg_current_snapshot()) and (o.xid, o.id) > ($1::text::xid8, $2::bigint)
           order by o.xid, o.id limit $3::int`,
          [cursor.xid, cursor.rowId, limit],
        )
        const last = rows.at(-1)
        if (last !== undefined) cursor = { xid: last.xid, rowId: last.row_id }
        return rows.map(readPlain)
      })
      busy = claimed.catch(() => undefined)
      return claimed
    },
    markPublished: (_relayId, rowIds) => deleteRows(storage, rowIds),
  }
  return {
    ...storage,
    outbox,
    async migrate() {
      const applied = await storage.migrate()
      await storage.database.query('alter table waybill_outbox add column if not exists xid xid8 not null default pg_current_xact_id()')
      return applied
    },
  }
}
