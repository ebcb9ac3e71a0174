import { newId } from '../core/ids.ts'
import type { ClaimedRow, OutboxEntry, Storage } from '../core/stores.ts'

export const LEASE_MS = 60_000
export const RELAY = 'relay-a'
export const OTHER = 'relay-b'

export function entry(key: string, more: Partial<OutboxEntry> = {}): OutboxEntry {
  return {
    eventType: 'ledger.Raised',
    message: { id: newId(), topic: 'ledger', key, headers: { event_type: 'ledger.Raised' }, body: new Uint8Array([1, 2, 3]) },
    ...more,
  }
}

export function append(storage: Storage, entries: readonly OutboxEntry[]): Promise<readonly string[]> {
  return storage.database.transaction((sql) => storage.outbox.append(sql, entries))
}

export async function claimAs(storage: Storage, relayId: string): Promise<readonly ClaimedRow[]> {
  await storage.outbox.acquire(relayId, LEASE_MS)
  return storage.outbox.claim(relayId, { limit: 100, busy: [] })
}

export function keysOf(rows: readonly ClaimedRow[]): string[] {
  return rows.map(({ message }) => message.key)
}
