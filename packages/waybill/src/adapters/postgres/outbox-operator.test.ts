import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import pg from 'pg'
import { newId } from '../../core/ids.ts'
import type { OutboxEntry, Storage } from '../../core/stores.ts'
import { until } from '../../testing/contract-tools.ts'
import { testPostgres } from '../../testing/test-postgres.ts'
import { operatorSql } from './outbox-operator-sql.ts'
import { createOutboxOperator } from './outbox-operator.ts'
import { pgliteStorage } from './pglite.ts'
import { postgresStorage } from './pg.ts'
import { resolveTables } from './tables.ts'

const DAY_MS = 86_400_000
const SCHEMA = 'operator'

const OPENERS: Readonly<Record<string, () => Promise<Storage>>> = {
  PGlite: () => pgliteStorage('memory://', { schema: SCHEMA, keepPublishedMs: DAY_MS }),
  PostgreSQL: async () => postgresStorage((await testPostgres()).url(), { schema: SCHEMA, keepPublishedMs: DAY_MS }),
}

function entry(key: string, more: Partial<OutboxEntry> = {}): OutboxEntry {
  const message = { id: newId(), topic: 'a.B', key, headers: { note: 'x' }, body: new Uint8Array([1, 255]) }
  return { eventType: 'a.B', message, ...more }
}

