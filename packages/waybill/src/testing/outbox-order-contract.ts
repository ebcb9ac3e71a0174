import assert from 'node:assert/strict'
import { newId } from '../core/ids.ts'
import type { Storage } from '../core/stores.ts'
import { type StorageTraits, type withStorage, until } from './contract-tools.ts'
import { LEASE_MS, append, entry } from './outbox-contract-tools.ts'
import { type LedgerOptions, runOutboxLedger } from './outbox-ledger.ts'

/** The names of the tests that hold an outbox to loss and order. */
export const ORDER_TESTS = {
  lateCommit: 'a row whose transaction commits late is not passed over',
  openTransaction: 'a transaction that stays open holds up no other key',
  commitOrder: 'the order of a key is the order of commits, also where the later one began first',
  oneRelayPerKey: 'while one relay has a key in flight, no other relay is given more of it',
  appendAfter: 'under contention nothing is lost, doubled or out of order, the event appended after the business row was locked',
  appendBefore: 'under contention nothing is lost, doubled or out of order, the event appended before the business row is locked',
  severalKeys: 'transactions of several keys, in whatever order and however many appends, lose nothing and keep the order of each key',
  deaths: 'relays that die or fall asleep in the middle of a batch cost repeats, never an event or the order',
} as const

/** Loss and order, first case by case, then by a ledger under contention. */
export function outboxOrderContract(declare: ReturnType<typeof withStorage>, { sql = true, concurrent = true }: StorageTraits): void {
  if (concurrent) declare(ORDER_TESTS.lateCommit, (storage) => lateCommit(storage, false))
  if (concurrent) declare(ORDER_TESTS.openTransaction, (storage) => lateCommit(storage, true))
  if (concurrent && sql) declare(ORDER_TESTS.commitOrder, commitOrder)
  declare(ORDER_TESTS.oneRelayPerKey, oneRelayPerKey)
  declare(ORDER_TESTS.appendAfter, (storage) => ledger(storage, { seed: 1, append: 'after', sql }))
  declare(ORDER_TESTS.appendBefore, (storage) => ledger(storage, { seed: 2, append: 'before', sql }))
  if (concurrent && sql) declare(ORDER_TESTS.severalKeys, severalKeys)
  declare(ORDER_TESTS.deaths, (storage) => ledgerWithDeaths(storage, { seed: 3, deaths: true, sql }))
}

async function lateCommit(storage: Storage, atOnce: boolean): Promise<void> {
  const late = entry('late')
  const early = entry('early')
  const published: string[] = []
  await storage.database.transaction(async (sql) => {
    await storage.outbox.append(sql, [late])
    await append(storage, [early])
    await relayOnce(storage, published)
    if (atOnce) assert.deepEqual(published, [early.message.id])
  })
  await relayOnce(storage, published)
  // Two keys: their order is nobody's promise.
  assert.deepEqual(published.toSorted(), [late.message.id, early.message.id].toSorted())
}

async function commitOrder(storage: Storage): Promise<void> {
  const table = `waybill_test_${newId().replaceAll('-', '')}`
  await storage.database.query(`create table ${table} (note text)`)
  try {
    const first = entry('same')
    const second = entry('same')
    await storage.database.transaction(async (sql) => {
      await sql.query(`insert into ${table} values ('this transaction is the older one')`)
      await append(storage, [first])
      await storage.outbox.append(sql, [second])
    })
    const published: string[] = []
    await relayOnce(storage, published)
    assert.deepEqual(published, [first.message.id, second.message.id])
  } finally {
    await storage.database.query(`drop table ${table}`)
  }
}

async function oneRelayPerKey(storage: Storage): Promise<void> {
  const keys = Array.from({ length: 20 }, (_, index) => `key-${index}`)
  for (const key of keys) for (let count = 0; count < 3; count++) await append(storage, [entry(key)])
  const relays = ['relay-a', 'relay-b', 'relay-c']
  const inFlight = new Map<string, Set<string>>(keys.map((key) => [key, new Set()]))
  for (let round = 0; round < 6; round++) {
    for (const relay of relays) {
      await storage.outbox.acquire(relay, LEASE_MS)
      // Nobody marks anything once the shares are settled, so all that was claimed stays in flight.
      if (round < 3) continue
      for (const { message } of await storage.outbox.claim(relay, { limit: 10, busy: [] })) inFlight.get(message.key)!.add(relay)
    }
  }
  const shared = [...inFlight].filter(([, owners]) => owners.size > 1).map(([key, owners]) => `${key}: ${[...owners].join(' and ')}`)
  assert.deepEqual(shared, [])
}

async function ledger(storage: Storage, options: LedgerOptions): Promise<void> {
  const report = await runOutboxLedger(storage, options)
  assert.deepEqual(
    { ...report, committed: report.committed > 0, rolledBack: report.rolledBack > 0 },
    { committed: true, rolledBack: true, lost: 0, unexpected: 0, duplicates: 0, orderViolations: 0, deaths: 0, deadlocks: 0 },
    `seed ${options.seed}`,
  )
}

async function severalKeys(storage: Storage): Promise<void> {
  // Few writers: the server takes a second to notice that two wait for each other.
  for (const append of ['before', 'after'] as const) {
    const { committed, lost, unexpected, duplicates, orderViolations } = await runOutboxLedger(storage, {
      seed: 4,
      append,
      writers: 4,
      transactions: 10,
      keysPerTransaction: 3,
    })
    assert.ok(committed > 40, 'hardly any transaction has several keys')
    assert.deepEqual(
      { lost, unexpected, duplicates, orderViolations },
      { lost: 0, unexpected: 0, duplicates: 0, orderViolations: 0 },
      append,
    )
  }
}

async function ledgerWithDeaths(storage: Storage, options: LedgerOptions): Promise<void> {
  const { lost, unexpected, orderViolations, deaths } = await runOutboxLedger(storage, options)
  assert.ok(deaths > 0, 'no relay died: nothing was tested')
  assert.deepEqual({ lost, unexpected, orderViolations }, { lost: 0, unexpected: 0, orderViolations: 0 }, `seed ${options.seed}`)
}

/** Claims until nothing is left, and marks. */
async function relayOnce({ outbox }: Storage, published: string[]): Promise<void> {
  await outbox.acquire('relay-a', LEASE_MS)
  await until('nothing is due', async () => {
    const rows = await outbox.claim('relay-a', { limit: 100, busy: [] })
    published.push(...rows.map(({ message }) => message.id))
    await outbox.markPublished(
      'relay-a',
      rows.map((row) => row.rowId),
    )
    return rows.length === 0
  })
}
