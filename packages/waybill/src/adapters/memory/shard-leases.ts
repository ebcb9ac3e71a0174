import type { Clock } from '../../core/clock.ts'
import { OUTBOX_SHARDS } from '../../core/stores.ts'

interface Lease {
  relayId: string
  until: number
  /** Claimed under it and not settled yet. */
  readonly inFlight: Set<number>
}

/** Who works on which shard, and what was in flight there. */
export interface ShardLeases {
  acquire(relayId: string, leaseMs: number): readonly number[]
  relays(): readonly string[]
  relinquish(relayId: string): void
  holds(relayId: string, shard: number): boolean
  heldBy(relayId: string): ReadonlySet<number>
  claimed(shard: number, rowId: number): void
  settled(shard: number, rowId: number): void
}

/** `suspect` is told of each row that was in flight where a lease ran out and another relay took it. */
export function createShardLeases(clock: Clock, suspect: (rowId: number) => void): ShardLeases {
  const leases = new Map<number, Lease>()
  const relays = new Map<string, number>()

  const holds = (relayId: string, shard: number): boolean => {
    const lease = leases.get(shard)
    return lease !== undefined && lease.relayId === relayId && lease.until > clock.now()
  }

  const heldBy = (relayId: string): Set<number> => new Set([...leases.keys()].filter((shard) => holds(relayId, shard)))

  const shed = (mine: Set<number>, fair: number): void => {
    for (const shard of mine) {
      if (mine.size <= fair) return
      // Where something is in flight the shard stays until that is settled: a later renewal gives it away.
      if (leases.get(shard)!.inFlight.size > 0) continue
      leases.delete(shard)
      mine.delete(shard)
    }
  }

  return {
    acquire(relayId, leaseMs) {
      const now = clock.now()
      for (const [id, until] of relays) if (until <= now) relays.delete(id)
      relays.set(relayId, now + leaseMs)
      const fair = Math.ceil(OUTBOX_SHARDS / relays.size)
      // An expired lease that nobody took is renewed: its rows are still with this relay.
      const mine = new Set([...leases.keys()].filter((shard) => leases.get(shard)!.relayId === relayId))
      shed(mine, fair)
      for (const shard of mine) leases.get(shard)!.until = now + leaseMs
      for (let shard = 0; shard < OUTBOX_SHARDS && mine.size < fair; shard++) {
        const lease = leases.get(shard)
        if (lease !== undefined && (lease.relayId === relayId || lease.until > now)) continue
        for (const rowId of lease?.inFlight ?? []) suspect(rowId)
        leases.set(shard, { relayId, until: now + leaseMs, inFlight: new Set() })
        mine.add(shard)
      }
      return [...mine].toSorted((a, b) => a - b)
    },
    relays: () => [...relays].filter(([, until]) => until > clock.now()).map(([id]) => id),
    relinquish(relayId) {
      relays.delete(relayId)
      for (const [shard, lease] of leases) if (lease.relayId === relayId) leases.delete(shard)
    },
    holds,
    heldBy,
    claimed(shard, rowId) {
      leases.get(shard)?.inFlight.add(rowId)
    },
    settled(shard, rowId) {
      leases.get(shard)?.inFlight.delete(rowId)
    },
  }
}
