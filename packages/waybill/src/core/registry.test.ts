import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isWaybillError } from './errors.ts'
import { defineEvent } from './event.ts'
import { createRegistry } from './registry.ts'

const Placed = defineEvent('order.OrderPlaced')
const Moved = defineEvent('stock.StockMoved', { boundedContext: 'warehouse' })

test('finds event types by name, and who owns them', () => {
  const registry = createRegistry([
    { name: 'sales', events: [Placed] },
    { name: 'stock', events: [Moved] },
    { name: 'idle', events: [] },
  ])
  assert.equal(registry.get('order.OrderPlaced'), Placed)
  assert.equal(registry.find('stock.StockMoved'), Moved)
  assert.equal(registry.find('toString'), undefined)
  assert.equal(registry.contextOf('order.OrderPlaced'), 'sales')
  assert.equal(registry.contextOf('stock.StockMoved'), 'warehouse')
  assert.equal(registry.contextOf('nobody.Knows'), undefined)
  assert.deepEqual(registry.types, [Placed, Moved])
})

test('an unknown event is an error that says what is known', () => {
  assert.throws(
    () => createRegistry([{ name: 'sales', events: [Placed] }]).get('order.OrderPlacd'),
    (error) => isWaybillError(error, 'UNKNOWN_EVENT') && /order\.OrderPlacd.*order\.OrderPlaced/.test(error.message),
  )
  assert.throws(
    () => createRegistry([]).get('a'),
    (error) => isWaybillError(error, 'UNKNOWN_EVENT') && /none/.test(error.message),
  )
})

test('one name has one owner', () => {
  const again = defineEvent('order.OrderPlaced')
  assert.throws(
    () =>
      createRegistry([
        { name: 'sales', events: [Placed] },
        { name: 'billing', events: [again] },
      ]),
    (error) => isWaybillError(error, 'DUPLICATE') && error.where === 'sales and billing',
  )
})
