import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type Observe, type Storage, type Waybill, WaybillError, createWaybill } from 'waybill'
import { pgliteStorage } from 'waybill/postgres'
import { armCrashpoint } from 'waybill/testing'
import { openDeliveryLog } from './delivery-log.ts'
import type { Invoice } from './invoices.ts'
import type { PlannedKill } from './plan.ts'
import { SHOP, sell } from './shop.ts'
import { createTables, publishedInvoices } from './tables.ts'

/** One process of the demo. */
export interface WorkerPlan {
  /** Holds invoices, database and logs. */
  readonly folder: string
  /** Counts the processes of this demo from 0. */
  readonly run: number
  /** Where it dies; nowhere in the last run. */
  readonly kill: PlannedKill | undefined
}

/** What a worker tells its supervisor. */
export interface WorkerReport {
  /** Invoices that have their order's row, of this and all runs before. */
  readonly invoices: number
  /** Deliveries of this run. */
  readonly deliveries: number
  /** The last thing that failed and will be tried again. */
  readonly trouble: string | undefined
}

const REPORT_MS = 100
// The publisher is much faster than the consumers. Without a limit it would be done before the first crash point is reached.
const PENDING_MAX = 500
const ROOM_EVERY = 10
const ROOM_POLL_MS = 20

/** The folder of the database within the demo's. */
export function databaseFolder(folder: string): string {
  return join(folder, 'database')
}

/** Leaves the invoices for the workers: parsed once, one a line. */
export function storeInvoices(folder: string, invoices: readonly Invoice[]): void {
  writeFileSync(join(folder, 'invoices.ndjson'), invoices.map((invoice) => `${JSON.stringify(invoice)}\n`).join(''))
}

/** The crash points at which workers died, by their own last words. */
export function readLastWords(folder: string): readonly string[] {
  return readFileSync(join(folder, 'kills.log'), { encoding: 'utf8', flag: 'a+' })
    .split('\n')
    .filter((line) => line !== '')
}

/** Publishes what was not published yet, handles everything, and comes back when nothing is left; or dies on the way, as planned. */
export async function runWorker(plan: WorkerPlan, report: (message: WorkerReport) => void): Promise<void> {
  const { folder, run } = plan
  const invoices = readFileSync(join(folder, 'invoices.ndjson'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Invoice)
  using log = openDeliveryLog(folder, run)
  const state = { invoices: 0, deliveries: 0, trouble: undefined as string | undefined }
  const observe: Observe = (event) => {
    if (event.type === 'delivery.received') {
      state.deliveries++
      log.append(event.handler, event.eventId)
    } else if ('error' in event && event.error !== undefined) {
      state.trouble = `${event.type}: ${event.error instanceof Error ? event.error.message : String(event.error)}`
    }
  }
  const storage = await pgliteStorage(databaseFolder(folder))
  await createTables(storage.database)
  const done = await publishedInvoices(storage.database)
  const waybill = await createWaybill({ database: storage, contexts: SHOP, source: 'demo', observe })
  const reporting = setInterval(() => report(state), REPORT_MS)
  try {
    await waybill.start()
    const stopped = waybill.finished.then(() => {
      throw new WaybillError('CLOSED', 'the road ended before the work did')
    })
    await Promise.race([stopped, sellAll(waybill, storage, invoices, done, plan, (count) => (state.invoices = count))])
  } finally {
    clearInterval(reporting)
    await waybill.stop()
  }
  report(state)
}

async function sellAll(
  waybill: Waybill,
  storage: Storage,
  invoices: readonly Invoice[],
  done: ReadonlySet<string>,
  { folder, kill, run }: WorkerPlan,
  sold: (count: number) => void,
): Promise<void> {
  let count = done.size
  let armed = false
  const arm = (): void => {
    if (armed || kill === undefined || count < kill.afterInvoices) return
    armed = true
    armCrashpoint(kill.point, { hit: kill.hit, action: () => die(folder, run, kill) })
  }
  sold(count)
  arm()
  for (const [index, invoice] of invoices.entries()) {
    if (done.has(invoice.number)) continue
    if (count % ROOM_EVERY === 0) await room(storage)
    await sell(waybill, invoice, index)
    sold(++count)
    arm()
  }
  await waybill.drained()
}

async function room(storage: Storage): Promise<void> {
  while ((await storage.outbox.stats()).pending > PENDING_MAX) await delay(ROOM_POLL_MS)
}

function die(folder: string, run: number, { point, hit }: PlannedKill): void {
  appendFileSync(join(folder, 'kills.log'), `${run} ${point} ${hit}\n`)
  process.kill(process.pid, 'SIGKILL')
}
