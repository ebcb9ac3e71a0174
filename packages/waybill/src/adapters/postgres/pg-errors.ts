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
  'EPROTO',
  'ENOENT',
  'EACCES',
  'ERR_SOCKET_CLOSED',
])
// A certificate that can't be trusted, or no TLS at the other end.
const TLS_CODES = /^(?:ERR_TLS|ERR_SSL|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/
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
  '57P04',
  '53300',
])
// The server ended a session that was there. What to do about it is not a matter of the URL.
const ENDED_STATES: Readonly<Record<string, string>> = {
  '25P03': 'a transaction that sends its statements without such a pause, or a larger idle_in_transaction_session_timeout',
  '25P04': 'a shorter transaction, or a larger transaction_timeout',
  '57P05': 'a larger idle_session_timeout; the next statement gets a new session',
}
// What the pg client throws without a code.
const CLIENT_MESSAGES =
  /connection terminated|timeout exceeded when trying to connect|connection timeout|not queryable|client was closed|server does not support ssl|error establishing an ssl connection|client password must be a string|cannot use a pool after/i

/** Whether the connection is the trouble, rather than a statement. */
export function isConnectionError(error: unknown): boolean {
  // One of ours that says why is what its cause is: a full disk keeps nobody from rolling back.
  if (isWaybillError(error, 'DATABASE_UNREACHABLE')) return error.cause === undefined || isConnectionError(error.cause)
  const state = sqlStateOf(error)
  if (state !== undefined) return CONNECTION_STATES.has(state) || Object.hasOwn(ENDED_STATES, state)
  if (error instanceof AggregateError) return error.errors.length > 0 && error.errors.every(isConnectionError)
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (typeof code === 'string') return SOCKET_CODES.has(code) || TLS_CODES.test(code)
  return error instanceof Error && CLIENT_MESSAGES.test(error.message)
}

/** What is wrong in an address, by whatever name it was given: this file does not know of environments and options. */
export const THE_URL = 'the database URL'

/** A connection's failure as one clear error; anything else as it is. */
export function explainConnection(error: unknown, place: Place | undefined, where = THE_URL): unknown {
  if (isWaybillError(error) || !isConnectionError(error)) return error
  const got = place === undefined ? {} : { got: placeText(place) }
  const remedy = ENDED_STATES[sqlStateOf(error) ?? '']
  if (remedy !== undefined)
    return new WaybillError('DATABASE_UNREACHABLE', `PostgreSQL ended the session: ${messageOf(error)}`, {
      ...got,
      allowed: remedy,
      cause: error,
    })
  return new WaybillError('DATABASE_UNREACHABLE', `can't reach PostgreSQL: ${messageOf(error)}`, {
    ...got,
    allowed: 'host, port, user, password and database of a running server',
    where,
    cause: error,
  })
}

/** No connection of the pool became free in time. */
export function poolExhausted(place: Place | undefined, poolMax: number | undefined, waitedMs: number): WaybillError {
  return new WaybillError(
    'DATABASE_UNREACHABLE',
    `no connection to PostgreSQL became free: ${poolMax === undefined ? 'all of the pool' : `all ${poolMax}`} are in use`,
    {
      got: `${waitedMs} ms of waiting${place === undefined ? '' : ` for ${placeText(place)}`}`,
      allowed: 'a larger poolMax or connectTimeoutMs, or shorter transactions',
      where: 'postgresStorage',
    },
  )
}

/** Nothing came back: the connection may be dead without knowing it, so whoever throws this destroys it. */
export function unanswered(place: Place | undefined, what: string, limitMs: number): WaybillError {
  return new WaybillError('DATABASE_UNREACHABLE', `PostgreSQL did not answer ${what} in time; it may or may not have happened`, {
    got: `${limitMs} ms of silence${place === undefined ? '' : ` from ${placeText(place)}`}`,
    allowed: 'an answer in time, or a larger limit',
    where: 'queryTimeoutMs',
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
    throw new WaybillError('DATABASE_UNREACHABLE', `${THE_URL} is not usable`, {
      got: parsed === undefined ? 'no URL' : `a URL of ${parsed.protocol}//${parsed.host}${parsed.pathname}`,
      allowed: 'postgres://user:password@host:port/database',
      where: THE_URL,
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
