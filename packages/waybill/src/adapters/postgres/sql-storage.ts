import type { Database } from '../../core/database.ts'
import { checkInteger } from '../../core/options.ts'
import type { OutboxHints, Storage } from '../../core/stores.ts'
import { createDeadLetterStore } from './dead-letter-store.ts'
import { createInboxStore } from './inbox-store.ts'
import { checkMigrated, migrate } from './migrations.ts'
import { createOutboxStore } from './outbox-store.ts'
import { checkComplete, checkServer, checkedMigration } from './server-check.ts'
import { type TableOptions, type Tables, resolveTables } from './tables.ts'

export interface SqlStorageOptions extends TableOptions {
  /** How long published rows stay, marked, before the sweep may remove them; 0 deletes them at once. Milliseconds. @default 0 */
  readonly keepPublishedMs?: number
}

export interface SqlStorageParts {
  readonly name: string
  readonly database: Database
  readonly soleOwner: boolean
  readonly close: () => Promise<void>
  /** Wake-ups from the database, where they are wanted. */
  readonly hints?: ((tables: Tables) => OutboxHints) | undefined
}

/** The stores over a database. @throws WaybillError `INVALID_OPTION` */
export function createSqlStorage({ name, database, soleOwner, close, hints }: SqlStorageParts, options: SqlStorageOptions): Storage {
  const tables = resolveTables(options)
  const keepPublishedMs = checkInteger(options.keepPublishedMs ?? 0, 'keepPublishedMs', 0, Number.MAX_SAFE_INTEGER)
  let closing: Promise<void> | undefined
  return {
    name,
    database,
    outbox: {
      ...createOutboxStore(database, tables, { keepPublishedMs, soleOwner }),
      ...(hints === undefined ? {} : { hints: hints(tables) }),
    },
    inbox: createInboxStore(database, tables),
    deadLetters: createDeadLetterStore(database, tables),
    keepPublishedMs,
    migrate: () => checkedMigration(database, tables, () => migrate(database, tables)),
    async check() {
      await checkServer(database)
      await checkMigrated(database, tables)
      await checkComplete(database, tables)
    },
    close: () => (closing ??= close()),
  }
}
