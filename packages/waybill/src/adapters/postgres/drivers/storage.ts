import type { Database } from '../../../core/database.ts'
import type { Storage } from '../../../core/stores.ts'
import { type ListenOption, hintsBy } from '../outbox-hints.ts'
import { type SqlStorageOptions, createSqlStorage } from '../sql-storage.ts'
import { checkMethods } from './shape.ts'

export interface DatabaseStorageOptions extends SqlStorageOptions {
  /** Ends the database's connections, when the storage is closed. @default nothing: whoever has made the client closes it */
  readonly close?: () => Promise<void>
  /**
   * Lets commits of other processes wake this one's relay at once, by LISTEN and NOTIFY; on a connection of its own, for which it needs a URL and the package
   * "pg". @default false
   */
  readonly listen?: Exclude<ListenOption, true>
}

/**
 * Storage in PostgreSQL (14 or newer) through any {@link Database}: that of a driver or an ORM, or one of your own. Does not migrate by itself: run
 * `waybill migrate` or call `migrate()`.
 * @throws WaybillError `INVALID_OPTION`
 */
export function databaseStorage(database: Database, options: DatabaseStorageOptions = {}): Storage {
  checkMethods(
    database,
    ['query', 'transaction'],
    'a Database: pgDatabase(pool), kyselyDatabase(db), drizzleDatabase(db), prismaDatabase(client) ...',
    'databaseStorage',
  )
  const { close = async () => {} } = options
  return createSqlStorage(
    { name: 'postgres', database, soleOwner: false, close, hints: hintsBy(options.listen, undefined, database) },
    options,
  )
}
