import { setTimeout as delay } from 'node:timers/promises'
import type { Storage } from '../core/stores.ts'

/** A runner's way to declare a test: `it` of vitest, `test` of `node:test`, or a function that collects. */
export type ContractTest = (name: string, run: () => Promise<void>) => unknown

/** What a storage under contract can do; the suites skip what it can't. */
export interface StorageTraits {
  /** `database.query` runs SQL, so that business rows and their locks are real. @default true */
  readonly sql?: boolean
  /** Several transactions can be open at once. @default true */
  readonly concurrent?: boolean
}

const WAITS_MAX = 1000
const WAIT_MS = 10

/** Asks again and again, for ten seconds at most: for what time alone brings about (a lease running out). */
export async function until<T>(what: string, ask: () => Promise<T | undefined | false>): Promise<T> {
  for (let waits = 0; waits < WAITS_MAX; waits++) {
    const answer = await ask()
    if (answer !== undefined && answer !== false) return answer
    await delay(WAIT_MS)
  }
  throw new Error(`waited in vain until ${what}`)
}

/** Declares tests that each have a storage of their own, with its tables, closed at their end. */
export function withStorage(
  test: ContractTest,
  make: () => Promise<Storage>,
): (name: string, run: (storage: Storage) => Promise<void>) => void {
  return (name, run) => {
    test(name, async () => {
      const storage = await make()
      try {
        await storage.migrate()
        await run(storage)
      } finally {
        await storage.close()
      }
    })
  }
}

/** A repeatable stream of numbers in [0, 1): mulberry32, by Tommy Ettinger (public domain). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}
