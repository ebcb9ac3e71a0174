import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises'
import type { SqlExecutor } from '../core/database.ts'
import { newId } from '../core/ids.ts'
import type { ClaimedRow, OutboxEntry, Storage } from '../core/stores.ts'
import { compareLedger } from './compare-ledger.ts'
import { seededRandom } from './contract-tools.ts'

/** How hard to shake an outbox. */
export interface LedgerOptions {
  readonly seed: number
  /** Concurrent writers. @default 24 */
  readonly writers?: number
  /** Hot on purpose: with many keys, broken order hides. @default 12 */
  readonly keys?: number
  /** Transactions of each writer. @default 40 */
  readonly transactions?: number
  /** @default 3 */
  readonly relays?: number
  /** Whether the event is appended before or after the business row is locked. @default 'after' */
  readonly append?: 'before' | 'after'
  /**
   * Most keys that a transaction writes to, in any order, in one append or two. Above 1 only with SQL, whose deadlocks come out: a transaction that was
   * ended by one is run again, as a caller would. @default 1
   */
  readonly keysPerTransaction?: number
  /** Whether relays die in the middle of a batch, and others take over. @default false */
  readonly deaths?: boolean
  /** Business rows in SQL, under row locks; otherwise in memory. @default true */
  readonly sql?: boolean
}

/** What came out, compared with what was committed. Order is that of first occurrences. */
export interface LedgerReport {
  readonly committed: number
  readonly rolledBack: number
  readonly lost: number
  readonly unexpected: number
  readonly duplicates: number
  readonly orderViolations: number
  readonly deaths: number
  /** Transactions that were ended by a deadlock, and run again. */
  readonly deadlocks: number
}

interface Truth {
  /** Event id → its key and the version that the business row had with it, of committed transactions only. */
  readonly committed: Map<string, { readonly key: string; readonly version: number }>
  rolledBack: number
  deadlocks: number
}

const ROLLBACK = new Error('rolled back on purpose')
const ROLLBACKS = 0.03
const DEATHS = 0.05
const SPLITS = 0.5
const DEADLOCKS_MAX = 100
const BATCH = 20
const QUIET_CLAIMS = 3
// After the writers are done: enough for every lease to run out, and an end for an outbox that never gets empty.
const LAST_PASSES_MAX = 2000
const LAST_PASS_MS = 5
// Long where nobody dies, so that a slow machine doesn't cause repeats; short where somebody does, so that the takeover comes soon.
const LEASE_MS = 60_000
const LEASE_AMONG_DEATHS_MS = 150

/**
 * Writers raise a version per key, under a lock, and append an event with it; relays claim, send to a list and mark. The list is then compared with
 * the versions, which are the truth about the order of commits.
 */
export async function runOutboxLedger(storage: Storage, options: LedgerOptions): Promise<LedgerReport> {
  const { seed, writers = 24, relays = 3, sql = true, deaths = false } = options
  const keys = Array.from({ length: options.keys ?? 12 }, (_, index) => `key-${index}`)
  const business = sql ? await sqlBusiness(storage, keys) : memoryBusiness()
  const truth: Truth = { committed: new Map(), rolledBack: 0, deadlocks: 0 }
  const sent: string[] = []
  const state = { writing: true, deaths: 0 }
  try {
    const leaseMs = deaths ? LEASE_AMONG_DEATHS_MS : LEASE_MS
    const names = Array.from({ length: relays }, (_, index) => `relay-${index}`)
    // Twice round: the first learn of the last, and give up what is not their share.
    for (const name of [...names, ...names, ...names]) await storage.outbox.acquire(name, leaseMs)
    const relaying = names.map((name, index) =>
      relay({ storage, name, leaseMs, sent, state, deaths, random: seededRandom(seed * 1000 + 500 + index) }),
    )
    const writing = Array.from({ length: writers }, (_, index) =>
      write({ storage, business, keys, truth, options, random: seededRandom(seed * 1000 + index) }),
    )
    const written = await Promise.allSettled(writing)
    state.writing = false
    await Promise.all(relaying)
    for (const result of written) if (result.status === 'rejected') throw result.reason
  } finally {
    state.writing = false
    await business.end()
  }
  return { ...compare(truth, sent), deaths: state.deaths, deadlocks: truth.deadlocks }
}

interface Business {
  /** Locks the key's row until the transaction ends, raises its version and gives it back. */
  raise(sql: SqlExecutor, key: string): Promise<number>
  /** Called when the transaction of `key` has ended. */
  ended(key: string, committed: boolean): void
  end(): Promise<void>
}

async function sqlBusiness({ database }: Storage, keys: readonly string[]): Promise<Business> {
  const table = `waybill_test_ledger_${newId().replaceAll('-', '')}`
  await database.query(`create table ${table} (key text primary key, version integer not null default 0)`)
  await database.query(`insert into ${table} (key) select k.key from json_array_elements_text($1::text::json) as k (key)`, [
    JSON.stringify(keys),
  ])
  return {
    async raise(sql, key) {
      const { rows } = await sql.query<{ version: number }>(`update ${table} set version = version + 1 where key = $1 returning version`, [
        key,
      ])
      return Number(rows[0]!.version)
    },
    ended: () => {},
    end: async () => void (await database.query(`drop table ${table}`)),
  }
}

