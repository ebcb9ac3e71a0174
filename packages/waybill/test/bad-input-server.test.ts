import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Storage, type WaybillErrorCode, isWaybillError } from 'waybill'
import { postgresStorage } from 'waybill/postgres'
import pg from 'pg'
import { createSqlStorage } from '../src/adapters/postgres/sql-storage.ts'
import { testPostgres } from '../src/testing/test-postgres.ts'

// A server that is not what it should be: one clear error that says what to do, and nothing half done.

const ENTRY = { eventType: 'a.B', message: { id: 'event-1', topic: 'a.B', key: 'a', headers: {}, body: new Uint8Array() } }

function refused(run: () => unknown, code: WaybillErrorCode, ...says: readonly RegExp[]): Promise<void> {
  return assert.rejects(
    async () => run(),
    (error: unknown) => {
      assert.ok(isWaybillError(error), String(error))
      assert.equal(error.code, code, error.message)
      for (const pattern of says) assert.match(error.message, pattern)
      return true
    },
  )
}

/** A schema with tables, opened by the owner of everything. */
async function fresh(): Promise<{ readonly admin: Storage; readonly schema: string; tables(): Promise<number> }> {
  const server = await testPostgres()
  const schema = server.schema()
  const admin = await postgresStorage(server.url(), { schema, poolMax: 2 })
  await admin.migrate()
  const tables = async () =>
    Number((await admin.database.query<{ n: string }>(`select count(*) as n from pg_tables where schemaname = $1`, [schema])).rows[0]!.n)
  return { admin, schema, tables }
}

/** A login of this test's own, with `settings` of its own; may use the schema's tables. */
async function roleUrl({ admin, schema }: { admin: Storage; schema: string }, settings: readonly string[], name = `r_${schema}`) {
  const { host, port } = await testPostgres()
  await admin.database.query(`create role ${name} login password 'secret'`)
  await admin.database.query(`grant usage, create on schema ${schema} to ${name}`)
  await admin.database.query(`grant all on all tables in schema ${schema} to ${name}`)
  await admin.database.query(`grant all on all sequences in schema ${schema} to ${name}`)
  for (const setting of settings) await admin.database.query(`alter role ${name} set ${setting}`)
  return `postgres://${name}:secret@${host}:${port}/postgres`
}

test('a server older than PostgreSQL 14 is refused before anything is made', async () => {
  const { url } = await testPostgres()
  const schema = 'of_old_server'
  const real = await postgresStorage(url())
  const { query, transaction } = real.database
  const database: Storage['database'] = {
    transaction,
    query: async <Row>(text: string, params?: readonly unknown[]) => {
      const answer = await query<Row>(text, params)
      return text.includes('server_version_num') ? { rows: [{ number: '130012', version: '13.12' } as Row] } : answer
    },
  }
  const old = createSqlStorage({ name: 'postgres', database, soleOwner: false, close: async () => {} }, { schema })
  await refused(() => old.migrate(), 'UNSUPPORTED', /too old/, /"13\.12"/, /14 or newer/)
  await refused(() => old.check(), 'UNSUPPORTED', /too old/)
  assert.deepEqual((await query(`select 1 from pg_namespace where nspname = $1`, [schema])).rows, [])
  await real.close()
})

test('tables that are not all there are refused, by check and by migrate, with the name of what is missing', async () => {
  const { admin, schema } = await fresh()
  await admin.check()
  await admin.database.query(`alter table ${schema}.waybill_outbox drop column last_error`)
  for (const run of [admin.check, admin.migrate])
    await refused(run, 'NOT_MIGRATED', /incomplete/, /waybill_outbox\\"\.\\"last_error/, /backup/)
  await admin.database.query(`alter table ${schema}.waybill_outbox add column last_error text`)
  await admin.check()
  await admin.database.query(`drop table ${schema}.waybill_inbox, ${schema}.waybill_lease`)
  for (const run of [admin.check, admin.migrate]) await refused(run, 'NOT_MIGRATED', /incomplete/, /waybill_inbox/, /waybill_lease/)
  await admin.close()
})

