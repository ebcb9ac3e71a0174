import type pg from 'pg'
import type { OutboxEntry } from 'waybill'

// What one writes by hand for the same job: a table of the same columns, an index on what is pending, and the best statement known.

export const BUSINESS = 'insert into business (note) values ($1::text)'
export const NOTE = 'an order was placed'

const TABLES = [
  'create table if not exists business (id bigint generated always as identity primary key, note text not null)',
  `create table if not exists floor_outbox (
     id bigint generated always as identity primary key, event_id text not null, event_type text not null, topic text not null, key text not null,
     priority int not null, headers text not null, body bytea not null, status text not null default 'pending',
     created_at timestamptz not null default clock_timestamp()
   )`,
  `create index if not exists floor_outbox_pending on floor_outbox (id) where status = 'pending'`,
]

const COLUMNS = 'event_id, event_type, topic, key, priority, headers, body'
const INSERT_ONE = `insert into floor_outbox (${COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7)`
const INSERT_MANY = `
  insert into floor_outbox (${COLUMNS})
  select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::text[], $7::bytea[])`

/** `UPDATE ... SKIP LOCKED ... RETURNING`: what most relays by hand do. */
export const claimFrom = (table: string): string => `
  update ${table} set status = 'published' where id in (
    select o.id from ${table} o where o.status = 'pending' order by o.id limit $1::int for update skip locked
  ) returning id, topic, key, headers, body`
export const SELECT_AFTER = `
  select o.id, o.topic, o.key, o.headers, o.body from floor_outbox o where o.status = 'pending' and o.id > $2::bigint order by o.id limit $1::int`
export const DELETE = 'delete from floor_outbox where id = any($1::bigint[])'

export async function makeFloorTables(pool: pg.Pool): Promise<void> {
  for (const statement of TABLES) await pool.query(statement)
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Uint8Array): Buffer => Buffer.from(buffer, byteOffset, byteLength)
const valuesOf = ({ eventType, message: { id, topic, key, headers, body } }: OutboxEntry): unknown[] => [
  id,
  eventType,
  topic,
  key,
  5,
  JSON.stringify(headers),
  bytesOf(body),
]

/** Runs statements; a client or a pool of `pg`. */
export interface Queryable {
  query(text: string, params?: unknown[]): Promise<unknown>
}

export const insertOne = (sql: Queryable, entry: OutboxEntry): Promise<unknown> => sql.query(INSERT_ONE, valuesOf(entry))

export function insertMany(sql: Queryable, entries: readonly OutboxEntry[]): Promise<unknown> {
  const rows = entries.map(valuesOf)
  return sql.query(
    INSERT_MANY,
    Array.from({ length: 7 }, (_, column) => rows.map((row) => row[column])),
  )
}

/** Runs `fn` in a transaction of its own connection, each statement awaited. */
export async function inTransaction(pool: pg.Pool, fn: (client: pg.PoolClient) => Promise<unknown>): Promise<void> {
  const client = await pool.connect()
  try {
    await client.query('begin')
    await fn(client)
    await client.query('commit')
  } finally {
    client.release()
  }
}
