import type { SqlExecutor } from '../../core/database.ts'
import { WaybillError, type WaybillErrorCode, isWaybillError, messageOf } from '../../core/errors.ts'
import type { Tables } from './tables.ts'

/** Runs one statement of ours and gives back its rows. */
export type Run = <Row>(text: string, params?: readonly unknown[]) => Promise<readonly Row[]>

// A statement of ours that meets another one's locks the other way round is simply run again: each is whole in itself.
const TRIES_MAX = 5

/** A transaction of several statements says so first: each has to see what was committed while one before it waited for a lock. */
export const READ_COMMITTED = 'set transaction isolation level read committed'

/** PostgreSQL's five-character code of an error, where it is one. */
export function sqlStateOf(error: unknown): string | undefined {
  const code = typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined
  return typeof code === 'string' && code !== 'EPIPE' && /^[0-9A-Z]{5}$/.test(code) ? code : undefined
}

/** Runs statements in a transaction of the caller's: never a second time, since a failure has ended it. */
export function joined(sql: SqlExecutor, tables: Tables): Run {
  return async <Row>(text: string, params?: readonly unknown[]) => {
    try {
      return (await sql.query<Row>(text, params)).rows
    } catch (error) {
      throw explained(error, tables)
    }
  }
}

/** Runs statements each in a transaction of its own; deadlocks and serialization failures are retried. */
export function standalone(sql: SqlExecutor, tables: Tables): Run {
  return async <Row>(text: string, params?: readonly unknown[]) => {
    for (let attempt = 1; ; attempt++) {
      try {
        return (await sql.query<Row>(text, params)).rows
      } catch (error) {
        const state = sqlStateOf(error)
        if ((state !== '40P01' && state !== '40001') || attempt === TRIES_MAX) throw explained(error, tables)
      }
    }
  }
}

/** What is thrown where a table of ours is missing. */
export function notMigrated(tables: Tables, cause?: unknown, version?: { readonly got: number; readonly needed: number }): WaybillError {
  return new WaybillError(
    'NOT_MIGRATED',
    version === undefined ? 'Waybill has no tables here: run `waybill migrate`' : "Waybill's tables are old: run `waybill migrate`",
    {
      ...(version === undefined ? {} : { got: version.got, allowed: `version ${version.needed}` }),
      where: `schema "${tables.names.schema}", prefix "${tables.names.prefix}"`,
      ...(cause === undefined ? {} : { cause }),
    },
  )
}

/** Missing table, schema or column. */
function isMissingTable(error: unknown): boolean {
  return ['42P01', '3F000', '42703'].includes(sqlStateOf(error) ?? '')
}

/** What went wrong with a statement of ours, and what to do; anything else, deadlocks among it, as it is. */
export function explained(error: unknown, tables: Tables): unknown {
  if (isWaybillError(error)) return error
  if (isMissingTable(error)) return notMigrated(tables, error)
  const state = sqlStateOf(error) ?? ''
  const remedy = REMEDIES[state] ?? (state.startsWith('53') ? NO_ROOM : undefined)
  if (remedy === undefined) return error
  const { code, what, allowed } = remedy
  return new WaybillError(code, `${what}: ${messageOf(error)}`, {
    allowed,
    where: `schema "${tables.names.schema}", prefix "${tables.names.prefix}"`,
    cause: error,
  })
}

interface Remedy {
  readonly code: WaybillErrorCode
  readonly what: string
  readonly allowed: string
}

// Disk, memory or a limit of the server's. Passes when somebody makes room, so it is waited for like a server that is away.
const NO_ROOM: Remedy = {
  code: 'DATABASE_UNREACHABLE',
  what: 'PostgreSQL has no room for it; nothing was written',
  allowed: 'room on its disk and in its memory',
}

// A single statement is run again without being prepared; the caller's transaction has ended with it.
const UNPREPARED: Remedy = {
  code: 'UNSUPPORTED',
  what: 'this connection does not keep prepared statements, as some poolers do not; from now on none is prepared',
  allowed: 'the transaction once more; and preparedStatements: false for a pooler that gives each transaction another session',
}

const REMEDIES: Readonly<Record<string, Remedy>> = {
  '42501': {
    code: 'UNSUPPORTED',
    what: "this database user lacks a right on Waybill's tables",
    allowed: 'select, insert, update and delete on all of them, usage on the schema and its sequences',
  },
  '25006': {
    code: 'DATABASE_UNREACHABLE',
    what: 'PostgreSQL is read-only here, as a replica is',
    allowed: 'a URL of the primary server, and default_transaction_read_only off',
  },
  '26000': UNPREPARED,
  '42P05': UNPREPARED,
  '57014': {
    code: 'TIMEOUT',
    what: 'a statement was cut off by the server',
    allowed: 'a larger statement_timeout for this database user, or none',
  },
  '55P03': {
    code: 'TIMEOUT',
    what: 'a lock was not to be had in the time that the server allows',
    allowed: 'shorter transactions, or a larger lock_timeout for this database user',
  },
}

/** Any text made storable: no NUL, no half characters, not endless. */
export function storable(text: string, lengthMax = Number.MAX_SAFE_INTEGER): string {
  return text.slice(0, lengthMax).replaceAll('\u0000', '\ufffd').toWellFormed()
}

/** Row numbers as an array literal: unlike an array, every driver sends a text the same way. */
export function idList(rowIds: readonly string[]): string {
  for (const rowId of rowIds)
    if (!/^-?\d{1,19}$/.test(rowId))
      throw new WaybillError('INVALID_OPTION', 'not a row number', { got: rowId, allowed: 'a whole number', where: 'rowIds' })
  return `{${rowIds.join(',')}}`
}

/** Headers from a column; `undefined` where somebody has edited them into something else. */
export function parseHeaders(text: string): Readonly<Record<string, string>> | undefined {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) return undefined
  return Object.values(parsed).every((value) => typeof value === 'string') ? (parsed as Record<string, string>) : undefined
}

/** Bytes as text, without copying them first. */
export function base64Of({ buffer, byteOffset, byteLength }: Uint8Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString('base64')
}
