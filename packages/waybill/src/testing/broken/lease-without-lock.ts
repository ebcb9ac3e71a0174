import type { Storage } from '../../core/stores.ts'
import { appendWithoutLock } from './plain-rows.ts'

/**
 * Broken on purpose: everything as it should be, but the append takes no lock on its key. Right as long as every writer locks the business row first;
 * one that appends first draws its number before it waits, and commits after a higher one.
 */
export function withoutSlotLock(storage: Storage): Storage {
  return { ...storage, outbox: { ...storage.outbox, append: appendWithoutLock } }
}
