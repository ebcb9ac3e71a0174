import type { Database, SqlExecutor } from '../../core/database.ts'
import { WaybillError } from '../../core/errors.ts'
import { type Place, explainConnection, isConnectionError, poolExhausted, unanswered } from './pg-errors.ts'
import { type PreparedNames, failedAsPrepared } from './prepared-names.ts'

/** A statement that is kept prepared, in the words of `pg`. */
export interface PgNamedQuery {
  readonly name: string
  readonly text: string
  readonly values: unknown[]
}

/** The part of a checked-out `pg` client that this adapter calls. */
export interface PgClientLike {
  query(text: string | PgNamedQuery, params?: unknown[]): Promise<{ rows: unknown[]; command?: string }>
  /** With an error: destroyed instead of put back. */
  release(error?: Error): void
  on?(event: 'error', listener: (error: Error) => void): unknown
  off?(event: 'error', listener: (error: Error) => void): unknown
}

/** The part of a `pg` pool that this adapter calls. */
export interface PgPoolLike {
  query(text: string, params?: unknown[]): Promise<{ rows: unknown[] }>
  connect(taken: (error: Error | undefined, client: PgClientLike | undefined) => void): void
  end(): Promise<void>
}

/** How long to wait for what, in milliseconds. */
export interface PgLimits {
  /** A connection of the pool. */
  readonly connectMs: number
  /** The answer to a single statement, BEGIN or COMMIT. */
  readonly queryMs: number
  /** The answer to a statement within a transaction; 0: no limit. */
  readonly transactionQueryMs: number
}

interface Pool {
  readonly pool: PgPoolLike
  readonly place: Place | undefined
  readonly poolMax: number | undefined
  readonly limits: PgLimits
  /** Absent: every statement is planned anew. */
  readonly prepared?: PreparedNames
}

// Whoever rolls back has an error to tell, and the server rolls back by itself when the connection goes.
const ROLLBACK_MAX_MS = 5_000
// An own pool gives up by itself, and says whether it was full or could not connect. A foreign one may wait for ever.
const OWN_POOL_MORE_MS = 1_000

/** A database over a pool. Each wait has a limit, but for the caller's own statements in a transaction where none was asked for. */
export function databaseOf(parts: Pool): Database {
  const { place, limits } = parts
  return {
    async query<Row>(text: string, params: readonly unknown[] = []) {
      const session = await openSession(parts)
      try {
        return (await ask(session, limits.queryMs, text, params)) as { rows: Row[] }
      } catch (error) {
        throw explainConnection(error, place)
      } finally {
        session.close()
      }
    },
    async transaction(fn) {
      const session = await openSession(parts)
      try {
        return await transactionOn(session, parts, fn)
      } finally {
        session.close()
      }
    },
  }
}

/** Runs a statement by itself. One that failed only because it was prepared has done nothing, and is run once more as any other. */
async function ask(session: Session, limitMs: number, text: string, params: readonly unknown[]): Promise<{ rows: unknown[] }> {
  try {
    return await session.ask('a statement', limitMs, text, [...params])
  } catch (error) {
    if (!failedAsPrepared(error)) throw error
    return session.ask('a statement', limitMs, text, [...params])
  }
}

/** A checked-out connection. */
interface Session {
  /** Why it can't be used any more, where it can't. */
  readonly broken: Error | undefined
  /**
   * Runs a statement, prepared where it has a name. One that is not answered within `limitMs` breaks the connection; 0: no limit. Where one fails because
   * it was prepared, no later one is.
   */
  ask(what: string, limitMs: number, text: string, params?: unknown[]): Promise<{ rows: unknown[]; command?: string }>
  /** It must not be used again. */
  spoil(error: unknown): void
  /** Back to the pool, or destroyed where it is broken. */
  close(): void
}

async function openSession(parts: Pool): Promise<Session> {
  const { client, lost, release } = await connect(parts)
  let broken: Error | undefined
  const why = (): Error | undefined => (broken ??= lost())
  return {
    get broken() {
      return why()
    },
    async ask(what, limitMs, text, params) {
      try {
        const name = parts.prepared?.of(text)
        const asked = name === undefined ? client.query(text, params) : client.query({ name, text, values: params ?? [] })
        return await within(asked, limitMs, () => unanswered(parts.place, what, limitMs))
      } catch (error) {
        if (failedAsPrepared(error)) parts.prepared?.giveUp()
        if (!isConnectionError(error)) throw error
        // What came first says why: all that the client says later is that it can't be used.
        throw (broken = why() ?? asError(error))
      }
    },
    spoil(error) {
      broken = why() ?? asError(error)
    },
    close: () => release(why()),
  }
}

