import { WaybillError, isWaybillError, messageOf } from '../../core/errors.ts'
import { sqlStateOf } from './statements.ts'

/** Where a database is, without any secret. */
export interface Place {
  readonly host: string
  readonly port: string
  readonly database: string
  readonly user: string
}

const SOCKET_CODES = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EPIPE',
  'ENOENT',
  'EACCES',
  'ERR_SOCKET_CLOSED',
])
// Connection failures, wrong user or password, no such database, shutting down, starting up, too many connections.
const CONNECTION_STATES = new Set([
  '08000',
  '08001',
  '08003',
  '08004',
  '08006',
  '08007',
  '28P01',
  '28000',
  '3D000',
  '57P01',
  '57P02',
  '57P03',
  '53300',
])
// What the pg client throws without a code.
const CLIENT_MESSAGES =
  /connection terminated|timeout exceeded when trying to connect|connection timeout|not queryable|client was closed|server does not support ssl|client password must be a string|cannot use a pool after/i

/** Whether the connection is the trouble, rather than a statement. */
export function isConnectionError(error: unknown): boolean {
  if (isWaybillError(error, 'DATABASE_UNREACHABLE')) return true
  const state = sqlStateOf(error)
  if (state !== undefined) return CONNECTION_STATES.has(state)
  if (error instanceof AggregateError) return error.errors.length > 0 && error.errors.every(isConnectionError)
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (typeof code === 'string') return SOCKET_CODES.has(code)
  return error instanceof Error && CLIENT_MESSAGES.test(error.message)
}

/** A connection's failure as one clear error; anything else as it is. */
export function explainConnection(error: unknown, place: Place | undefined): unknown {
  if (isWaybillError(error) || !isConnectionError(error)) return error
  return new WaybillError('DATABASE_UNREACHABLE', `can't reach PostgreSQL: ${messageOf(error)}`, {
    ...(place === undefined ? {} : { got: placeText(place) }),
    allowed: 'host, port, user, password and database of a running server',
    where: 'DATABASE_URL',
    cause: error,
  })
}

/** `host:port/database`. */
export function placeText({ host, port, database, user }: Place): string {
  return `host ${host}, port ${port}, database ${database}, user ${user}`
}

/**
 * What a URL points to.
 * @throws WaybillError `DATABASE_UNREACHABLE`: without a cause, since the original error repeats the URL and its password
 */
export function placeOf(url: string): Place {
  const parsed = URL.canParse(url) ? new URL(url) : undefined
  if (parsed === undefined || !['postgres:', 'postgresql:'].includes(parsed.protocol) || parsed.pathname.length < 2) {
    throw new WaybillError('DATABASE_UNREACHABLE', 'the database URL is not usable', {
      got: parsed === undefined ? 'no URL' : `a URL of ${parsed.protocol}//${parsed.host}${parsed.pathname}`,
      allowed: 'postgres://user:password@host:port/database',
      where: 'DATABASE_URL',
    })
  }
  return {
    host: parsed.hostname || (parsed.searchParams.get('host') ?? 'localhost'),
    port: parsed.port || '5432',
    database: safeDecode(parsed.pathname.slice(1)),
    user: safeDecode(parsed.username) || '(default)',
  }
}

function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    // A lone percent sign: shown as it stands.
    return text
  }
}