test('tables without the record of their version are refused and left alone', async () => {
  for (const remove of ['delete from SCHEMA.waybill_migration', 'drop table SCHEMA.waybill_migration']) {
    const { admin, schema, tables } = await fresh()
    await admin.database.transaction((sql) => admin.outbox.append(sql, [ENTRY]))
    await admin.database.query(remove.replace('SCHEMA', schema))
    const before = await tables()
    await refused(() => admin.check(), 'NOT_MIGRATED')
    await refused(() => admin.migrate(), 'NOT_MIGRATED', /nothing was changed/, /already exists/, /backup/)
    assert.equal(await tables(), before)
    assert.equal((await admin.outbox.stats()).pending, 1, 'what was in them is still there')
    await admin.close()
  }
})

test('what COLUMNS of the check names is all that the migrations make', async () => {
  const { admin, schema } = await fresh()
  const { rows } = await admin.database.query<{ table_name: string; column_name: string }>(
    `select table_name, column_name from information_schema.columns where table_schema = $1`,
    [schema],
  )
  assert.ok(rows.length > 40)
  for (const { table_name: table, column_name: column } of rows) {
    await admin.database.query(`alter table ${schema}.${table} rename column "${column}" to gone`)
    await refused(() => admin.check(), 'NOT_MIGRATED')
    await admin.database.query(`alter table ${schema}.${table} rename column gone to "${column}"`)
  }
  await admin.check()
  await admin.close()
})

test('a right that is missing at run time is named, with its table', async () => {
  const made = await fresh()
  const url = await roleUrl(made, [])
  await made.admin.database.query(`revoke insert on ${made.schema}.waybill_outbox from r_${made.schema}`)
  const storage = await postgresStorage(url, { schema: made.schema })
  await storage.check()
  const append = () => storage.database.transaction((sql) => storage.outbox.append(sql, [ENTRY]))
  await refused(append, 'UNSUPPORTED', /permission denied for table waybill_outbox/, /select, insert, update and delete/)
  await made.admin.database.query(`revoke usage on schema ${made.schema} from r_${made.schema}`)
  await refused(() => storage.outbox.stats(), 'UNSUPPORTED', /permission denied for schema/)
  assert.equal((await made.admin.outbox.stats()).pending, 0)
  await storage.close()
  await made.admin.close()
})

test('a read-only server is said to be one, and is waited for', async () => {
  const made = await fresh()
  const url = await roleUrl(made, ['default_transaction_read_only = on'])
  const storage = await postgresStorage(url, { schema: made.schema })
  await storage.check()
  const elsewhere = await postgresStorage(url, { schema: made.schema, prefix: 'other_' })
  await refused(() => elsewhere.migrate(), 'UNSUPPORTED', /read-only/)
  await elsewhere.close()
  await refused(() => storage.outbox.acquire('relay', 1_000), 'DATABASE_UNREACHABLE', /read-only here, as a replica is/, /primary/)
  await refused(() => storage.database.transaction((sql) => storage.outbox.append(sql, [ENTRY])), 'DATABASE_UNREACHABLE', /read-only/)
  assert.equal((await storage.outbox.stats()).pending, 0, 'looking is possible all the same')
  await storage.close()
  await made.admin.close()
})

