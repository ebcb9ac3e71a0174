import type { SqlExecutor } from '../../../core/database.ts'
import { type DriverDatabase, createDriverDatabase, executorOver } from './driver-database.ts'
import { checkMethods, checkTransaction, memberOf } from './shape.ts'

/** The part of a TypeORM query runner that this adapter calls. */
export interface TypeormRunnerLike {
  readonly isTransactionActive: boolean
  /** `structured`: with the rows in `records`, whatever the statement. */
  query(text: string, params: unknown[], structured: true): Promise<{ readonly records: readonly unknown[] }>
}

/** The part of a TypeORM entity manager that this adapter calls. */
export interface TypeormManagerLike {
  readonly queryRunner?: TypeormRunnerLike | undefined
}

/** The part of a TypeORM data source that {@link typeormDatabase} calls. */
export interface TypeormLike<Manager> {
  readonly manager: Manager
  createQueryRunner(): TypeormRunnerLike & { release(): Promise<void> }
  transaction<T>(isolation: never, run: (manager: never) => Promise<T>): Promise<T>
}

const NAME = 'TypeORM'

/**
 * Joins the transaction of an entity manager or a query runner.
 * @throws WaybillError `INVALID_OPTION` for one that is in no transaction
 */
export function typeormExecutor(transaction: TypeormManagerLike | TypeormRunnerLike): SqlExecutor {
  const allowed = 'the manager that dataSource.transaction() gives its callback, or a query runner after startTransaction()'
  checkMethods(transaction, ['query'], allowed, 'typeormExecutor')
  const runner = runnerOf(transaction)
  checkTransaction(runner?.isTransactionActive === true, allowed, 'typeormExecutor')
  return executorOver(
    NAME,
    (text, params) => run(runner!, text, params),
    () => runner!.isTransactionActive !== true,
  )
}

/** A database over a TypeORM data source of yours (`postgres`), with `transactionOf` giving the entity manager. @throws WaybillError `INVALID_OPTION` */
export function typeormDatabase<Manager extends TypeormManagerLike>(dataSource: TypeormLike<Manager>): DriverDatabase<Manager> {
  checkMethods(dataSource, ['createQueryRunner', 'transaction'], 'a DataSource of TypeORM', 'typeormDatabase')
  const begin = dataSource.transaction.bind(dataSource) as unknown as (run: (manager: Manager) => Promise<void>) => Promise<void>
  return createDriverDatabase<Manager>({
    name: NAME,
    async query(text, params) {
      // A runner of its own: a data source gives back different shapes for different statements.
      const runner = dataSource.createQueryRunner()
      try {
        return await run(runner, text, params)
      } finally {
        await runner.release()
      }
    },
    queryIn: (manager, text, params) => run(manager.queryRunner!, text, params),
    begin,
  })
}

function runnerOf(transaction: TypeormManagerLike | TypeormRunnerLike): TypeormRunnerLike | undefined {
  if (memberOf(transaction, 'isTransactionActive') !== undefined) return transaction as TypeormRunnerLike
  return (transaction as TypeormManagerLike).queryRunner
}

async function run(runner: TypeormRunnerLike, text: string, params: readonly unknown[]): Promise<readonly unknown[]> {
  return (await runner.query(text, [...params], true)).records ?? []
}
