import type { SqlExecutor } from '../../../core/database.ts'
import { type DriverDatabase, createDriverDatabase, executorOver } from './driver-database.ts'
import { namedAsAsked } from './renamed-columns.ts'
import { checkMethods, checkTransaction, memberOf } from './shape.ts'

/** The part of a postgres.js `sql` that runs statements. */
export interface PostgresJsQueryable {
  unsafe(text: string, params?: never[], options?: { prepare?: boolean }): PromiseLike<Iterable<unknown>>
}

/** The part of a postgres.js `sql` that {@link postgresJsDatabase} calls. */
export interface PostgresJsLike<Transaction> extends PostgresJsQueryable {
  begin<T>(run: (transaction: Transaction) => T | Promise<T>): Promise<unknown>
  begin<T>(options: string, run: (transaction: Transaction) => T | Promise<T>): Promise<unknown>
}

const NAME = 'postgres.js'

/** Joins the transaction of `sql.begin(async (tx) => ...)`. @throws WaybillError `INVALID_OPTION` for an `sql` outside a transaction */
export function postgresJsExecutor(transaction: PostgresJsQueryable): SqlExecutor {
  const allowed = 'the transaction that sql.begin() gives its callback'
  checkMethods(transaction, ['unsafe'], allowed, 'postgresJsExecutor')
  checkTransaction(typeof memberOf(transaction, 'savepoint') === 'function', allowed, 'postgresJsExecutor')
  return executorOver(NAME, (text, params) => run(transaction, text, params))
}

/** A database over a postgres.js `sql` of yours, with `transactionOf` giving the `sql` of the transaction. @throws WaybillError `INVALID_OPTION` */
export function postgresJsDatabase<Transaction extends PostgresJsQueryable>(sql: PostgresJsLike<Transaction>): DriverDatabase<Transaction> {
  checkMethods(sql, ['unsafe', 'begin'], 'postgres(...) of the package "postgres"', 'postgresJsDatabase')
  return createDriverDatabase<Transaction>({
    name: NAME,
    query: (text, params) => run(sql, text, params),
    queryIn: run,
    begin: (fn) => sql.begin(fn),
  })
}

async function run(sql: PostgresJsQueryable, text: string, params: readonly unknown[]): Promise<readonly unknown[]> {
  // As it does with its tagged statements, unless it was told `prepare: false`. Unprepared, parameters would cost another round trip; without any, several
  // statements may stand in one text.
  const options = params.length > 0 ? { prepare: true } : {}
  // Copied, since its result is an array with more to it.
  return namedAsAsked([...(await sql.unsafe(text, [...params] as never[], options))], text)
}
