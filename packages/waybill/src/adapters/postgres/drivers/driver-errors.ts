import { WaybillError, isWaybillError, messageOf } from '../../../core/errors.ts'
import { isConnectionError } from '../pg-errors.ts'
import { sqlStateOf } from '../statements.ts'

const DEPTH_MAX = 8

// What drivers say of a connection beside the codes of sockets and of PostgreSQL: postgres.js, then Prisma and its adapter.
const CUT_CODES = new Set([
  'CONNECTION_CLOSED',
  'CONNECTION_ENDED',
  'CONNECTION_DESTROYED',
  'CONNECT_TIMEOUT',
  'P1001',
  'P1002',
  'P1008',
  'P1011',
  'P1017',
  'P2024',
])
// TypeORM gives a connection that has failed back at once.
const CUT_NAMES = new Set(['QueryRunnerAlreadyReleasedError'])
// Everything that Prisma says of transactions as such.
const PRISMA_TRANSACTION = 'P2028'
// Kysely, Knex and PGlite, of a transaction that is over.
const OVER_MESSAGES = /^Transaction is already (?:committed|rolled back)$|^Transaction query already complete|^Transaction is closed$/
const CUT_KINDS = new Set(['DatabaseNotReachable', 'ConnectionClosed', 'SocketTimeout', 'TlsConnectionError', 'TooManyConnections'])

/**
 * PostgreSQL's own error from within whatever a driver or an ORM has wrapped around it, so that `code` is the SQLSTATE: the wrapped error itself, or
 * one made of what Prisma keeps of it. A connection that can't be had, or is gone, is `DATABASE_UNREACHABLE`; a transaction that is over is `UNIT_CLOSED`,
 * or `TIMEOUT` where Prisma has ended it. Anything else stays as it is.
 */
export function driverError(error: unknown, driver: string): unknown {
  if (isWaybillError(error)) return error
  const over = overError(error, driver)
  if (over !== undefined) return over
  if (isCut(error))
    return new WaybillError('DATABASE_UNREACHABLE', `can't reach PostgreSQL through ${driver}: ${messageOf(deepest(error))}`, {
      where: driver,
      cause: error,
    })
  return databaseErrorIn(error) ?? error
}

/** A statement in a transaction that has ended, or that never began. */
function overError(error: unknown, driver: string): WaybillError | undefined {
  const message = messageOf(error)
  if (codeOf(error) === PRISMA_TRANSACTION) {
    const said = message.slice(message.lastIndexOf('\n') + 1).trim()
    if (said.includes('Unable to start a transaction'))
      return new WaybillError('DATABASE_UNREACHABLE', 'no connection to PostgreSQL became free', {
        allowed: 'a larger pool or maxWaitMs, or shorter transactions',
        where: driver,
        cause: error,
      })
    if (said.includes('expired transaction'))
      return new WaybillError('TIMEOUT', `Prisma has rolled the transaction back: ${said}`, {
        allowed: 'a larger timeoutMs of prismaDatabase, or shorter transactions',
        where: driver,
        cause: error,
      })
    return new WaybillError('UNIT_CLOSED', `the transaction has ended: ${said}`, { where: driver, cause: error })
  }
  if (!OVER_MESSAGES.test(message)) return undefined
  return new WaybillError('UNIT_CLOSED', 'the transaction of this executor has ended', { where: driver, cause: error })
}

function codeOf(error: unknown): unknown {
  return typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined
}

/** Whether the connection is the trouble. */
export function isCut(error: unknown): boolean {
  for (const at of layersOf(error)) {
    const { code, kind, name } = at as { readonly code?: unknown; readonly kind?: unknown; readonly name?: unknown }
    if (CUT_CODES.has(String(code)) || CUT_KINDS.has(String(kind)) || CUT_NAMES.has(String(name))) return true
    const state = stateOf(at)
    if (isConnectionError(state === undefined ? at : { code: state })) return true
  }
  return false
}

/** PostgreSQL's own error, where there is one in it. */
export function databaseErrorIn(error: unknown): Error | undefined {
  for (const at of layersOf(error)) {
    const state = stateOf(at)
    if (state === undefined) continue
    if (at instanceof Error && sqlStateOf(at) === state) return at
    const { originalMessage } = at as { readonly originalMessage?: unknown }
    return Object.assign(new Error(typeof originalMessage === 'string' ? originalMessage : messageOf(error), { cause: error }), {
      code: state,
    })
  }
  return undefined
}

/**
 * Makes PostgreSQL's error the cause of an error that hides it (Prisma's), for whoever looks through causes for a deadlock; the error stays the one that
 * was thrown.
 */
export function revealed(error: unknown): unknown {
  if (!(error instanceof Error) || error.cause !== undefined || stateOf(error) !== undefined) return error
  const found = databaseErrorIn(error)
  if (found === undefined || !Object.isExtensible(error)) return error
  // Without the way back, or the two would be each other's cause.
  const cause = Object.assign(new Error(found.message), { code: sqlStateOf(found) })
  Object.defineProperty(error, 'cause', { value: cause, configurable: true, writable: true, enumerable: false })
  return error
}

/** SQLSTATE of one layer. Prisma's codes look alike, but no class of PostgreSQL's begins with P and a digit from 1. */
function stateOf(layer: object): string | undefined {
  const { originalCode } = layer as { readonly originalCode?: unknown }
  const state = sqlStateOf(layer) ?? sqlStateOf({ code: originalCode })
  return state === undefined || /^P[1-9]/.test(state) ? undefined : state
}

function deepest(error: unknown): unknown {
  return layersOf(error).findLast((at) => at instanceof Error && at.message !== '') ?? error
}

/** The error and what it wraps, outermost first: `cause` (Drizzle), `driverError` (TypeORM), `meta.driverAdapterError` (Prisma). */
function layersOf(error: unknown): readonly object[] {
  const layers: object[] = []
  for (let at: unknown = error; typeof at === 'object' && at !== null && layers.length < DEPTH_MAX;) {
    layers.push(at)
    const { cause, driverError: inner, meta } = at as { readonly cause?: unknown; readonly driverError?: unknown; readonly meta?: unknown }
    at = inner ?? (meta as { readonly driverAdapterError?: unknown } | undefined)?.driverAdapterError ?? cause
  }
  return layers
}
