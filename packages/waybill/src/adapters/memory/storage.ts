import { type Clock, systemClock } from '../../core/clock.ts'
import { checkInteger } from '../../core/options.ts'
import type { Storage } from '../../core/stores.ts'
import { createMemoryDatabase } from './database.ts'
import { createMemoryDeadLetters } from './dead-letter-store.ts'
import { createMemoryInbox } from './inbox-store.ts'
import { createMemoryOutbox } from './outbox-store.ts'

export interface MemoryStorageOptions {
  /** The stores' own time. @default the machine's */
  readonly clock?: Clock
  /** Most rows that may wait in the outbox, and be remembered in each of the other stores, 1 to 10,000,000. @default 1000000 */
  readonly rowsMax?: number
}

/**
 * A storage that lives as long as the process: for tests, and for events that need not outlive it. Transactions are real (all or nothing, per-key
 * locks, concurrent duplicates wait), but there is no SQL: `sql.query` rejects with `UNSUPPORTED`.
 * Full stores refuse with `QUEUE_FULL`.
 */
export function memoryStorage(options: MemoryStorageOptions = {}): Storage {
  const { clock = systemClock } = options
  const rowsMax = checkInteger(options.rowsMax ?? 1_000_000, 'memoryStorage.rowsMax', 1, 10_000_000)
  const database = createMemoryDatabase()
  return {
    name: 'memory',
    database,
    outbox: createMemoryOutbox(database, clock, rowsMax),
    inbox: createMemoryInbox(database, clock, rowsMax),
    deadLetters: createMemoryDeadLetters(database, clock, rowsMax),
    async migrate() {
      database.assertOpen()
      return []
    },
    async check() {
      database.assertOpen()
    },
    async close() {
      database.close()
    },
  }
}
