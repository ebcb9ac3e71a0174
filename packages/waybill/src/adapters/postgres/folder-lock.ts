import { join } from 'node:path'
import { WaybillError, messageOf } from '../../core/errors.ts'

/** Holds a folder for one owner. */
export interface FolderLock {
  release(): void
}

const LOCK_FILE = 'waybill.lock'
const SQLITE_BUSY = 5

/**
 * Takes a folder for this owner alone: any other, in this process or another one, is refused until it is released or this process is gone, however it
 * went. The lock is SQLite's on an empty file, since that is a lock of the operating system's on every system and Node brings it along.
 * @throws WaybillError `DATABASE_IN_USE`; `INVALID_FILE` where the folder can't be written
 */
export async function lockFolder(folder: string): Promise<FolderLock> {
  const { DatabaseSync } = await import('node:sqlite')
  let held: InstanceType<typeof DatabaseSync> | undefined
  try {
    held = new DatabaseSync(join(folder, LOCK_FILE))
    held.exec('PRAGMA journal_mode = OFF; BEGIN EXCLUSIVE')
  } catch (error) {
    held?.close()
    if (typeof error === 'object' && error !== null && 'errcode' in error && error.errcode === SQLITE_BUSY) {
      throw new WaybillError('DATABASE_IN_USE', "the database in this folder is open already: two owners would lose each other's rows", {
        got: folder,
        allowed: 'one owner at a time; stop the other, or share one storage within a process',
        cause: error,
      })
    }
    throw new WaybillError('INVALID_FILE', `can't lock the database's folder: ${messageOf(error)}`, {
      got: folder,
      allowed: 'a folder that can be written',
      cause: error,
    })
  }
  const lock = held
  return { release: () => lock.close() }
}
