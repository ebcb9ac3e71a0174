import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Effect, type Found, checkFound } from './check.ts'
import { expectedOf } from './expected.ts'
import type { Invoice } from './invoices.ts'

const invoice = (number: string, customer: string | undefined, ...lines: readonly (readonly [string, number, number])[]): Invoice => ({
  number,
  cancelled: number.startsWith('C'),
  customer,
  country: 'France',
  date: '2010-12-01T08:26:00.000Z',
  lines: lines.map(([code, quantity, pence]) => ({ code, quantity, pence })),
})

const INVOICES = [
  invoice('1', '17850', ['A', 2, 100], ['B', 1, 50], ['A', 3, 100]),
  invoice('2', undefined, ['A', 1, 100]),
  invoice('C3', '17850', ['A', -2, 100]),
]
const EXPECTED = expectedOf(INVOICES)

/** What a road without a fault leaves behind. */
function faultless(): { -readonly [Key in keyof Found]: Found[Key] } & { effects: Effect[] } {
  const orders = EXPECTED.effects.find(({ topic }) => topic === 'order')!
  const idOf = ({ eventType, key, seq }: Omit<Effect, 'eventId' | 'causationId'>): string => `${eventType}/${key}/${seq}`
  return {
    effects: EXPECTED.effects.map((effect) => ({
      ...effect,
      eventId: idOf(effect),
      causationId: effect.topic === 'stock.StockMoved' ? idOf(orders) : undefined,
    })),
    deliveries: EXPECTED.effects.map((effect) => ({ consumer: effect.consumer, eventId: idOf(effect) })),
    revenuePence: new Map(EXPECTED.revenuePence),
    stock: new Map(EXPECTED.stock),
    kills: 2,
    killsPlanned: 2,
    deadLetters: 0,
    outboxPending: 0,
  }
}

test('the file alone says what must come out', () => {
  assert.deepEqual([EXPECTED.invoices, EXPECTED.lines], [3, 5])
  assert.deepEqual(EXPECTED.handled, { stock: 3, revenue: 3, ledger: 8, welcome: 1 })
  assert.deepEqual([...EXPECTED.revenuePence], [['France', 450]])
  assert.deepEqual(
    [...EXPECTED.stock],
    [
      ['A', -4],
      ['B', -1],
    ],
  )
  assert.deepEqual(
    EXPECTED.effects.filter(({ consumer }) => consumer === 'ledger').map(({ eventType, key, seq }) => [eventType, key, seq]),
    [
      ['order.OrderPlaced', '17850', 1],
      ['customer.CustomerRegistered', '17850', 1],
      ['stock.StockMoved', 'A', 1],
      ['stock.StockMoved', 'B', 1],
      ['order.OrderPlaced', 'guest:France', 1],
      ['stock.StockMoved', 'A', 2],
      ['order.OrderCancelled', '17850', 2],
      ['stock.StockMoved', 'A', 3],
    ],
  )
})

test('a road without a fault passes, with every count from what was found', () => {
  const { result, problems } = checkFound(EXPECTED, faultless())
  assert.deepEqual(problems, [])
  assert.deepEqual(result, {
    invoices: 3,
    lines: 5,
    published: { 'customer.CustomerRegistered': 1, 'order.OrderCancelled': 1, 'order.OrderPlaced': 2, 'stock.StockMoved': 4 },
    handled: { stock: 3, revenue: 3, ledger: 8, welcome: 1 },
    redelivered: 0,
    kills: 2,
    lost: 0,
    duplicateEffects: 0,
    orderViolations: 0,
    revenuePence: { France: 450 },
    stock: { A: -4, B: -1 },
  })
})

test('any one effect that is missing is counted as lost', () => {
  for (const index of EXPECTED.effects.keys()) {
    const found = faultless()
    found.effects.splice(index, 1)
    const { result, problems } = checkFound(EXPECTED, found)
    assert.equal(result.lost, 1)
    assert.equal(result.duplicateEffects, 0)
    assert.match(problems.join(), /lost/)
  }
})

test('any one effect that happened twice is counted as a duplicate', () => {
  for (const effect of faultless().effects) {
    const found = faultless()
    found.effects.push(effect)
    const { result, problems } = checkFound(EXPECTED, found)
    assert.deepEqual([result.lost, result.duplicateEffects, result.orderViolations], [0, 1, 0])
    assert.match(problems.join(), /duplicate/)
  }
})

test('an event that was made twice, under a second id, is counted as a duplicate', () => {
  const found = faultless()
  found.effects.push({ ...found.effects.find(({ consumer }) => consumer === 'stock')!, eventId: 'second', seq: 3 })
  assert.equal(checkFound(EXPECTED, found).result.duplicateEffects, 1)
})

test('a later event of a key before an earlier one is an order violation', () => {
  const found = faultless()
  const second = found.effects.findIndex(({ consumer, key, seq }) => consumer === 'ledger' && key === 'A' && seq === 2)
  const [moved] = found.effects.splice(second, 1)
  found.effects.unshift(moved!)
  const { result, problems } = checkFound(EXPECTED, found)
  assert.deepEqual([result.lost, result.duplicateEffects, result.orderViolations], [0, 0, 1])
  assert.match(problems.join(), /out of order/)
})

test('a delivery that came too early counts, though its effect was written in order', () => {
  const found = faultless()
  found.deliveries = [{ consumer: 'ledger', eventId: 'stock.StockMoved/A/3' }, ...found.deliveries]
  const { result } = checkFound(EXPECTED, found)
  assert.equal(result.orderViolations, 2)
})

test('an unordered consumer and a repeat out of order are no violations', () => {
  const found = faultless()
  const stock = found.effects.filter(({ consumer }) => consumer === 'stock')
  found.effects = [...stock.toReversed(), ...found.effects.filter(({ consumer }) => consumer !== 'stock')]
  found.deliveries = [...found.deliveries, { consumer: 'ledger', eventId: 'stock.StockMoved/A/1' }]
  const { result, problems } = checkFound(EXPECTED, found)
  assert.deepEqual(problems, [])
  assert.equal(result.redelivered, 1)
})

test('everything else that is not as it must be is a problem in words', () => {
  const cases: readonly (readonly [(found: ReturnType<typeof faultless>) => void, RegExp])[] = [
    [(found) => (found.revenuePence = new Map([['France', 449]])), /revenuePence is wrong for 1: France is 449 instead of 450/],
    [(found) => (found.stock = new Map([['A', -4]])), /stock is wrong for 1: B is missing instead of -1/],
    [(found) => (found.stock = new Map([...found.stock, ['Z', 1]])), /Z is 1 instead of absent/],
    [(found) => (found.kills = 1), /killed 1 times instead of 2/],
    [(found) => (found.deadLetters = 1), /1 messages are dead-lettered/],
    [(found) => (found.outboxPending = 2), /2 rows are still in the outbox/],
    [
      (found) => (found.deliveries = found.deliveries.filter(({ eventId }) => eventId !== 'stock.StockMoved/B/1')),
      /not in the log of deliveries \(1\)/,
    ],
    [
      (found) => (found.effects = found.effects.map((effect) => ({ ...effect, causationId: undefined }))),
      /without the order that caused it \(4\)/,
    ],
  ]
  for (const [spoil, message] of cases) {
    const found = faultless()
    spoil(found)
    const { problems } = checkFound(EXPECTED, found)
    assert.equal(problems.length, 1)
    assert.match(problems[0]!, message)
  }
})
