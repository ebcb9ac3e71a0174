import type { Database, SqlExecutor } from '../../core/database.ts'
import { WaybillError, messageOf } from '../../core/errors.ts'
import { appendFunction } from './append-function.ts'
import { OTHER_PRIORITY, SCHEDULED_AT, UNUSUAL_ROW } from './outbox-claim-sql.ts'
import { operatorIndexes } from './outbox-operator-sql.ts'
import { ADVISORY_CLASS, SHARDS } from './slots.ts'
import { READ_COMMITTED, explained, notMigrated, sqlStateOf } from './statements.ts'
import type { Tables } from './tables.ts'

interface Migration {
  readonly version: number
  readonly name: string
  readonly statements: (tables: Tables) => readonly string[]
}

// A migration that was released is never edited: the next change is the next number.
const MIGRATIONS: readonly Migration[] = [
  { version: 1, name: '1-first-tables', statements: firstTables },
  { version: 2, name: '2-many-relays', statements: manyRelays },
]
const NEWEST = MIGRATIONS.at(-1)!.version

function firstTables(tables: Tables): string[] {
  return [...outboxTables(tables), ...inboxTables(tables), ...deadLetterTables(tables)]
}

function outboxTables({ names: { prefix }, outbox, outboxIds, lease, relay }: Tables): string[] {
  return [
    // CACHE 1: a session that drew numbers ahead would use them after others have committed higher ones.
    `create sequence ${outboxIds.slice(1, -1)} as bigint cache 1`,
    `create table ${outbox} (
       id bigint primary key default nextval(${outboxIds}),
       event_id text not null,
       event_type text not null,
       destination text not null default 'default',
       topic text not null check (octet_length(topic) <= 1024),
       key text not null check (octet_length(key) <= 1024),
       shard smallint not null check (shard between 0 and ${SHARDS - 1}),
       priority smallint not null default 5,
       headers text not null,
       body bytea not null,
       status text not null default 'pending' check (status in ('pending', 'published', 'parked')),
       attempts integer not null default 0,
       hold_until timestamptz,
       available_at timestamptz,
       created_at timestamptz not null default clock_timestamp(),
       published_at timestamptz,
       last_error text
     )`,
    `alter sequence ${outboxIds.slice(1, -1)} owned by ${outbox}.id`,
    // What makes the followers of a key wait. Nearly empty nearly always.
    `create index "${prefix}outbox_blocking" on ${outbox} (topic, key, id) where status = 'parked' or hold_until is not null`,
    `create table ${lease} (
       shard smallint primary key,
       owner text,
       expires_at timestamptz,
       suspect_to bigint not null default 0
     )`,
    `insert into ${lease} (shard) select generate_series(0, ${SHARDS - 1})`,
    `create table ${relay} (id text primary key, expires_at timestamptz not null, claimed_to bigint not null default 0)`,
  ]
}

function manyRelays(tables: Tables): string[] {
  const {
    names: { prefix },
    outbox,
    lease,
    relay,
  } = tables
  return [
    `alter table ${outbox}
       add column behind bigint,
       add column clear boolean not null default false,
       drop constraint if exists "${prefix}outbox_status_check"`,
    // Not valid: what is in the table satisfies it, and looking at each row would hold everybody up.
    `alter table ${outbox} add constraint "${prefix}outbox_status_check"
       check (status in ('pending', 'scheduled', 'published', 'parked', 'skipped')) not valid`,
    `update ${outbox} set status = 'scheduled' where status = 'pending' and available_at > clock_timestamp()`,
    // May be there: version 1 made it where published rows were kept.
    `create index if not exists "${prefix}outbox_pending" on ${outbox} (id) where status = 'pending'`,
    `create index "${prefix}outbox_scheduled" on ${outbox} ((${SCHEDULED_AT})) where status = 'scheduled'`,
    // Empty where published rows are not kept. May be there, as the first.
    `create index if not exists "${prefix}outbox_published" on ${outbox} (published_at) where status = 'published'`,
    // Rows of other than default priority: those that may overtake, those of which it is not known yet, and all by key. Rows of default priority are in none
    // of them, and cost no more than the question.
    `create index "${prefix}outbox_priority" on ${outbox} (priority desc, id) where ${OTHER_PRIORITY} and clear`,
    `create index "${prefix}outbox_unclear" on ${outbox} (priority desc, id) where ${OTHER_PRIORITY} and not clear`,
    `create index "${prefix}outbox_priority_key" on ${outbox} (topic, key, id) where ${OTHER_PRIORITY}`,
    // Everything that a claim has to ask more questions for: one look tells that there is nothing of it.
    `create index "${prefix}outbox_unusual" on ${outbox} (shard, id) where ${UNUSUAL_ROW}`,
    ...operatorIndexes(tables),
    `alter table ${lease} drop column suspect_to`,
    // What a relay had in flight as of its last claim; what a dead one of its name had; whether it waits, so that a commit is worth a hint.
    `alter table ${relay}
       drop column claimed_to,
       add column claimed bigint[] not null default '{}',
       add column suspects bigint[] not null default '{}',
       add column asleep boolean not null default false`,
    // A few hundred numbers are written with each claim: packing them costs more than it saves.
    `alter table ${relay} set (toast_tuple_target = 8160)`,
    ...appendFunction(tables),
  ]
}

