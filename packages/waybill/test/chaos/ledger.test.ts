import assert from 'node:assert/strict'
import { test } from 'node:test'
import { testPostgres } from '../../src/testing/test-postgres.ts'
import { chaosTest } from './chaos-test.ts'
import { joinsAndLeaves, noFault } from './faults.ts'
import { type LedgerReport, runLedger } from './ledger.ts'
import type { BrokenStore } from './storages.ts'
import type { AppendOrder } from './writers.ts'

// 24 writers on 12 hot keys, 3 % rollbacks, appends of several keys whose deadlocks are run again, three relay processes: nothing lost, nothing out of
// order, no effect twice. Seeds are fixed, and any other one can be tried: npm run ledger -- --seed 4711

for (const [index, append] of (['before', 'after', 'mixed'] as const).entries())
  chaosTest(`three relay processes lose and reorder nothing, the event appended ${append} the row lock`, noFault, {
    seed: index + 1,
    append,
    // Mixed, one of two deadlocks: fewer are as good.
    ...(append === 'mixed' ? { transactions: 12 } : {}),
  })

chaosTest('relays that join, leave and die spread the shards evenly each time, and what the dead held is taken over', joinsAndLeaves, {
  seed: 11,
})

const ROUNDS_MAX = 5

async function untilFound(broken: BrokenStore, append: AppendOrder, isFound: (report: LedgerReport) => boolean): Promise<void> {
  for (let seed = 1; seed <= ROUNDS_MAX; seed++) {
    const report = await runLedger({ server: await testPostgres(), seed, fault: noFault, append, broken, transactions: 30, drainMs: 3_000 })
    if (isFound(report)) return
  }
  assert.fail(`nothing was found in ${ROUNDS_MAX} rounds`)
}

test('the same ledger finds a cursor by id, which loses', () => untilFound('cursor-by-id', 'before', ({ lost }) => lost > 0))

test('the same ledger finds SKIP LOCKED, which reorders', () =>
  untilFound('skip-locked', 'after', ({ orderViolations }) => orderViolations > 0))

test('the same ledger finds the order of transaction ids, which reorders', () =>
  untilFound('order-by-transaction', 'after', ({ orderViolations }) => orderViolations > 0))
