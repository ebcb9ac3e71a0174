import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import { test } from 'node:test'
import { inspect } from 'node:util'
import pg from 'pg'
import { isWaybillError } from '../../core/errors.ts'
import type { Storage } from '../../core/stores.ts'
import { testPostgres } from '../../testing/test-postgres.ts'
import { postgresStorage } from './pg.ts'

const SECRET = 'hunter2-not-to-be-shown'

async function closedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

async function withStorage(run: (storage: Storage, table: string) => Promise<void>): Promise<void> {
  const server = await testPostgres()
  const storage = await postgresStorage(server.url(), { poolMax: 3 })
  const table = server.schema()
  await storage.database.query(`create table ${table} (note text)`)
  try {
    await run(storage, table)
  } finally {
    await storage.close()
  }
}

test("a database that can't be reached is one error that names host, port, database and setting, never the password", async () => {
  const { port, user, password } = await testPostgres()
  const closed = await closedPort()
  const cases = [
    [`postgres://${user}:${SECRET}@127.0.0.1:${port}/postgres`, new RegExp(`127\\.0\\.0\\.1, port ${port}, database postgres`)],
    [`postgres://${user}:${SECRET}@127.0.0.1:${closed}/shop`, new RegExp(`port ${closed}, database shop`)],
    [`postgres://${user}:${password}@127.0.0.1:${port}/not_there`, /database not_there/],
    [`postgres://${user}:${SECRET}@no-such-host.invalid/shop`, /no-such-host\.invalid, port 5432/],
    [`postgres://${user}:${SECRET}@host:notaport/shop`, /not usable/],
    [`mysql://${user}:${SECRET}@127.0.0.1:${port}/shop`, /mysql/],
    [`postgres://${user}:${SECRET}@127.0.0.1:${port}`, /not usable/],
    [`${SECRET}`, /not usable/],
  ] as const
  for (const [url, expected] of cases) {
    await assert.rejects(
      async () => {
        const storage = await postgresStorage(url)
        try {
          await storage.check()
        } finally {
          await storage.close()
        }
      },
      (error: unknown) => {
        assert.ok(isWaybillError(error, 'DATABASE_UNREACHABLE'), inspect(error))
        assert.match(error.message, expected)
        assert.match(error.message, /the database URL/)
        const shown = inspect(error, { depth: 10, showHidden: true })
        assert.ok(!shown.includes(SECRET) && !shown.includes(password), 'the password is nowhere in the error')
        return true
      },
    )
  }
})

test('a transaction commits as a whole, or rejects with its own error and leaves nothing', () =>
  withStorage(async ({ database }, table) => {
    const failure = new Error('mine')
    await assert.rejects(
      database.transaction(async (sql) => {
        await sql.query(`insert into ${table} values ('x')`)
        throw failure
      }),
      failure,
    )
    assert.equal(await database.transaction(async (sql) => (await sql.query(`insert into ${table} values ('y')`), 'result')), 'result')
    assert.deepEqual((await database.query(`select note from ${table}`)).rows, [{ note: 'y' }])
  }))

test('a failed statement that was ignored is no commit: its error comes out', () =>
  withStorage(async ({ database }, table) => {
    await assert.rejects(
      database.transaction(async (sql) => {
        await sql.query(`insert into ${table} values ('x')`)
        await sql.query('select 1 / 0').catch(() => undefined)
      }),
      { code: '22012' },
    )
    assert.deepEqual((await database.query(`select note from ${table}`)).rows, [])
  }))

test('an executor ends with its transaction', () =>
  withStorage(async ({ database }) => {
    const leaked = await database.transaction(async (sql) => sql)
    await assert.rejects(leaked.query('select 1'), { code: 'UNIT_CLOSED' })
  }))

test('a connection cut after COMMIT was sent is an unknown outcome', () =>
  withStorage(async ({ database }, table) => {
    await database.query(
      `create function ${table}_cut() returns trigger language plpgsql as $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$`,
    )
    await database.query(
      `create constraint trigger cut after insert on ${table} deferrable initially deferred for each row execute function ${table}_cut()`,
    )
    await assert.rejects(
      database.transaction((sql) => sql.query(`insert into ${table} values ('x')`)),
      { code: 'UNKNOWN_OUTCOME' },
    )
    assert.equal((await database.query('select 1 as one')).rows.length, 1, 'the pool goes on')
  }))

test('a deferred constraint that fails at COMMIT is a known failure, not an unknown outcome', () =>
  withStorage(async ({ database }, table) => {
    await database.query(`alter table ${table} add constraint ${table}_once unique (note) deferrable initially deferred`)
    await assert.rejects(
      database.transaction(async (sql) => {
        await sql.query(`insert into ${table} values ('x')`)
        await sql.query(`insert into ${table} values ('x')`)
      }),
      { code: '23505' },
    )
    assert.deepEqual((await database.query(`select note from ${table}`)).rows, [])
  }))

test("a connection cut inside a transaction is reported, and neither masks the caller's error nor spoils the pool", () =>
  withStorage(async ({ database }, table) => {
    const cut = (pid: unknown) => database.query('select pg_terminate_backend($1)', [pid])
    await assert.rejects(
      database.transaction(async (sql) => {
        await sql.query(`insert into ${table} values ('x')`)
        const { rows } = await sql.query<{ pid: number }>('select pg_backend_pid() as pid')
        await cut(rows[0]!.pid)
        await sql.query('select 1')
      }),
      { code: 'DATABASE_UNREACHABLE' },
    )
    const failure = new Error('mine')
    await assert.rejects(
      database.transaction(async (sql) => {
        const { rows } = await sql.query<{ pid: number }>('select pg_backend_pid() as pid')
        await cut(rows[0]!.pid)
        await sql.query('select 1').catch(() => undefined)
        throw failure
      }),
      failure,
    )
    for (let count = 0; count < 5; count++)
      assert.equal(await database.transaction(async (sql) => (await sql.query('select 1')).rows.length), 1)
    assert.deepEqual((await database.query(`select note from ${table}`)).rows, [])
  }))

test("a pool of the caller's is used, and not closed", async () => {
  const server = await testPostgres()
  const pool = new pg.Pool({ connectionString: server.url(), max: 2 })
  // Its end doesn't wait for its sockets', so the server's own end may still reach them.
  pool.on('error', () => {})
  const storage = await postgresStorage(pool, { schema: server.schema() })
  await storage.migrate()
  await storage.check()
  await storage.close()
  await storage.close()
  assert.equal((await pool.query('select 1 as one')).rows.length, 1)
  await pool.end()
  await assert.rejects(postgresStorage({} as never), { code: 'INVALID_OPTION' })
})
