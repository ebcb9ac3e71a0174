import { type Environment, WaybillError } from 'waybill'
import { type DemoResult, type Found, checkFound } from './check.ts'
import { readDeliveryLogs } from './delivery-log.ts'
import { type Expected, expectedOf } from './expected.ts'
import type { Invoice } from './invoices.ts'
import { type OutageEvent, type Outages, type RestartableBroker, createOutages } from './outages.ts'
import { type Setup, openDatabase, storeSetup } from './setup.ts'
import { consumerOf } from './shop.ts'
import { type SupervisorEvent, supervise } from './supervisor.ts'
import { createTables, readEffects, readTotals } from './tables.ts'

/** What is told while the demo runs. */
export type DemoEvent = SupervisorEvent | OutageEvent

export interface DemoOptions {
  /** Empty; takes database and logs. */
  readonly folder: string
  readonly setup: Setup
  /** Says where database and broker are. */
  readonly env: Environment
  /** The broker, where the setup has outages. */
  readonly broker: RestartableBroker | undefined
  /** Whether the tables of a PostgreSQL server are left there. */
  readonly keepTables: boolean
  readonly invoices: readonly Invoice[]
  readonly signal: AbortSignal
  /** Start of the whole, by `performance.now()`. */
  readonly startedMs: number
  readonly onEvent: (event: DemoEvent) => void
}

// Many times what a slow machine needs: it ends what would never end, and nothing else.
const LIMIT_BASE_MS = 900_000
const LIMIT_INVOICE_MS = 200

/** What a demo came to. */
export interface DemoOutcome {
  readonly result: DemoResult
  readonly expected: Expected
  readonly problems: readonly string[]
}

/** Carries the invoices over the road, with kills and outages, and compares the outcome with what they call for. */
export async function runDemo(options: DemoOptions): Promise<DemoOutcome> {
  const { folder, setup, env, invoices, keepTables } = options
  storeSetup(folder, setup, invoices)
  if (setup.database === 'pglite') return carryAndCheck(options)
  await prepareTables(folder, setup, env)
  const drop = async (): Promise<void> => (keepTables ? undefined : dropTables(folder, setup, env))
  let outcome: DemoOutcome
  try {
    outcome = await carryAndCheck(options)
  } catch (error) {
    // What went wrong first says more than what goes wrong with the tables then.
    await drop().catch(() => undefined)
    throw error
  }
  await drop()
  return outcome
}

async function carryAndCheck(options: DemoOptions): Promise<DemoOutcome> {
  const { folder, setup, env, invoices, startedMs } = options
  const { killed, recoveriesMs } = await carry(options)
  // Only now: the last worker is gone, and a PGlite folder has one owner.
  const found = await findOut(folder, setup, env, killed)
  const expected = expectedOf(invoices)
  const { result, problems } = checkFound(expected, found)
  const missed = setup.outages.length - recoveriesMs.length
  return {
    result: {
      ...result,
      broker: setup.broker,
      database: setup.database,
      processes: setup.processes,
      brokerRestarts: recoveriesMs.length,
      recoverySeconds: recoveriesMs.map(seconds),
      seconds: seconds(performance.now() - startedMs),
    },
    expected,
    problems:
      missed === 0 ? problems : [...problems, `the broker was restarted ${recoveriesMs.length} times instead of ${setup.outages.length}`],
  }
}

const seconds = (ms: number): number => Math.round(ms) / 1000

async function carry({ folder, setup, env, broker, invoices, signal, onEvent }: DemoOptions): Promise<{
  readonly killed: number
  readonly recoveriesMs: readonly number[]
}> {
  const failed = new AbortController()
  let outages: Outages | undefined
  if (setup.outages.length > 0) {
    if (broker === undefined) throw new WaybillError('INVALID_OPTION', 'outages need a broker that may be restarted', { where: 'runDemo' })
    outages = createOutages({ folder, broker, outages: setup.outages, onEvent, onFailure: (error) => failed.abort(error) })
  }
  try {
    const killed = await supervise({
      folder,
      kills: setup.kills,
      processes: setup.processes,
      env,
      signal: AbortSignal.any([signal, failed.signal]),
      onEvent(event) {
        onEvent(event)
        outages?.see(event)
      },
      limitMs: LIMIT_BASE_MS + invoices.length * LIMIT_INVOICE_MS,
    })
    return { killed, recoveriesMs: (await outages?.end()) ?? [] }
  } catch (error) {
    // A restart on its way must not outlive the demo.
    await outages?.end()
    throw failed.signal.aborted ? failed.signal.reason : error
  }
}

/** By one process, before those that would do it at the same time. */
async function prepareTables(folder: string, setup: Setup, env: Environment): Promise<void> {
  const storage = await openDatabase(folder, setup, env)
  try {
    await storage.migrate()
    await createTables(storage.database)
  } finally {
    await storage.close()
  }
}

async function dropTables(folder: string, setup: Setup, env: Environment): Promise<void> {
  const storage = await openDatabase(folder, setup, env)
  try {
    await storage.database.query(`drop schema if exists ${setup.schema} cascade`)
  } finally {
    await storage.close()
  }
}

async function findOut(folder: string, setup: Setup, env: Environment, kills: number): Promise<Found> {
  const storage = await openDatabase(folder, setup, env)
  try {
    const effects = await readEffects(storage.database)
    const totals = await readTotals(storage.database)
    const { pending, parked } = await storage.outbox.stats()
    return {
      effects,
      ...totals,
      deliveries: readDeliveryLogs(folder, consumerOf),
      kills,
      killsPlanned: setup.kills.length,
      deadLetters: await storage.deadLetters.count(),
      outboxPending: pending + parked,
    }
  } finally {
    await storage.close()
  }
}