for (const [name, open] of Object.entries(OPENERS)) {
  describe(`operating the outbox on ${name}`, () => {
    const table = `${SCHEMA}.waybill_outbox`
    let storage: Storage
    before(async () => {
      storage = await open()
      await storage.migrate()
    })
    beforeEach(async () => {
      await storage.database.query(`delete from ${table}`)
    })
    after(() => storage.close())

    const append = (...entries: readonly (string | OutboxEntry)[]) =>
      storage.database.transaction((sql) =>
        storage.outbox.append(
          sql,
          entries.map((each) => (typeof each === 'string' ? entry(each) : each)),
        ),
      )
    /** As a relay leaves them: the first is parked, the others behind it. */
    async function parkedKey(key: string, followers: number, error = 'refused'): Promise<readonly string[]> {
      const rowIds = await append(...Array.from({ length: followers + 1 }, () => key))
      await storage.database.query(`update ${table} set status = 'parked', attempts = 3, last_error = $2 where id = $1`, [rowIds[0], error])
      await storage.database.query(`update ${table} set status = 'parked', behind = $1 where id = any ($2::bigint[])`, [
        rowIds[0],
        `{${rowIds.slice(1).join(',')}}`,
      ])
      return rowIds
    }
    const statuses = async () => (await storage.outbox.list({})).map(({ key, status, behind }) => [key, status, behind !== undefined])

    test('skipping a parked row lets its key go on without it, keeps it for a week, and can be undone', async () => {
      const [head] = await parkedKey('a', 1)
      assert.equal(await storage.outbox.skip({ key: 'a' }), 1)
      assert.deepEqual(await statuses(), [
        ['a', 'skipped', false],
        ['a', 'pending', false],
      ])
      assert.equal(await storage.outbox.sweep(-1, 100), 0)
      await storage.database.query(`update ${table} set published_at = clock_timestamp() - interval '8 days' where id = $1`, [head])
      assert.equal(await storage.outbox.sweep(30 * DAY_MS, 100), 0, 'kept as long as published rows, where that is longer')
      assert.equal(await storage.outbox.retry({ status: 'skipped' }), 1)
      assert.deepEqual((await statuses())[0], ['a', 'pending', false])
      await storage.outbox.suspend({ rowIds: [head!] }, 'again')
      await storage.outbox.skip({ rowIds: [head!] })
      await storage.database.query(`update ${table} set published_at = clock_timestamp() - interval '8 days' where id = $1`, [head])
      assert.equal(await storage.outbox.sweep(0, 100), 1)
    })

    test('every filter narrows, all together', async () => {
      const [first] = await append('a')
      const other = entry('b', { eventType: 'c.D', destination: 'mail', priority: 9 })
      const [second] = await append({ ...other, message: { ...other.message, topic: 'shared' } })
      await storage.database.query(
        `update ${table} set created_at = clock_timestamp() - interval '1 hour', last_error = 'Broker said NO_ROUTE' where id = $1`,
        [second],
      )
      const found = async (filter: Parameters<Storage['outbox']['list']>[0]) =>
        (await storage.outbox.list(filter)).map(({ rowId }) => rowId)
      assert.deepEqual(await found({}), [first, second])
      assert.deepEqual(await found({ limit: 1 }), [first])
      for (const filter of [
        { eventType: 'c.D' },
        { topic: 'shared' },
        { key: 'b' },
        { rowIds: [second!] },
        { olderThanMs: 1_800_000 },
        { error: 'no_route' },
        { status: 'pending', eventType: 'c.D', topic: 'shared', key: 'b', rowIds: [second!], olderThanMs: 1, error: 'said', limit: 10_000 },
      ] as const)
        assert.deepEqual(await found(filter), [second], JSON.stringify(filter))
      for (const filter of [{ status: 'parked' }, { eventType: 'x' }, { error: '%' }, { rowIds: [] }, { key: "b' or true --" }] as const)
        assert.deepEqual(await found(filter), [], JSON.stringify(filter))
      const [row] = await storage.outbox.list({ rowIds: [second!] })
      assert.deepEqual([row!.destination, row!.priority], ['mail', 9])
    })

    test('a filter that makes no sense is refused', async () => {
      for (const filter of [
        { limit: 0 },
        { limit: 10_001 },
        { rowIds: ['1}'] },
        { olderThanMs: -1 },
        { status: "x' or true --" as 'parked' },
      ]) {
        await assert.rejects(storage.outbox.list(filter), { code: 'INVALID_OPTION' }, JSON.stringify(filter))
        await assert.rejects(storage.outbox.retry(filter), { code: 'INVALID_OPTION' }, JSON.stringify(filter))
      }
      await assert.rejects(storage.outbox.stuckKeys(0), { code: 'INVALID_OPTION' })
      await assert.rejects(storage.outbox.show('x'), { code: 'INVALID_OPTION' })
    })

    test('a row is shown with what it carries, also where somebody has edited it', async () => {
      const [rowId] = await append('a')
      const shown = await storage.outbox.show(rowId!)
      assert.deepEqual([shown!.key, shown!.headers, [...shown!.body]], ['a', { note: 'x' }, [1, 255]])
      await storage.database.query(`update ${table} set headers = 'nonsense' where id = $1`, [rowId])
      assert.equal((await storage.outbox.show(rowId!))!.headers, undefined)
      assert.equal(await storage.outbox.show('9223372036854775807'), undefined)
    })

    test('keys that stand still are told with why, and with what waits behind them', async () => {
      const [head] = await parkedKey('a', 3)
      await append('a', 'other')
      const [held] = await append('b')
      await append('b', 'b')
      await storage.database.query(
        `update ${table} set attempts = 1, last_error = 'timeout', hold_until = clock_timestamp() + interval '1 hour', created_at = clock_timestamp() - interval '1 day' where id = $1`,
        [held],
      )
      await append(entry('grace', { holdMs: 3_600_000 }))
      const stuck = await storage.outbox.stuckKeys(10)
      assert.deepEqual(
        stuck.map(({ ageMs, ...rest }) => ({ ...rest, old: ageMs > DAY_MS / 2 })),
        [
          { topic: 'a.B', key: 'b', rowId: held, status: 'held', attempts: 1, lastError: 'timeout', followers: 2, old: true },
          { topic: 'a.B', key: 'a', rowId: head, status: 'parked', attempts: 3, lastError: 'refused', followers: 4, old: false },
        ],
      )
      assert.equal((await storage.outbox.stuckKeys(1)).length, 1)
    })

    test('a count is exact, and says how long the oldest has waited', async () => {
      assert.deepEqual(await storage.outbox.stats(), { pending: 0, scheduled: 0, parked: 0, oldestPendingMs: 0 })
      await parkedKey('a', 2)
      await append(entry('s', { availableAt: new Date(Date.UTC(2999, 0, 1)) }))
      const [oldest] = await append('x', 'y')
      await storage.database.query(`update ${table} set created_at = clock_timestamp() - interval '1 day' where id = $1`, [oldest])
      const { oldestPendingMs, ...counts } = await storage.outbox.stats()
      assert.deepEqual(counts, { pending: 2, scheduled: 1, parked: 3 })
      assert.ok(oldestPendingMs >= DAY_MS)
    })

    test('a sweep lets go what is parked behind a row that is gone, or no longer parked', async () => {
      const [gone] = await parkedKey('gone', 2)
      const [freed] = await parkedKey('freed', 1)
      await parkedKey('parked', 1)
      await storage.database.query(`delete from ${table} where id = $1`, [gone])
      await storage.database.query(`update ${table} set status = 'pending' where id = $1`, [freed])
      assert.equal(await storage.outbox.sweep(DAY_MS, 100), 0)
      assert.deepEqual(await statuses(), [
        ['gone', 'pending', false],
        ['gone', 'pending', false],
        ['freed', 'pending', false],
        ['freed', 'pending', false],
        ['parked', 'parked', false],
        ['parked', 'parked', true],
      ])
    })

    test('a sweep comes to what is parked behind a row that is gone, however many keys stand still', async () => {
      await storage.database.query(
        `insert into ${table} (id, event_id, event_type, topic, key, shard, headers, body, status, behind)
         select -200000 + 2 * g + n, 'e', 'a.B', 'a.B', 'k' || g, 0, '{}', '', 'parked', case when n = 1 then -200000 + 2 * g end
         from generate_series(1, 20050) g cross join generate_series(0, 1) n`,
      )
      const [gone] = await parkedKey('gone', 1)
      await storage.database.query(`delete from ${table} where id = $1`, [gone])
      for (let sweeps = 0; sweeps < 3; sweeps++) await storage.outbox.sweep(DAY_MS, 100)
      assert.deepEqual(
        (await storage.outbox.list({ key: 'gone' })).map(({ status }) => status),
        ['pending'],
      )
      assert.deepEqual((await storage.outbox.list({ status: 'pending' })).length, 1)
    })

    test('what is parked behind a row that is gone is told of, and goes on when its key is retried', async () => {
      for (const change of ['retry', 'skip'] as const) {
        const [gone, follower] = await parkedKey('gone', 2)
        await storage.database.query(`delete from ${table} where id = $1`, [gone])
        const [stuck, ...more] = await storage.outbox.stuckKeys(10)
        assert.deepEqual([stuck!.key, stuck!.rowId, stuck!.status, stuck!.followers, more.length], ['gone', follower, 'parked', 1, 0])
        await storage.outbox[change]({ key: 'gone' })
        assert.deepEqual(await storage.outbox.stuckKeys(10), [])
        assert.deepEqual(await statuses(), [
          ['gone', 'pending', false],
          ['gone', 'pending', false],
        ])
        await storage.database.query(`delete from ${table}`)
      }
    })

    test('times that nobody can wait for are told as the furthest there are', async () => {
      const [rowId] = await append('a')
      for (const edit of [
        `hold_until = 'infinity', attempts = 1, created_at = 'infinity'`,
        `hold_until = 'infinity', created_at = '-infinity'`,
        `status = 'scheduled', hold_until = null, available_at = 'infinity'`,
        `status = 'scheduled', available_at = null`,
      ]) {
        await storage.database.query(`update ${table} set ${edit}`)
        const [row] = await storage.outbox.list({})
        const shown = await storage.outbox.show(rowId!)
        for (const date of [row!.createdAt, row!.dueAt, shown!.createdAt, shown!.dueAt]) assert.notEqual(date?.toISOString(), '', edit)
        assert.equal((row!.dueAt?.getTime() ?? 0) > Date.now(), edit.includes(`_until = 'inf`) || edit.includes(`_at = 'infinity'`), edit)
        const ages = [...(await storage.outbox.stuckKeys(10)).map(({ ageMs }) => ageMs), (await storage.outbox.stats()).oldestPendingMs]
        assert.ok(ages.every(Number.isSafeInteger), `${edit}: ${ages.join(', ')}`)
      }
    })

    test('a sweep deletes what was published so many at a time, and says how many', async () => {
      const rowIds = await append('a', 'b', 'c')
      await storage.database.query(`update ${table} set status = 'published', published_at = clock_timestamp()`)
      const told: number[] = []
      const operator = createOutboxOperator(storage.database, resolveTables({ schema: SCHEMA }), {
        onDeleted: async (rows) => told.push(rows),
      })
      assert.deepEqual([await operator.sweep(DAY_MS, 2), await operator.sweep(-1, 2), await operator.sweep(-1, 2)], [0, 2, 1])
      assert.deepEqual(told, [2, 1])
      assert.equal(rowIds.length, 3)
    })
  })
}