/** For storages without SQL: a lock per key that lives here. */
function memoryBusiness(): Business {
  const rows = new Map<string, { version: number; locked: boolean; readonly waiting: (() => void)[] }>()
  return {
    async raise(_sql, key) {
      const row = rows.get(key) ?? { version: 0, locked: false, waiting: [] }
      rows.set(key, row)
      if (row.locked) await new Promise<void>((resolve) => row.waiting.push(resolve))
      row.locked = true
      return ++row.version
    },
    ended(key, committed) {
      const row = rows.get(key)
      if (row === undefined || !row.locked) return
      if (!committed) row.version--
      const next = row.waiting.shift()
      if (next === undefined) row.locked = false
      else next()
    },
    end: async () => {},
  }
}

interface WriterParts {
  readonly storage: Storage
  readonly business: Business
  readonly keys: readonly string[]
  readonly truth: Truth
  readonly options: LedgerOptions
  readonly random: () => number
}

async function write({ storage: { database, outbox }, business, keys, truth, options, random }: WriterParts): Promise<void> {
  const { transactions = 40, append = 'after', keysPerTransaction = 1 } = options
  for (let count = 0; count < transactions; count++) {
    const chosen = choose(keys, keysPerTransaction, random)
    const rollsBack = random() < ROLLBACKS
    const entries = chosen.map(entryOf)
    const parts = entries.length > 1 && random() < SPLITS ? [entries.slice(0, 1), entries.slice(1)] : [entries]
    for (let deadlocks = 0; ;) {
      const versions: number[] = []
      try {
        await database.transaction(async (sql) => {
          if (append === 'before') for (const part of parts) await outbox.append(sql, part)
          for (const key of chosen) versions.push(await business.raise(sql, key))
          await turns(random, 3)
          if (append === 'after') for (const part of parts) await outbox.append(sql, part)
          await turns(random, 2)
          if (rollsBack) throw ROLLBACK
        })
        for (const [index, { message }] of entries.entries())
          truth.committed.set(message.id, { key: message.key, version: versions[index]! })
        for (const key of chosen) business.ended(key, true)
        break
      } catch (error) {
        for (const [index] of versions.entries()) business.ended(chosen[index]!, false)
        if (isDeadlock(error) && ++deadlocks <= DEADLOCKS_MAX) {
          truth.deadlocks++
          continue
        }
        if (error !== ROLLBACK) throw error
        truth.rolledBack++
        break
      }
    }
  }
}

/** Different keys, `most` at most. */
function choose(keys: readonly string[], most: number, random: () => number): readonly string[] {
  const chosen = new Set<string>()
  for (let left = most === 1 ? 1 : 1 + Math.floor(random() * most); left > 0; left--) chosen.add(keys[Math.floor(random() * keys.length)]!)
  return [...chosen]
}

function isDeadlock(error: unknown): boolean {
  return typeof error === 'object' && error !== null && 'code' in error && error.code === '40P01'
}

interface RelayParts {
  readonly storage: Storage
  readonly name: string
  readonly leaseMs: number
  readonly sent: string[]
  readonly state: { readonly writing: boolean; deaths: number }
  readonly deaths: boolean
  readonly random: () => number
}

/** Claims, sends and marks until the writers are done and nothing is left. Where it dies, its successor comes under another name. */
async function relay({ storage: { outbox }, name, leaseMs, sent, state, deaths, random }: RelayParts): Promise<void> {
  const undead: Promise<void>[] = []
  let life = name
  for (let quiet = 0, passes = 0, last = 0; quiet < QUIET_CLAIMS && last < LAST_PASSES_MAX; passes++) {
    const writing = state.writing
    if (deaths || passes % 10 === 0) await outbox.acquire(life, leaseMs)
    const rows = await outbox.claim(life, { limit: BATCH, busy: [] })
    // One dies for certain, however few claims a slow machine comes to.
    if (deaths && rows.length > 0 && (state.deaths === 0 || random() < DEATHS)) {
      const at = Math.floor(random() * rows.length)
      await send(rows.slice(0, at), sent, random)
      // One half is gone; the other half was only slow, and goes on sending without knowing that its shards are another's now.
      if (random() < 0.5) undead.push(send(rows.slice(at), sent, random, 20))
      life = `${name}-after-${++state.deaths}`
    } else {
      await send(rows, sent, random)
      await outbox.markPublished(
        life,
        rows.map((row) => row.rowId),
      )
    }
    if (writing) continue
    last++
    // Where relays die, one may find nothing only because a dead one's leases are still running.
    const empty = rows.length === 0 && (!deaths || (await outbox.stats()).pending === 0)
    quiet = empty ? quiet + 1 : 0
    if (rows.length === 0) await delay(LAST_PASS_MS)
  }
  await Promise.all(undead)
}

async function send(rows: readonly ClaimedRow[], sent: string[], random: () => number, turnsMax = 2): Promise<void> {
  for (const row of rows) {
    await turns(random, turnsMax)
    sent.push(row.message.id)
  }
}

async function turns(random: () => number, most: number): Promise<void> {
  for (let left = Math.floor(random() * (most + 1)); left > 0; left--) await turn()
}

function entryOf(key: string): OutboxEntry {
  return { eventType: 'ledger.Raised', message: { id: newId(), topic: 'ledger.Raised', key, headers: {}, body: new Uint8Array([1]) } }
}

function compare({ committed, rolledBack }: Truth, sent: readonly string[]): Omit<LedgerReport, 'deaths' | 'deadlocks'> {
  const { repeats, ...compared } = compareLedger(committed, sent)
  return { ...compared, rolledBack, duplicates: repeats }
}
