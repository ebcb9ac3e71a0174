import type { Clock } from '../../core/clock.ts'
import type { InboxStore } from '../../core/stores.ts'
import type { MemoryDatabase, MemoryTransaction } from './database.ts'
import { assertRoom } from './outbox-rows.ts'

const idOf = (handler: string, eventId: string): string => `${handler}\0${eventId}`

/** An inbox in memory. `rowsMax` bounds what is remembered as handled, and the attempts that are counted. */
export function createMemoryInbox(database: MemoryDatabase, clock: Clock, rowsMax: number): InboxStore {
  /** When each was handled, oldest first. */
  const handled = new Map<string, number>()
  const attempts = new Map<string, { readonly count: number; readonly at: number }>()
  /** What a running transaction has recorded: it is handled for that one already. */
  const recording = new WeakMap<MemoryTransaction, Set<string>>()

  async function recordIn(transaction: MemoryTransaction, handler: string, eventIds: readonly string[]): Promise<ReadonlySet<string>> {
    assertRoom(handled.size, eventIds.length, rowsMax, 'the inbox')
    const own = recording.get(transaction) ?? new Set()
    recording.set(transaction, own)
    const fresh = new Set<string>()
    // Sorted, so that two batches which share events wait for each other in one direction only.
    for (const eventId of [...new Set(eventIds)].toSorted()) {
      const id = idOf(handler, eventId)
      await transaction.lock(`inbox:${id}`)
      if (handled.has(id) || own.has(id)) continue
      own.add(id)
      fresh.add(eventId)
    }
    transaction.onCommit(() => {
      for (const eventId of fresh) {
        handled.set(idOf(handler, eventId), clock.now())
        attempts.delete(idOf(handler, eventId))
      }
    })
    return fresh
  }

  return {
    async record(sql, handler, eventIds) {
      database.assertOpen()
      return database.join(sql, (transaction) => recordIn(transaction, handler, eventIds))
    },
    async countAttempt(handler, eventId) {
      database.assertOpen()
      const id = idOf(handler, eventId)
      const count = (attempts.get(id)?.count ?? 0) + 1
      if (count === 1) assertRoom(attempts.size, 1, rowsMax, 'the list of attempts')
      // Deleted first, so that the map stays in the order of the last attempt.
      attempts.delete(id)
      attempts.set(id, { count, at: clock.now() })
      return count
    },
    async sweep(keepMs, limit) {
      database.assertOpen()
      const until = clock.now() - keepMs
      let count = 0
      for (const [id, at] of handled) {
        if (count >= limit || at > until) break
        handled.delete(id)
        count++
      }
      for (const [id, { at }] of attempts) {
        if (count >= limit || at > until) break
        attempts.delete(id)
        count++
      }
      return count
    },
  }
}