for (const isolation of ['read committed', 'repeatable read', 'serializable']) {
  test(`a follower that is parked while its head is being retried does not stay behind, ${isolation} being the default`, () =>
    followerOfRetried(isolation))
}

async function followerOfRetried(isolation: string): Promise<void> {
  const server = await testPostgres()
  const schema = server.schema()
  const options = encodeURIComponent(`-c default_transaction_isolation=${isolation.replace(' ', '\\ ')}`)
  const storage = await postgresStorage(`${server.url()}?options=${options}`, { schema })
  const other = new pg.Client({ connectionString: server.url() })
  try {
    await storage.migrate()
    await other.connect()
    const table = `${schema}.waybill_outbox`
    const [head, follower] = await storage.database.transaction((sql) => storage.outbox.append(sql, [entry('a'), entry('a')]))
    await storage.database.query(`update ${table} set status = 'parked' where id = $1`, [head])
    // A claim that is parking it: it has the head, and is not done.
    await other.query('begin')
    await other.query(`select 1 from ${table} where id = $1 and status = 'parked' for share`, [head])
    await other.query(`update ${table} set status = 'parked', behind = $1 where id = $2`, [head, follower])
    const retried = storage.outbox.retry({ rowIds: [head!] })
    await until('the retry waits for the head', async () => {
      const { rows } = await storage.database.query(
        `select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%waybill_outbox%'`,
      )
      return rows.length > 0
    })
    await other.query('commit')
    assert.equal(await retried, 1)
    assert.deepEqual(
      (await storage.outbox.list({})).map(({ status, behind }) => [status, behind]),
      [
        ['pending', undefined],
        ['pending', undefined],
      ],
    )
  } finally {
    await other.end()
    await storage.close()
  }
}

