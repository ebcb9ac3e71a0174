import type { Database } from '../../core/database.ts'
import { checkInteger } from '../../core/options.ts'
import type { DeadLetter, DeadLetterStore } from '../../core/stores.ts'
import { base64Of, parseHeaders, standalone, storable } from './statements.ts'
import type { Tables } from './tables.ts'

interface Columns {
  handler: string
  event_id: string
  event_type: string | null
  topic: string
  key: string
  headers: string
  body: string
  reason: DeadLetter['reason']
  error: string | null
  attempts: number
  partition: string
  sequence: string | null
  parked_ms: number
}

const ERROR_MAX = 16_384
const CHUNK_BYTES_MAX = 8 * 1024 * 1024

/** Dead letters in SQL. Whatever can arrive can be stored: what text can't hold is replaced, the bytes are kept as they came. */
export function createDeadLetterStore(database: Database, tables: Tables): DeadLetterStore {
  const run = standalone(database, tables)
  const sql = deadLetterSql(tables)
  return {
    async park(letters) {
      for (const chunk of chunked(letters)) await run(sql.park, [JSON.stringify(chunk.map(toColumns))])
    },
    parkedKeys: (handler) => run<{ topic: string; key: string }>(sql.parkedKeys, [handler]),
    async list({ handler, limit = 100 }) {
      return (await run<Columns>(sql.list, [handler ?? null, checkInteger(limit, 'limit', 1, 10_000)])).map(readLetter)
    },
    async count() {
      const [row] = await run<{ n: number }>(sql.count)
      return Number(row?.n ?? 0)
    },
  }
}

function deadLetterSql({ deadLetter }: Tables) {
  return {
    park: `
      insert into ${deadLetter} (handler, topic, key, event_id, event_type, headers, body, reason, error, attempts, partition, sequence)
      select e.handler, e.topic, e.key, e.event_id, e.event_type, e.headers, decode(e.body, 'base64'), e.reason, e.error, e.attempts, e.partition, e.sequence
      from rows from (json_to_recordset($1::text::json) as (handler text, topic text, key text, event_id text, event_type text, headers text, body text,
        reason text, error text, attempts integer, partition text, sequence numeric))
        with ordinality as e (handler, topic, key, event_id, event_type, headers, body, reason, error, attempts, partition, sequence, n)
      order by e.n
      on conflict (handler, md5(event_id)) do nothing`,
    parkedKeys: `select distinct d.topic, d.key from ${deadLetter} d where d.handler = $1::text and d.status = 'parked'`,
    list: `
      select d.handler, d.event_id, d.event_type, d.topic, d.key, d.headers, encode(d.body, 'base64') as body, d.reason, d.error, d.attempts, d.partition,
        d.sequence::text as sequence, floor(extract(epoch from d.parked_at) * 1000)::float8 as parked_ms
      from ${deadLetter} d where d.status = 'parked' and ($1::text is null or d.handler = $1::text) order by d.id limit $2::int`,
    count: `select count(*)::float8 as n from ${deadLetter} d where d.status = 'parked'`,
  }
}

function chunked(letters: readonly DeadLetter[]): DeadLetter[][] {
  const chunks: DeadLetter[][] = []
  let bytes = Infinity
  for (const letter of letters) {
    bytes += letter.message.body.byteLength
    if (bytes > CHUNK_BYTES_MAX) {
      chunks.push([])
      bytes = letter.message.body.byteLength
    }
    chunks.at(-1)!.push(letter)
  }
  return chunks
}

function toColumns({ handler, message, eventType, reason, error, attempts, partition, sequence }: DeadLetter): Record<string, unknown> {
  return {
    handler,
    topic: storable(message.topic),
    key: storable(message.key),
    event_id: storable(message.id),
    ...(eventType === undefined ? {} : { event_type: storable(eventType) }),
    headers: JSON.stringify(message.headers),
    body: base64Of(message.body),
    reason,
    ...(error === undefined ? {} : { error: storable(error, ERROR_MAX) }),
    attempts,
    partition: storable(partition),
    ...(sequence === undefined ? {} : { sequence: String(sequence) }),
  }
}

function readLetter(row: Columns): DeadLetter & { readonly parkedAt: Date } {
  const headers = parseHeaders(row.headers)
  const error = headers === undefined ? `${row.error ?? ''} (the stored headers are unreadable)`.trimStart() : row.error
  return {
    handler: row.handler,
    message: { id: row.event_id, topic: row.topic, key: row.key, headers: headers ?? {}, body: Buffer.from(row.body, 'base64') },
    eventType: row.event_type ?? undefined,
    reason: row.reason,
    error: error ?? undefined,
    attempts: Number(row.attempts),
    partition: row.partition,
    sequence: row.sequence === null ? undefined : BigInt(row.sequence),
    parkedAt: new Date(Number(row.parked_ms)),
  }
}
