import assert from 'node:assert/strict'
import { test } from 'node:test'
import pg from 'pg'
import { newId } from '../../core/ids.ts'
import type { OutboxEntry, Storage } from '../../core/stores.ts'
import { testPostgres } from '../../testing/test-postgres.ts'
import { type PostgresStorageOptions, postgresStorage } from './pg.ts'

const RELAY = 'relay'
const entry = (): OutboxEntry => ({
  eventType: 'a.B',
  message: { id: newId(), topic: 'a.B', key: 'a', headers: {}, body: new Uint8Array([1]) },
})

/** A storage with a single session, which the test can use too. */
async function withSession(
  options: PostgresStorageOptions,
  run: (storage: Storage, pool: pg.Pool, schema: string) => Promise<void>,
): Promise<void> {
  const server = await testPostgres()
  const schema = server.schema()
  const pool = new pg.Pool({ connectionString: server.url(), max: 1 })
  // The server may be stopped before the ended connection has said goodbye.
  pool.on('error', () => {})
  const storage = await postgresStorage(pool, { schema, ...options })
  try {
    await storage.migrate()
    await storage.outbox.acquire(RELAY, 60_000)
    await run(storage, pool, schema)
  } finally {
    await storage.close()
    await pool.end()
  }
}

const append = ({ database, outbox }: Storage): Promise<readonly string[]> => database.transaction((sql) => outbox.append(sql, [entry()]))

async function publishOne(storage: Storage): Promise<void> {
  const [rowId] = await append(storage)
  const rows = await storage.outbox.claim(RELAY, { limit: 10, busy: [] })
  assert.deepEqual(
    rows.map((row) => row.rowId),
    [rowId],
  )
  assert.equal(await storage.outbox.markPublished(RELAY, [rowId!]), 1)
}

async function prepared(pool: pg.Pool): Promise<readonly string[]> {
  const { rows } = await pool.query<{ name: string }>(
    `select name from pg_prepared_statements where statement like '/* waybill: %' order by 1`,
  )
  return rows.map(({ name }) => name)
}

test('what runs all the time is prepared once a session', () =>
  withSession({}, async (storage, pool) => {
    await publishOne(storage)
    const names = await prepared(pool)
    assert.equal(names.length, 3, 'append, claim, mark')
    for (let i = 0; i < 8; i++) await publishOne(storage)
    assert.deepEqual(await prepared(pool), names)
  }))

test('nothing is prepared where that is not wanted', () =>
  withSession({ preparedStatements: false }, async (storage, pool) => {
    await publishOne(storage)
    assert.deepEqual(await prepared(pool), [])
  }))

test('a statement of its own is not lost where its session has forgotten what was prepared, and none is prepared from then on', () =>
  withSession({}, async (storage, pool) => {
    await publishOne(storage)
    await pool.query('deallocate all')
    assert.equal((await storage.outbox.claim(RELAY, { limit: 10, busy: [] })).length, 0)
    await publishOne(storage)
    assert.deepEqual(await prepared(pool), [])
  }))

test('a transaction ends with the error of a session that has forgotten, and the next one succeeds', () =>
  withSession({}, async (storage, pool) => {
    await publishOne(storage)
    await pool.query('deallocate all')
    await assert.rejects(append(storage), { code: 'UNSUPPORTED', message: /preparedStatements/ })
    await publishOne(storage)
  }))

test('a name that another client has prepared in this session is no obstacle', () =>
  withSession({}, async (storage, pool, schema) => {
    await publishOne(storage)
    const names = await prepared(pool)
    // As behind a pooler that hands out one session to two clients, each of which takes it for its own.
    const other = await postgresStorage(wrapped(pool), { schema })
    assert.equal((await other.outbox.claim(RELAY, { limit: 10, busy: [] })).length, 0)
    assert.deepEqual(await prepared(pool), names)
    await publishOne(other)
  }))

/** The same session, as a client that has prepared nothing yet sees it. */
function wrapped(pool: pg.Pool): pg.Pool {
  return new Proxy(pool, {
    get(target, name) {
      if (name !== 'connect') return Reflect.get(target, name, target) as unknown
      return (taken: (error: Error | undefined, client: pg.PoolClient | undefined, release: (error?: Error | boolean) => void) => void) =>
        target.connect((error, client, release) => {
          const { parsedStatements } = (client as unknown as { connection: { parsedStatements: Record<string, string> } }).connection
          for (const parsed of Object.keys(parsedStatements)) delete parsedStatements[parsed]
          taken(error, client, release)
        })
    },
  })
}

test('a result whose columns were changed in the meantime is asked for anew', () =>
  withSession({}, async (storage, pool, schema) => {
    await publishOne(storage)
    // The topic comes out of a claim as it stands in the table.
    await pool.query(`alter table ${schema}.waybill_outbox alter column topic type varchar(1024)`)
    assert.equal((await storage.outbox.claim(RELAY, { limit: 10, busy: [] })).length, 0)
    // Were anything still prepared, this would be missed.
    await pool.query('deallocate all')
    await publishOne(storage)
  }))
