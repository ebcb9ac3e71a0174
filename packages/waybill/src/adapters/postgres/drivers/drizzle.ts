import type { SqlExecutor } from '../../../core/database.ts'
import { type DriverDatabase, type DriverDatabaseOptions, createDriverDatabase, executorOver } from './driver-database.ts'
import { namedAsAsked } from './renamed-columns.ts'
import { checkMethods, checkTransaction, isIdle, memberOf } from './shape.ts'

/** What Drizzle takes for a statement of its own. */
export interface DrizzleStatement {
  getSQL(): unknown
}

/** The part of a Drizzle database or transaction (PostgreSQL) that runs statements. */
export interface DrizzleQueryable {
  execute(statement: DrizzleStatement | string): PromiseLike<unknown>
}

/** The part of a Drizzle database that {@link drizzleDatabase} calls. */
export interface DrizzleLike<Transaction> extends DrizzleQueryable {
  transaction<T>(run: (transaction: Transaction) => Promise<T>): Promise<T>
}

const NAME = 'Drizzle'

/** Joins the transaction of `db.transaction(async (tx) => ...)`. @throws WaybillError `INVALID_OPTION` for a database outside a transaction */
export function drizzleExecutor(transaction: DrizzleQueryable): SqlExecutor {
  const allowed = 'the transaction that db.transaction() gives its callback'
  checkMethods(transaction, ['execute'], allowed, 'drizzleExecutor')
  checkTransaction(typeof memberOf(transaction, 'rollback') === 'function', allowed, 'drizzleExecutor')
  // Over node-postgres Drizzle would go on with the client that it has given back. Where this is not its session's client, nothing is known.
  const client = memberOf(memberOf(transaction, 'session'), 'client')
  return executorOver(
    NAME,
    (text, params) => run(transaction, text, params),
    () => isIdle(client),
  )
}

/**
 * A database over a Drizzle database of yours (`drizzle-orm/node-postgres` or `postgres-js`; with `drizzle-orm/pglite`, pass `oneSession: true`), with
 * `transactionOf` giving Drizzle's transaction.
 * @throws WaybillError `INVALID_OPTION`
 */
export function drizzleDatabase<Transaction extends DrizzleQueryable>(
  drizzle: DrizzleLike<Transaction>,
  options: DriverDatabaseOptions = {},
): DriverDatabase<Transaction> {
  checkMethods(drizzle, ['execute', 'transaction'], 'a Drizzle database for PostgreSQL', 'drizzleDatabase')
  checkTransaction(
    memberOf(drizzle, 'rollback') === undefined,
    'a Drizzle database; drizzleExecutor joins a transaction',
    'drizzleDatabase',
  )
  return createDriverDatabase<Transaction>(
    {
      name: NAME,
      query: (text, params) => run(drizzle, text, params),
      queryIn: run,
      begin: (fn) => drizzle.transaction(fn),
    },
    options,
  )
}

async function run(drizzle: DrizzleQueryable, text: string, params: readonly unknown[]): Promise<readonly unknown[]> {
  const result: unknown = await drizzle.execute(statement(text, params))
  // An object with rows (node-postgres, PGlite), or the rows themselves (postgres.js).
  const rows = memberOf(result, 'rows') ?? result
  return Array.isArray(rows) ? namedAsAsked(Array.from(rows), text) : []
}

/** Drizzle asks a statement for its SQL, and that for its text: here both are one, ready made. */
function statement(sql: string, params: readonly unknown[]): DrizzleStatement {
  const made = {
    getSQL: () => made,
    toQuery: () => ({ sql, params: [...params] }),
  }
  return made
}
