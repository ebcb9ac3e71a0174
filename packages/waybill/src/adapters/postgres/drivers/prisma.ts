import type { SqlExecutor } from '../../../core/database.ts'
import { WaybillError } from '../../../core/errors.ts'
import { checkInteger } from '../../../core/options.ts'
import { type DriverDatabase, createDriverDatabase, executorOver } from './driver-database.ts'
import { checkMethods, checkTransaction, memberOf } from './shape.ts'

/** The part of a Prisma client or one of its interactive transactions that runs statements. */
export interface PrismaQueryable {
  $queryRawUnsafe(text: string, ...params: unknown[]): PromiseLike<unknown>
}

/** The part of a Prisma client that {@link prismaDatabase} calls. */
export interface PrismaLike<Transaction> extends PrismaQueryable {
  $transaction<T>(run: (transaction: Transaction) => Promise<T>, options?: { maxWait?: number; timeout?: number }): Promise<T>
}

export interface PrismaDatabaseOptions {
  /** After this Prisma rolls a transaction back; longer than a handler may take. Milliseconds, 1 to 3,600,000. @default 60000 */
  readonly timeoutMs?: number
  /** How long a transaction may wait for a connection. Milliseconds, 1 to 3,600,000. @default 10000 */
  readonly maxWaitMs?: number
}

const NAME = 'Prisma'

/**
 * Joins the interactive transaction of `prisma.$transaction(async (tx) => ...)`.
 * @throws WaybillError `INVALID_OPTION` for a client outside a transaction
 */
export function prismaExecutor(transaction: PrismaQueryable): SqlExecutor {
  const allowed = 'the transaction that prisma.$transaction() gives its callback'
  checkMethods(transaction, ['$queryRawUnsafe'], allowed, 'prismaExecutor')
  // Prisma takes this away from the client that it hands to the callback.
  checkTransaction(memberOf(transaction, '$connect') === undefined, allowed, 'prismaExecutor')
  return executorOver(NAME, (text, params) => run(transaction, text, params))
}

/** A database over a Prisma client of yours (`postgresql`), with `transactionOf` giving the transaction's client. @throws WaybillError `INVALID_OPTION` */
export function prismaDatabase<Transaction extends PrismaQueryable>(
  client: PrismaLike<Transaction>,
  { timeoutMs = 60_000, maxWaitMs = 10_000 }: PrismaDatabaseOptions = {},
): DriverDatabase<Transaction> {
  checkMethods(client, ['$queryRawUnsafe', '$transaction', '$connect'], 'a PrismaClient', 'prismaDatabase')
  const options = {
    timeout: checkInteger(timeoutMs, 'timeoutMs', 1, 3_600_000),
    maxWait: checkInteger(maxWaitMs, 'maxWaitMs', 1, 3_600_000),
  }
  return createDriverDatabase<Transaction>({
    name: NAME,
    query: (text, params) => run(client, text, params),
    queryIn: run,
    begin: (fn) => client.$transaction(fn, options),
  })
}

// A call and nothing else, as of pg_advisory_xact_lock or pg_notify.
const ONE_CALL = /^\s*select\s+[\w.]+\s*\([^;]*\)\s*$/i

async function run(client: PrismaQueryable, text: string, params: readonly unknown[]): Promise<readonly unknown[]> {
  try {
    const rows = await client.$queryRawUnsafe(text, ...params)
    return Array.isArray(rows) ? rows : []
  } catch (error) {
    const type = unreadableType(error)
    if (type === undefined) throw error
    // It has run. What a void function gives back is nothing, and nobody misses it.
    if (type === 'void' && ONE_CALL.test(text)) return []
    throw new WaybillError('UNSUPPORTED', `Prisma can't read a column of the type ${type}`, {
      allowed: 'a cast in the statement, as in column::text',
      where: NAME,
      cause: error,
    })
  }
}

/** Of a result that the database has given and Prisma doesn't take. */
function unreadableType(error: unknown): string | undefined {
  const cause = memberOf(memberOf(memberOf(error, 'meta'), 'driverAdapterError'), 'cause')
  return memberOf(cause, 'kind') === 'UnsupportedNativeDataType' ? String(memberOf(cause, 'type')) : undefined
}
