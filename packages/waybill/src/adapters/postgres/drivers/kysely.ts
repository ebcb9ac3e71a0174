import type { SqlExecutor } from '../../../core/database.ts'
import { type DriverDatabase, type DriverDatabaseOptions, createDriverDatabase, executorOver } from './driver-database.ts'
import { checkMethods, checkTransaction } from './shape.ts'

/** A statement as Kysely's compiler would hand it on. */
export interface KyselyQuery {
  readonly sql: string
  readonly parameters: readonly unknown[]
  readonly query: { readonly kind: 'RawNode'; readonly sqlFragments: readonly string[]; readonly parameters: readonly never[] }
  readonly queryId: { readonly queryId: string }
}

/** The part of a Kysely or one of its transactions that runs statements. */
export interface KyselyQueryable {
  readonly isTransaction: boolean
  withoutPlugins(): { executeQuery(query: KyselyQuery): Promise<{ readonly rows: readonly unknown[] }> }
}

/** The part of a Kysely that {@link kyselyDatabase} calls. */
export interface KyselyLike<Transaction> extends KyselyQueryable {
  transaction(): { execute<T>(run: (transaction: Transaction) => Promise<T>): Promise<T> }
}

const NAME = 'Kysely'

/** Joins a Kysely transaction. @throws WaybillError `INVALID_OPTION` for a Kysely outside a transaction */
export function kyselyExecutor(transaction: KyselyQueryable): SqlExecutor {
  const allowed = 'the transaction of db.transaction().execute() or db.startTransaction()'
  checkMethods(transaction, ['withoutPlugins', 'executeQuery'], allowed, 'kyselyExecutor')
  checkTransaction(transaction.isTransaction, allowed, 'kyselyExecutor')
  return executorOver(NAME, (text, params) => run(transaction, text, params))
}

/**
 * A database over a Kysely of yours (PostgreSQL dialect; with one over PGlite, pass `oneSession: true`), with `transactionOf` giving Kysely's transaction.
 * @throws WaybillError `INVALID_OPTION`
 */
export function kyselyDatabase<Transaction extends KyselyQueryable>(
  kysely: KyselyLike<Transaction>,
  options: DriverDatabaseOptions = {},
): DriverDatabase<Transaction> {
  checkMethods(kysely, ['withoutPlugins', 'executeQuery', 'transaction'], 'a Kysely', 'kyselyDatabase')
  checkTransaction(!kysely.isTransaction, 'a Kysely; kyselyExecutor joins a transaction', 'kyselyDatabase')
  return createDriverDatabase<Transaction>(
    {
      name: NAME,
      query: (text, params) => run(kysely, text, params),
      queryIn: run,
      begin: (fn) => kysely.transaction().execute(fn),
    },
    options,
  )
}

let queries = 0

async function run(kysely: KyselyQueryable, sql: string, params: readonly unknown[]): Promise<readonly unknown[]> {
  queries = (queries + 1) % Number.MAX_SAFE_INTEGER
  const { rows } = await kysely
    // A plugin that renames columns would rename ours.
    .withoutPlugins()
    .executeQuery({
      sql,
      parameters: params,
      query: { kind: 'RawNode', sqlFragments: [sql], parameters: [] },
      queryId: { queryId: `waybill-${queries}` },
    })
  return rows
}