test('a disk that is full is said to be full; nothing was written, and it goes on when there is room', async () => {
  // The server's own code for it, raised by a trigger: what is under test is what becomes of it here.
  const { admin, schema } = await fresh()
  const { outbox, inbox, deadLetters, database } = admin
  await database.query(
    `create function ${schema}.full_disk() returns trigger language plpgsql as
     $$ begin raise exception 'could not extend file "base/5/16384": No space left on device' using errcode = '53100'; end $$`,
  )
  const written = ['waybill_outbox', 'waybill_inbox', 'waybill_inbox_attempt', 'waybill_dead_letter']
  for (const table of written)
    await database.query(
      `create trigger full_disk before insert on ${schema}.${table} for each statement execute function ${schema}.full_disk()`,
    )
  await database.query(`create table ${schema}.business (note text)`)
  const unit = () =>
    database.transaction(async (sql) => {
      await sql.query(`insert into ${schema}.business values ('x')`)
      await outbox.append(sql, [ENTRY])
    })
  const letter = { handler: 'a/b', eventType: 'a.B', reason: 'failed', error: 'e', attempts: 1, partition: '0', sequence: 1n } as const
  for (const run of [
    unit,
    () => inbox.countAttempt('a/b', '1'),
    () => database.transaction((sql) => inbox.record(sql, 'a/b', ['1'])),
    () => deadLetters.park([{ ...letter, message: ENTRY.message }]),
  ])
    await refused(run, 'DATABASE_UNREACHABLE', /no room/, /No space left on device/)
  assert.equal((await outbox.stats()).pending, 0)
  assert.equal(await deadLetters.count(), 0)
  assert.deepEqual((await database.query(`select 1 from ${schema}.business`)).rows, [])
  for (const table of written) await database.query(`drop trigger full_disk on ${schema}.${table}`)
  await unit()
  assert.equal((await outbox.stats()).pending, 1)
  await admin.close()
})

test('a statement or a lock that takes longer than the server allows is a timeout that names the setting; the connection goes on', async () => {
  const made = await fresh()
  const url = await roleUrl(made, [`lock_timeout = '50ms'`])
  const storage = await postgresStorage(url, { schema: made.schema, poolMax: 2 })
  const append = (to: Storage) => to.database.transaction((sql) => to.outbox.append(sql, [ENTRY]))
  await made.admin.database.transaction(async (sql) => {
    await made.admin.outbox.append(sql, [ENTRY])
    await refused(() => append(storage), 'TIMEOUT', /lock_timeout/)
    await storage.database.query(`set statement_timeout = '50ms'; set lock_timeout = 0`)
    await refused(() => append(storage), 'TIMEOUT', /statement_timeout/)
  })
  await append(storage)
  assert.equal((await made.admin.outbox.stats()).pending, 2, 'the two that committed')
  await storage.close()
  await made.admin.close()
})

test('all connections in use: the wait ends, and the error names what to change', async () => {
  const { url } = await testPostgres()
  const own = new pg.Pool({ connectionString: url(), max: 2 })
  own.on('error', () => {})
  for (const storage of [
    await postgresStorage(url(), { poolMax: 2, connectTimeoutMs: 2_000 }),
    await postgresStorage(own, { connectTimeoutMs: 2_000 }),
  ]) {
    const { database } = storage
    const ended = Promise.withResolvers<void>()
    const inside = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const holding = inside.map(({ resolve }) =>
      database.transaction(async () => {
        resolve()
        await ended.promise
      }),
    )
    await Promise.race([Promise.all(inside.map(({ promise }) => promise)), Promise.all(holding)])
    const waits = [() => database.query('select 1'), () => database.transaction(async () => {})]
    await Promise.all(waits.map((run) => refused(run, 'DATABASE_UNREACHABLE', /in use/, /poolMax/, /connectTimeoutMs/)))
    ended.resolve()
    await Promise.all(holding)
    // Two at a time, and often: what came too late has gone back to the pool.
    await Promise.all(Array.from({ length: 20 }, () => database.query('select 1')))
    await storage.close()
  }
  await own.end()
})

test('encryption that is refused, or that the server insists on, is one clear error', async () => {
  const made = await fresh()
  const url = await roleUrl(made, [], 'only_encrypted')
  const check = async (target: string) => {
    const storage = await postgresStorage(target, { schema: made.schema, connectTimeoutMs: 20_000 })
    try {
      await storage.check()
    } finally {
      await storage.close()
    }
  }
  await refused(() => check(`${url}?sslmode=require`), 'DATABASE_UNREACHABLE', /does not support SSL/)
  await check(url)
  const { database } = made.admin
  const { rows } = await database.query<{ file: string; text: string }>(
    `select current_setting('hba_file') as file, pg_read_file(current_setting('hba_file')) as text`,
  )
  const write = async (text: string) => {
    await database.query(`create temp table if not exists hba (n serial, line text)`)
    await database.query(
      `do $$ begin
        delete from hba; insert into hba (line) select unnest(string_to_array(${pg.escapeLiteral(text)}, chr(10)));
        copy (select line from hba order by n) to ${pg.escapeLiteral(rows[0]!.file)};
        perform pg_reload_conf(); end $$`,
    )
  }
  await database.transaction(async () => {})
  try {
    await write(`hostnossl all only_encrypted all reject\n${rows[0]!.text}`)
    await eventually(() => refused(() => check(url), 'DATABASE_UNREACHABLE', /no encryption/, /only_encrypted/))
  } finally {
    await write(rows[0]!.text)
  }
  await made.admin.close()
})

