import { setTimeout as delay } from 'node:timers/promises'
import { CRASHPOINTS, type Crashpoint } from '../../src/core/crashpoint.ts'
import type { Fault, World } from './ledger.ts'
import type { RelayProcess } from './relay-fleet.ts'
import { untilBusiest, untilEven, untilHeldBy, untilPublished, untilRecovered } from './waits.ts'

/** Where a relay can be killed: a point that is added is killed at without anybody adding it here. */
export const RELAY_CRASHPOINTS: readonly Crashpoint[] = CRASHPOINTS.filter((point) => point.startsWith('relay.'))

/** What is passed often is killed at when work is going on; the others the first time. */
const HITS: Partial<Record<Crashpoint, number>> = {
  'relay.afterAcquire': 8,
  'relay.afterClaim': 5,
  'relay.beforePublish': 5,
  'relay.afterPublish': 5,
  'relay.afterMark': 5,
}

const HELPER_CRASH = 'relay.beforePublish:3'

const threeBehindProxy = (world: World): void => {
  // The third goes past the proxy: while the others can't be reached by the database, or can't reach it, somebody takes over.
  world.fleet.start({ url: world.proxyUrl })
  world.fleet.start({ url: world.proxyUrl })
  world.fleet.start()
}

/** No fault: nothing goes wrong but what the writers do to each other. */
export const noFault: Fault = {
  name: 'none',
  async strike(world) {
    await untilEven(world)
    return 1
  },
}

/**
 * kill -9 at lines of the relay, one relay for each, beside one that has died before in the middle of its work, so that there are suspects, and one
 * that stays. Seen only where each of them has died at its line.
 */
export function killAt(...points: readonly Crashpoint[]): Fault {
  return {
    name: `kill:${points.join('+')}`,
    relays: { refusedPerMille: 40, refusals: 2, attemptsMax: 2 },
    launch({ fleet }) {
      for (const point of points) fleet.start({ crash: `${point}:${HITS[point] ?? 1}` })
      fleet.start({ crash: HELPER_CRASH })
      fleet.start()
    },
    async strike(world) {
      const { fleet } = world
      const victims = fleet.all.slice(0, points.length)
      const atWork = victims.filter((_, index) => points[index] !== 'relay.beforeRelinquish')
      let helper = fleet.all[points.length]!
      await world.until('a relay has died in the middle of its work', () => helper.hasCrashed)
      await world.until('the relays have died at work', () => {
        if (atWork.every(({ hasCrashed }) => hasCrashed)) return true
        // Whose suspects they were is chance: there are more of them.
        if (helper.hasCrashed) helper = fleet.start({ crash: HELPER_CRASH })
        return false
      })
      // What is passed only on the way out.
      await Promise.all(victims.map((victim) => victim.stop()))
      if (!victims.every(({ hasCrashed }) => hasCrashed)) return 0
      await untilEven(world)
      return victims.length
    },
  }
}

/** Freezes a relay that has rows in flight: what it has claimed is still pending. */
async function freezeAtWork({ admin, until }: World, relay: RelayProcess): Promise<void> {
  await until(`${relay.relayId} is frozen at work`, async () => {
    relay.freeze()
    const { rows } = await admin.database.query<{ n: number }>(
      `select count(*)::int as n from waybill_relay r join waybill_outbox o on o.id = any (r.claimed) where r.id = $1 and o.status = 'pending'`,
      [relay.relayId],
    )
    if (rows[0]!.n > 0) return true
    relay.thaw()
    return false
  })
}

/** SIGSTOP of a relay with rows in flight until the others have its shards and have gone on, `extraMs` more, then SIGCONT; `times` times. */
export function frozenRelay({ times = 2, extraMs = 0 }: { readonly times?: number; readonly extraMs?: number } = {}): Fault {
  return {
    name: 'sigstop',
    async strike(world) {
      const { all } = world.fleet
      let seen = 0
      for (let count = 0; count < times; count++) {
        await untilEven(world)
        // One that has work: after a takeover the busy shards stay with whoever took them.
        const zombie = await untilBusiest(world, 100)
        await freezeAtWork(world, zombie)
        const others = all.filter((relay) => relay !== zombie)
        await untilHeldBy(world, others)
        seen++
        await untilPublished(world, 100)
        await delay(extraMs)
        zombie.thaw()
        await untilRecovered(world)
      }
      await untilEven(world)
      return seen
    },
  }
}

/** The database is stopped and started, `fast` (sessions are ended) and `immediate` (a crash, with recovery). Seen by relays that were refused. */
export const databaseRestart: Fault = {
  name: 'restart',
  async strike(world) {
    const { fleet, server } = world
    let seen = 0
    for (const mode of ['fast', 'immediate', 'fast'] as const) {
      await untilEven(world)
      await untilPublished(world, 100)
      const failures = fleet.failures
      await server.stop(mode)
      await world.until('a relay has noticed', () => fleet.failures > failures)
      await server.start()
      seen++
      await untilRecovered(world)
    }
    return seen
  },
}

