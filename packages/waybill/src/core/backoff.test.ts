import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { DEFAULT_RETRY, fullJitterMs, resolveRetryPolicy } from './backoff.ts'
import { isWaybillError } from './errors.ts'

const policies = fc.record({ baseMs: fc.integer({ min: 0, max: 3_600_000 }), maxMs: fc.integer({ min: 0, max: 86_400_000 }) })
const NEARLY_1 = 1 - Number.EPSILON / 2

test('every wait is a whole number from 0 to the limit', () => {
  fc.assert(
    fc.property(
      policies,
      fc.integer({ min: 1, max: 10_000 }),
      fc.double({ min: 0, max: NEARLY_1, noNaN: true }),
      (policy, attempt, random) => {
        const ms = fullJitterMs(policy, attempt, () => random)
        assert.ok(Number.isInteger(ms) && ms >= 0 && ms <= policy.maxMs, `${ms}`)
        assert.ok(ms <= policy.baseMs * 2 ** Math.min(attempt - 1, 60))
      },
    ),
  )
})

test('the upper bound doubles with each failure, up to the limit, and never falls', () => {
  fc.assert(
    fc.property(policies, (policy) => {
      const bounds = Array.from({ length: 60 }, (_, index) => fullJitterMs(policy, index + 1, () => NEARLY_1))
      assert.deepEqual(
        bounds,
        bounds.toSorted((a, b) => a - b),
      )
    }),
  )
  const policy = { baseMs: 100, maxMs: 1_000 }
  assert.deepEqual(
    [1, 2, 3, 4, 5, 1_000].map((attempt) => fullJitterMs(policy, attempt, () => NEARLY_1)),
    [100, 200, 400, 800, 1_000, 1_000],
  )
  assert.equal(
    fullJitterMs(policy, 5, () => 0),
    0,
  )
})

test('a policy is filled in and checked field by field', () => {
  assert.deepEqual(resolveRetryPolicy(), DEFAULT_RETRY)
  assert.deepEqual(resolveRetryPolicy({ attemptsMax: 1 }), { ...DEFAULT_RETRY, attemptsMax: 1 })
  for (const [options, where] of [
    [{ attemptsMax: 0 }, 'attemptsMax'],
    [{ attemptsMax: 101 }, 'attemptsMax'],
    [{ baseMs: -1 }, 'baseMs'],
    [{ baseMs: NaN }, 'baseMs'],
    [{ maxMs: Infinity }, 'maxMs'],
  ] as const) {
    assert.throws(
      () => resolveRetryPolicy(options, 'retry of billing/invoice'),
      (error) => isWaybillError(error, 'INVALID_OPTION') && error.where === `retry of billing/invoice.${where}`,
    )
  }
})
