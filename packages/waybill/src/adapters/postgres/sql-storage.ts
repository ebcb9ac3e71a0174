import type { Database } from '../../core/database.ts'
import { checkInteger } from '../../core/options.ts'
import type { Storage } from '../../core/stores.ts'
import { createDeadLetterStore } from './dead-letter-store.ts'
import { createInboxStore } from './inbox-store.ts'
import { checkMigrated, migrate } from './migrations.ts'
import { createOutboxStore } from './outbox-store.ts'
import { type TableOptions, resolveTables } from './tables.ts'

export interface SqlStorageOptions extends TableOptions {
  /** How long published rows stay, marked, before the sweep may remove them; 0 deletes them at once. Milliseconds. @default 0 */
  readonly keepPublishedMs?: number
}

export interface SqlStorageParts {
  readonly name: string
  readonly database: Database
  readonly soleOwner: boolean
  readonly close: () => Promise<void>
}

/** The stores over a database. @throws WaybillError `INVALID_OPTION` */
export function createSqlStorage({ name, database, soleOwner, close }: SqlStorageParts, options: SqlStorageOptions): Storage {
  const tables = resolveTables(options)
  const keepPublishedMs = checkInteger(options.keepPublishedMs ?? 0, 'keepPublishedMs', 0, Number.MAX_SAFE_INTEGER)
  let closing: Promise<void> | undefined
  return {
    name,
    database,
    outbox: createOutboxStore(database, tables, { keepPublishedMs, soleOwner }),
    inbox: createInboxStore(database, tables),
    deadLetters: createDeadLetterStore(database, tables),
    keepPublishedMs,
    migrate: () => migrate(database, tables, keepPublishedMs > 0),
    check: () => checkMigrated(database, tables),
    close: () => (closing ??= close()),
  }
}
