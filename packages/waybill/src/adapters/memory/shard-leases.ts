import type { Clock } from '../../core/clock.ts'
import { type HeldShards, OUTBOX_SHARDS, type RelayLease } from '../../core/stores.ts'

interface Lease {
  relayId: string
  until: number
}

interface Registration {
  until: number
  /** In flight as of the last claim. */
  claimed: readonly number[]
}

/** Who works on which shard, and what was in flight there. */
export interface ShardLeases {
  acquire(relayId: string, leaseMs: number, inUse: readonly number[]): Omit<HeldShards, 'pending'>
  relays(): readonly string[]
  list(): readonly RelayLease[]
  relinquish(relayId: string): void
  holds(relayId: string, shard: number): boolean
  heldBy(relayId: string): ReadonlySet<number>
  /** Notes what `relayId` has in flight now. */
  claimed(relayId: string, rowIds: readonly number[]): void
  /** What was in flight with the relays that are dead. */
  suspects(): ReadonlySet<number>
}

const NOTHING: ReadonlySet<number> = new Set()

/** `waits` says of a row in flight with a dead relay whether it is pending still: until none is, the relay is remembered. */
export function createShardLeases(clock: Clock, waits: (rowId: number) => boolean): ShardLeases {
  const leases = new Map<number, Lease>()
  const relays = new Map<string, Registration>()

  const holds = (relayId: string, shard: number): boolean => {
    const lease = leases.get(shard)
    return lease !== undefined && lease.relayId === relayId && lease.until > clock.now()
  }

  const heldBy = (relayId: string): Set<number> => new Set([...leases.keys()].filter((shard) => holds(relayId, shard)))

  const forget = (relayId: string): void => {
    const now = clock.now()
    for (const [id, { until, claimed }] of relays) if (id !== relayId && until <= now && !claimed.some(waits)) relays.delete(id)
  }

  const alive = (): string[] => [...relays].filter(([, { until }]) => until > clock.now()).map(([id]) => id)

  return {
    acquire(relayId, leaseMs, inUse) {
      const now = clock.now()
      const until = now + leaseMs
      forget(relayId)
      relays.set(relayId, { until, claimed: relays.get(relayId)?.claimed ?? [] })
      const fair = fairShare(relayId, alive())
      // An expired lease that nobody took is renewed: its rows are still with this relay. Whether a shard is in use does not decide what is kept, else one
      // relay would have all the work for ever: it is only given up later.
      const used = new Set(inUse)
      const mine = [...leases]
        .filter(([, lease]) => lease.relayId === relayId)
        .map(([shard]) => shard)
        .toSorted((a, b) => a - b)
      const shards = mine.filter((shard, place) => place < fair || used.has(shard))
      for (const shard of mine) leases.delete(shard)
      for (const shard of shards) leases.set(shard, { relayId, until })
      for (let shard = 0; shard < OUTBOX_SHARDS && shards.length < fair; shard++) {
        const lease = leases.get(shard)
        if (lease !== undefined && (lease.relayId === relayId || lease.until > now)) continue
        leases.set(shard, { relayId, until })
        shards.push(shard)
      }
      return { shards: shards.toSorted((a, b) => a - b), leaving: shards.slice(fair).toSorted((a, b) => a - b) }
    },
    relays: alive,
    list: () =>
      [...relays].map(([relayId, { until }]) => ({
        relayId,
        shards: [...leases.values()].filter((lease) => lease.relayId === relayId).length,
        expiresInMs: until - clock.now(),
      })),
    relinquish(relayId) {
      relays.delete(relayId)
      for (const [shard, lease] of leases) if (lease.relayId === relayId) leases.delete(shard)
    },
    holds,
    heldBy,
    claimed(relayId, rowIds) {
      const registration = relays.get(relayId)
      if (registration !== undefined) registration.claimed = rowIds
    },
    suspects() {
      const now = clock.now()
      let found: Set<number> | undefined
      for (const { until, claimed } of relays.values()) {
        if (until > now) continue
        found ??= new Set()
        for (const rowId of claimed) found.add(rowId)
      }
      return found ?? NOTHING
    },
  }
}

/** So many shards are `relayId`'s part: the first by name get one more, so that all parts together are exactly all shards. */
function fairShare(relayId: string, alive: readonly string[]): number {
  const rank = alive.toSorted().indexOf(relayId)
  return Math.floor(OUTBOX_SHARDS / alive.length) + (rank < OUTBOX_SHARDS % alive.length ? 1 : 0)
}
