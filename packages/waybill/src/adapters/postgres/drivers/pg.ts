import type { SqlExecutor } from '../../../core/database.ts'
import { type PgClientLike, type PgPoolLike, databaseOf } from '../pg-session.ts'
import { createPreparedNames } from '../prepared-names.ts'
import { type DriverDatabase, createDriverDatabase, executorOver } from './driver-database.ts'
import { checkMethods, checkTransaction, isIdle, memberOf } from './shape.ts'

/** The part of a `pg` client, checked out or on its own, that runs statements. */
export interface PgQueryable {
  query(text: string, params?: unknown[]): Promise<{ rows: unknown[] }>
}

/** The part of a `pg` pool that {@link pgDatabase} calls. */
export interface PgDatabasePool<Client> {
  query(text: string, params?: unknown[]): Promise<{ rows: unknown[] }>
  /** Never called so; the same overloads as in `pg`, so that the client's type is seen. */
  connect(): Promise<Client>
  connect(callback: (error: Error | undefined, client: Client | undefined, done: (release?: unknown) => void) => void): void
}

export interface PgDatabaseOptions {
  /** As of `postgresStorage`: false behind a pooler that gives each transaction another session and does not know prepared statements. @default true */
  readonly preparedStatements?: boolean
}

const NAME = 'pg'

/** Joins the transaction that is open on a `pg` client. @throws WaybillError `INVALID_OPTION` for a pool, or a client that is in no transaction */
export function pgExecutor(client: PgQueryable): SqlExecutor {
  const allowed = 'a client of the package "pg", after BEGIN'
  checkMethods(client, ['query'], allowed, 'pgExecutor')
  checkTransaction(!isIdle(client) && memberOf(client, 'totalCount') === undefined, allowed, 'pgExecutor')
  return executorOver(
    NAME,
    async (text, params) => (await client.query(text, [...params])).rows,
    () => isIdle(client),
  )
}

/**
 * A database over a `pg` pool of yours, with `transactionOf` giving the checked-out client. Where you don't need that client, `postgresStorage(pool)` is
 * all it takes, and has options; the limits here are its defaults. The pool needs an `error` listener of yours.
 * @throws WaybillError `INVALID_OPTION`
 */
export function pgDatabase<Client extends PgClientLike>(
  pool: PgDatabasePool<Client>,
  { preparedStatements = true }: PgDatabaseOptions = {},
): DriverDatabase<Client> {
  checkMethods(pool, ['query', 'connect'], 'a pool of the package "pg"', 'pgDatabase')
  checkTransaction(
    memberOf(pool, 'escapeLiteral') === undefined,
    'a pool of the package "pg"; pgExecutor joins a transaction',
    'pgDatabase',
  )
  const parts = {
    place: undefined,
    poolMax: undefined,
    limits: { connectMs: 10_000, queryMs: 30_000, transactionQueryMs: 0 },
    ...(preparedStatements ? { prepared: createPreparedNames() } : {}),
  }
  // Its owner ends it.
  const calls = { query: (text: string, params?: unknown[]) => pool.query(text, params), end: async () => {} }
  const pooled = databaseOf({ ...parts, pool: { ...calls, connect: (taken) => pool.connect(taken) } })
  // What guards the session is there already; a client is in one transaction at a time.
  const executors = new WeakMap<Client, SqlExecutor>()
  return createDriverDatabase<Client>({
    name: NAME,
    query: async (text, params) => (await pooled.query(text, params)).rows,
    queryIn: async (client, text, params) => (await executors.get(client)!.query(text, params)).rows,
    begin(run) {
      let client: Client | undefined
      const connect: PgPoolLike['connect'] = (taken) =>
        pool.connect((error, checkedOut) => {
          client = checkedOut
          taken(error, checkedOut)
        })
      return databaseOf({ ...parts, pool: { ...calls, connect } }).transaction((sql) => {
        executors.set(client!, sql)
        return run(client!)
      })
    },
  })
}
