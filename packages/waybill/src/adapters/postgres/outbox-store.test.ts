import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { PGlite } from '@electric-sql/pglite'
import type { Database } from '../../core/database.ts'
import { newId } from '../../core/ids.ts'
import type { OutboxEntry, Storage } from '../../core/stores.ts'
import { until } from '../../testing/contract-tools.ts'
import { createSqlStorage } from './sql-storage.ts'

const LEASE_MS = 60_000
const pglite = await PGlite.create('memory://')
after(() => pglite.close())
let schemas = 0

// What a process sees of a database: made twice over the same tables, it stands for a process and the one after it.
function open(schema: string, soleOwner: boolean, keepPublishedMs = 0): Storage {
  const database = {
    query: (text: string, params: unknown[] = []) => pglite.query(text, params),
    transaction: (fn: never) => pglite.transaction(fn),
  } as unknown as Database
  return createSqlStorage({ name: 'pglite', database, soleOwner, close: async () => {} }, { schema, keepPublishedMs })
}

async function fresh({ soleOwner = true, keepPublishedMs = 0 } = {}): Promise<{ schema: string; storage: Storage }> {
  const schema = `test_${++schemas}`
  const storage = open(schema, soleOwner, keepPublishedMs)
  await storage.migrate()
  return { schema, storage }
}

function entry(key: string): OutboxEntry {
  return { eventType: 'a.B', message: { id: newId(), topic: 'a.B', key, headers: { note: 'x' }, body: new Uint8Array([1]) } }
}

const append = (storage: Storage, ...keys: string[]) => storage.database.transaction((sql) => storage.outbox.append(sql, keys.map(entry)))

test('a row that somebody has edited into nonsense is parked with its key; the others go on', async () => {
  const { schema, storage } = await fresh()
  for (const nonsense of ['', 'not json', '[]', 'null', '{"a":1}']) {
    const [edited, , other] = await append(storage, 'a', 'a', 'b')
    await storage.database.query(`update ${schema}.waybill_outbox set headers = $1 where id = $2`, [nonsense, edited])
    await storage.outbox.acquire('relay', LEASE_MS)
    assert.deepEqual(
      (await storage.outbox.claim('relay', { limit: 10, busy: [] })).map((row) => row.rowId),
      [other],
    )
    const [parked] = await storage.outbox.list({ status: 'parked' })
    assert.equal(parked!.rowId, edited)
    assert.match(parked!.lastError!, /headers/)
    assert.deepEqual(
      (await storage.outbox.claim('relay', { limit: 10, busy: [] })).map((row) => row.rowId),
      [other],
    )
    await storage.database.query(`delete from ${schema}.waybill_outbox`)
  }
})

test('where nobody else can have the database, a dead owner is succeeded at once, and what it had in flight is suspect', async () => {
  const { schema, storage } = await fresh()
  const rowIds = await append(storage, 'a', 'b')
  await storage.outbox.acquire('before the crash', LEASE_MS)
  assert.equal((await storage.outbox.claim('before the crash', { limit: 10, busy: [] })).length, 2)
  const next = open(schema, true)
  const [later] = await append(next, 'c')
  assert.equal((await next.outbox.acquire('after it', LEASE_MS)).shards.length, 64)
  const rows = await next.outbox.claim('after it', { limit: 10, busy: [] })
  assert.deepEqual(
    rows.map((row) => [row.rowId, row.suspect]),
    [
      [rowIds[0], true],
      [rowIds[1], true],
      [later, false],
    ],
  )
})

test('a relay that comes back under its old name finds what it had in flight suspect', async () => {
  const { schema, storage } = await fresh({ soleOwner: false })
  await append(storage, 'a')
  await storage.outbox.acquire('relay', LEASE_MS)
  await storage.outbox.claim('relay', { limit: 10, busy: [] })
  await storage.outbox.acquire('relay', LEASE_MS)
  assert.deepEqual(
    (await storage.outbox.claim('relay', { limit: 10, busy: [] })).map((row) => row.suspect),
    [false],
    'renewing is not dying',
  )
  const next = open(schema, false)
  await next.outbox.acquire('relay', LEASE_MS)
  assert.deepEqual(
    (await next.outbox.claim('relay', { limit: 10, busy: [] })).map((row) => row.suspect),
    [true],
  )
})

test('where others may have the database, a lease has to run out', async () => {
  const { schema, storage } = await fresh({ soleOwner: false })
  await storage.outbox.acquire('relay', LEASE_MS)
  assert.deepEqual((await open(schema, false).outbox.acquire('another', LEASE_MS)).shards, [])
})

test('published rows are kept where that is asked for, and swept so many at a time', async () => {
  const { storage } = await fresh({ keepPublishedMs: 3_600_000 })
  const rowIds = await append(storage, 'a', 'b', 'c', 'd')
  await storage.outbox.acquire('relay', LEASE_MS)
  assert.equal(await storage.outbox.markPublished('relay', rowIds.slice(0, 3)), 3)
  assert.deepEqual(
    (await storage.outbox.list({ status: 'published' })).map((row) => row.rowId),
    rowIds.slice(0, 3),
  )
  assert.equal(await storage.outbox.sweep(3_600_000, 10), 0)
  await storage.outbox.retire([rowIds[3]!])
  assert.deepEqual([await storage.outbox.sweep(-1, 3), await storage.outbox.sweep(-1, 3), await storage.outbox.sweep(-1, 3)], [3, 1, 0])
})

