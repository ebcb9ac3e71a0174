import { WaybillError } from '../../core/errors.ts'
import { checkInteger } from '../../core/options.ts'
import type { Storage } from '../../core/stores.ts'
import { type Place, THE_URL, placeOf } from './pg-errors.ts'
import { type ListenOption, hintsBy } from './outbox-hints.ts'
import { type PgLimits, type PgPoolLike, databaseOf } from './pg-session.ts'
import { createPreparedNames } from './prepared-names.ts'
import { requirePeer } from '../../core/peer.ts'
import { type SqlStorageOptions, createSqlStorage } from './sql-storage.ts'

export type { PgClientLike, PgPoolLike } from './pg-session.ts'

export interface PostgresStorageOptions extends SqlStorageOptions {
  /** Connections at most, where the pool is made here; 2 to 1,000. @default 10 */
  readonly poolMax?: number
  /** How long to wait for a connection: for a new one, and for one of a pool that is all in use. 1 to 3,600,000 milliseconds. @default 10000 */
  readonly connectTimeoutMs?: number
  /**
   * How long a single statement, or the BEGIN or COMMIT of a transaction, may go unanswered before its connection is given up as dead, so that one that
   * was cut without a word holds up nobody for ever. Applies to the relay's and the stores' own work and to single statements of yours. 1 to 3,600,000
   * milliseconds. @default 30000
   */
  readonly queryTimeoutMs?: number
  /** The same for each statement within a transaction; 0 sets no limit, since a business statement may take long. At most 3,600,000 milliseconds. @default 0 */
  readonly transactionQueryTimeoutMs?: number
  /**
   * Lets commits of other processes wake this one's relay at once, by LISTEN and NOTIFY, instead of at its next look; on a connection of its own, beside
   * the pool's. Behind a pooler that shares sessions, give a URL that leads straight to the database. @default false
   */
  readonly listen?: ListenOption
  /**
   * Keeps the statements that run all the time prepared in each session, so that the server plans them once: a claim takes a fraction of the time. Set
   * false behind a pooler that gives each transaction another session and does not know prepared statements (PgBouncer before 1.21, or with
   * `max_prepared_statements = 0`): there the first one of a transaction may fail, after which no more are prepared. @default true
   */
  readonly preparedStatements?: boolean
}

const HOUR_MS = 3_600_000
// A peer that is gone without a word is noticed on an idle connection too, and a firewall in between doesn't forget it.
const KEEP_ALIVE_AFTER_MS = 10_000

/**
 * Storage in PostgreSQL (14 or newer), by a URL or a pool of your own; your own is not closed, and needs an `error` listener of yours. Connects with the
 * first statement. Does not migrate by itself, since several processes share the tables: run `waybill migrate` or call `migrate()`.
 * @throws WaybillError `DATABASE_UNREACHABLE` for a URL that is none; `PEER_MISSING` | `INVALID_OPTION`
 */
export async function postgresStorage(target: string | PgPoolLike, options: PostgresStorageOptions = {}): Promise<Storage> {
  const limits: PgLimits = {
    connectMs: checkInteger(options.connectTimeoutMs ?? 10_000, 'connectTimeoutMs', 1, HOUR_MS),
    queryMs: checkInteger(options.queryTimeoutMs ?? 30_000, 'queryTimeoutMs', 1, HOUR_MS),
    transactionQueryMs: checkInteger(options.transactionQueryTimeoutMs ?? 0, 'transactionQueryTimeoutMs', 0, HOUR_MS),
  }
  const prepared = (options.preparedStatements ?? true) ? { prepared: createPreparedNames() } : {}
  if (typeof target !== 'string') {
    if (!isPoolLike(target))
      throw new WaybillError('INVALID_OPTION', 'this is no PostgreSQL database', {
        got: typeof target,
        allowed: 'a URL or a pool of the package "pg"',
        where: 'postgresStorage',
      })
    const database = databaseOf({ pool: target, place: undefined, poolMax: undefined, limits, ...prepared })
    const hints = hintsBy(options.listen, undefined, database)
    return createSqlStorage({ name: 'postgres', database, soleOwner: false, close: async () => {}, hints }, options)
  }
  const place = placeOf(target)
  const poolMax = checkInteger(options.poolMax ?? 10, 'poolMax', 2, 1000)
  const pool = await openPool(target, place, poolMax, limits.connectMs)
  const database = databaseOf({ pool, place, poolMax, limits, ...prepared })
  const hints = hintsBy(options.listen, target, database)
  return createSqlStorage({ name: 'postgres', database, soleOwner: false, close: () => pool.end(), hints }, options)
}

async function openPool(url: string, place: Place, max: number, connectionTimeoutMillis: number): Promise<PgPoolLike> {
  const { default: pg } = await requirePeer('pg', () => import('pg'))
  let pool: InstanceType<typeof pg.Pool>
  try {
    pool = new pg.Pool({
      connectionString: url,
      max,
      connectionTimeoutMillis,
      keepAlive: true,
      keepAliveInitialDelayMillis: KEEP_ALIVE_AFTER_MS,
      application_name: 'waybill',
    })
  } catch {
    // No cause: the parser's error repeats the URL with its password.
    throw new WaybillError('DATABASE_UNREACHABLE', `${THE_URL} is not usable`, {
      got: `${place.host}:${place.port}`,
      allowed: 'postgres://user:password@host:port/database',
      where: THE_URL,
    })
  }
  // An idle connection that breaks is replaced by the pool; without a listener it would end the process.
  pool.on('error', () => {})
  return pool
}

function isPoolLike(value: unknown): value is PgPoolLike {
  return (
    typeof value === 'object' &&
    value !== null &&
    ['query', 'connect', 'end'].every((name) => typeof (value as Record<string, unknown>)[name] === 'function')
  )
}
