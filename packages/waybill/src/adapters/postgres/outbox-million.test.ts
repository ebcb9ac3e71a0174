import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import pg from 'pg'
import type { Storage } from '../../core/stores.ts'
import { type PostgresServer, startPostgresServer } from '../../testing/postgres-server.ts'
import { ALL_PARTS, type ClaimParts } from './outbox-claim-sql.ts'
import { outboxSql } from './outbox-sql.ts'
import { postgresStorage } from './pg.ts'
import { resolveTables } from './tables.ts'

// A backlog must not make a claim slow: whatever the planner knows of the table, and whenever it made its plan.

const ROWS = 1_000_000
const SCHEDULED = 100_000
const STOPPED = 100_000
const LIMIT = 200
/** Rows that a claim may look at, and sort: some for each that it gives back, and none for each that waits. */
const LOOKED_AT_MAX = LIMIT * 25
const RELAY = 'relay'
const sql = outboxSql(resolveTables(), false)

let server: PostgresServer
let storage: Storage
let session: pg.Client

before(async () => {
  // No statistics but those that the test asks for.
  server = await startPostgresServer(['-c', 'autovacuum=off', '-c', 'shared_buffers=512MB', '-c', 'max_wal_size=4GB'])
  storage = await postgresStorage(server.url())
  await storage.migrate()
  await storage.database.query('alter table waybill_outbox set unlogged')
  await storage.outbox.acquire(RELAY, 3_600_000)
  session = new pg.Client({ connectionString: server.url() })
  await session.connect()
})

after(async () => {
  await session.end()
  await storage.close()
  await server.close()
})

/** Rows as `append` writes them, made by the server itself. */
async function fill(count: number, status: string, availableAt: string, priority: string): Promise<void> {
  await storage.database.query(
    `insert into waybill_outbox (event_id, event_type, topic, key, shard, headers, body, status, available_at, priority)
     select 'event', 'order.Placed', 'order', 'key-' || g % 5000, g % 5000 % 64, '{}', '', ${status}, ${availableAt}, ${priority}
     from generate_series(1, $1::int) g`,
    [count],
  )
}

/** Keeps a statement as a session does that has run it often: with a plan for any parameters, made for the table as it is now. */
async function prepare(name: string, text: string): Promise<void> {
  await session.query('set plan_cache_mode = force_generic_plan')
  await session.query(`prepare ${name} as ${text}`)
  await session.query(`explain execute ${name} ${ARGUMENTS}`)
}

const ARGUMENTS = `('${RELAY}', '[]', ${LIMIT}, '[]', '{}', '{}')`

interface Plan {
  'Node Type': string
  'Relation Name'?: string
  'Index Name'?: string
  'Actual Rows'?: number
  'Actual Loops'?: number
  'Rows Removed by Filter'?: number
  'Rows Removed by Join Filter'?: number
  Plans?: Plan[]
}

async function nodesOf(name: string, analyze: boolean): Promise<readonly Plan[]> {
  const { rows } = await session.query<{ 'QUERY PLAN': { Plan: Plan }[] }>(
    `explain (format json, analyze ${analyze}, timing off) execute ${name} ${ARGUMENTS}`,
  )
  return allOf(rows[0]!['QUERY PLAN'][0]!.Plan)
}

const allOf = (plan: Plan): Plan[] => [plan, ...(plan.Plans ?? []).flatMap(allOf)]
const lookedAtBy = (node: Plan): number =>
  ((node['Actual Rows'] ?? 0) + (node['Rows Removed by Filter'] ?? 0) + (node['Rows Removed by Join Filter'] ?? 0)) *
  (node['Actual Loops'] ?? 0)

const ofOutbox = (nodes: readonly Plan[]): readonly Plan[] => nodes.filter((node) => node['Relation Name'] === 'waybill_outbox')

async function assertBounded(name: string): Promise<void> {
  const nodes = await nodesOf(name, true)
  assert.ok(!ofOutbox(nodes).some((node) => node['Node Type'] === 'Seq Scan'), `${name}: no Seq Scan`)
  const rows = ofOutbox(nodes).reduce((sum, node) => sum + lookedAtBy(node), 0)
  assert.ok(rows >= LIMIT && rows <= LOOKED_AT_MAX, `${name} looks at ${rows} rows`)
  for (const sort of nodes.filter((node) => node['Node Type'].endsWith('Sort')))
    assert.ok(lookedAtBy(sort.Plans![0]!) <= LOOKED_AT_MAX, `${name} sorts ${lookedAtBy(sort.Plans![0]!)} rows`)
}

async function assertClaimsBounded(title: string, parts: ClaimParts): Promise<void> {
  const name = title.replaceAll(/\W+/g, '_')
  await prepare(name, sql.claim('all', parts))
  await assertBounded(name)
  await session.query('set plan_cache_mode = force_custom_plan')
  await assertBounded(name)
}

