import type { SqlExecutor } from '../../../core/database.ts'
import { type DriverDatabase, createDriverDatabase, executorOver } from './driver-database.ts'
import { checkMethods, checkTransaction, memberOf } from './shape.ts'

/** The part of a PGlite transaction that runs statements. */
export interface PgliteQueryable {
  query(text: string, params?: unknown[]): Promise<{ rows: unknown[] }>
}

/** The part of a PGlite that {@link pgliteDatabase} calls. */
export interface PgliteDatabaseLike<Transaction> extends PgliteQueryable {
  transaction<T>(run: (transaction: Transaction) => Promise<T>): Promise<T>
}

const NAME = 'PGlite'

/** Joins the transaction of `pglite.transaction(async (tx) => ...)`. @throws WaybillError `INVALID_OPTION` for a PGlite itself */
export function pgliteExecutor(transaction: PgliteQueryable): SqlExecutor {
  const allowed = 'the transaction that pglite.transaction() gives its callback'
  checkMethods(transaction, ['query'], allowed, 'pgliteExecutor')
  checkTransaction(
    memberOf(transaction, 'transaction') === undefined && memberOf(transaction, 'closed') !== true,
    allowed,
    'pgliteExecutor',
  )
  return executorOver(NAME, async (text, params) => (await transaction.query(text, [...params])).rows)
}

/**
 * A database over a PGlite of yours, with `transactionOf` giving PGlite's transaction. Where you don't need that, `pgliteStorage(pglite)` is all it
 * takes. One session: what would wait for its own transaction is refused with `SESSION_BUSY`.
 * @throws WaybillError `INVALID_OPTION`
 */
export function pgliteDatabase<Transaction extends PgliteQueryable>(pglite: PgliteDatabaseLike<Transaction>): DriverDatabase<Transaction> {
  checkMethods(pglite, ['query', 'transaction'], 'a PGlite', 'pgliteDatabase')
  return createDriverDatabase<Transaction>(
    {
      name: NAME,
      query: async (text, params) => (await pglite.query(text, [...params])).rows,
      queryIn: async (transaction, text, params) => (await transaction.query(text, [...params])).rows,
      begin: (run) => pglite.transaction(run),
    },
    { oneSession: true },
  )
}
