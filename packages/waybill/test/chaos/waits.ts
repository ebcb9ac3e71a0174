import { OUTBOX_SHARDS } from '../../src/core/stores.ts'
import type { World } from './ledger.ts'
import type { RelayProcess } from './relay-fleet.ts'

/** How many shards each relay holds by the database's clock; read from the table, so that this doesn't lean on what it checks. */
async function sharesOf({ admin }: World): Promise<ReadonlyMap<string, number>> {
  const { rows } = await admin.database.query<{ owner: string; shards: number }>(
    'select owner, count(*)::int as shards from waybill_lease where expires_at > clock_timestamp() group by owner',
  )
  return new Map(rows.map(({ owner, shards }) => [owner, shards]))
}

const sum = (numbers: Iterable<number>): number => [...numbers].reduce((total, number) => total + number, 0)

/** Waits until `relays` hold all shards between them, in shares that satisfy `isRight`. */
async function untilShared(
  world: World,
  relaysOf: () => readonly RelayProcess[],
  isRight: (shares: readonly number[]) => boolean,
): Promise<void> {
  let theirs: readonly number[] = []
  const said = (): string =>
    `all shards are shared: ${relaysOf()
      .map(({ relayId }, index) => `${relayId} ${theirs[index]}`)
      .join(', ')}`
  await world.until(said, async () => {
    const shares = await sharesOf(world)
    theirs = relaysOf().map(({ relayId }) => shares.get(relayId) ?? 0)
    return sum(theirs) === OUTBOX_SHARDS && isRight(theirs)
  })
}

/** Waits until `relays` hold all shards between them, and each of them at least one. */
export const untilHeldBy = (world: World, relays: readonly RelayProcess[]): Promise<void> =>
  untilShared(
    world,
    () => relays,
    (shares) => Math.min(...shares) > 0,
  )

/** Waits until the relays that run hold as many shards as each other, give or take one. */
export const untilEven = (world: World): Promise<void> =>
  untilShared(
    world,
    () => world.fleet.running,
    (shares) => Math.max(...shares) - Math.min(...shares) <= 1,
  )

/** Waits until the relays have published so many more rows. */
export async function untilPublished(world: World, more: number): Promise<void> {
  const published = (): number => sum(world.fleet.all.map(({ report }) => report.published))
  const before = published()
  await world.until(`${more} more rows are published`, () => published() >= before + more)
}

/** Waits until the relays have published so many more rows, and gives back the one that has published most of them. */
export async function untilBusiest(world: World, more: number): Promise<RelayProcess> {
  const before = world.fleet.all.map(({ report }) => report.published)
  await untilPublished(world, more)
  const counts = world.fleet.all.map((relay, index) => ({ relay, count: relay.report.published - (before[index] ?? 0) }))
  return counts.reduce((busiest, one) => (one.count > busiest.count ? one : busiest)).relay
}

/**
 * Waits until rows are published again and the relays hold even shares, and notes how long that took: from now on, when the fault has ended. Not until
 * each has published: shards with work stay with whoever holds them, so one that comes back may get idle ones.
 */
export async function untilRecovered(world: World): Promise<void> {
  const from = performance.now()
  await untilPublished(world, 1)
  await untilEven(world)
  world.noteRecovery(performance.now() - from)
}
