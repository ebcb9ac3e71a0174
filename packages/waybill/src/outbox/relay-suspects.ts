import type { ClaimedRow } from '../core/stores.ts'
import { type Key, keyIdOf } from './relay-plan.ts'
import type { Tenure } from './relay-shards.ts'

/** Suspects of one key and one destination, in order. */
export interface SuspectRun {
  readonly rows: readonly ClaimedRow[]
  readonly mine: Tenure
}

/** Suspects that wait for their turn: one of all of them is sent at a time. */
export interface Suspects {
  /** Rows. */
  readonly size: number
  /** Queues as many as there is room for; gives back how many. */
  add(run: SuspectRun): number
  /** Takes the next one out, with those of its key that wait behind it: they must come back by {@link add}, or be claimed again. */
  next(): { readonly row: ClaimedRow; readonly behind: SuspectRun } | undefined
  has(key: Key): boolean
  keys(): readonly Key[]
  shards(): readonly number[]
  /** Drops those whose lease is gone, and those of `leaving`: nothing of them is in flight, so their next owner need not wait. */
  forget(leaving: readonly number[]): void
  clear(): void
}

/** Holds `max` rows at most, and no more where their bodies exceed `maxBytes`. */
export function createSuspects(max: number, maxBytes: number): Suspects {
  const runs = new Map<string, SuspectRun>()
  // How many runs each key has.
  const ofKey = new Map<string, number>()
  let size = 0
  let bytes = 0

  const count = (run: SuspectRun, by: 1 | -1): void => {
    const keyId = keyIdOf(run.rows[0]!.message)
    const left = (ofKey.get(keyId) ?? 0) + by
    if (left === 0) ofKey.delete(keyId)
    else ofKey.set(keyId, left)
    size += by * run.rows.length
    bytes += by * run.rows.reduce((sum, { message }) => sum + message.body.length, 0)
  }
  const remove = (name: string, run: SuspectRun): void => {
    runs.delete(name)
    count(run, -1)
  }

  return {
    get size() {
      return size
    },
    add({ rows, mine }) {
      const [first] = rows
      const taken = rows.slice(0, Math.max(0, max - size))
      if (first === undefined || taken.length === 0 || (size > 0 && bytes >= maxBytes)) return 0
      // A key may have rows for several destinations.
      const name = `${first.destination}\0${keyIdOf(first.message)}`
      if (runs.has(name)) return 0
      const run = { rows: taken, mine }
      runs.set(name, run)
      count(run, 1)
      return taken.length
    },
    next() {
      const [first] = runs
      if (first === undefined) return undefined
      const [name, run] = first
      remove(name, run)
      return { row: run.rows[0]!, behind: { rows: run.rows.slice(1), mine: run.mine } }
    },
    has: (key) => ofKey.size > 0 && ofKey.has(keyIdOf(key)),
    keys: () => [...runs.values()].map(({ rows: [first] }) => first!.message),
    shards: () => [...new Set([...runs.values()].map(({ rows: [first] }) => first!.shard))],
    forget(leaving) {
      for (const [name, run] of runs) if (!run.mine() || leaving.includes(run.rows[0]!.shard)) remove(name, run)
    },
    clear() {
      runs.clear()
      ofKey.clear()
      size = 0
      bytes = 0
    },
  }
}
