import assert from 'node:assert/strict'
import { test } from 'node:test'
import { planKills, planOutages, seededRandom } from './plan.ts'

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

test('where processes share the work, a kill needs fewer ways past its point', () => {
  assert.ok(planKills(1, 20, 2025, 2).every(({ hit }) => hit >= 1 && hit <= 2))
  assert.deepEqual(new Set(planKills(1, 3, 8, 2).map(({ hit }) => hit)), new Set([1]))
})

test('the broker is killed and later stopped, each time with load during it and after it', () => {
  for (const invoices of [16, 17, 100, 2025]) {
    const outages = planOutages(invoices)
    assert.deepEqual(
      outages.map(({ mode }) => mode),
      ['kill', 'graceful'],
    )
    const places = [0, ...outages.flatMap(({ goneAt, backAt }) => [goneAt, backAt]), invoices]
    assert.ok(places.every((place, index) => index === 0 || place > places[index - 1]!))
  }
  assert.throws(() => planOutages(15), { code: 'INVALID_SETTING' })
})
