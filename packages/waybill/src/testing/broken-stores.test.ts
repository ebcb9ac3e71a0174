import assert from 'node:assert/strict'
import { test } from 'node:test'
import { postgresStorage } from '../adapters/postgres/pg.ts'
import type { Storage } from '../core/stores.ts'
import { withCursorById } from './broken/cursor-by-id.ts'
import { withInboxOutsideTransaction } from './broken/inbox-outside-transaction.ts'
import { withoutSlotLock } from './broken/lease-without-lock.ts'
import { withOrderByTransaction } from './broken/order-by-transaction.ts'
import { withSkipLocked } from './broken/skip-locked.ts'
import { type LedgerOptions, type LedgerReport, runOutboxLedger } from './outbox-ledger.ts'
import { INBOX_TESTS, inboxStoreContract } from './inbox-store-contract.ts'
import { ORDER_TESTS } from './outbox-order-contract.ts'
import { outboxStoreContract } from './outbox-store-contract.ts'
import { testPostgres } from './test-postgres.ts'

// A suite that finds nothing passes. These stores are wrong in ways that are in use elsewhere, and the suites have to say so.

// Each of them is found in the first round nearly always.
const ROUNDS_MAX = 10
let databases = 0

// A database each: the broken stores name their tables without a schema.
async function freshStorage(): Promise<Storage> {
  const server = await testPostgres()
  const name = `broken_${++databases}`
  const admin = await postgresStorage(server.url())
  await admin.database.query(`create database ${name}`)
  await admin.close()
  return postgresStorage(server.url(name), { poolMax: 30 })
}

function collect(contract: typeof outboxStoreContract, breakIt: (storage: Storage) => Storage): Map<string, () => Promise<void>> {
  const tests = new Map<string, () => Promise<void>>()
  contract(
    (name, run) => tests.set(name, run),
    async () => breakIt(await freshStorage()),
  )
  return tests
}

async function ledgerUntil(
  breakIt: (storage: Storage) => Storage,
  options: Omit<LedgerOptions, 'seed'>,
  found: (report: LedgerReport) => boolean,
  rounds = ROUNDS_MAX,
): Promise<void> {
  for (let seed = 1; seed <= rounds; seed++) {
    const storage = breakIt(await freshStorage())
    try {
      await storage.migrate()
      if (found(await runOutboxLedger(storage, { seed, ...options }))) return
    } finally {
      await storage.close()
    }
  }
  assert.fail(`the ledger found nothing in ${rounds} rounds`)
}

test('a cursor by id is red: it passes over what commits late', async () => {
  const tests = collect(outboxStoreContract, withCursorById)
  await assert.rejects(tests.get(ORDER_TESTS.lateCommit)!(), { code: 'ERR_ASSERTION' })
  await ledgerUntil(withCursorById, { append: 'before', relays: 1 }, ({ lost }) => lost > 0)
})

test('SKIP LOCKED with three relays is red: it breaks the order of a key', async () => {
  const tests = collect(outboxStoreContract, withSkipLocked)
  await assert.rejects(tests.get(ORDER_TESTS.oneRelayPerKey)!(), { code: 'ERR_ASSERTION' })
  await ledgerUntil(withSkipLocked, { append: 'after', relays: 3 }, ({ lost, orderViolations }) => lost === 0 && orderViolations > 0)
})

test('the order of transaction ids is red: it is not that of commits', async () => {
  const tests = collect(outboxStoreContract, withOrderByTransaction)
  await assert.rejects(tests.get(ORDER_TESTS.commitOrder)!(), { code: 'ERR_ASSERTION' })
  await ledgerUntil(
    withOrderByTransaction,
    { append: 'after', relays: 1 },
    ({ lost, orderViolations }) => lost === 0 && orderViolations > 0,
  )
})

test('leases without a lock in the append are red: who appends first is not who commits first', async () => {
  await ledgerUntil(withoutSlotLock, { append: 'before' }, ({ lost, orderViolations }) => lost === 0 && orderViolations > 0)
})

test('an inbox outside the transaction is red: a rolled-back handler counts as done', async () => {
  const tests = collect(inboxStoreContract, withInboxOutsideTransaction)
  for (const name of [INBOX_TESTS.rollback, INBOX_TESTS.waits, INBOX_TESTS.waitsForRollback, INBOX_TESTS.once]) {
    await assert.rejects(tests.get(name)!(), { code: 'ERR_ASSERTION' }, name)
  }
})

test('the real store is green where the broken ones are red', async () => {
  await assert.rejects(
    ledgerUntil(
      (storage) => storage,
      { append: 'before' },
      ({ lost, orderViolations }) => lost + orderViolations > 0,
      2,
    ),
    { message: /found nothing/ },
  )
  const outbox = collect(outboxStoreContract, (storage) => storage)
  const inbox = collect(inboxStoreContract, (storage) => storage)
  for (const name of [ORDER_TESTS.lateCommit, ORDER_TESTS.commitOrder, ORDER_TESTS.oneRelayPerKey]) await outbox.get(name)!()
  for (const name of Object.values(INBOX_TESTS)) await inbox.get(name)!()
})
