import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { OutboxEntry } from '../../core/stores.ts'
import { testPostgres } from '../../testing/test-postgres.ts'
import { postgresStorage } from './pg.ts'

const ENTRY: OutboxEntry = { eventType: 'a.B', message: { id: 'event-1', topic: 'a.B', key: 'a', headers: {}, body: new Uint8Array() } }

test('of two processes that migrate at once, one does the work', async () => {
  const server = await testPostgres()
  const schema = server.schema()
  const storages = await Promise.all(Array.from({ length: 4 }, () => postgresStorage(server.url(), { schema, keepPublishedMs: 1 })))
  const applied = await Promise.all(storages.map((storage) => storage.migrate()))
  assert.deepEqual(applied.flat(), ['1-first-tables', '2-many-relays'])
  for (const storage of storages) {
    await storage.check()
    await storage.close()
  }
})

test('without tables everything says to run `waybill migrate`', async () => {
  const server = await testPostgres()
  const storage = await postgresStorage(server.url(), { schema: server.schema() })
  const expected = { code: 'NOT_MIGRATED', message: /run `waybill migrate`/ }
  await assert.rejects(storage.check(), expected)
  await assert.rejects(storage.outbox.stats(), expected)
  await assert.rejects(
    storage.database.transaction((sql) => storage.outbox.append(sql, [ENTRY])),
    expected,
  )
  await assert.rejects(
    storage.database.transaction((sql) => storage.inbox.record(sql, 'a/b', ['1'])),
    expected,
  )
  await assert.rejects(storage.deadLetters.count(), expected)
  await storage.close()
})

test('tables of a newer version are refused, and left alone', async () => {
  const server = await testPostgres()
  const schema = server.schema()
  const storage = await postgresStorage(server.url(), { schema })
  await storage.migrate()
  await storage.database.query(`insert into ${schema}.waybill_migration (version, name) values (999, 'from the future')`)
  await assert.rejects(storage.check(), { code: 'SCHEMA_TOO_NEW', message: /999/ })
  await assert.rejects(storage.migrate(), { code: 'SCHEMA_TOO_NEW' })
  await storage.close()
})

test('a user without the right to make tables gets one clear error, and nothing half done', async () => {
  const server = await testPostgres()
  const admin = await postgresStorage(server.url())
  await admin.database.query(`create user stranger password 'stranger'`)
  await admin.database.query('create schema owned')
  const stranger = (schema: string) => postgresStorage(`postgres://stranger:stranger@${server.host}:${server.port}/postgres`, { schema })
  for (const schema of ['owned', 'not_there']) {
    const storage = await stranger(schema)
    await assert.rejects(storage.migrate(), { code: 'UNSUPPORTED', message: new RegExp(`schema "${schema}"`) })
    await storage.close()
  }
  const { rows } = await admin.database.query(
    `select 1 from pg_namespace where nspname = 'not_there' union all select 1 from pg_tables where schemaname = 'owned'`,
  )
  assert.deepEqual(rows, [])
  await admin.close()
})

test('a user who may not even read the version is told that it lacks a right', async () => {
  const server = await testPostgres()
  const schema = server.schema()
  const admin = await postgresStorage(server.url(), { schema })
  await admin.migrate()
  await admin.database.query(`create user blind password 'blind'`)
  await admin.database.query(`grant usage on schema ${schema} to blind`)
  const blind = await postgresStorage(`postgres://blind:blind@${server.host}:${server.port}/postgres`, { schema })
  await assert.rejects(blind.check(), { code: 'UNSUPPORTED', message: /lacks a right on Waybill's tables: .*waybill_migration/ })
  await blind.close()
  await admin.close()
})

test('two prefixes live side by side in one schema', async () => {
  const server = await testPostgres()
  const schema = server.schema()
  const [first, second] = [
    await postgresStorage(server.url(), { schema, prefix: 'a_' }),
    await postgresStorage(server.url(), { schema, prefix: 'b_' }),
  ]
  await first.migrate()
  await second.migrate()
  await first.database.transaction((sql) => first.outbox.append(sql, [ENTRY]))
  assert.deepEqual([(await first.outbox.stats()).pending, (await second.outbox.stats()).pending], [1, 0])
  await first.close()
  await second.close()
})

test('names that are no plain identifiers are refused before any SQL', async () => {
  for (const schema of ['', 'Public', 'x"; drop table y --', 'a b', '1a', 'x'.repeat(64), 'ü']) {
    await assert.rejects(postgresStorage('postgres://localhost/x', { schema }), { code: 'INVALID_OPTION', where: 'schema' }, schema)
  }
  await assert.rejects(postgresStorage('postgres://localhost/x', { prefix: 'x'.repeat(31) }), { code: 'INVALID_OPTION', where: 'prefix' })
  await assert.rejects(postgresStorage('postgres://localhost/x', { keepPublishedMs: -1 }), {
    code: 'INVALID_OPTION',
    where: 'keepPublishedMs',
  })
})
