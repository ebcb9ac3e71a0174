import { existsSync, readdirSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Storage, WaybillError } from 'waybill'
import { pgliteStorage, postgresStorage } from 'waybill/postgres'
import { maskUrl } from './secrets.ts'

/** The process's environment. */
export type Environment = Readonly<Record<string, string | undefined>>

/** Where the database is. */
export type DatabaseSetting = { readonly kind: 'postgres'; readonly url: string } | { readonly kind: 'pglite'; readonly folder: string }

const DATABASE_ALLOWED = 'postgres://user@host:5432/name, or a PGlite folder as ./folder, pglite:folder or file:///folder'

/**
 * Reads `DATABASE_URL`, or the value of `flag` that overrides it.
 * @throws WaybillError `INVALID_SETTING` naming the setting; a password in it is not shown
 */
export function databaseSetting(env: Environment, override?: string, flag = '--database'): DatabaseSetting {
  const where = override === undefined ? 'DATABASE_URL' : flag
  const value = override ?? env.DATABASE_URL
  const wrong = (message: string): WaybillError =>
    new WaybillError('INVALID_SETTING', `${where} ${message}`, {
      got: value === undefined ? undefined : maskUrl(value),
      allowed: DATABASE_ALLOWED,
    })
  if (value === undefined || value.trim() === '') throw wrong('is not set')
  if (/^postgres(ql)?:\/\//i.test(value)) {
    if (!URL.canParse(value) || new URL(value).pathname.length < 2) throw wrong('is not a usable URL')
    return { kind: 'postgres', url: value }
  }
  if (/^file:/i.test(value)) {
    try {
      return { kind: 'pglite', folder: value.startsWith('file://') ? fileURLToPath(value) : resolve(value.slice('file:'.length)) }
    } catch {
      throw wrong('is not a usable file URL')
    }
  }
  const path = /^pglite:/i.test(value) ? value.replace(/^pglite:(\/\/)?/i, '') : value
  if (path === '' || path.includes('\0') || /^[a-z][a-z0-9+.-]*:\/\//i.test(path)) throw wrong('names no database that waybill can open')
  if (path === value && !/[\\/.]/.test(path) && !existsSync(path)) throw wrong('names neither a URL nor an existing folder')
  return { kind: 'pglite', folder: resolve(path) }
}

export interface OpenOptions {
  readonly create: boolean
  readonly schema?: string
  readonly prefix?: string
  /** Let the database wake the relay, by a connection of its own: to this URL, or where the database is. */
  readonly listen?: boolean | { readonly url: string }
}

/**
 * Opens the database. `create`: a PGlite folder may be new; otherwise it must be there already.
 * @throws WaybillError `INVALID_SETTING` | `DATABASE_UNREACHABLE` | `DATABASE_IN_USE`
 */
export async function openStorage(setting: DatabaseSetting, { create, listen, ...tables }: OpenOptions): Promise<Storage> {
  // What brings the tables up to date is "waybill migrate", and it says what it did.
  if (setting.kind === 'postgres') return postgresStorage(setting.url, { ...tables, ...(listen === undefined ? {} : { listen }) })
  if (listen !== undefined && listen !== false)
    throw new WaybillError('INVALID_SETTING', 'an embedded database has no other process that could wake this one: --listen is of no use', {
      allowed: 'no --listen, or a PostgreSQL server',
    })
  const { folder } = setting
  const entries = existsSync(folder) ? (statSync(folder).isDirectory() ? readdirSync(folder) : undefined) : []
  if (entries === undefined) throw new WaybillError('INVALID_SETTING', 'the PGlite folder is a file', { got: folder, allowed: 'a folder' })
  const isDatabase = existsSync(join(folder, 'PG_VERSION')) || existsSync(join(folder, 'pgdata', 'PG_VERSION'))
  if (!isDatabase && !create)
    throw new WaybillError('INVALID_SETTING', 'there is no PGlite database in this folder', {
      got: folder,
      allowed: 'a PGlite folder; "waybill migrate" makes one',
    })
  // A mistyped path must not strew a database among somebody's files. The lock may be left from an open that failed.
  if (!isDatabase && entries.some((name) => name !== 'waybill.lock')) {
    throw new WaybillError('INVALID_SETTING', 'the folder holds other files, and no PGlite database', {
      got: folder,
      allowed: 'a PGlite folder, or a new or empty one',
    })
  }
  return pgliteStorage(folder, { ...tables, migrate: false })
}
