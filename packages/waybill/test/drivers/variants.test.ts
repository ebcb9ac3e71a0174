import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { PGlite } from '@electric-sql/pglite'
import { PrismaPg } from '@prisma/adapter-pg'
import { drizzle } from 'drizzle-orm/pglite'
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { DataSource } from 'typeorm'
import { generatePrismaClient } from '../../../../examples/drivers/prisma/generate.ts'
import { type WaybillErrorCode, isWaybillError } from '../../src/core/errors.ts'
import type { SqlExecutor } from '../../src/core/database.ts'
import {
  type PrismaLike,
  type PrismaQueryable,
  drizzleDatabase,
  kyselyExecutor,
  pgExecutor,
  prismaDatabase,
  typeormExecutor,
} from '../../src/postgres.ts'
import { testPostgres } from '../../src/testing/test-postgres.ts'

// Other ways to the same drivers.

let url: string
before(async () => {
  url = (await testPostgres()).url()
})

const told = (code: WaybillErrorCode) => (error: unknown) => isWaybillError(error, code)

async function worksUntil(end: () => Promise<unknown>, sql: SqlExecutor): Promise<void> {
  const { rows } = await sql.query<{ one: number }>('select $1::int as one', [1])
  assert.equal(rows[0]?.one, 1)
  await end()
  await assert.rejects(sql.query('select 1'), told('UNIT_CLOSED'))
}

test('pg: a client of its own, after BEGIN', async (context) => {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  context.after(() => client.end())
  assert.throws(() => pgExecutor(client), told('INVALID_OPTION'))
  await client.query('begin')
  await worksUntil(() => client.query('commit'), pgExecutor(client))
})

test('Kysely: a transaction of startTransaction()', async (context) => {
  const db = new Kysely<unknown>({ dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: url, max: 1 }) }) })
  context.after(() => db.destroy())
  const committed = await db.startTransaction().execute()
  await worksUntil(() => committed.commit().execute(), kyselyExecutor(committed))
  const undone = await db.startTransaction().execute()
  await worksUntil(() => undone.rollback().execute(), kyselyExecutor(undone))
})

test('TypeORM: a query runner after startTransaction()', async (context) => {
  const dataSource = await new DataSource({ type: 'postgres', url, extra: { max: 1 } }).initialize()
  context.after(() => dataSource.destroy())
  const runner = dataSource.createQueryRunner()
  context.after(() => runner.release())
  assert.throws(() => typeormExecutor(runner), told('INVALID_OPTION'))
  assert.throws(() => typeormExecutor(dataSource as never), told('INVALID_OPTION'))
  await runner.startTransaction()
  await worksUntil(() => runner.commitTransaction(), typeormExecutor(runner))
})

test('Drizzle over PGlite: a statement that would wait for its own transaction is refused', async (context) => {
  const pglite = await PGlite.create('memory://')
  context.after(() => pglite.close())
  const database = drizzleDatabase(drizzle(pglite), { oneSession: true })
  await database.transaction(async (sql) => {
    await assert.rejects(database.query('select 1'), told('SESSION_BUSY'))
    assert.deepEqual((await sql.query('select $1::int as one', [1])).rows, [{ one: 1 }])
  })
  assert.deepEqual((await database.query('select 1 as one')).rows, [{ one: 1 }])
})

test('Prisma: a transaction that takes too long, and one that gets no connection, are told apart', async (context) => {
  const { PrismaClient } = (await import(await generatePrismaClient())) as {
    PrismaClient: new (options: object) => PrismaLike<PrismaQueryable> & { $disconnect(): Promise<void> }
  }
  const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: url, max: 1 }) })
  context.after(() => prisma.$disconnect())
  // Beyond the limit, whatever the machine's speed.
  const slow = prismaDatabase(prisma, { timeoutMs: 200 }).transaction((sql) =>
    sql.query('select pg_sleep(1)::text').then(() => sql.query('select 1')),
  )
  await assert.rejects(slow, told('TIMEOUT'))
  const patient = prismaDatabase(prisma)
  await patient.transaction(async () => {
    const second = prismaDatabase(prisma, { maxWaitMs: 200 }).transaction(async () => undefined)
    await assert.rejects(second, told('DATABASE_UNREACHABLE'))
  })
  await patient.transaction((sql) => sql.query('select 1'))
})
