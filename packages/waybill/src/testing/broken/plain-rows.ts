import type { SqlExecutor } from '../../core/database.ts'
import type { ClaimedRow, OutboxEntry, Storage } from '../../core/stores.ts'

/** What the broken claims read. */
export interface PlainColumns {
  row_id: string
  event_id: string
  topic: string
  key: string
  headers: string
  body: Uint8Array
  shard: number
}

export function readPlain({ row_id, event_id, topic, key, headers, body, shard }: PlainColumns): ClaimedRow {
  return {
    rowId: row_id,
    destination: 'default',
    message: { id: event_id, topic, key, headers: JSON.parse(headers) as Record<string, string>, body },
    attempts: 0,
    suspect: false,
    shard: Number(shard),
  }
}

/** A plain insert, as most outboxes have it: nothing makes the order of numbers that of commits. */
export async function appendWithoutLock(sql: SqlExecutor, entries: readonly OutboxEntry[]): Promise<readonly string[]> {
  const rowIds: string[] = []
  for (const { message, eventType } of entries) {
    const { rows } = await sql.query<{ row_id: string }>(
      `insert into waybill_outbox (event_id, event_type, topic, key, shard, headers, body)
       values ($1, $2, $3, $4, ('x' || substr(md5($3::text || E'\\n' || $4::text), 1, 3))::bit(12)::int % 64, $5, decode($6, 'base64')) returning id::text as row_id`,
      [message.id, eventType, message.topic, message.key, JSON.stringify(message.headers), Buffer.from(message.body).toString('base64')],
    )
    rowIds.push(rows[0]!.row_id)
  }
  return rowIds
}

/** Retires rows of no matter whom. */
export async function deleteRows({ database }: Storage, rowIds: readonly string[]): Promise<number> {
  const { rows } = await database.query('delete from waybill_outbox o where o.id = any ($1::bigint[]) returning 1 as one', [
    `{${rowIds.join(',')}}`,
  ])
  return rows.length
}
