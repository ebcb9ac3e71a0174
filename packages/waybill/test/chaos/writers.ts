import { createHash } from 'node:crypto'
import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises'
import type { SqlExecutor } from '../../src/core/database.ts'
import { isWaybillError } from '../../src/core/errors.ts'
import { newId } from '../../src/core/ids.ts'
import { OUTBOX_SHARDS, type OutboxEntry, type Storage } from '../../src/core/stores.ts'
import { isConnectionError } from '../../src/adapters/postgres/pg-errors.ts'
import { sqlStateOf } from '../../src/adapters/postgres/statements.ts'
import { seededRandom } from '../../src/testing/contract-tools.ts'
import type { Committed } from '../../src/testing/compare-ledger.ts'

/** Whether the event is appended before or after the business row is locked; `mixed`: some writers so, some so, who then deadlock. */
export type AppendOrder = 'before' | 'after' | 'mixed'

export interface WritersOptions {
  readonly storage: Storage
  readonly seed: number
  readonly writers: number
  readonly keys: readonly string[]
  /** Transactions of each writer, at least. */
  readonly transactions: number
  readonly append: AppendOrder
  /** Until then they go on, slowly, beyond their number. */
  readonly isOver: () => boolean
}

export interface WritersReport {
  readonly rolledBack: number
  /** Transactions that were run again after a deadlock (40P01), as a caller would. */
  readonly deadlocks: number
  /** Transactions that a fault has ended. */
  readonly failed: number
  /** Cut off after COMMIT was sent. Which of them happened is known from the business rows. */
  readonly unknown: number
  /** Events of transactions that were reported as committed. */
  readonly confirmed: ReadonlySet<string>
}

const TOPIC = 'ledger'
const ROLLBACK = new Error('rolled back on purpose')
const ROLLBACKS = 0.03
const MULTI_KEY = 0.1
const AFTER_FAILURE_MS = 20
const SLOW_MS = 60

/** As the store has it: the first 12 bits of an MD5, over 64. */
const shardOf = (key: string): number =>
  Number.parseInt(createHash('md5').update(`${TOPIC}\n${key}`).digest('hex').slice(0, 3), 16) % OUTBOX_SHARDS

/** So many keys, spread evenly over the shards: as they come, a relay might hold none of a dozen, and whatever is done to it shows nothing. */
export function spreadKeys(count: number): readonly string[] {
  return Array.from({ length: count }, (_, index) => {
    const shard = Math.floor(((index + 0.5) * OUTBOX_SHARDS) / count)
    for (let tries = 0; ; tries++) {
      const key = `key-${index}-${tries}`
      if (shardOf(key) === shard) return key
    }
  })
}

/** The business: a version per key, raised under a row lock, and a line for each event with the version it stands for, which is the truth. */
export async function createBusiness({ database }: Storage, keys: readonly string[]): Promise<void> {
  await database.query('create table ledger_keys (key text primary key, version integer not null)')
  await database.query('insert into ledger_keys select k.key, 0 from json_array_elements_text($1::text::json) as k (key)', [
    JSON.stringify(keys),
  ])
  await database.query('create table ledger_events (event_id text primary key, key text not null, version integer not null)')
}

export async function readTruth({ database }: Storage): Promise<ReadonlyMap<string, Committed>> {
  const { rows } = await database.query<{ event_id: string; key: string; version: number }>(
    'select event_id, key, version from ledger_events',
  )
  return new Map(rows.map(({ event_id, key, version }) => [event_id, { key, version }]))
}

interface Counters {
  rolledBack: number
  deadlocks: number
  failed: number
  unknown: number
  readonly confirmed: Set<string>
}

export async function runWriters(options: WritersOptions): Promise<WritersReport> {
  const counters: Counters = { rolledBack: 0, deadlocks: 0, failed: 0, unknown: 0, confirmed: new Set() }
  const writing = Array.from({ length: options.writers }, (_, index) => write(options, index, counters))
  for (const result of await Promise.allSettled(writing)) if (result.status === 'rejected') throw result.reason
  return counters
}

async function write(
  { storage, seed, keys, transactions, append, isOver }: WritersOptions,
  index: number,
  counters: Counters,
): Promise<void> {
  const random = seededRandom(seed * 1000 + index)
  const order = append === 'mixed' ? (index % 2 === 0 ? 'before' : 'after') : append
  for (let count = 0; count < transactions || !isOver();) {
    const chosen = Array.from(
      { length: random() < MULTI_KEY ? 2 + Math.floor(random() * 2) : 1 },
      () => keys[Math.floor(random() * keys.length)]!,
    )
    const plan: Plan = { keys: [...new Set(chosen)], order, apart: random() < 0.5, rollsBack: random() < ROLLBACKS, random }
    if (await runOnce(storage, plan, counters)) count++
    else await delay(AFTER_FAILURE_MS)
    if (count >= transactions) await delay(SLOW_MS)
  }
}

interface Plan {
  /** In any order: two transactions that take them the other way round deadlock. */
  readonly keys: readonly string[]
  readonly order: 'before' | 'after'
  /** Several keys in an append of their own each, instead of all in one. */
  readonly apart: boolean
  readonly rollsBack: boolean
  readonly random: () => number
}

/** One business transaction, run again while it deadlocks. False where a fault has ended it. */
async function runOnce(storage: Storage, plan: Plan, counters: Counters): Promise<boolean> {
  for (;;) {
    // New ones each time: whatever arrives of a transaction that was rolled back must be noticed.
    const entries = plan.keys.map(entryOf)
    const ids = entries.map(({ message }) => message.id)
    try {
      await storage.database.transaction((sql) => transact(storage, sql, entries, plan))
      for (const id of ids) counters.confirmed.add(id)
      return true
    } catch (error) {
      if (error === ROLLBACK) {
        counters.rolledBack++
        return true
      }
      if (sqlStateOf(error) === '40P01') {
        counters.deadlocks++
        continue
      }
      if (isWaybillError(error, 'UNKNOWN_OUTCOME')) counters.unknown++
      else if (isConnectionError(error)) counters.failed++
      else throw error
      return false
    }
  }
}

async function transact({ outbox }: Storage, sql: SqlExecutor, entries: readonly OutboxEntry[], plan: Plan): Promise<void> {
  const { order, apart, rollsBack, random } = plan
  const parts = apart ? entries.map((entry) => [entry]) : [entries]
  const append = async (): Promise<void> => {
    for (const part of parts) await outbox.append(sql, part)
  }
  if (order === 'before') await append()
  for (const { message } of entries) {
    await sql.query(
      `with raised as (update ledger_keys set version = version + 1 where key = $1 returning key, version)
       insert into ledger_events (event_id, key, version) select $2, r.key, r.version from raised r`,
      [message.key, message.id],
    )
    for (let turns = Math.floor(random() * 3); turns > 0; turns--) await turn()
  }
  if (order === 'after') await append()
  if (rollsBack) throw ROLLBACK
}

function entryOf(key: string): OutboxEntry {
  return { eventType: 'ledger.Raised', message: { id: newId(), topic: TOPIC, key, headers: {}, body: new Uint8Array([1]) } }
}
