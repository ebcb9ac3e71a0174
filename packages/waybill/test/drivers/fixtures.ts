import { PGlite } from '@electric-sql/pglite'
import { PrismaPg } from '@prisma/adapter-pg'
import { eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { drizzle as drizzleOverPostgresJs } from 'drizzle-orm/postgres-js'
import { integer, pgTable, text } from 'drizzle-orm/pg-core'
import knexFactory from 'knex'
import { CamelCasePlugin, Kysely, PostgresDialect, type Transaction } from 'kysely'
import pg from 'pg'
import postgres from 'postgres'
import { DataSource, type EntityManager, EntitySchema } from 'typeorm'
import { generatePrismaClient } from '../../../../examples/drivers/prisma/generate.ts'
import type { SqlExecutor } from '../../src/core/database.ts'
import {
  type DriverDatabase,
  drizzleDatabase,
  drizzleExecutor,
  knexDatabase,
  knexExecutor,
  kyselyDatabase,
  kyselyExecutor,
  pgDatabase,
  pgExecutor,
  pgliteDatabase,
  pgliteExecutor,
  postgresJsDatabase,
  postgresJsExecutor,
  prismaDatabase,
  prismaExecutor,
  typeormDatabase,
  typeormExecutor,
} from '../../src/postgres.ts'

/**
 * One driver, set up as its user might, with a business table that the driver's own API writes to. Where a client can be told to rename columns, it is.
 */
export interface DriverFixture<Tx> {
  readonly database: DriverDatabase<Tx>
  /** Makes a database, of the client or of what is none. */
  databaseOver(client: unknown): DriverDatabase<Tx>
  /** The client itself, which is in no transaction. */
  readonly root: unknown
  /** Runs in a transaction of the driver's own making. */
  begin(run: (transaction: Tx) => Promise<void>): Promise<unknown>
  /** Runs in a savepoint of the driver's own making, where it has such. */
  nested?(transaction: Tx, run: (transaction: Tx) => Promise<void>): Promise<unknown>
  executor(transaction: Tx): SqlExecutor
  /** By the driver's own API. */
  insertOrder(transaction: Tx, id: string): Promise<unknown>
  raw(transaction: Tx, statement: string): PromiseLike<unknown>
  close(): Promise<unknown>
}

/** The fixture without its transaction's type: what a table of them can hold. */
export type AnyFixture = DriverFixture<unknown>

/** Orders whose price is not the only one fail at COMMIT; an order that is named so fails as it says; `fatal` ends the session at COMMIT. */
export const ORDERS = `
  create table orders (id text primary key, pence int not null default 1 unique deferrable initially deferred);
  create function fail_as_told() returns trigger language plpgsql as
    $$ begin raise exception using errcode = right(new.id, 5), message = 'failed as told'; end $$;
  create trigger fails before insert on orders for each row when (new.id like '%fails with _____') execute function fail_as_told();
  create table fatal (id text);
  create function end_session() returns trigger language plpgsql as $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$;
  create constraint trigger ends after insert on fatal deferrable initially deferred for each row execute function end_session()`
const POOL_MAX = 20

function poolOf(url: string): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, max: POOL_MAX })
  // Drizzle and Kysely leave a checked-out connection that breaks to its owner.
  pool.on('error', () => {})
  pool.on('connect', (client) => client.on('error', () => {}))
  return pool
}

/** Prices must differ. */
let pence = 0
const nextPence = (): number => ++pence

/** As people who write camel case do: each row's keys, wherever they are. */
function camelCased(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(camelCased)
  if (typeof value !== 'object' || value === null || value instanceof Date) return value
  const camel = (name: string) => name.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
  const { rows, ...row } = value as { readonly rows?: unknown }
  return rows === undefined
    ? Object.fromEntries(Object.entries(row).map(([name, of]) => [camel(name), of]))
    : { ...row, rows: camelCased(rows) }
}

