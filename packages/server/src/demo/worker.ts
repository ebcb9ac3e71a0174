import { setTimeout as delay } from 'node:timers/promises'
import {
  type Environment,
  type Observe,
  type Storage,
  type Transport,
  type Waybill,
  WaybillError,
  createWaybill,
  isWaybillError,
  transportFromEnvironment,
} from 'waybill'
import { openDeliveryLog } from './delivery-log.ts'
import { expectedOf } from './expected.ts'
import type { Invoice } from './invoices.ts'
import { type Killer, createKiller } from './kills.ts'
import { type Setup, isMarked, openDatabase, readSetup } from './setup.ts'
import { type Shop, consumerOf, createShop } from './shop.ts'
import { countEffects, countOrders, countUnseen, createTables, publishedInvoices } from './tables.ts'

/** One process of the demo. */
export interface WorkerPlan {
  /** Holds setup, invoices, logs and, where it is embedded, the database. */
  readonly folder: string
  /** Counts the processes of this demo from 0. */
  readonly run: number
  /** Of those at work at the same time: 0 sells, all handle and relay. */
  readonly slot: number
  /** Says where database and broker are. */
  readonly env: Environment
}

/** What a worker tells its supervisor. */
export interface WorkerReport {
  /** Invoices that have their order's row, of this and all runs before. */
  readonly invoices: number
  /** Deliveries of this run. */
  readonly deliveries: number
  /** By consumer: when the newest of the events that it was given was made, in milliseconds since 1970. */
  readonly newest: Readonly<Record<string, number>>
  /** The last thing that failed and will be tried again. */
  readonly trouble: string | undefined
}

const REPORT_MS = 100
// The publisher is much faster than the consumers. Without a limit it would be done before the first crash point is reached.
const PENDING_MAX = 500
const UNSEEN_MAX = 2_000
const ROOM_EVERY = 10
const ROOM_POLL_MS = 20
const REST_POLL_MS = 100
/** Shards that a dead process held are free after this. */
const LEASE_MS = 5_000
/** A worker may come up while the broker is away. */
const START_LIMIT_MS = 120_000
const START_PAUSE_MS = 200
const OUTAGE_LIMIT_MS = 300_000
/** Once all is sold, nothing more comes after so long without any: longer than a broker waits for a member that has died. */
const REST_STALL_MS = 90_000
/** What comes too often comes soon after: by then it stands in the table. */
const LINGER_MS = 1_000

interface Work extends WorkerPlan {
  readonly setup: Setup
  readonly invoices: readonly Invoice[]
  readonly waybill: Waybill
  readonly storage: Storage
  readonly killer: Killer
  readonly shop: Shop
  readonly sold: (count: number) => void
}

/** Publishes what was not published yet, handles everything, and comes back when nothing is left; or dies on the way, as planned. */
export async function runWorker(plan: WorkerPlan, report: (message: WorkerReport) => void): Promise<void> {
  const { folder, run, env } = plan
  const { setup, invoices } = readSetup(folder)
  using log = openDeliveryLog(folder, run)
  const newest: Record<string, number> = {}
  const state = { invoices: 0, deliveries: 0, newest, trouble: undefined as string | undefined }
  const observe: Observe = (event) => {
    if (event.type === 'delivery.received') {
      state.deliveries++
      log.append(event.handler, event.eventId)
      const consumer = consumerOf(event.handler)
      newest[consumer] = Math.max(newest[consumer] ?? 0, timeOf(event.eventId))
    } else if ('error' in event && event.error !== undefined) {
      state.trouble = `${event.type}: ${event.error instanceof Error ? event.error.message : String(event.error)}`
    }
  }
  const shop = createShop(setup.suffix)
  const killer = createKiller(folder, run, setup.kills)
  const storage = await openDatabase(folder, setup, env)
  if (setup.database === 'pglite') await createTables(storage.database)
  const waybill = await createWaybill({
    database: storage,
    contexts: shop.contexts,
    source: 'demo',
    observe,
    ...(setup.database === 'postgres' ? { relay: { leaseMs: LEASE_MS } } : {}),
    ...(await brokerOf(setup, env, observe)),
  })
  const reporting = setInterval(() => report(state), REPORT_MS)
  const sold = (count: number): void => {
    state.invoices = count
    killer.see(count)
  }
  try {
    await start(waybill)
    const stopped = waybill.finished.then(() => {
      throw new WaybillError('CLOSED', 'the road ended before the work did')
    })
    await Promise.race([stopped, work({ ...plan, setup, invoices, waybill, storage, killer, shop, sold })])
  } finally {
    clearInterval(reporting)
    await waybill.stop()
  }
  report(state)
}

