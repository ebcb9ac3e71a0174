import type { Database, SqlExecutor } from '../../core/database.ts'
import { WaybillError } from '../../core/errors.ts'
import { checkInteger } from '../../core/options.ts'
import type { Storage } from '../../core/stores.ts'
import { type Place, explainConnection, isConnectionError, placeOf } from './pg-errors.ts'
import { requirePeer } from './require-peer.ts'
import { type SqlStorageOptions, createSqlStorage } from './sql-storage.ts'

/** The part of a checked-out `pg` client that this adapter calls. */
export interface PgClientLike {
  query(text: string, params?: unknown[]): Promise<{ rows: unknown[]; command?: string }>
  /** With an error: destroyed instead of put back. */
  release(error?: Error): void
  on?(event: 'error', listener: (error: Error) => void): unknown
  off?(event: 'error', listener: (error: Error) => void): unknown
}

/** The part of a `pg` pool that this adapter calls. */
export interface PgPoolLike {
  query(text: string, params?: unknown[]): Promise<{ rows: unknown[] }>
  connect(): Promise<PgClientLike>
  end(): Promise<void>
}

export interface PostgresStorageOptions extends SqlStorageOptions {
  /** Connections at most, where the pool is made here; 2 to 1,000. @default 10 */
  readonly poolMax?: number
  /** How long a connection may take, where the pool is made here; milliseconds. @default 10000 */
  readonly connectTimeoutMs?: number
}

/**
 * Storage in PostgreSQL (14 or newer), by a URL or a pool of your own; your own is not closed, and needs an `error` listener of yours. Connects with the
 * first statement. Does not migrate by itself, since several processes share the tables: run `waybill migrate` or call `migrate()`.
 * @throws WaybillError `DATABASE_UNREACHABLE` for a URL that is none; `PEER_MISSING` | `INVALID_OPTION`
 */
export async function postgresStorage(target: string | PgPoolLike, options: PostgresStorageOptions = {}): Promise<Storage> {
  if (typeof target !== 'string') {
    if (!isPoolLike(target))
      throw new WaybillError('INVALID_OPTION', 'this is no PostgreSQL database', {
        got: typeof target,
        allowed: 'a URL or a pool of the package "pg"',
        where: 'postgresStorage',
      })
    return createSqlStorage({ name: 'postgres', database: databaseOf(target, undefined), soleOwner: false, close: async () => {} }, options)
  }
  const place = placeOf(target)
  const pool = await openPool(target, place, options)
  return createSqlStorage({ name: 'postgres', database: databaseOf(pool, place), soleOwner: false, close: () => pool.end() }, options)
}

async function openPool(
  url: string,
  place: Place,
  { poolMax = 10, connectTimeoutMs = 10_000 }: PostgresStorageOptions,
): Promise<PgPoolLike> {
  const max = checkInteger(poolMax, 'poolMax', 2, 1000)
  const connectionTimeoutMillis = checkInteger(connectTimeoutMs, 'connectTimeoutMs', 1, 3_600_000)
  const { default: pg } = await requirePeer('pg', () => import('pg'))
  let pool: InstanceType<typeof pg.Pool>
  try {
    pool = new pg.Pool({ connectionString: url, max, connectionTimeoutMillis, application_name: 'waybill' })
  } catch {
    // No cause: the parser's error repeats the URL with its password.
    throw new WaybillError('DATABASE_UNREACHABLE', 'the database URL is not usable', {
      got: `${place.host}:${place.port}`,
      allowed: 'postgres://user:password@host:port/database',
      where: 'DATABASE_URL',
    })
  }
  // An idle connection that breaks is replaced by the pool; without a listener it would end the process.
  pool.on('error', () => {})
  return pool
}

function databaseOf(pool: PgPoolLike, place: Place | undefined): Database {
  return {
    async query<Row>(text: string, params: readonly unknown[] = []) {
      try {
        return (await pool.query(text, [...params])) as { rows: Row[] }
      } catch (error) {
        throw explainConnection(error, place)
      }
    },
    async transaction(fn) {
      const client = await connect(pool, place)
      return await transactionOn(client, place, fn)
    },
  }
}

async function connect(pool: PgPoolLike, place: Place | undefined): Promise<PgClientLike> {
  try {
    return await pool.connect()
  } catch (error) {
    throw explainConnection(error, place)
  }
}

async function transactionOn<T>(client: PgClientLike, place: Place | undefined, fn: (sql: SqlExecutor) => Promise<T>): Promise<T> {
  let broken: Error | undefined
  // A checked-out connection that breaks emits an error; without a listener it would end the process. The next statement tells the caller.
  const onError = (error: Error) => {
    broken ??= error
  }
  client.on?.('error', onError)
  const scope: Scope = { open: true, failed: undefined }
  try {
    await client.query('begin')
    const result = await fn(executorOf(client, place, scope))
    scope.open = false
    await commit(client, place, scope)
    return result
  } catch (error) {
    scope.open = false
    broken ??=
      isConnectionError(error) || (error instanceof WaybillError && error.code === 'UNKNOWN_OUTCOME')
        ? asError(error)
        : await rollback(client)
    throw explainConnection(error, place)
  } finally {
    client.off?.('error', onError)
    client.release(broken)
  }
}

interface Scope {
  open: boolean
  /** The first statement that failed. */
  failed: { readonly error: unknown } | undefined
}

function executorOf(client: PgClientLike, place: Place | undefined, scope: Scope): SqlExecutor {
  return {
    async query<Row>(text: string, params: readonly unknown[] = []) {
      if (!scope.open) throw new WaybillError('UNIT_CLOSED', 'the transaction of this executor has ended')
      try {
        return (await client.query(text, [...params])) as { rows: Row[] }
      } catch (error) {
        scope.failed ??= { error }
        throw explainConnection(error, place)
      }
    },
  }
}

async function commit(client: PgClientLike, place: Place | undefined, scope: Scope): Promise<void> {
  let command: string | undefined
  try {
    command = (await client.query('commit')).command
  } catch (error) {
    if (!isConnectionError(error)) throw error
    throw new WaybillError('UNKNOWN_OUTCOME', 'the connection was cut after COMMIT was sent: it may or may not have happened', {
      ...(place === undefined ? {} : { where: `${place.host}:${place.port}/${place.database}` }),
      cause: error,
    })
  }
  // A transaction in which a statement failed is ended by COMMIT as if nothing were wrong, and rolled back.
  if (command !== 'ROLLBACK') return
  if (scope.failed !== undefined) throw asError(scope.failed.error)
  throw new WaybillError('UNIT_CLOSED', 'the transaction was rolled back by a statement of its own')
}

/** Undoes; gives back why the connection can't be used again, if so. The caller's own error is what is thrown. */
async function rollback(client: PgClientLike): Promise<Error | undefined> {
  try {
    await client.query('rollback')
    return undefined
  } catch (error) {
    return asError(error)
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error('the connection is broken', { cause: error })
}

function isPoolLike(value: unknown): value is PgPoolLike {
  return (
    typeof value === 'object' &&
    value !== null &&
    ['query', 'connect', 'end'].every((name) => typeof (value as Record<string, unknown>)[name] === 'function')
  )
}