test('a claim walks the rows in order, however many wait, also where nobody has gathered statistics', async () => {
  const { schema, storage } = await fresh()
  for (let chunk = 0; chunk < 3; chunk++) await append(storage, ...Array.from({ length: 1000 }, (_, index) => `key-${index}`))
  await storage.outbox.acquire('relay', LEASE_MS)
  const { outboxSql } = await import('./outbox-sql.ts')
  const { resolveTables } = await import('./tables.ts')
  const { rows } = await pglite.query<{ 'QUERY PLAN': string }>(
    `explain ${outboxSql(resolveTables({ schema }), false).claim('all', 'usual')}`,
    ['relay', '[]', 200, '[]', '{}', '{}'],
  )
  const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
  assert.match(plan, /Index Scan using waybill_outbox_pending/)
  assert.doesNotMatch(plan, /Seq Scan on waybill_outbox/)
})

test('published rows that were kept are swept also where none are kept any more', async () => {
  const { schema, storage } = await fresh({ keepPublishedMs: 3_600_000 })
  const rowIds = await append(storage, 'a', 'b')
  await storage.outbox.acquire('relay', LEASE_MS)
  assert.equal(await storage.outbox.markPublished('relay', rowIds), 2)
  assert.equal(await open(schema, true).outbox.sweep(-1, 10), 2)
})

// More keys than one claim asks whether their rows may overtake.
const MANY_KEYS = 20_050

async function appendWaiting(schema: string, what: string): Promise<void> {
  await pglite.query(
    `insert into ${schema}.waybill_outbox (event_id, event_type, destination, topic, key, shard, headers, body, priority, hold_until)
     select 'e', 'a.B', 'down', 'a.B', 'key-' || g, g % 64, '{}', '', p.priority, ${what}
     from generate_series(1, ${MANY_KEYS}) g cross join (values (5), (9)) p (priority) order by g, p.priority`,
  )
}

test('rows of priority for a destination that is left alone hold up no others', async () => {
  const { schema, storage } = await fresh()
  await appendWaiting(schema, 'null')
  const [rowId] = await storage.database.transaction((sql) => storage.outbox.append(sql, [{ ...entry('other'), priority: 9 }]))
  await storage.outbox.acquire('relay', LEASE_MS)
  const rows = await storage.outbox.claim('relay', { limit: 10, busy: [], without: ['down'] })
  assert.deepEqual(
    rows.map((row) => row.rowId),
    [rowId],
  )
})

test('rows of priority that have to wait in their keys hold up no others, however many', async () => {
  const { schema, storage } = await fresh()
  await appendWaiting(schema, `case when p.priority = 5 then clock_timestamp() + interval '1 hour' end`)
  const [rowId] = await storage.database.transaction((sql) => storage.outbox.append(sql, [{ ...entry('other'), priority: 9 }]))
  await storage.outbox.acquire('relay', LEASE_MS)
  await until('it is its turn', async () => {
    const rows = await storage.outbox.claim('relay', { limit: 10, busy: [] })
    return rows.some((row) => row.rowId === rowId)
  })
})

test('rows with numbers and times that only hands can have written are delivered like any other', async () => {
  const { schema, storage } = await fresh()
  for (const edit of ['id = -5', `status = 'scheduled'`, `status = 'scheduled', available_at = '-infinity'`, `hold_until = '-infinity'`]) {
    await append(storage, 'a')
    await storage.database.query(`update ${schema}.waybill_outbox set ${edit}`)
    assert.equal((await storage.outbox.acquire('relay', LEASE_MS)).pending, true, edit)
    const rows = await storage.outbox.claim('relay', { limit: 10, busy: [] })
    assert.equal(rows.length, 1, edit)
    assert.equal(
      await storage.outbox.markPublished(
        'relay',
        rows.map((row) => row.rowId),
      ),
      1,
      edit,
    )
  }
})

test('what is no row number is refused', async () => {
  const { storage } = await fresh()
  for (const rowId of ['', '1}', 'x', '-', '1-1', '1'.repeat(20)])
    await assert.rejects(storage.outbox.retire([rowId]), { code: 'INVALID_OPTION' }, rowId)
})

test('an error text with anything in it can be stored', async () => {
  const { storage } = await fresh()
  const [rowId] = await append(storage, 'a')
  await storage.outbox.acquire('relay', LEASE_MS)
  await storage.outbox.hold('relay', [{ rowId: rowId!, error: `nul\u0000 half\ud800 ${'x'.repeat(100_000)}` }], LEASE_MS)
  const [row] = await storage.outbox.list({})
  assert.ok(row!.lastError!.startsWith('nul\ufffd half\ufffd x') && row!.lastError!.length <= 4096)
})