/** `pg_terminate_backend` for the sessions of all relays, and of one writer in three, every `everyMs`. Seen by sessions that were ended. */
export function terminateBackends({ times = 40, everyMs = 60 }: { readonly times?: number; readonly everyMs?: number } = {}): Fault {
  return {
    name: 'terminate',
    async strike(world) {
      await untilEven(world)
      let seen = 0
      for (let count = 0; count < times; count++) {
        const { rows } = await world.admin.database.query<{ n: number }>(
          `select count(*) filter (where pg_terminate_backend(a.pid))::int as n from pg_stat_activity a
           where a.datname = current_database() and (a.application_name like 'relay-%' or (a.application_name = 'ledger-writer' and random() < 0.03))`,
        )
        seen += rows[0]!.n
        await delay(everyMs)
      }
      await untilRecovered(world)
      return seen
    },
  }
}

/** All connections of two relays are reset, again and again. */
export function cutConnections({ times = 10 }: { readonly times?: number } = {}): Fault {
  return {
    name: 'cut',
    launch: threeBehindProxy,
    async strike(world) {
      await untilEven(world)
      for (let count = 0; count < times; count++) {
        await world.until('there is something to cut', () => world.proxy.connections > 0)
        world.proxy.cut()
        await delay(50 + world.random() * 100)
      }
      await untilRecovered(world)
      await untilEven(world)
      return world.proxy.seen.cut
    },
  }
}

/** Two relays can't be heard and hear nothing, until the third has taken over; then all that was held arrives. */
export const blackHole: Fault = {
  name: 'blackhole',
  relays: { queryTimeoutMs: 700 },
  launch: threeBehindProxy,
  async strike(world) {
    const { all } = world.fleet
    for (let count = 0; count < 2; count++) {
      await untilEven(world)
      await untilPublished(world, 50)
      world.proxy.blackHole(true)
      await untilHeldBy(world, all.slice(2))
      await untilPublished(world, 50)
      world.proxy.blackHole(false)
      await untilRecovered(world)
    }
    await untilEven(world)
    return world.proxy.seen.blackHole
  },
}

/** Question and answer of two relays take longer than their lease. */
export const latency: Fault = {
  name: 'latency',
  launch: threeBehindProxy,
  async strike(world) {
    await untilEven(world)
    await untilPublished(world, 50)
    world.proxy.latency(2_000)
    await world.until('a dozen pieces came late', () => world.proxy.seen.latency >= 12)
    world.proxy.heal()
    await untilRecovered(world)
    await untilEven(world)
    return world.proxy.seen.latency
  },
}

/** Sessions of two relays end at the database, and the relays are not told: their statements are never answered. */
export const halfClose: Fault = {
  name: 'halfclose',
  relays: { queryTimeoutMs: 700 },
  launch: threeBehindProxy,
  async strike(world) {
    for (const towards of ['target', 'client', 'target'] as const) {
      await untilEven(world)
      await untilPublished(world, 50)
      const failures = world.fleet.failures
      await world.until('there is something to close', () => world.proxy.halfClose(towards) > 0)
      await world.until('a relay has noticed', () => {
        // A client that is told of an end while it is idle replaces the connection, and nothing has happened: so again, until it waits for an answer.
        if (towards === 'client') world.proxy.halfClose(towards)
        return world.fleet.failures > failures
      })
      await untilRecovered(world)
    }
    await untilEven(world)
    return world.proxy.seen.halfClose
  },
}

/** Relays join, leave in good order, and are killed while they hold shards. */
export const joinsAndLeaves: Fault = {
  name: 'fleet',
  launch: ({ fleet }) => void fleet.start(),
  async strike(world) {
    const { fleet } = world
    await untilEven(world)
    let changes = 0
    for (const change of ['join', 'join', 'leave', 'join', 'kill', 'join', 'kill', 'leave'] as const) {
      const [oldest] = fleet.running as [RelayProcess]
      if (change === 'join') fleet.start()
      else if (change === 'leave') await oldest.stop()
      else await oldest.kill()
      await untilPublished(world, 20)
      await untilEven(world)
      changes++
    }
    return changes
  },
}

/** Every fault by its name, with what it takes in the short form of a test or, where `long`, in the real measure. */
export function faultNamed(name: string, long: boolean): Fault | undefined {
  if (name.startsWith('kill:')) {
    const wanted = name.slice('kill:'.length).split('+')
    const points = RELAY_CRASHPOINTS.filter((known) => wanted.includes(known))
    return points.length < wanted.length ? undefined : killAt(...points)
  }
  const faults: readonly Fault[] = [
    noFault,
    frozenRelay(long ? { times: 3, extraMs: 10_000 } : {}),
    databaseRestart,
    terminateBackends(long ? { times: 500 } : {}),
    cutConnections(long ? { times: 100 } : {}),
    blackHole,
    latency,
    halfClose,
    joinsAndLeaves,
  ]
  return faults.find((fault) => fault.name === name)
}

export const FAULT_NAMES: readonly string[] = [
  'none',
  ...RELAY_CRASHPOINTS.map((point) => `kill:${point}`),
  'sigstop',
  'restart',
  'terminate',
  'cut',
  'blackhole',
  'latency',
  'halfclose',
  'fleet',
]
