import { type Clock, monotonicOf } from '../core/clock.ts'
import { crashpoint } from '../core/crashpoint.ts'
import type { Observe } from '../core/observe.ts'
import { OUTBOX_SHARDS, type OutboxStore } from '../core/stores.ts'

export interface ShardsOptions {
  readonly store: OutboxStore
  readonly relayId: string
  readonly leaseMs: number
  readonly clock: Clock
  readonly observe: Observe
  readonly beforeTakeOver: () => Promise<void>
  /** Shards of which something is in flight, or about to be. */
  readonly inUse: () => readonly number[]
  /** Told when another relay may have been at work on them since the last renewal. */
  readonly lost: () => void
}

/** Whether what was claimed then may still be sent: the lease under which it was claimed has neither run out nor been lost. */
export type Tenure = () => boolean

/** The shards this relay holds, and when that must be renewed. */
export interface Shards {
  readonly size: number
  /** Of them, those that it gives up as soon as nothing of theirs is in flight. */
  readonly leaving: readonly number[]
  renewInMs(): number
  /**
   * Renews the leases where that is due. True where rows may wait, false where the database knows of none, undefined where it was not asked.
   * Rejects with the database's error, or `beforeTakeOver`'s: then nothing may be claimed.
   */
  renew(): Promise<boolean | undefined>
  /** Of what is claimed from now on. */
  tenure(): Tenure
}

// While others hold shards, one of them may die: looking more often than leases are renewed shortens the silence.
const ACQUIRE_MS = 1_000

export function createShards({ store, relayId, leaseMs, clock, observe, beforeTakeOver, inUse, lost }: ShardsOptions): Shards {
  const monotonic = monotonicOf(clock)
  let held: ReadonlySet<number> = new Set()
  let leaving: readonly number[] = []
  // When the last renewal was asked for, which is before the database has counted from: by both clocks, since the one may be set back, and the other
  // stands still while the machine sleeps.
  let asked = { at: -Infinity, wallAt: -Infinity }
  let renewAfterMs = 0
  let epoch = 0

  const elapsedMs = (): number => {
    const elapsed = Math.max(monotonic() - asked.at, clock.now() - asked.wallAt)
    // A clock that was set back, and there is no other: nothing is known.
    return elapsed < 0 ? Infinity : elapsed
  }
  // Whole milliseconds: a rest of a fraction would be waited for again and again.
  const renewInMs = (): number => Math.max(0, Math.ceil(renewAfterMs - elapsedMs()))
  /** A shard is to be given up, and nothing of it is in flight any more: whoever waits for it need not wait for the next renewal. */
  const canGiveUp = (): boolean => {
    if (leaving.length === 0) return false
    const used = new Set(inUse())
    return leaving.some((shard) => !used.has(shard))
  }

  return {
    get size() {
      return held.size
    },
    get leaving() {
      return leaving
    },
    renewInMs,
    async renew() {
      if (renewInMs() > 0 && !canGiveUp()) return undefined
      const asking = { at: monotonic(), wallAt: clock.now() }
      const used = inUse()
      const answer = await store.acquire(relayId, leaseMs, used)
      crashpoint('relay.afterAcquire')
      const shards = new Set(answer.shards)
      // Had the last lease run out before this one was written, another relay may have been at work in between.
      if (elapsedMs() >= leaseMs || used.some((shard) => !shards.has(shard))) {
        epoch++
        lost()
      }
      // Where it rejects nothing is claimed, and the next look is here again.
      if (answer.shards.some((shard) => !held.has(shard))) await beforeTakeOver()
      const before = held.size
      held = shards
      leaving = answer.leaving
      asked = asking
      renewAfterMs = held.size < OUTBOX_SHARDS ? Math.min(leaseMs / 3, ACQUIRE_MS) : leaseMs / 3
      if (held.size !== before) observe({ type: 'relay.acquired', relayId, shards: held.size })
      return answer.pending
    },
    tenure() {
      const since = epoch
      return () => since === epoch && elapsedMs() < leaseMs
    },
  }
}
