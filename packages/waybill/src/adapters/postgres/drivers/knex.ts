import type { SqlExecutor } from '../../../core/database.ts'
import { type DriverDatabase, createDriverDatabase, executorOver } from './driver-database.ts'
import { questionMarks } from './numbered-parameters.ts'
import { namedAsAsked } from './renamed-columns.ts'
import { checkMethods, checkTransaction, memberOf } from './shape.ts'

/** The part of a Knex or one of its transactions that runs statements. */
export interface KnexQueryable {
  raw(text: string, bindings: readonly never[]): PromiseLike<unknown>
}

/** The part of a Knex that {@link knexDatabase} calls. */
export interface KnexLike<Transaction> extends KnexQueryable {
  transaction<T>(run: (transaction: Transaction) => Promise<T>): Promise<T>
}

const NAME = 'Knex'

/** Joins a Knex transaction. @throws WaybillError `INVALID_OPTION` for a Knex outside a transaction */
export function knexExecutor(transaction: KnexQueryable): SqlExecutor {
  const allowed = 'the transaction of knex.transaction()'
  checkMethods(transaction, ['raw'], allowed, 'knexExecutor')
  checkTransaction(memberOf(transaction, 'isTransaction') === true, allowed, 'knexExecutor')
  return executorOver(NAME, (text, params) => run(transaction, text, params))
}

/**
 * A database over a Knex of yours (client `pg`), with `transactionOf` giving Knex's transaction.
 * @throws WaybillError `INVALID_OPTION`
 */
export function knexDatabase<Transaction extends KnexQueryable>(knex: KnexLike<Transaction>): DriverDatabase<Transaction> {
  checkMethods(knex, ['raw', 'transaction'], 'a Knex', 'knexDatabase')
  checkTransaction(memberOf(knex, 'isTransaction') !== true, 'a Knex; knexExecutor joins a transaction', 'knexDatabase')
  return createDriverDatabase<Transaction>({
    name: NAME,
    query: (text, params) => run(knex, text, params),
    queryIn: run,
    begin: (fn) => knex.transaction(fn),
  })
}

async function run(knex: KnexQueryable, text: string, params: readonly unknown[]): Promise<readonly unknown[]> {
  const { text: raw, bindings } = questionMarks(text, params)
  const rows = memberOf(await knex.raw(raw, bindings as readonly never[]), 'rows')
  return Array.isArray(rows) ? namedAsAsked(rows, text) : []
}
