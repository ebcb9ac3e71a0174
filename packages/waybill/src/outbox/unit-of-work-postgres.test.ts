import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { type TestContext, test } from 'node:test'
import { postgresStorage } from '../adapters/postgres/pg.ts'
import { defineContext, on } from '../context.ts'
import type { SqlExecutor } from '../core/database.ts'
import { defineEvent } from '../core/event.ts'
import { testPostgres } from '../testing/test-postgres.ts'
import { createWaybill } from '../waybill.ts'

const Placed = defineEvent<{ id: string }>('order.Placed', { aggregate: { type: 'order', id: (order) => order.id } })

async function setup(context: TestContext, strategy: 'ASYNC_ONLY' | 'HYBRID_FAST' = 'ASYNC_ONLY') {
  const server = await testPostgres()
  const schema = server.schema()
  const storage = await postgresStorage(server.url(), { schema })
  await storage.migrate()
  await storage.database.query(`create table ${schema}.stock (item text primary key, left_over integer not null)`)
  await storage.database.query(`insert into ${schema}.stock values ('a', 10), ('b', 10)`)
  const seen: string[] = []
  const heard = Promise.withResolvers<void>()
  const sales = defineContext('sales', {
    events: [Placed],
    publish: { strategy },
    handlers: {
      note: on([Placed], (event) => {
        seen.push(event.payload.id)
        heard.resolve()
      }),
    },
  })
  const waybill = await createWaybill({ database: storage, contexts: [sales] })
  context.after(() => waybill.stop())
  const take = (sql: SqlExecutor, item: string) => sql.query(`update ${schema}.stock set left_over = left_over - 1 where item = $1`, [item])
  const left = async (): Promise<readonly number[]> => {
    const { rows } = await storage.database.query<{ n: number }>(`select left_over as n from ${schema}.stock order by item`)
    return rows.map(({ n }) => n)
  }
  return { server, schema, storage, waybill, seen, heard: heard.promise, take, left }
}

/** Two that have each done their first step before either does its second. */
function meeting() {
  const arrived = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  return async (index: 0 | 1): Promise<void> => {
    arrived[index]!.resolve()
    await Promise.all(arrived.map(({ promise }) => promise))
  }
}

const outcomes = async (runs: readonly Promise<unknown>[]): Promise<readonly unknown[]> =>
  (await Promise.allSettled(runs))
    .map((run) => (run.status === 'fulfilled' ? 'done' : String((run.reason as { code: unknown }).code)))
    .toSorted()

for (const attemptsMax of [1, 5]) {
  test(`two units that deadlock over business rows: with attemptsMax ${attemptsMax} ${attemptsMax === 1 ? 'one is told 40P01' : 'both are done'}`, async (context) => {
    const { storage, waybill, take, left } = await setup(context)
    const meet = meeting()
    const unit = (first: string, second: string, index: 0 | 1) =>
      waybill.unitOfWork(
        async ({ sql, publish }) => {
          await take(sql, first)
          await meet(index)
          await take(sql, second)
          await publish(Placed({ id: first }))
        },
        { attemptsMax },
      )
    const ended = await outcomes([unit('a', 'b', 0), unit('b', 'a', 1)])
    assert.deepEqual(ended, attemptsMax === 1 ? ['40P01', 'done'] : ['done', 'done'])
    const units = attemptsMax === 1 ? 1 : 2
    assert.deepEqual(await left(), [10 - units, 10 - units])
    assert.equal((await storage.outbox.stats()).pending, units, 'no event of what was rolled back, none twice')
  })
}

test('a serialization failure is rerun where the unit allows it, and told as it is where not', async (context) => {
  const { storage, waybill, take, left } = await setup(context)
  const run = (attemptsMax: number) => {
    const meet = meeting()
    const unit = (index: 0 | 1) =>
      waybill.unitOfWork(
        async ({ sql, publish }) => {
          await sql.query('set transaction isolation level serializable')
          await sql.query('select 1')
          await meet(index)
          await take(sql, 'a')
          await publish(Placed({ id: 'a' }))
        },
        { attemptsMax },
      )
    return outcomes([unit(0), unit(1)])
  }
  assert.deepEqual(await run(1), ['40001', 'done'])
  assert.deepEqual(await run(5), ['done', 'done'])
  assert.deepEqual(await left(), [7, 10])
  assert.equal((await storage.outbox.stats()).pending, 3)
})

