import assert from 'node:assert/strict'
import { test } from 'node:test'
import { testPostgres } from '../../src/testing/test-postgres.ts'
import { type Fault, type LedgerOptions, describe, faultsOf, runLedger } from './ledger.ts'

/** Declares a test that is one run of the ledger under a fault. `npm run ledger` replays it by its seed. */
export function chaosTest(name: string, fault: Fault, options: Omit<LedgerOptions, 'server' | 'fault'>): void {
  test(name, async (t) => {
    const report = await runLedger({ server: await testPostgres(), fault, ...options })
    t.diagnostic(describe(report))
    assert.deepEqual(faultsOf(report), [], describe(report))
  })
}