const fixture = <Tx>(made: DriverFixture<Tx>): AnyFixture => made

export const FIXTURES = {
  pg: async (url: string) => {
    const pool = new pg.Pool({ connectionString: url, max: POOL_MAX })
    pool.on('error', () => {})
    return fixture<pg.PoolClient>({
      database: pgDatabase(pool),
      databaseOver: (client) => pgDatabase(client as typeof pool),
      root: pool,
      async begin(run) {
        const client = await pool.connect()
        try {
          await client.query('begin')
          await run(client)
          await client.query('commit')
        } catch (error) {
          await client.query('rollback')
          throw error
        } finally {
          client.release()
        }
      },
      executor: pgExecutor,
      insertOrder: (client, id) => client.query('insert into orders values ($1, $2)', [id, nextPence()]),
      raw: (client, statement) => client.query(statement),
      close: () => pool.end(),
    })
  },

  'postgres.js': async (url: string) => {
    const sql = postgres(url, { max: POOL_MAX, onnotice: () => {}, transform: postgres.camel })
    return fixture<postgres.TransactionSql>({
      database: postgresJsDatabase(sql),
      databaseOver: (client) => postgresJsDatabase(client as typeof sql),
      root: sql,
      begin: (run) => sql.begin(run),
      nested: (tx, run) => tx.savepoint(run),
      executor: postgresJsExecutor,
      insertOrder: async (tx, id) => tx`insert into orders ${tx({ id, pence: nextPence() })}`,
      raw: (tx, statement) => tx.unsafe(statement),
      close: () => sql.end({ timeout: 1 }),
    })
  },

  Kysely: async (url: string) => {
    interface Tables {
      orders: { id: string; pence: number }
    }
    const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool: poolOf(url) }), plugins: [new CamelCasePlugin()] })
    return fixture<Transaction<Tables>>({
      database: kyselyDatabase(db),
      databaseOver: (client) => kyselyDatabase(client as typeof db),
      root: db,
      begin: (run) => db.transaction().execute(run),
      executor: kyselyExecutor,
      insertOrder: (trx, id) => trx.insertInto('orders').values({ id, pence: nextPence() }).execute(),
      raw: (trx, statement) => kyselyExecutor(trx).query(statement),
      close: () => db.destroy(),
    })
  },

  Drizzle: async (url: string) => {
    const pool = poolOf(url)
    const db = drizzle(pool)
    const orders = pgTable('orders', { id: text().primaryKey(), pence: integer().notNull() })
    return fixture<Parameters<Parameters<typeof db.transaction>[0]>[0]>({
      database: drizzleDatabase(db),
      databaseOver: (client) => drizzleDatabase(client as typeof db),
      root: db,
      begin: (run) => db.transaction(run),
      nested: (tx, run) => tx.transaction(run),
      executor: drizzleExecutor,
      async insertOrder(tx, id) {
        await tx.insert(orders).values({ id, pence: nextPence() })
        await tx.select().from(orders).where(eq(orders.id, id))
      },
      raw: (tx, statement) => tx.execute(statement),
      close: () => pool.end(),
    })
  },

  'Drizzle over postgres.js': async (url: string) => {
    const sql = postgres(url, { max: POOL_MAX, onnotice: () => {} })
    const db = drizzleOverPostgresJs(sql)
    const orders = pgTable('orders', { id: text().primaryKey(), pence: integer().notNull() })
    return fixture<Parameters<Parameters<typeof db.transaction>[0]>[0]>({
      database: drizzleDatabase(db),
      databaseOver: (client) => drizzleDatabase(client as typeof db),
      root: db,
      begin: (run) => db.transaction(run),
      nested: (tx, run) => tx.transaction(run),
      executor: drizzleExecutor,
      insertOrder: async (tx, id) => tx.insert(orders).values({ id, pence: nextPence() }),
      raw: (tx, statement) => tx.execute(statement),
      close: () => sql.end({ timeout: 1 }),
    })
  },

  Knex: async (url: string) => {
    const knex = knexFactory({ client: 'pg', connection: url, pool: { min: 0, max: POOL_MAX }, postProcessResponse: camelCased })
    return fixture<knexFactory.Knex.Transaction>({
      database: knexDatabase(knex),
      databaseOver: (client) => knexDatabase(client as typeof knex),
      root: knex,
      begin: (run) => knex.transaction(run),
      nested: (trx, run) => trx.transaction(run),
      executor: knexExecutor,
      insertOrder: async (trx, id) => trx('orders').insert({ id, pence: nextPence() }),
      raw: (trx, statement) => trx.raw(statement),
      close: () => knex.destroy(),
    })
  },

  TypeORM: async (url: string) => {
    const Order = new EntitySchema<{ id: string; pence: number }>({
      name: 'orders',
      columns: { id: { type: 'text', primary: true }, pence: { type: 'int' } },
    })
    const dataSource = await new DataSource({
      type: 'postgres',
      url,
      entities: [Order],
      extra: { max: POOL_MAX },
      poolErrorHandler: () => {},
    }).initialize()
    return fixture<EntityManager>({
      database: typeormDatabase(dataSource),
      databaseOver: (client) => typeormDatabase(client as typeof dataSource),
      root: dataSource.manager,
      begin: (run) => dataSource.transaction(run),
      nested: (manager, run) => manager.transaction(run),
      executor: typeormExecutor,
      insertOrder: (manager, id) => manager.insert(Order, { id, pence: nextPence() }),
      raw: (manager, statement) => manager.query(statement),
      close: () => dataSource.destroy(),
    })
  },

  Prisma: async (url: string) => {
    const { PrismaClient } = (await import(await generatePrismaClient())) as { PrismaClient: new (options: object) => PrismaOfTest }
    const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: url, max: POOL_MAX }) })
    return fixture<PrismaTransactionOfTest>({
      database: prismaDatabase<PrismaTransactionOfTest>(prisma),
      databaseOver: (client) => prismaDatabase<PrismaTransactionOfTest>(client as typeof prisma),
      root: prisma,
      begin: (run) => prisma.$transaction(run),
      executor: prismaExecutor,
      insertOrder: async (tx, id) => tx.order.create({ data: { id, pence: nextPence() } }),
      raw: (tx, statement) => tx.$executeRawUnsafe(statement),
      close: () => prisma.$disconnect(),
    })
  },

  PGlite: async () => {
    const pglite = await PGlite.create('memory://')
    await pglite.exec(ORDERS)
    return fixture<PgliteTransactionOfTest>({
      database: pgliteDatabase(pglite),
      databaseOver: (client) => pgliteDatabase(client as typeof pglite),
      root: pglite,
      begin: (run) => pglite.transaction(run),
      executor: pgliteExecutor,
      insertOrder: (tx, id) => tx.query('insert into orders values ($1, $2)', [id, nextPence()]),
      raw: (tx, statement) => tx.query(statement),
      close: () => pglite.close(),
    })
  },
} as const satisfies Record<string, (url: string) => Promise<AnyFixture>>

type PgliteTransactionOfTest = Parameters<Parameters<PGlite['transaction']>[0]>[0]

// The generated client is not there yet when this file's types are checked.
interface PrismaTransactionOfTest {
  readonly order: { create(options: { data: { id: string; pence: number } }): PromiseLike<unknown> }
  $queryRawUnsafe(statement: string, ...params: unknown[]): PromiseLike<unknown>
  $executeRawUnsafe(statement: string): PromiseLike<unknown>
}
interface PrismaOfTest extends PrismaTransactionOfTest {
  $transaction<T>(run: (transaction: PrismaTransactionOfTest) => Promise<T>, options?: { maxWait?: number; timeout?: number }): Promise<T>
  $disconnect(): Promise<void>
}
