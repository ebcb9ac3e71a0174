import { pgliteStorage } from 'waybill/postgres'
import { type DemoResult, type Found, checkFound } from './check.ts'
import { readDeliveryLogs } from './delivery-log.ts'
import { type Expected, expectedOf } from './expected.ts'
import type { Invoice } from './invoices.ts'
import type { PlannedKill } from './plan.ts'
import { consumerOf } from './shop.ts'
import { type SupervisorEvent, supervise } from './supervisor.ts'
import { readEffects, readTotals } from './tables.ts'
import { databaseFolder, storeInvoices } from './worker.ts'

export interface DemoOptions {
  /** Empty; takes database and logs. */
  readonly folder: string
  readonly invoices: readonly Invoice[]
  readonly kills: readonly PlannedKill[]
  readonly signal: AbortSignal
  /** Start of the whole, by `performance.now()`. */
  readonly startedMs: number
  readonly onEvent: (event: SupervisorEvent) => void
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

/** Carries the invoices over the road, with kills, and compares the outcome with what they call for. */
export async function runDemo({ folder, invoices, kills, signal, startedMs, onEvent }: DemoOptions): Promise<DemoOutcome> {
  storeInvoices(folder, invoices)
  const killed = await supervise({ folder, kills, signal, onEvent, limitMs: LIMIT_BASE_MS + invoices.length * LIMIT_INVOICE_MS })
  // Only now: the last worker is gone, and a PGlite folder has one owner.
  const found = await findOut(folder, killed, kills.length)
  const expected = expectedOf(invoices)
  const { result, problems } = checkFound(expected, found)
  return { result: { ...result, seconds: Math.round(performance.now() - startedMs) / 1000 }, expected, problems }
}

async function findOut(folder: string, kills: number, killsPlanned: number): Promise<Found> {
  const storage = await pgliteStorage(databaseFolder(folder))
  try {
    const effects = await readEffects(storage.database)
    const totals = await readTotals(storage.database)
    const { pending, parked } = await storage.outbox.stats()
    return {
      effects,
      ...totals,
      deliveries: readDeliveryLogs(folder, consumerOf),
      kills,
      killsPlanned,
      deadLetters: await storage.deadLetters.count(),
      outboxPending: pending + parked,
    }
  } finally {
    await storage.close()
  }
}
