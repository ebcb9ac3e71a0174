import type { OutboxStore, Storage } from '../../core/stores.ts'
import { type PlainColumns, appendWithoutLock, deleteRows, readPlain } from './plain-rows.ts'

/**
 * Broken on purpose: reads on from the highest number it has seen. Numbers are drawn before commits, so a row that commits late, with a lower number,
 * is never seen.
 */
export function withCursorById(storage: Storage): Storage {
  let cursor = '0'
  let busy = Promise.resolve<unknown>(undefined)
  const outbox: OutboxStore = {
    ...storage.outbox,
    append: appendWithoutLock,
    // One claim at a time, since all share the cursor.
    claim(_relayId, { limit }) {
      const claimed = busy.then(async () => {
        const { rows } = await storage.database.query<PlainColumns>(
          `select id::text as row_id, event_id, topic, key, headers, body, shard from waybill_outbox o where o.id > $1::bigint order by o.id limit $2::int`,
          [cursor, limit],
        )
        cursor = rows.at(-1)?.row_id ?? cursor
        return rows.map(readPlain)
      })
      busy = claimed.catch(() => undefined)
      return claimed
    },
    markPublished: (_relayId, rowIds) => deleteRows(storage, rowIds),
  }
  return { ...storage, outbox }
}
