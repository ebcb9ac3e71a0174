import { AsyncLocalStorage } from 'node:async_hooks'
import type { Database, SqlExecutor } from '../../../core/database.ts'
import { WaybillError, isWaybillError } from '../../../core/errors.ts'
import { sqlStateOf } from '../statements.ts'
import { driverError, isCut, revealed } from './driver-errors.ts'

/** A database that works through a driver or an ORM of the caller's. */
export interface DriverDatabase<Transaction> extends Database {
  /**
   * The driver's own transaction behind an executor of this database, so that business rows are written with the ORM in the same unit of work:
   * `database.transactionOf(unit.sql)`, or `context.sql` in a handler.
   * @throws WaybillError `INVALID_OPTION` for an executor of none of this database's transactions; `UNIT_CLOSED` after its end
   */
  transactionOf(sql: SqlExecutor): Transaction
}

export interface DriverDatabaseOptions {
  /**
   * The database has one session only, as PGlite has: a statement outside the running transaction, started within it, would wait for ever, and is refused
   * with `SESSION_BUSY`. @default false
   */
  readonly oneSession?: boolean
}

type Rows = readonly unknown[]

/** What a driver can do; everything else is the same for all. */
export interface Driver<Transaction> {
  readonly name: string
  /** In a transaction of its own. */
  query(text: string, params: readonly unknown[]): Promise<Rows>
  /** Begins, runs, commits or rolls back. */
  begin(run: (transaction: Transaction) => Promise<void>): Promise<unknown>
  queryIn(transaction: Transaction, text: string, params: readonly unknown[]): Promise<Rows>
}

interface Scope<Transaction> {
  readonly transaction: Transaction
  open: boolean
  /** Others may have run statements in it that nobody here has seen fail. */
  handedOut: boolean
  failed: { readonly error: unknown } | undefined
}

/**
 * An executor over a transaction that the caller owns.
 * @param isOver whether the transaction has ended, where its driver would run the statement all the same, in a transaction of its own
 */
export function executorOver(
  name: string,
  query: (text: string, params: readonly unknown[]) => Promise<Rows>,
  isOver: () => boolean = () => false,
): SqlExecutor {
  return {
    async query<Row>(text: string, params: readonly unknown[] = []) {
      if (isOver()) throw closed()
      try {
        return { rows: (await query(text, params)) as readonly Row[] }
      } catch (error) {
        throw driverError(error, name)
      }
    },
  }
}

/** A database over a driver. */
export function createDriverDatabase<Transaction>(
  driver: Driver<Transaction>,
  { oneSession = false }: DriverDatabaseOptions = {},
): DriverDatabase<Transaction> {
  const transactions = createTransactions<Transaction>(driver.name)
  const within = oneSession ? new AsyncLocalStorage<Scope<Transaction>>() : undefined
  const outside = executorOver(driver.name, driver.query)

  function refuseWaitingForItself(): void {
    if (within?.getStore()?.open !== true) return
    throw new WaybillError('SESSION_BUSY', 'this statement would wait for the transaction that it is called in', {
      allowed: 'the executor that the transaction was given (`unit.sql`, `context.sql`)',
    })
  }

  async function run<T>(scope: Scope<Transaction>, sql: SqlExecutor, fn: (sql: SqlExecutor) => Promise<T>): Promise<T> {
    try {
      const value = await (within === undefined ? fn(sql) : within.run(scope, () => fn(sql)))
      if (scope.open && (scope.handedOut || scope.failed !== undefined)) await checkAlive(driver, scope)
      return value
    } finally {
      scope.open = false
    }
  }

  return {
    async query(text, params) {
      refuseWaitingForItself()
      return outside.query(text, params)
    },
    async transaction<T>(fn: (sql: SqlExecutor) => Promise<T>): Promise<T> {
      refuseWaitingForItself()
      let ran: { readonly value: T } | { readonly error: unknown } | undefined
      let scope: Scope<Transaction> | undefined
      let over = false
      try {
        await driver.begin(async (transaction) => {
          const sql: SqlExecutor = { query: (text, params) => queryInside(driver, current, text, params) }
          const current = (scope = transactions.open(sql, transaction))
          try {
            const value = await run(current, sql, fn)
            if (over) return await never()
            ran = { value }
          } catch (error) {
            if (over) return await never()
            ran = { error: revealed(error) }
            throw error
          }
        })
      } catch (error) {
        // postgres.js is done when its connection is lost, before the callback is: what comes late must not run outside the transaction.
        over = true
        if (scope !== undefined) scope.open = false
        // What failed inside is what the caller is told, whatever became of the rollback.
        if (ran === undefined) throw driverError(error, driver.name)
        if ('value' in ran) throw commitError(error, driver.name)
      }
      if (ran === undefined) throw new WaybillError('UNSUPPORTED', `${driver.name} did not run the transaction`, { where: driver.name })
      if ('error' in ran) throw ran.error
      return ran.value
    },
    transactionOf: transactions.transactionOf,
  }
}