test("the caller's own transactions that publish twice may deadlock: one is told 40P01 as it is, and is rolled back whole", async (context) => {
  const { storage, waybill, take, left } = await setup(context)
  const meet = meeting()
  const joined = (first: string, second: string, index: 0 | 1) =>
    storage.database.transaction((sql) =>
      waybill.joinTransaction({ sql }, async (unit) => {
        await take(sql, first)
        await unit.publish(Placed({ id: first }))
        await meet(index)
        await unit.publish(Placed({ id: second }))
      }),
    )
  assert.deepEqual(await outcomes([joined('a', 'b', 0), joined('b', 'a', 1)]), ['40P01', 'done'])
  assert.deepEqual(
    (await left()).toSorted((x, y) => x - y),
    [9, 10],
  )
  assert.equal((await storage.outbox.stats()).pending, 2)
})

test('two units that publish the same keys the other way round do not deadlock: their rows are written once, in one order', async (context) => {
  const { storage, waybill } = await setup(context)
  const meet = meeting()
  const unit = (ids: readonly string[], index: 0 | 1) =>
    waybill.unitOfWork(async ({ publish }) => {
      for (const id of ids) await publish(Placed({ id }))
      await meet(index)
    })
  const keys = Array.from({ length: 50 }, (_, index) => `k${index}`)
  assert.deepEqual(await outcomes([unit(keys, 0), unit(keys.toReversed(), 1)]), ['done', 'done'])
  assert.equal((await storage.outbox.stats()).pending, 100)
})

// Publishes in a unit, with a row that is held for its grace, and dies right after the commit.
const PUBLISHER = `
  const [url, schema, src] = process.argv.slice(1)
  const load = (file) => import(new URL(file, src).href)
  const [{ postgresStorage }, { createWaybill }, { defineContext, on }, { defineEvent }, { armCrashpoint }] = await Promise.all(
    ['./adapters/postgres/pg.ts', './waybill.ts', './context.ts', './core/event.ts', './testing/crashpoints.ts'].map(load))
  const Placed = defineEvent('order.Placed', { aggregate: { type: 'order', id: (order) => order.id } })
  const sales = defineContext('sales', { events: [Placed], publish: { strategy: 'HYBRID_FAST' }, handlers: { note: on([Placed], () => {}) } })
  const waybill = await createWaybill({ database: await postgresStorage(url, { schema }), contexts: [sales] })
  armCrashpoint('unit.afterCommit')
  await waybill.unitOfWork(({ publish }) => publish(Placed({ id: 'of the dead' })))
  console.log('still alive')
`

test(
  'HYBRID_FAST: a process that dies after its commit leaves a row that another process delivers, not before its grace is over',
  { timeout: 120_000 },
  async (context) => {
    const { server, schema, storage, waybill, seen, heard } = await setup(context, 'HYBRID_FAST')
    const child = spawn(
      process.execPath,
      ['--conditions=waybill:source', '--input-type=module', '-e', PUBLISHER, server.url(), schema, new URL('../', import.meta.url).href],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    )
    context.after(() => child.kill('SIGKILL'))
    const [, signal] = await once(child, 'exit')
    assert.equal(signal, 'SIGKILL')
    const [row] = await storage.outbox.list({})
    assert.ok(row !== undefined && row.status === 'pending', 'committed, and held')
    const { rows } = await storage.database.query<{ grace: number }>(
      `select extract(epoch from hold_until - created_at)::float8 as grace from ${schema}.waybill_outbox`,
    )
    assert.ok(rows[0]!.grace > 1.5, 'timeout and grace')
    await waybill.start()
    await heard
    await waybill.drained()
    assert.deepEqual(seen, ['of the dead'])
    const { rows: after } = await storage.database.query<{ now: number; due: number }>(
      `select extract(epoch from clock_timestamp())::float8 as now, extract(epoch from $1::timestamptz + $2::float8 * interval '1 second')::float8 as due`,
      [row.createdAt.toISOString(), rows[0]!.grace],
    )
    assert.ok(after[0]!.now >= after[0]!.due, 'not before')
  },
)
