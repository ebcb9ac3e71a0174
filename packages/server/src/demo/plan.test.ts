import assert from 'node:assert/strict'
import { test } from 'node:test'
import { planKills, seededRandom } from './plan.ts'

test('a seed decides the plan', () => {
  assert.deepEqual(planKills(7, 20, 2025), planKills(7, 20, 2025))
  assert.notDeepEqual(planKills(7, 20, 2025), planKills(8, 20, 2025))
})

test('each crash point comes once before any comes again, and none that the demo never reaches', () => {
  const points = planKills(3, 10, 2025).map(({ point }) => point)
  assert.equal(new Set(points).size, 10)
  for (const point of ['consume.beforePark', 'relay.afterPark', 'relay.beforeRelinquish'] as const) assert.ok(!points.includes(point))
})

test('kills are spread over the invoices, with work left after the last', () => {
  for (const [kills, invoices] of [
    [5, 2025],
    [100, 2025],
    [3, 4],
    [1, 2],
  ] as const) {
    const plan = planKills(1, kills, invoices)
    assert.equal(plan.length, kills)
    assert.ok(
      plan.every(
        ({ afterInvoices, hit }, index) =>
          afterInvoices < invoices && afterInvoices > (plan[index - 1]?.afterInvoices ?? 0) && hit >= 1 && hit <= 5,
      ),
    )
  }
  assert.deepEqual(planKills(1, 0, 2025), [])
})

test('random numbers lie in [0, 1) and cover it', () => {
  const random = seededRandom(0)
  const numbers = Array.from({ length: 10_000 }, random)
  assert.ok(numbers.every((value) => value >= 0 && value < 1))
  const tenths = new Set(numbers.map((value) => Math.floor(value * 10)))
  assert.equal(tenths.size, 10)
  assert.ok(Math.abs(numbers.reduce((sum, value) => sum + value, 0) / numbers.length - 0.5) < 0.02)
})
