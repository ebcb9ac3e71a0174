import { AsyncLocalStorage } from 'node:async_hooks'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Database, SqlExecutor } from '../../core/database.ts'
import { WaybillError, messageOf } from '../../core/errors.ts'
import type { Storage } from '../../core/stores.ts'
import { type FolderLock, lockFolder } from './folder-lock.ts'
import { preparedPglite } from './pglite-prepared.ts'
import { requirePeer } from '../../core/peer.ts'
import { type SqlStorageOptions, createSqlStorage } from './sql-storage.ts'

/** The part of a PGlite that this adapter calls. */
export interface PGliteLike {
  query(text: string, params?: unknown[]): Promise<{ rows: unknown[] }>
  transaction<T>(fn: (tx: { query(text: string, params?: unknown[]): Promise<{ rows: unknown[] }> }) => Promise<T>): Promise<T>
  close(): Promise<void>
}

export interface PgliteStorageOptions extends SqlStorageOptions {
  /** Bring the tables to this version at once: an embedded database has one owner, so there is nobody to wait for. @default true */
  readonly migrate?: boolean
}

const MEMORY = 'memory://'

/**
 * Storage in PGlite: PostgreSQL within this process, in a folder, or in memory with `memory://`. A folder is made where it is missing and locked
 * against every other owner; the lock goes with the process, however it ends. A PGlite of your own is used as it is, and neither locked nor closed.
 *
 * One session: a transaction holds up every other statement, so keep transactions short. Survives a killed process; not a loss of power, since
 * PGlite doesn't wait for the disk.
 * @throws WaybillError `DATABASE_IN_USE` | `PEER_MISSING` | `INVALID_FILE` | `INVALID_OPTION` | `SCHEMA_TOO_NEW`
 */
export async function pgliteStorage(target: string | PGliteLike, options: PgliteStorageOptions = {}): Promise<Storage> {
  if (typeof target !== 'string' || target === '') return fromInstance(target, options)
  const lock = target === MEMORY ? undefined : await lockTarget(target)
  let pglite: PGliteLike | undefined
  try {
    pglite = await openPglite(lock?.dataFolder ?? MEMORY)
    const opened = pglite
    const close = async () => {
      try {
        await opened.close()
      } finally {
        lock?.release()
      }
    }
    return await migrated(createSqlStorage({ name: 'pglite', soleOwner: true, ...sessionOf(opened, close) }, options), options)
  } catch (error) {
    await pglite?.close()
    lock?.release()
    throw error
  }
}

function fromInstance(target: unknown, options: PgliteStorageOptions): Promise<Storage> {
  if (!isPGliteLike(target))
    throw new WaybillError('INVALID_OPTION', 'this is no place for a PGlite database', {
      got: target,
      allowed: `a folder, "${MEMORY}" or a PGlite`,
      where: 'pgliteStorage',
    })
  // Somebody else owns it, and may share it: a lease of an unknown owner has to run out.
  return migrated(createSqlStorage({ name: 'pglite', soleOwner: false, ...sessionOf(target, async () => {}) }, options), options)
}

async function migrated(storage: Storage, { migrate = true }: PgliteStorageOptions): Promise<Storage> {
  if (migrate) await storage.migrate()
  return storage
}

async function lockTarget(target: string): Promise<FolderLock & { readonly dataFolder: string }> {
  if (/^[a-z][a-z0-9+-]+:\/\//i.test(target) && !target.startsWith('file://')) {
    throw new WaybillError('INVALID_OPTION', 'this is no place for a PGlite database', {
      got: target,
      allowed: `a folder or "${MEMORY}"`,
      where: 'pgliteStorage',
    })
  }
  const folder = target.startsWith('file://') ? fileURLToPath(target) : resolve(target)
  try {
    await mkdir(folder, { recursive: true })
  } catch (error) {
    throw new WaybillError('INVALID_FILE', `can't make the database's folder: ${messageOf(error)}`, {
      got: folder,
      allowed: 'a folder that can be written',
      cause: error,
    })
  }
  const lock = await lockFolder(folder)
  // A folder that PGlite itself has made is taken as it is. A new one needs a folder of its own within: initdb wants it empty.
  return { ...lock, dataFolder: existsSync(join(folder, 'PG_VERSION')) ? folder : join(folder, 'pgdata') }
}

async function openPglite(dataFolder: string): Promise<PGliteLike> {
  const { PGlite, protocol } = await requirePeer('@electric-sql/pglite', () => import('@electric-sql/pglite'))
  try {
    return preparedPglite(await PGlite.create(dataFolder), protocol)
  } catch (error) {
    throw new WaybillError('INVALID_FILE', `PGlite can't open this database: ${messageOf(error)}`, {
      got: dataFolder,
      allowed: 'an empty folder, or one that this version of PGlite has made',
      cause: error,
    })
  }
}

/** The one session, guarded: what would wait for its own transaction is refused. */
function sessionOf(pglite: PGliteLike, end: () => Promise<void>): { readonly database: Database; readonly close: () => Promise<void> } {
  const within = new AsyncLocalStorage<{ open: boolean }>()
  let closed = false

  function check(): void {
    if (closed) throw new WaybillError('CLOSED', 'this database was closed')
    // The scope outlives its transaction in whatever was started within it: only an open one is waited for in vain.
    if (within.getStore()?.open === true) {
      throw new WaybillError('SESSION_BUSY', 'this statement would wait for the transaction that it is called in', {
        allowed: 'the executor that the transaction was given (`unit.sql`, `context.sql`)',
      })
    }
  }

  const database: Database = {
    async query<Row>(text: string, params: readonly unknown[] = []) {
      check()
      return (await pglite.query(text, [...params])) as { rows: Row[] }
    },
    async transaction(fn) {
      check()
      const scope = { open: true }
      try {
        return await pglite.transaction((tx) => within.run(scope, () => fn(executorOf(tx, scope))))
      } finally {
        scope.open = false
      }
    },
  }
  return {
    database,
    close: () => {
      closed = true
      return end()
    },
  }
}

function executorOf(
  tx: { query(text: string, params?: unknown[]): Promise<{ rows: unknown[] }> },
  scope: { readonly open: boolean },
): SqlExecutor {
  return {
    async query<Row>(text: string, params: readonly unknown[] = []) {
      if (!scope.open) throw new WaybillError('UNIT_CLOSED', 'the transaction of this executor has ended')
      return (await tx.query(text, [...params])) as { rows: Row[] }
    },
  }
}

function isPGliteLike(value: unknown): value is PGliteLike {
  return (
    typeof value === 'object' &&
    value !== null &&
    ['query', 'transaction', 'close'].every((name) => typeof (value as Record<string, unknown>)[name] === 'function')
  )
}
