import { fullJitterMs } from '../core/backoff.ts'
import type { Clock, Random } from '../core/clock.ts'
import { isWaybillError } from '../core/errors.ts'

/** Waits between attempts to reach the database. */
export const DATABASE_RETRY = Object.freeze({ baseMs: 100, maxMs: 5_000 })

/** Whether asking the database again can't help. */
export const isFatal = (error: unknown): boolean => isWaybillError(error, 'NOT_MIGRATED', 'SCHEMA_TOO_NEW', 'CLOSED', 'UNSUPPORTED')

export interface PersistOptions {
  readonly clock: Clock
  readonly random: Random
  /** Told of each failure; throws what is fatal. */
  readonly failed: (error: unknown) => void
  /** Gives up when it aborts. */
  readonly signal: AbortSignal
}

/** Repeats `run` until it succeeds; gives up, with `undefined`, only when told to. What it writes may wait, but must not be forgotten. */
export async function persist<T>(run: () => Promise<T>, { clock, random, failed, signal }: PersistOptions): Promise<T | undefined> {
  for (let failures = 1; !signal.aborted; failures++) {
    try {
      return await run()
    } catch (error) {
      failed(error)
      await clock.sleep(fullJitterMs(DATABASE_RETRY, failures, random), signal)
    }
  }
  return undefined
}

/** Collects rows to be marked: what comes while a statement is under way goes into the next one. */
export interface Marks {
  /** Resolves when the rows are marked. */
  add(rowIds: readonly string[], startedAt: number): Promise<void>
}

interface Batch {
  readonly rowIds: string[]
  /** When the first of them was sent. */
  startedAt: number
  readonly done: PromiseWithResolvers<void>
}

/** `mark` writes one batch. */
export function createMarks(mark: (rowIds: readonly string[], startedAt: number) => Promise<void>): Marks {
  let next: Batch | undefined
  let flushing = false

  async function flush(): Promise<void> {
    flushing = true
    // Calls that end in the same turn share a statement.
    await new Promise((resolve) => setImmediate(resolve))
    while (next !== undefined) {
      const batch: Batch = next
      next = undefined
      try {
        await mark(batch.rowIds, batch.startedAt)
        batch.done.resolve()
      } catch (error) {
        batch.done.reject(error)
      }
    }
    flushing = false
  }

  return {
    add(rowIds, startedAt) {
      next ??= { rowIds: [], startedAt, done: Promise.withResolvers<void>() }
      next.rowIds.push(...rowIds)
      next.startedAt = Math.min(next.startedAt, startedAt)
      const { promise } = next.done
      if (!flushing) void flush()
      return promise
    },
  }
}
