import assert from 'node:assert/strict'
import type { ClaimedRow, OutboxEntry, OutboxStore, Storage } from '../src/core/stores.ts'
import type { PublishOutcome } from '../src/core/transport.ts'
import { judge, type Verdict } from '../src/outbox/relay-plan.ts'
import { WaybillError } from '../src/core/errors.ts'

// A model of relays at work on one outbox, step by step: what is between two steps may be anything, a crash or an hour of being frozen too. It knows
// what was committed, who holds what, and what has arrived, and says at once when the store or a relay breaks a promise.

/** An hour: nothing that a test run takes really comes near it. */
export const LEASE_MS = 3_600_000
const KEYS = 4

/** A database, and power over its time. */
export interface World {
  readonly storage: Storage
  /** The database's time, near enough. */
  now(): number
  pass(ms: number): Promise<void>
}

/** How a relay or its store is broken, to show that the model notices. */
export interface Variant {
  readonly store?: (store: OutboxStore) => OutboxStore
  readonly verdict?: (verdict: Verdict) => Verdict
}

/** What the transport does with the next row. */
export type Fate = 'stored' | 'refused' | 'cut before' | 'cut after'

interface Batch {
  readonly rows: readonly ClaimedRow[]
  readonly outcomes: PublishOutcome[]
  readonly epoch: number
}

interface Relay {
  readonly id: string
  crashed: boolean
  /** By the database's clock. */
  until: number
  /** Rises when the lease has run out before it was renewed. */
  epoch: number
  shards: ReadonlySet<number>
  leaving: readonly number[]
  batches: Batch[]
}

interface Committed {
  readonly rowId: string
  readonly key: string
  readonly eventId: string
  /** Joins the order of its key when it is due, at whatever place. */
  readonly scheduled: boolean
  /** Given up, by an operator or because its handlers have run: need not arrive, and nobody waits for it. */
  excepted: boolean
  arrived: boolean
}

const STORED: PublishOutcome = { kind: 'stored' }
const REFUSED: PublishOutcome = { kind: 'rejected', error: new WaybillError('MESSAGE_REJECTED', 'not this one') }
const BEHIND: PublishOutcome = { kind: 'rejected', error: new WaybillError('TRANSPORT_UNAVAILABLE', 'behind a failure') }
const CUT: PublishOutcome = { kind: 'unknown', error: new WaybillError('UNKNOWN_OUTCOME', 'cut') }

/** Seen at least once in a run, or it tested nothing. */
export type Sight = 'redelivered' | 'zombie mark' | 'taken over' | 'suspect' | 'parked' | 'handed over'

