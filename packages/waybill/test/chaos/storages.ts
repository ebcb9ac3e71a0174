import { postgresStorage } from '../../src/adapters/postgres/pg.ts'
import type { Storage } from '../../src/core/stores.ts'
import { withCursorById } from '../../src/testing/broken/cursor-by-id.ts'
import { withOrderByTransaction } from '../../src/testing/broken/order-by-transaction.ts'
import { withSkipLocked } from '../../src/testing/broken/skip-locked.ts'

/** Outboxes that lose or reorder, to show that this ledger notices. */
export const BROKEN_STORES = {
  'cursor-by-id': withCursorById,
  'skip-locked': withSkipLocked,
  'order-by-transaction': withOrderByTransaction,
} as const satisfies Record<string, (storage: Storage) => Storage>
export type BrokenStore = keyof typeof BROKEN_STORES

export interface OpenOptions {
  readonly url: string
  /** By this name the server knows its sessions. */
  readonly name: string
  readonly poolMax: number
  readonly broken?: BrokenStore
  /** After that a statement that has no answer fails. */
  readonly queryTimeoutMs?: number
}

/** Storage whose sessions have a name, so that a fault can choose among them. */
export async function openStorage({ url, name, poolMax, broken, queryTimeoutMs }: OpenOptions): Promise<Storage> {
  const named = new URL(url)
  named.searchParams.set('application_name', name)
  const storage = await postgresStorage(named.href, { poolMax, ...(queryTimeoutMs === undefined ? {} : { queryTimeoutMs }) })
  return broken === undefined ? storage : BROKEN_STORES[broken](storage)
}
