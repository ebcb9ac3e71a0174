import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { isConnectionError } from '../../src/adapters/postgres/pg-errors.ts'
import { isWaybillError, messageOf } from '../../src/core/errors.ts'
import type { Storage } from '../../src/core/stores.ts'
import { seededRandom } from '../../src/testing/contract-tools.ts'
import { type FaultProxy, startFaultProxy } from '../../src/testing/fault-proxy.ts'
import type { PostgresServer } from '../../src/testing/postgres-server.ts'
import { compareLedger } from '../../src/testing/compare-ledger.ts'
import { type Effects, applyEffects, createEffectsTable } from './effects.ts'
import { type Fleet, createFleet } from './relay-fleet.ts'
import type { RelayProcessOptions } from './relay-process.ts'
import { type BrokenStore, openStorage } from './storages.ts'
import { untilEven } from './waits.ts'
import { type AppendOrder, type WritersReport, createBusiness, readTruth, runWriters, spreadKeys } from './writers.ts'

/** What a fault has to work with. */
export interface World {
  readonly server: PostgresServer
  /** Past the faults: for looking, and for what an operator does. */
  readonly admin: Storage
  readonly fleet: Fleet
  /** Stands between the database and those relays that were started with its URL. */
  readonly proxy: FaultProxy
  readonly proxyUrl: string
  readonly leaseMs: number
  readonly random: () => number
  /** The longest that it took to work again once the fault had ended goes into the report. */
  noteRecovery(ms: number): void
  /** Waits for a condition, a minute at most where nothing is said. */
  until(what: string | (() => string), ask: () => Promise<boolean> | boolean, limitMs?: number): Promise<void>
  /** Whether the writers have committed all that they must. */
  readonly isWritten: () => boolean
}

/** Something that goes wrong while the ledger runs. */
export interface Fault {
  readonly name: string
  /** What the relays of this run are told beside the usual. */
  readonly relays?: Partial<Pick<RelayProcessOptions, 'refusedPerMille' | 'refusals' | 'attemptsMax' | 'queryTimeoutMs'>>
  /** Starts the relays. @default three */
  launch?(world: World): void
  /** Strikes while the writers write; resolves how often it was seen to strike. A run in which that is 0 has shown nothing. */
  strike(world: World): Promise<number>
}

export interface LedgerOptions {
  readonly server: PostgresServer
  readonly seed: number
  readonly fault: Fault
  /** @default 24 */
  readonly writers?: number
  /** Hot on purpose: with many keys, broken order hides. @default 12 */
  readonly keys?: number
  /** Of each writer, at least. @default 50 */
  readonly transactions?: number
  /** `mixed` deadlocks all the time, and takes four times as long. @default 'after' */
  readonly append?: AppendOrder
  /** @default 1000 */
  readonly leaseMs?: number
  readonly broken?: BrokenStore
  /** How long what is left may take at the end; far beyond what the slowest machine needs. @default 180000 */
  readonly drainMs?: number
}

export interface LedgerReport extends Omit<WritersReport, 'confirmed'> {
  readonly seed: number
  readonly fault: string
  readonly append: AppendOrder
  readonly committed: number
  /** Committed and never arrived, or reported as committed and not in the database. */
  readonly lost: number
  readonly unexpected: number
  /** First arrivals out of order. */
  readonly orderViolations: number
  /** Events that had their effect twice, and effects out of order. */
  readonly effectDuplicates: number
  readonly effectDisorder: number
  /** Arrivals beyond the first of each event. */
  readonly repeats: number
  /** How often the fault was seen to strike. */
  readonly seen: number
  /** The longest it took, once the fault had ended, until rows were published and all shards shared evenly again; 0 where that was not looked at. */
  readonly recoveryMs: number
  /** Failures of the database that relays have met. */
  readonly relayFailures: number
  /** Relay processes that were started. */
  readonly relays: number
  /** Rows that were still there when the run was given up; 0 in a good one. */
  readonly left: number
  readonly trouble: readonly string[]
  readonly durationMs: number
}