export function createModel(world: World, variant: Variant, seen: Map<Sight, number>) {
  const { storage } = world
  const store = variant.store?.(storage.outbox) ?? storage.outbox
  const committed = new Map<string, Committed>()
  const never = new Set<string>()
  const relays: Relay[] = []
  const everInFlight = new Map<string, Set<string>>()
  let numbers = 0

  const see = (sight: Sight): void => void seen.set(sight, (seen.get(sight) ?? 0) + 1)
  const at = <T>(list: readonly T[], index: number): T | undefined => (list.length === 0 ? undefined : list[index % list.length])
  const alive = (): Relay[] => relays.filter((relay) => !relay.crashed)
  const holds = (relay: Relay, shard: number): boolean => relay.shards.has(shard) && world.now() < relay.until
  // Whatever the store says of the shard meanwhile: what is in use is not given away.
  const isHeld = (relay: Relay, batch: Batch): boolean => batch.epoch === relay.epoch && world.now() < relay.until

  /** A row arrives at the other side: the moment of truth. */
  function arrive({ rowId, message }: ClaimedRow): void {
    const row = committed.get(rowId)
    assert.ok(row !== undefined && !never.has(message.id), `unexpected: ${message.id} was never committed`)
    if (row.arrived) return see('redelivered')
    row.arrived = true
    if (row.scheduled || row.excepted) return
    for (const earlier of committed.values()) {
      const isBefore = earlier.key === row.key && BigInt(earlier.rowId) < BigInt(row.rowId)
      assert.ok(
        !isBefore || earlier.arrived || earlier.scheduled || earlier.excepted,
        `order: ${row.eventId} came before ${earlier.eventId}`,
      )
    }
  }

  /** No row, and no key, is with two relays, or twice with one, as long as the lease under which it was claimed holds. */
  function assertExclusive(claimer: Relay, rows: readonly ClaimedRow[]): void {
    const keys = new Set(rows.map(({ message }) => message.key))
    for (const relay of relays) {
      for (const batch of relay.batches) {
        const both = batch.rows.find((row) => keys.has(row.message.key) && isHeld(relay, batch))
        assert.ok(
          both === undefined,
          `exclusive: ${claimer.id} was given the key of row ${both?.rowId}, which is in flight with ${relay.id}`,
        )
      }
    }
  }

  async function note(rowIds: readonly string[], entries: readonly OutboxEntry[]): Promise<void> {
    for (const [index, { message, availableAt }] of entries.entries())
      committed.set(rowIds[index]!, {
        rowId: rowIds[index]!,
        key: message.key,
        eventId: message.id,
        scheduled: availableAt !== undefined,
        excepted: false,
        arrived: false,
      })
  }

  async function exceptSkipped(): Promise<void> {
    for (const { rowId } of await storage.outbox.list({ status: 'skipped', limit: 10_000 })) committed.get(rowId)!.excepted = true
  }

  async function acquire(relay: Relay): Promise<void> {
    const askedAt = world.now()
    const ranOut = askedAt >= relay.until
    const inUse = [...new Set(relay.batches.flatMap((batch) => batch.rows.map((row) => row.shard)))]
    const held = await store.acquire(relay.id, LEASE_MS, inUse)
    const before = relay.shards
    relay.shards = new Set(held.shards)
    relay.leaving = held.leaving
    relay.until = askedAt + LEASE_MS
    if (ranOut) relay.epoch++
    if (relays.length > 1 && before.size > held.shards.length) see('handed over')
    for (const shard of held.shards) {
      const rival = relays.find((other) => other !== relay && holds(other, shard))
      assert.ok(rival === undefined, `shard ${shard} is with ${relay.id} and ${rival?.id}`)
      if (!before.has(shard) && relays.some((other) => other !== relay && other.batches.length > 0 && other.shards.has(shard)))
        see('taken over')
    }
  }

  async function claim(relay: Relay, limit: number): Promise<void> {
    const inFlight = relay.batches.flatMap((batch) => batch.rows)
    const rows = await store.claim(relay.id, {
      limit,
      busy: inFlight.map(({ message: { topic, key } }) => ({ topic, key })),
      leaving: relay.leaving,
      inFlight: inFlight.map((row) => row.rowId),
    })
    assertExclusive(relay, rows)
    for (const row of rows) {
      assert.ok(holds(relay, row.shard), `row ${row.rowId} of a shard that ${relay.id} does not hold`)
      assert.ok(!relay.leaving.includes(row.shard), `row ${row.rowId} of a shard that leaves`)
      const others = everInFlight.get(row.rowId) ?? new Set()
      if (row.suspect) {
        see('suspect')
        assert.ok(
          [...others].some((id) => id !== relay.id),
          `row ${row.rowId} is suspect, and was in flight with nobody`,
        )
      }
      everInFlight.set(row.rowId, others.add(relay.id))
    }
    if (rows.length > 0) relay.batches.push({ rows, outcomes: [], epoch: relay.epoch })
  }

  /** Sends up to `count` more rows of a batch; a key stops at its first failure. */
  function send(batch: Batch, count: number, fate: Fate): void {
    for (let sent = 0; sent < count && batch.outcomes.length < batch.rows.length; sent++) {
      const row = batch.rows[batch.outcomes.length]!
      const stopped = batch.outcomes.some(
        (outcome, index) => outcome.kind !== 'stored' && batch.rows[index]!.message.key === row.message.key,
      )
      if (stopped) batch.outcomes.push(BEHIND)
      else {
        // The last row of the step meets the fate; those before it pass.
        const isLast = sent === count - 1 || batch.outcomes.length === batch.rows.length - 1
        const met = isLast ? fate : 'stored'
        if (met === 'stored' || met === 'cut after') arrive(row)
        batch.outcomes.push(met === 'stored' ? STORED : met === 'refused' ? REFUSED : CUT)
      }
    }
  }

  /** Writes what became of a batch: where the lease is gone, nothing may change. */
  async function settle(relay: Relay, batch: Batch, park: boolean): Promise<void> {
    const fenced = batch.rows.filter((row) => !holds(relay, row.shard)).map((row) => row.rowId)
    const states = async (): Promise<unknown> =>
      fenced.length === 0
        ? []
        : (await storage.outbox.list({ rowIds: fenced, limit: 1_000 })).map(({ rowId, status, attempts }) => ({ rowId, status, attempts }))
    const before = await states()
    const judged = judge(batch.rows, batch.outcomes)
    const { published, refused } = variant.verdict?.(judged) ?? judged
    await store.markPublished(
      relay.id,
      published.map((row) => row.rowId),
    )
    const failures = refused.map(({ row, error }) => ({ rowId: row.rowId, error: error.message }))
    if (failures.length > 0) await (park ? store.park(relay.id, failures) : store.hold(relay.id, failures, LEASE_MS / 2))
    if (park && failures.length > 0) see('parked')
    if (fenced.length > 0) see('zombie mark')
    assert.deepEqual(await states(), before, `fence: ${relay.id} has changed rows whose shard it does not hold`)
    relay.batches = relay.batches.filter((other) => other !== batch)
  }

  const steps = {
    async append(
      keys: readonly number[],
      options: Pick<OutboxEntry, 'priority' | 'holdMs'> & { scheduled: boolean },
      rollback: boolean,
    ): Promise<void> {
      const { scheduled, ...rest } = options
      const entries = keys.map((key): OutboxEntry => {
        const message = { id: `e${++numbers}`, topic: 'orders', key: `k${key % KEYS}`, headers: {}, body: new Uint8Array([numbers % 256]) }
        return { message, eventType: 'order.Placed', ...rest, ...(scheduled ? { availableAt: new Date(world.now() + LEASE_MS / 2) } : {}) }
      })
      if (!rollback) return note(await storage.database.transaction((sql) => store.append(sql, entries)), entries)
      for (const { message } of entries) never.add(message.id)
      const work = storage.database.transaction(async (sql) => {
        await store.append(sql, entries)
        throw new RangeError('rolled back')
      })
      await assert.rejects(work, RangeError)
    },
    async join(): Promise<void> {
      if (alive().length >= 3) return
      const relay: Relay = {
        id: `r${relays.length}`,
        crashed: false,
        until: -Infinity,
        epoch: 0,
        shards: new Set(),
        leaving: [],
        batches: [],
      }
      relays.push(relay)
      await acquire(relay)
    },
    async renew(which: number): Promise<void> {
      const relay = at(alive(), which)
      if (relay !== undefined) await acquire(relay)
    },
    /** As a relay stops: nothing is in flight any more, or it gives that up. */
    async leave(which: number): Promise<void> {
      const relay = at(
        alive().filter(({ batches }) => batches.length === 0),
        which,
      )
      if (relay === undefined) return
      relay.crashed = true
      relay.shards = new Set()
      await store.relinquish(relay.id)
    },
    async claim(which: number, limit: number): Promise<void> {
      const relay = at(alive(), which)
      if (relay !== undefined && relay.batches.length < 4) await claim(relay, limit)
    },
    /** Also of a relay that has lost its lease, and does not know it yet. */
    async send(which: number, count: number, fate: Fate): Promise<void> {
      const open = alive().flatMap(({ batches }) => batches.filter(({ rows, outcomes }) => outcomes.length < rows.length))
      const chosen = at(open, which)
      if (chosen !== undefined) send(chosen, count, fate)
    },
    async settle(which: number, park: boolean): Promise<void> {
      const answered = alive().flatMap((relay) =>
        relay.batches.filter(({ rows, outcomes }) => outcomes.length === rows.length).map((batch) => ({ relay, batch })),
      )
      const chosen = at(answered, which)
      if (chosen !== undefined) await settle(chosen.relay, chosen.batch, park)
    },
    /** Never marks, never comes back; what it holds runs out. */
    async crash(which: number): Promise<void> {
      const relay = at(alive(), which)
      if (relay !== undefined) relay.crashed = true
    },
    pass: (part: number): Promise<void> => world.pass(LEASE_MS * part),
    async retry(): Promise<void> {
      await store.retry({ status: 'parked', limit: 1_000 })
    },
    async skip(key: number): Promise<void> {
      await store.skip({ key: `k${key % KEYS}`, limit: 1 })
      await exceptSkipped()
    },
    async suspend(key: number): Promise<void> {
      await store.suspend({ key: `k${key % KEYS}`, limit: 1 }, 'wait')
    },
    async retire(key: number): Promise<void> {
      const row = [...committed.values()].find((one) => one.key === `k${key % KEYS}` && !one.arrived && !one.excepted)
      if (row === undefined) return
      row.excepted = true
      await store.retire([row.rowId])
    },
  }

  /** Faults have ended: everything that was committed arrives, in bounded time. */
  async function drain(): Promise<void> {
    for (const relay of relays) relay.crashed = true
    await world.pass(LEASE_MS * 1.1)
    await steps.join()
    const last = relays.at(-1)!
    for (let round = 0; ; round++) {
      const { pending, scheduled, parked } = await storage.outbox.stats()
      if (pending + scheduled + parked === 0) break
      assert.ok(round < 60, `stuck: ${pending} pending, ${scheduled} scheduled, ${parked} parked`)
      if (parked > 0) await store.retry({ status: 'parked', limit: 1_000 })
      await world.pass(LEASE_MS * 0.6)
      await acquire(last)
      await claim(last, 1_000)
      for (const batch of last.batches) {
        send(batch, batch.rows.length, 'stored')
        await settle(last, batch, false)
      }
    }
    const lost = [...committed.values()].filter((row) => !row.arrived && !row.excepted)
    assert.deepEqual(lost, [], `lost: ${lost.length} rows`)
  }

  return { ...steps, drain }
}

export type Model = ReturnType<typeof createModel>