async function brokerOf({ broker }: Setup, env: Environment, observe: Observe): Promise<{ readonly transport?: Transport }> {
  return broker === 'inprocess' ? {} : { transport: await transportFromEnvironment(env, { type: broker, observe }) }
}

/** The first 48 bits of an event's id are the time at which it was made. */
function timeOf(eventId: string): number {
  return Number.parseInt(eventId.slice(0, 8) + eventId.slice(9, 13), 16)
}

async function start(waybill: Waybill): Promise<void> {
  const deadline = Date.now() + START_LIMIT_MS
  for (;;) {
    try {
      await waybill.start()
      return
    } catch (error) {
      if (!isWaybillError(error, 'TRANSPORT_UNAVAILABLE') || Date.now() > deadline) throw error
      await delay(START_PAUSE_MS)
    }
  }
}

async function work(job: Work): Promise<void> {
  if (job.slot === 0) await sellAll(job)
  if (isAlone(job.setup)) await job.waybill.drained()
  else await comeToRest(job)
}

async function sellAll(job: Work): Promise<void> {
  const { invoices, waybill, storage, shop, sold } = job
  const done = await publishedInvoices(storage.database)
  let count = done.size
  sold(count)
  for (const [index, invoice] of invoices.entries()) {
    if (done.has(invoice.number)) continue
    if (count % ROOM_EVERY === 0) await room(job)
    await outages(job, count)
    await shop.sell(waybill, invoice, index)
    sold(++count)
  }
}

async function room({ setup, storage }: Work): Promise<void> {
  const isFull = async (): Promise<boolean> => (await storage.outbox.stats()).pending > PENDING_MAX
  while (await isFull()) await delay(ROOM_POLL_MS)
  if (isAlone(setup)) return
  // Beyond the outbox too: what the broker holds is not handled yet.
  while ((await countUnseen(storage.database)) > UNSEEN_MAX || (await isFull())) await delay(REST_POLL_MS)
}

/** In one process without a broker an empty outbox is the end: its rows wait for the handlers. */
function isAlone({ broker, processes }: Setup): boolean {
  return broker === 'inprocess' && processes === 1
}

/** The load waits until the broker is gone where it is to go, and later until it is back. */
async function outages({ folder, setup }: Work, count: number): Promise<void> {
  for (const [index, { goneAt, backAt }] of setup.outages.entries()) {
    const what = count >= backAt ? 'back' : count >= goneAt ? 'gone' : undefined
    const deadline = Date.now() + OUTAGE_LIMIT_MS
    while (what !== undefined && !isMarked(folder, what, index)) {
      if (Date.now() > deadline) throw new WaybillError('TIMEOUT', `the broker was not ${what} within ${OUTAGE_LIMIT_MS / 1000} s`)
      await delay(ROOM_POLL_MS)
    }
  }
}

/** Resolves when everything is sold, the outbox is empty, and the consumers have done what they must; or when nothing more comes. */
async function comeToRest({ setup, slot, invoices, storage, killer, sold }: Work): Promise<void> {
  const expected = expectedOf(invoices).effects.length
  let before = ''
  let changedMs = Date.now()
  for (;;) {
    const count = await countOrders(storage.database)
    if (slot === 0) sold(count)
    else killer.see(count)
    if (count === invoices.length) {
      const { effects, different } = await countEffects(storage.database)
      const { pending } = await storage.outbox.stats()
      if (pending === 0 && different >= expected) break
      const now = `${effects} ${pending}`
      if (now !== before) changedMs = Date.now()
      else if (Date.now() - changedMs > REST_STALL_MS) return
      before = now
    } else changedMs = Date.now()
    await delay(REST_POLL_MS)
  }
  if (setup.broker !== 'inprocess') await delay(LINGER_MS)
}