/** Far beyond what the slowest machine needs: only a run that hangs gets there. */
const WAIT_MS = 180_000
const DRAIN_MS = 180_000
const LOOK_MS = 20
const OPERATE_MS = 100
let databases = 0

/**
 * Writers commit versions under row locks, with an event each; relay processes carry the events into a file; a consumer gives each its effect, through
 * the inbox. Meanwhile something goes wrong. Afterwards everything drains, and what came out is compared with what was committed.
 */
export async function runLedger(options: LedgerOptions): Promise<LedgerReport> {
  const startedAt = performance.now()
  const { server, seed, fault, append = 'after', leaseMs = 1_000, broken } = options
  const keys = spreadKeys(options.keys ?? 12)
  const folder = await mkdtemp(join(tmpdir(), 'waybill-ledger-'))
  const broker = join(folder, 'broker')
  const url = await createDatabase(server)
  const own = { url, ...(broken === undefined ? {} : { broken }) }
  const admin = await openStorage({ ...own, name: 'ledger-admin', poolMax: 8 })
  const storage = await openStorage({ ...own, name: 'ledger-writer', poolMax: options.writers ?? 24 })
  const proxy = await startFaultProxy({ target: server })
  const fleet = createFleet({ folder, seed, broker, leaseMs, ...own, ...fault.relays })
  const state = { isStruck: false, isWritten: false, isDrained: false, recoveryMs: 0 }
  let effects: Effects | undefined
  try {
    await admin.migrate()
    await createBusiness(admin, keys)
    await createEffectsTable(admin)
    effects = applyEffects(admin, broker)
    const noteRecovery = (ms: number): void => void (state.recoveryMs = Math.max(state.recoveryMs, ms))
    const world = createWorld({ server, admin, fleet, proxy, leaseMs, seed, noteRecovery, isWritten: () => state.isWritten }, url)
    if (fault.launch === undefined) for (let count = 0; count < 3; count++) fleet.start()
    else fault.launch(world)
    // Shares are taken while nothing is in use: then each relay gets some of the hot keys, and whatever strikes it strikes work.
    await untilEven(world)
    const operating = operate(world, () => state.isDrained)
    const striking = fault.strike(world).finally(() => (state.isStruck = true))
    const { transactions = 50, writers = 24 } = options
    const [written, seen] = await both(
      runWriters({ storage, seed, writers, keys, transactions, append, isOver: () => noteWritten(state) }),
      striking,
    )
    const left = await drain(world, options.drainMs ?? DRAIN_MS)
    state.isDrained = true
    await operating
    await fleet.stopAll()
    const { confirmed, ...counted } = written
    const truth = await readTruth(admin)
    const { arrived, effects: applied } = await effects.finish()
    const wire = compareLedger(truth, arrived)
    const effective = compareLedger(truth, applied)
    return {
      seed,
      fault: fault.name,
      append,
      committed: wire.committed,
      lost: wire.lost + effective.lost + [...confirmed].filter((id) => !truth.has(id)).length,
      unexpected: wire.unexpected,
      orderViolations: wire.orderViolations,
      effectDuplicates: effective.repeats,
      effectDisorder: effective.orderViolations,
      repeats: wire.repeats,
      ...counted,
      seen,
      recoveryMs: Math.round(state.recoveryMs),
      relayFailures: fleet.failures,
      relays: fleet.all.length,
      left,
      trouble: [...fleet.trouble],
      durationMs: Math.round(performance.now() - startedAt),
    }
  } finally {
    state.isDrained = true
    effects?.stop()
    proxy.heal()
    await fleet.killAll()
    // The next run must find a server, wherever this one was stopped.
    await server.start()
    await Promise.allSettled([storage.close(), admin.close(), proxy.close()])
    await rm(folder, { recursive: true, force: true })
  }
}

/** Called by each writer that has written what it must. */
function noteWritten(state: { readonly isStruck: boolean; isWritten: boolean }): boolean {
  state.isWritten = true
  return state.isStruck
}

/** Both results, or the error of whichever fails. */
async function both<A, B>(one: Promise<A>, other: Promise<B>): Promise<[A, B]> {
  const [first, second] = await Promise.allSettled([one, other])
  if (second.status === 'rejected') throw second.reason
  if (first.status === 'rejected') throw first.reason
  return [first.value, second.value]
}