/** A client that can break at any moment without ending the process. */
interface Guarded {
  readonly client: PgClientLike
  /** The first error that it has emitted. */
  lost(): Error | undefined
  release(error?: Error): void
}

/**
 * A client of the pool, with a listener of its errors from the moment on at which the pool takes off its own. A promise would come too late: where a
 * server that ends the session is heard in the same packet as one that has just begun it, the error comes before anything that awaits.
 */
function checkOut(pool: PgPoolLike): Promise<Guarded> {
  return new Promise((resolve, reject) => {
    pool.connect((error, client) => {
      if (client === undefined) {
        reject(error ?? new Error('the pool gave no client'))
        return
      }
      let first: Error | undefined
      // The next statement tells the caller.
      const onError = (emitted: Error): void => {
        first ??= emitted
      }
      client.on?.('error', onError)
      resolve({
        client,
        lost: () => first,
        release(broken) {
          // In this order: it is never without a listener.
          client.release(broken)
          client.off?.('error', onError)
        },
      })
    })
  })
}

async function connect({ pool, place, poolMax, limits: { connectMs } }: Pool): Promise<Guarded> {
  const connecting = checkOut(pool)
  const exhausted = (): WaybillError => poolExhausted(place, poolMax, connectMs)
  try {
    return await within(connecting, poolMax === undefined ? connectMs : connectMs + OWN_POOL_MORE_MS, () => {
      // One that comes too late must not be lost to the pool.
      connecting.then(
        (late) => late.release(late.lost()),
        () => undefined,
      )
      return exhausted()
    })
  } catch (error) {
    // The pool's words for "none became free"; those for "could not connect" are others.
    if (error instanceof Error && error.message === 'timeout exceeded when trying to connect') throw exhausted()
    throw explainConnection(error, place)
  }
}

async function transactionOn<T>(session: Session, { place, limits }: Pool, fn: (sql: SqlExecutor) => Promise<T>): Promise<T> {
  const scope: Scope = { open: true, failed: undefined }
  try {
    await session.ask('BEGIN', limits.queryMs, 'begin')
  } catch (error) {
    throw explainConnection(error, place)
  }
  try {
    const result = await fn(executorOf(session, place, limits, scope))
    scope.open = false
    await commit(session, place, limits, scope)
    return result
  } catch (error) {
    scope.open = false
    if (session.broken === undefined) await rollback(session, limits)
    // The caller's error as it is, also where another server's connection has failed in it. Ours were explained where they came up.
    throw error
  }
}

interface Scope {
  open: boolean
  /** The first statement that failed. */
  failed: { readonly error: unknown } | undefined
}

function executorOf(session: Session, place: Place | undefined, { transactionQueryMs }: PgLimits, scope: Scope): SqlExecutor {
  return {
    async query<Row>(text: string, params: readonly unknown[] = []) {
      if (!scope.open) throw new WaybillError('UNIT_CLOSED', 'the transaction of this executor has ended')
      try {
        return (await session.ask('a statement', transactionQueryMs, text, [...params])) as { rows: Row[] }
      } catch (error) {
        scope.failed ??= { error }
        throw explainConnection(error, place)
      }
    },
  }
}

async function commit(session: Session, place: Place | undefined, limits: PgLimits, scope: Scope): Promise<void> {
  // Lost before COMMIT was sent: certainly rolled back.
  if (session.broken !== undefined) throw explainLost(session.broken, place)
  let command: string | undefined
  try {
    command = (await session.ask('COMMIT', limits.queryMs, 'commit')).command
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

function explainLost(broken: Error, place: Place | undefined): unknown {
  if (isConnectionError(broken)) return explainConnection(broken, place)
  return new WaybillError('DATABASE_UNREACHABLE', `the connection to PostgreSQL was lost: ${broken.message}`, { cause: broken })
}

/** Undoes. Where that fails, the connection is destroyed, and the server undoes; the caller's own error is what is thrown. */
async function rollback(session: Session, { queryMs }: PgLimits): Promise<void> {
  try {
    await session.ask('ROLLBACK', Math.min(queryMs, ROLLBACK_MAX_MS), 'rollback')
  } catch (error) {
    session.spoil(error)
  }
}

/** What `running` resolves, unless it takes longer than `limitMs`; 0: however long it takes. */
async function within<T>(running: Promise<T>, limitMs: number, late: () => Error): Promise<T> {
  if (limitMs === 0) return running
  let timer: NodeJS.Timeout | undefined
  try {
    return await Promise.race([
      running,
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(late()), limitMs)
      }),
    ])
  } finally {
    clearTimeout(timer)
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error('the connection is broken', { cause: error })
}