/** Which transaction stands behind which executor. */
function createTransactions<Transaction>(name: string) {
  const scopes = new WeakMap<object, Scope<Transaction>>()
  return {
    open(sql: SqlExecutor, transaction: Transaction): Scope<Transaction> {
      const scope: Scope<Transaction> = { transaction, open: true, handedOut: false, failed: undefined }
      scopes.set(sql, scope)
      return scope
    },
    transactionOf(sql: SqlExecutor): Transaction {
      let scope: Scope<Transaction> | undefined
      // A unit of work derives its executor from the database's.
      for (let at: unknown = sql; scope === undefined && typeof at === 'object' && at !== null; at = Object.getPrototypeOf(at)) {
        scope = scopes.get(at)
      }
      if (scope === undefined)
        throw new WaybillError('INVALID_OPTION', `this executor is in no transaction of this ${name} database`, {
          allowed: 'unit.sql or context.sql of a Waybill with this database',
          where: 'transactionOf',
        })
      if (!scope.open) throw closed()
      scope.handedOut = true
      return scope.transaction
    },
  }
}

async function queryInside<Transaction, Row>(
  driver: Driver<Transaction>,
  scope: Scope<Transaction>,
  text: string,
  params: readonly unknown[] = [],
): Promise<{ readonly rows: readonly Row[] }> {
  if (!scope.open) throw closed()
  if (ENDS_TRANSACTION.test(text)) scope.handedOut = true
  try {
    return { rows: (await driver.queryIn(scope.transaction, text, params)) as readonly Row[] }
  } catch (error) {
    const explained = driverError(error, driver.name)
    scope.failed ??= { error: explained }
    throw explained
  }
}

const ENDS_TRANSACTION = /^\s*(commit|rollback|end|abort|prepare)\b/i

/**
 * A transaction in which a statement has failed is ended by COMMIT as if nothing were wrong, and rolled back; drivers don't tell. A savepoint can be set
 * only where there is something to commit.
 */
async function checkAlive<Transaction>(driver: Driver<Transaction>, scope: Scope<Transaction>): Promise<void> {
  try {
    await driver.queryIn(scope.transaction, 'savepoint waybill_alive', [])
  } catch (error) {
    const explained = driverError(error, driver.name)
    if (isWaybillError(explained)) throw explained
    if (scope.failed !== undefined) throw scope.failed.error
    if (sqlStateOf(explained) === '25P02') throw explained
    throw new WaybillError('UNIT_CLOSED', 'the transaction was ended by a statement of its own', { where: driver.name, cause: error })
  }
}

/** COMMIT failed: the database has said no, or has said nothing. */
function commitError(error: unknown, name: string): unknown {
  if (isWaybillError(error)) return error
  const explained = driverError(error, name)
  const refused = !isCut(error) && sqlStateOf(explained) !== undefined
  if (refused || isExpired(error)) return explained
  return new WaybillError('UNKNOWN_OUTCOME', 'the connection was cut after COMMIT was sent: it may or may not have happened', {
    where: name,
    cause: error,
  })
}

/** Prisma has rolled it back, since it took longer than `timeout`. */
function isExpired(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'P2028'
}

/**
 * What a callback gives back that ends after its transaction has. postgres.js would write COMMIT or ROLLBACK to the socket that is gone, and throw where
 * nobody can catch it.
 */
function never(): Promise<void> {
  return new Promise(() => {})
}

function closed(): WaybillError {
  return new WaybillError('UNIT_CLOSED', 'the transaction of this executor has ended')
}