function inboxTables({ names: { prefix }, inbox, inboxAttempt }: Tables): string[] {
  return [
    `create table ${inbox} (
       event_id text not null,
       handler text not null,
       handled_at timestamptz not null default clock_timestamp(),
       primary key (event_id, handler)
     )`,
    `create index "${prefix}inbox_handled_at" on ${inbox} (handled_at)`,
    `create table ${inboxAttempt} (
       event_id text not null,
       handler text not null,
       attempts integer not null,
       at timestamptz not null default clock_timestamp(),
       primary key (event_id, handler)
     )`,
  ]
}

function deadLetterTables({ names: { prefix }, deadLetter }: Tables): string[] {
  return [
    `create table ${deadLetter} (
       id bigint generated always as identity primary key,
       handler text not null,
       topic text not null,
       key text not null,
       event_id text not null,
       event_type text,
       headers text not null,
       body bytea not null,
       reason text not null,
       error text,
       attempts integer not null,
       partition text not null,
       sequence numeric,
       status text not null default 'parked',
       parked_at timestamptz not null default clock_timestamp()
     )`,
    // Hashed: a foreign message may carry an id or a key longer than an index entry can be, and must be storable all the same.
    `create unique index "${prefix}dead_letter_once" on ${deadLetter} (handler, md5(event_id))`,
    `create index "${prefix}dead_letter_parked" on ${deadLetter} (handler, md5(topic), md5(key)) where status = 'parked'`,
  ]
}

/**
 * Brings the tables to this version, in one transaction and under a lock: of several processes one does the work, the others find it done.
 * Gives back the names of what was applied.
 * @throws WaybillError `SCHEMA_TOO_NEW`; `UNSUPPORTED` where the user may not make tables there
 */
export async function migrate(database: Database, tables: Tables): Promise<readonly string[]> {
  try {
    return await database.transaction(async (sql) => {
      // Whatever the default is: what others did while this waited for the lock has to be seen.
      await sql.query(READ_COMMITTED)
      // Key -1 is no slot's, so no append ever waits for this.
      await sql.query(`select pg_advisory_xact_lock(${ADVISORY_CLASS}, -1)`)
      await prepare(sql, tables)
      const applied = await versionOf(sql, tables)
      checkNotNewer(applied, tables)
      const missing = MIGRATIONS.filter(({ version }) => version > applied)
      for (const { version, name, statements } of missing) {
        for (const statement of statements(tables)) await sql.query(statement)
        await sql.query(`insert into ${tables.migration} (version, name) values ($1::int, $2::text)`, [version, name])
      }
      return missing.map(({ name }) => name)
    })
  } catch (error) {
    const state = sqlStateOf(error)
    if (state !== '42501' && state !== '25006') throw error
    throw new WaybillError('UNSUPPORTED', `this database user can't make Waybill's tables: ${messageOf(error)}`, {
      allowed: `a user with the right to create in schema "${tables.names.schema}", on a database that is not read-only`,
      where: 'migrate',
      cause: error,
    })
  }
}

async function prepare(sql: SqlExecutor, { schema, names, migration }: Tables): Promise<void> {
  // Asked first, since `create schema if not exists` needs the right to create one even where it exists.
  const { rows } = await sql.query('select 1 from pg_catalog.pg_namespace where nspname = $1::text', [names.schema])
  if (rows.length === 0) await sql.query(`create schema ${schema}`)
  const { rows: found } = await sql.query('select 1 where to_regclass($1::text) is not null', [migration])
  if (found.length > 0) return
  await sql.query(
    `create table ${migration} (version integer primary key, name text not null, applied_at timestamptz not null default clock_timestamp())`,
  )
}

async function versionOf(sql: SqlExecutor, { migration }: Tables): Promise<number> {
  const { rows } = await sql.query<{ version: unknown }>(`select coalesce(max(version), 0)::int as version from ${migration}`)
  return Number(rows[0]?.version ?? 0)
}

/** Whether the tables are those that this version works with. @throws WaybillError `NOT_MIGRATED` | `SCHEMA_TOO_NEW`; `UNSUPPORTED` for want of a right */
export async function checkMigrated(sql: SqlExecutor, tables: Tables): Promise<void> {
  let version: number
  try {
    version = await versionOf(sql, tables)
  } catch (error) {
    throw explained(error, tables)
  }
  checkNotNewer(version, tables)
  if (version < NEWEST) throw notMigrated(tables, undefined, { got: version, needed: NEWEST })
}

function checkNotNewer(version: number, { migration }: Tables): void {
  if (version <= NEWEST) return
  throw new WaybillError('SCHEMA_TOO_NEW', 'the tables were made by a newer version of Waybill: update this one', {
    got: version,
    allowed: `at most ${NEWEST}`,
    where: migration,
  })
}