async function createDatabase(server: PostgresServer): Promise<string> {
  const root = await openStorage({ url: server.url(), name: 'ledger-root', poolMax: 2 })
  try {
    const name = `ledger_${process.pid}_${++databases}`
    await root.database.query(`create database ${name}`)
    // A deadlock is looked for after a second otherwise: a run has a hundred of them.
    await root.database.query(`alter database ${name} set deadlock_timeout = '20ms'`)
    return server.url(name)
  } finally {
    await root.close()
  }
}

function createWorld(parts: Omit<World, 'random' | 'until' | 'proxyUrl'> & { readonly seed: number }, url: string): World {
  const proxied = new URL(url)
  proxied.port = String(parts.proxy.port)
  return {
    ...parts,
    proxyUrl: proxied.href,
    random: seededRandom(parts.seed * 7919),
    async until(what, ask, limitMs = WAIT_MS) {
      const end = performance.now() + limitMs
      let last: unknown
      while (performance.now() < end) {
        try {
          if (await ask()) return
        } catch (error) {
          // The database may be away just now.
          if (!isConnectionError(error)) throw error
          last = error
        }
        if (parts.fleet.trouble.length > 0) break
        await delay(LOOK_MS)
      }
      const relays = parts.fleet.all.map(
        ({ relayId, isRunning, report }) => `${relayId} ${isRunning ? 'runs' : 'is gone'} ${JSON.stringify(report)}`,
      )
      const wanted = typeof what === 'string' ? what : what()
      throw new Error([`waited in vain until ${wanted}`, ...parts.fleet.trouble, ...relays].join('\n'), { cause: last })
    },
  }
}

/** Retries what is parked, again and again, as an operator would: twelve keys with a few bad messages would all stand still soon. */
async function operate({ admin, fleet }: World, isOver: () => boolean): Promise<void> {
  while (!isOver()) {
    try {
      await admin.outbox.retry({ status: 'parked', limit: 10_000 })
    } catch (error) {
      if (!isConnectionError(error) && !isWaybillError(error, 'UNKNOWN_OUTCOME')) {
        fleet.trouble.push(`a retry failed: ${messageOf(error)}`)
        return
      }
    }
    await delay(OPERATE_MS)
  }
}

/** Waits until nothing is left in the outbox; gives back how many rows stay, which is a fault. */
async function drain({ admin, until, fleet }: World, limitMs: number): Promise<number> {
  // Whoever has died is replaced: what is left is not to be blamed on nobody being there.
  if (fleet.running.length === 0) fleet.start()
  let left = 0
  const isEmpty = async (): Promise<boolean> => {
    const { pending, parked, scheduled } = await admin.outbox.stats()
    left = pending + parked + scheduled
    return left === 0
  }
  try {
    await until('the outbox is empty', isEmpty, limitMs)
  } catch (error) {
    fleet.trouble.push(messageOf(error))
  }
  return left
}

/** What is wrong with a run; empty where nothing is. */
export function faultsOf(report: LedgerReport): readonly string[] {
  const zeros = ['lost', 'unexpected', 'orderViolations', 'effectDuplicates', 'effectDisorder', 'left'] as const
  return [
    ...zeros.filter((name) => report[name] !== 0).map((name) => `${name}: ${report[name]}`),
    ...(report.seen > 0 ? [] : [`the fault "${report.fault}" was never seen: nothing was tested`]),
    ...(report.committed > 0 && report.rolledBack > 0 ? [] : ['nothing was committed, or nothing rolled back']),
    ...report.trouble,
  ]
}

/** A run in one line. */
export function describe(report: LedgerReport): string {
  const { seed, fault, append, trouble, durationMs, ...counts } = report
  const numbers = Object.entries(counts).map(([name, value]) => `${name} ${value}`)
  return `seed ${seed}, ${fault}, append ${append}: ${numbers.join(', ')}; ${(durationMs / 1000).toFixed(1)} s${trouble.length === 0 ? '' : `; ${trouble.join('; ')}`}`
}
