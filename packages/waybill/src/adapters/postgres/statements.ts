import type { SqlExecutor } from '../../core/database.ts'
import { WaybillError } from '../../core/errors.ts'
import type { Tables } from './tables.ts'

/** Runs one statement of ours and gives back its rows. */
export type Run = <Row>(text: string, params?: readonly unknown[]) => Promise<readonly Row[]>

// A statement of ours that meets another one's locks the other way round is simply run again: each is whole in itself.
const TRIES_MAX = 5

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
export function isMissingTable(error: unknown): boolean {
  return ['42P01', '3F000', '42703'].includes(sqlStateOf(error) ?? '')
}

function explained(error: unknown, tables: Tables): unknown {
  return isMissingTable(error) ? notMigrated(tables, error) : error
}

/** Any text made storable: no NUL, no half characters, not endless. */
export function storable(text: string, lengthMax = Number.MAX_SAFE_INTEGER): string {
  return text.slice(0, lengthMax).replaceAll('\u0000', '\ufffd').toWellFormed()
}

/** Row numbers as an array literal: unlike an array, every driver sends a text the same way. */
export function idList(rowIds: readonly string[]): string {
  for (const rowId of rowIds)
    if (!/^\d{1,19}$/.test(rowId))
      throw new WaybillError('INVALID_OPTION', 'not a row number', { got: rowId, allowed: 'digits', where: 'rowIds' })
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