/** A reload is heard of by new sessions only after a while. */
async function eventually(run: () => Promise<void>): Promise<void> {
  for (const until = Date.now() + 90_000; ;) {
    try {
      return await run()
    } catch (error) {
      if (Date.now() > until) throw error
    }
  }
}

test('settings of a session that change what SQL means change nothing', async () => {
  const made = await fresh()
  await made.admin.database.query('create schema if not exists evil')
  for (const name of ['to_regclass', 'current_setting'])
    await made.admin.database.query(`create or replace function evil.${name}(text) returns text language sql as $$ select 'evil' $$`)
  await made.admin.database.query('grant usage on schema evil to public')
  const url = await roleUrl(made, [
    `search_path = evil`,
    `standard_conforming_strings = off`,
    `escape_string_warning = on`,
    `backslash_quote = off`,
    `DateStyle = 'German, DMY'`,
    `IntervalStyle = 'sql_standard'`,
    `TimeZone = 'Asia/Kolkata'`,
    `bytea_output = 'escape'`,
    `extra_float_digits = 0`,
    `client_min_messages = debug1`,
    `quote_all_identifiers = on`,
    `default_transaction_isolation = 'repeatable read'`,
  ])
  const storage = await postgresStorage(url, { schema: made.schema })
  await storage.check()
  const body = new Uint8Array([0, 92, 39, 255])
  const at = new Date(Date.now() + 3_600_000)
  const message = { id: "it's \\ 1", topic: 'a.B', key: "k\\'", headers: { note: "\\'" }, body }
  await storage.database.transaction((sql) =>
    storage.outbox.append(sql, [
      { eventType: 'a.B', message },
      { eventType: 'a.B', message, availableAt: at },
    ]),
  )
  await storage.outbox.acquire('relay', 10_000)
  const [row, ...more] = await storage.outbox.claim('relay', { limit: 10, busy: [] })
  assert.deepEqual(more, [])
  assert.deepEqual({ ...row!.message, body: [...row!.message.body] }, { ...message, body: [...body] })
  const [, later] = await storage.outbox.list({})
  assert.equal(later?.dueAt?.getTime(), at.getTime())
  assert.ok(Math.abs(Date.now() - later.createdAt.getTime()) < 3_600_000, 'no time zone got into it')
  assert.equal(await storage.outbox.markPublished('relay', [row!.rowId]), 1)
  const letter = {
    handler: 'a/b',
    message,
    eventType: 'a.B',
    reason: 'failed',
    error: "\\'",
    attempts: 1,
    partition: '0',
    sequence: 1n,
  } as const
  await storage.deadLetters.park([letter])
  const [parked] = await storage.deadLetters.list({})
  assert.deepEqual({ ...parked!.message, body: [...parked!.message.body] }, { ...message, body: [...body] })
  await storage.close()
  await made.admin.close()
})

test('names that are words of SQL are names like any other', async () => {
  const server = await testPostgres()
  const storage = await postgresStorage(server.url(), { schema: 'select', prefix: 'order_' })
  await storage.migrate()
  await storage.check()
  await storage.database.transaction((sql) => storage.outbox.append(sql, [ENTRY, ENTRY]))
  await storage.outbox.acquire('relay', 10_000)
  assert.equal((await storage.outbox.claim('relay', { limit: 10, busy: [] })).length, 2)
  await storage.close()
})
