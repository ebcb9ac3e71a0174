import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Committed, compareLedger } from '../../src/testing/compare-ledger.ts'
import { type LedgerReport, faultsOf } from './ledger.ts'

// What finds nothing passes: so each thing that it has to find is shown to it once.

const committed: ReadonlyMap<string, Committed> = new Map([
  ['a1', { key: 'a', version: 1 }],
  ['a2', { key: 'a', version: 2 }],
  ['a3', { key: 'a', version: 3 }],
  ['b1', { key: 'b', version: 1 }],
])
const right = { committed: 4, lost: 0, unexpected: 0, repeats: 0, orderViolations: 0 }

test('what arrives once and in order is right, whatever the order across keys', () => {
  assert.deepEqual(compareLedger(committed, ['a1', 'b1', 'a2', 'a3']), right)
  assert.deepEqual(compareLedger(committed, ['a1', 'a2', 'a3', 'b1']), right)
})

test('a repeat is counted as such, and is no disorder however late it comes', () => {
  assert.deepEqual(compareLedger(committed, ['a1', 'a2', 'a3', 'a1', 'a2', 'b1', 'b1']), { ...right, repeats: 3 })
})

test('what never arrives, what nobody committed and what is overtaken are each found', () => {
  assert.deepEqual(compareLedger(committed, ['a1', 'a2', 'a3']), { ...right, lost: 1 })
  assert.deepEqual(compareLedger(committed, ['a1', 'ghost', 'a2', 'a3', 'b1']), { ...right, unexpected: 1 })
  assert.deepEqual(compareLedger(committed, ['a2', 'a1', 'a3', 'b1']), { ...right, orderViolations: 1 })
  assert.deepEqual(compareLedger(committed, ['a3', 'a1', 'a2', 'b1']), { ...right, orderViolations: 2 })
})

test('a run with one fault of any kind, or without having seen its own, is no good run', () => {
  const good: LedgerReport = {
    ...right,
    seed: 1,
    fault: 'cut',
    append: 'mixed',
    rolledBack: 3,
    deadlocks: 0,
    failed: 0,
    unknown: 0,
    repeats: 7,
    effectDuplicates: 0,
    effectDisorder: 0,
    seen: 2,
    recoveryMs: 0,
    relayFailures: 1,
    relays: 3,
    left: 0,
    trouble: [],
    durationMs: 1,
  }
  assert.deepEqual(faultsOf(good), [])
  for (const name of ['lost', 'unexpected', 'orderViolations', 'effectDuplicates', 'effectDisorder', 'left'] as const)
    assert.deepEqual(faultsOf({ ...good, [name]: 1 }), [`${name}: 1`])
  assert.equal(faultsOf({ ...good, seen: 0 }).length, 1)
  assert.equal(faultsOf({ ...good, committed: 0 }).length, 1)
  assert.equal(faultsOf({ ...good, rolledBack: 0 }).length, 1)
  assert.deepEqual(faultsOf({ ...good, trouble: ['relay-0 ended with 1'] }), ['relay-0 ended with 1'])
})
