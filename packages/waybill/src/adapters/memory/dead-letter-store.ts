import type { Clock } from '../../core/clock.ts'
import { checkInteger } from '../../core/options.ts'
import type { DeadLetter, DeadLetterStore } from '../../core/stores.ts'
import type { MemoryDatabase } from './database.ts'
import { assertRoom, keyIdOf } from './outbox-rows.ts'

/** Dead letters in memory, at most `rowsMax`. */
export function createMemoryDeadLetters(database: MemoryDatabase, clock: Clock, rowsMax: number): DeadLetterStore {
  /** By handler, then by message id; both in the order in which they came. */
  const byHandler = new Map<string, Map<string, DeadLetter & { readonly parkedAt: Date }>>()
  let size = 0

  return {
    async park(letters) {
      database.assertOpen()
      const isNew = (letter: DeadLetter): boolean => byHandler.get(letter.handler)?.has(letter.message.id) !== true
      assertRoom(size, letters.filter(isNew).length, rowsMax, 'the dead-letter store')
      for (const letter of letters) {
        if (!isNew(letter)) continue
        const parked = byHandler.get(letter.handler) ?? new Map()
        byHandler.set(letter.handler, parked)
        parked.set(letter.message.id, { ...letter, parkedAt: new Date(clock.now()) })
        size++
      }
    },
    async parkedKeys(handler) {
      database.assertOpen()
      const keys = new Map(
        [...(byHandler.get(handler)?.values() ?? [])].map(({ message }) => [keyIdOf(message), { topic: message.topic, key: message.key }]),
      )
      return [...keys.values()]
    },
    async list({ handler, limit = 100 }) {
      database.assertOpen()
      checkInteger(limit, 'limit', 1, 10_000)
      const handlers = handler === undefined ? [...byHandler.values()] : [byHandler.get(handler) ?? new Map<string, never>()]
      // The sort is stable: letters of one moment keep the order in which they came.
      const letters = handlers.flatMap((parked) => [...parked.values()]).toSorted((a, b) => a.parkedAt.getTime() - b.parkedAt.getTime())
      return letters.slice(0, limit)
    },
    async count() {
      database.assertOpen()
      return size
    },
  }
}
