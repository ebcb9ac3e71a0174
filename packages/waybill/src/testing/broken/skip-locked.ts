import type { OutboxStore, Storage } from '../../core/stores.ts'
import { type PlainColumns, appendWithoutLock, deleteRows, readPlain } from './plain-rows.ts'

/**
 * Broken on purpose: several relays take rows with `FOR UPDATE SKIP LOCKED`. Each passes over what another one has, so the second of a key can go out
 * before the first.
 */
export function withSkipLocked(storage: Storage): Storage {
  const outbox: OutboxStore = {
    ...storage.outbox,
    append: appendWithoutLock,
    async claim(_relayId, { limit }) {
      const { rows } = await storage.database.query<PlainColumns>(
        `update waybill_outbox o set hold_until = clock_timestamp() + interval '1 minute'
         where o.id in (
           select c.id from waybill_outbox c
           where c.status = 'pending' and (c.hold_until is null or c.hold_until <= clock_timestamp())
           order by c.id limit $1::int for update skip locked)
         returning o.id::text as row_id, o.event_id, o.topic, o.key, o.headers, o.body, o.shard`,
        [limit],
      )
      return rows.map(readPlain).toSorted((left, right) => (BigInt(left.rowId) < BigInt(right.rowId) ? -1 : 1))
    },
    markPublished: (_relayId, rowIds) => deleteRows(storage, rowIds),
  }
  return { ...storage, outbox }
}