async function claimed(): Promise<readonly string[]> {
  return (await storage.outbox.claim(RELAY, { limit: LIMIT, busy: [] })).map(({ rowId }) => rowId)
}

test('a claim looks at the rows that it gives back, however many wait', async (t) => {
  for (const parts of ['usual', ALL_PARTS] as const) {
    await prepare(`early_${parts}`, sql.claim('all', parts))
  }
  // By the store too: its sessions have their plans before there is anything to claim.
  for (let i = 0; i < 8; i++) assert.deepEqual(await claimed(), [])
  // What comes first is not due for long: nothing of it is walked over.
  await fill(SCHEDULED, `'scheduled'`, `clock_timestamp() + interval '1 day'`, '5')
  await fill(ROWS, `'pending'`, 'null::timestamptz', '5')

  await t.test('with plans that were made when nothing waited', async () => {
    await session.query('set plan_cache_mode = force_generic_plan')
    for (const parts of ['usual', ALL_PARTS] as const) {
      await assertBounded(`early_${parts}`)
      const nodes = ofOutbox(await nodesOf(`early_${parts}`, false))
      assert.ok(nodes.some((node) => node['Index Name'] === 'waybill_outbox_pending'))
    }
    assert.deepEqual(
      await claimed(),
      Array.from({ length: LIMIT }, (_, index) => String(SCHEDULED + index + 1)),
    )
  })
  await t.test('without statistics', async () => {
    for (const parts of ['usual', ALL_PARTS] as const) await assertClaimsBounded(`no statistics ${parts}`, parts)
  })
  await t.test('with statistics', async () => {
    await storage.database.query('analyze waybill_outbox')
    for (const parts of ['usual', ALL_PARTS] as const) await assertClaimsBounded(`statistics ${parts}`, parts)
  })
  await t.test('with all priorities, and rows that are not due for long', async () => {
    await fill(SCHEDULED, `'scheduled'`, `clock_timestamp() + interval '1 day'`, 'g % 10')
    await fill(SCHEDULED / 2, `'pending'`, 'null::timestamptz', 'g % 10')
    // Known to have nothing of another priority before them in their keys.
    await storage.database.query(`update waybill_outbox set clear = true where priority <> 5 and status = 'pending'`)
    await assertClaimsBounded('mixed no statistics', ALL_PARTS)
    await storage.database.query('analyze waybill_outbox')
    await assertClaimsBounded('mixed', ALL_PARTS)
    const rows = await storage.outbox.list({ rowIds: await claimed(), limit: LIMIT })
    assert.equal(rows.length, LIMIT)
    assert.ok(rows.every(({ priority, status }) => priority === 9 && status === 'pending'))
  })
})

test('a claim looks at the rows that it gives back, however many stand behind one key', async () => {
  await storage.database.query('truncate waybill_outbox')
  await storage.database.query(
    `insert into waybill_outbox (id, event_id, event_type, topic, key, shard, headers, body, status, behind)
     select -g, 'event', 'order.Placed', 'order', 'stopped', 7, '{}', '', 'parked', nullif(-${STOPPED}, -g) from generate_series(1, ${STOPPED}) g`,
  )
  await assertClaimsStopped('stopped no statistics')
  // Now all there is to know of the table is that one key.
  await storage.database.query(`delete from waybill_outbox where status = 'pending'`)
  await storage.database.query('analyze waybill_outbox')
  await assertClaimsStopped('stopped')
})

test('parking what waits in stopped keys looks at each row a few times, however many keys there are', async () => {
  const heads = 2_000
  const rows = 50_000
  for (const statistics of [false, true]) {
    await storage.database.query('truncate waybill_outbox')
    await storage.database.query(
      `insert into waybill_outbox (event_id, event_type, topic, key, shard, headers, body, status)
       select 'event', 'order.Placed', 'order', 'key-' || g, g % 64, '{}', '', 'parked' from generate_series(1, ${heads}) g`,
    )
    // All that is known is that nothing waits.
    if (statistics) await storage.database.query('analyze waybill_outbox')
    await fill(rows, `'pending'`, 'null::timestamptz', '5')
    const { rows: plan } = await session.query<{ 'QUERY PLAN': { Plan: Plan }[] }>(
      `explain (format json, analyze, timing off) ${sql.follow}`,
      [RELAY, '[]', '{}', null, '{}'],
    )
    const nodes = allOf(plan[0]!['QUERY PLAN'][0]!.Plan)
    const lookedAt = nodes.reduce((sum, node) => sum + lookedAtBy(node), 0)
    assert.ok(lookedAt >= rows && lookedAt <= (rows + heads) * 20, `${lookedAt} looks`)
    assert.equal((await storage.outbox.stats()).pending, rows - 20_000)
  }
})

async function assertClaimsStopped(title: string): Promise<void> {
  await fill(LIMIT * 2, `'pending'`, 'null::timestamptz', '5')
  await assertClaimsBounded(title, ALL_PARTS)
  assert.equal((await claimed()).length, LIMIT)
}