test('looking at the outbox walks no million rows', async () => {
  const server = await testPostgres()
  const schema = server.schema()
  const storage = await postgresStorage(server.url(), { schema, keepPublishedMs: DAY_MS })
  try {
    await storage.migrate()
    const table = `${schema}.waybill_outbox`
    const rows = 150_000
    await storage.database.query(
      `insert into ${table} (event_id, event_type, topic, key, shard, headers, body) select 'e' || i, 'a.B', 'a.B', 'k' || i % 5000, i % 64, '{}', '' from generate_series(1, $1::int) i`,
      [rows],
    )
    await storage.database.query(`update ${table} set status = 'parked', last_error = 'x' where id % 10000 = 0`)
    await storage.database.query(`analyze ${table}`)
    const { pending, parked } = await storage.outbox.stats()
    assert.equal(parked, rows / 10_000)
    assert.ok(pending >= 100_000 && pending <= 2 * rows, `${pending}: an estimate beyond 100,000`)
    const sql = operatorSql(resolveTables({ schema }))
    const plan = async (text: string, params: readonly unknown[]) =>
      (await storage.database.query<Record<string, string>>(`explain ${text}`, params)).rows.map((row) => row['QUERY PLAN']).join('\n')
    for (const { text, params } of [sql.retry({}), sql.skip({}), sql.list({}), sql.list({ status: 'parked' })])
      assert.doesNotMatch(await plan(text, params), /Seq Scan on waybill_outbox/, text)
    for (const [text, params] of [
      [sql.free, ['{1}']],
      [sql.stuckKeys, [10]],
      [sql.sweepSkipped, [1, 1]],
      [sql.healOrphans, ['0']],
    ] as const)
      assert.doesNotMatch(await plan(text, params), /Seq Scan on waybill_outbox/, text)
  } finally {
    await storage.close()
  }
})
