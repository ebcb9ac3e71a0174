import assert from 'node:assert/strict'
import { setImmediate as turn } from 'node:timers/promises'
import { test } from 'node:test'
import { defineEvent } from './event.ts'
import { currentScope, runInScope, withScope } from './scope.ts'

const Placed = defineEvent<{ id: string }>('order.OrderPlaced')

test('outside of any scope it is empty', () => {
  assert.deepEqual(currentScope(), {})
})

test('correlation, causation, trace and metadata reach events made anywhere below, across awaits', async () => {
  const event = await withScope({ correlationId: 'c', causationId: 'd', traceId: 't', metadata: { tenant: 'acme' } }, async () => {
    await turn()
    return Promise.resolve().then(() => Placed({ id: '1' }))
  })
  assert.deepEqual([event.correlationId, event.causationId, event.traceId, event.metadata], ['c', 'd', 't', { tenant: 'acme' }])
  assert.equal(Placed({ id: '1' }).causationId, undefined)
})

test('an inner scope changes what it names and inherits the rest; concurrent scopes don’t mix', async () => {
  await withScope({ correlationId: 'outer', traceId: 't' }, async () => {
    const inner = withScope({ correlationId: 'inner' }, async () => {
      await turn()
      return currentScope()
    })
    const other = withScope({ causationId: 'd' }, async () => currentScope())
    assert.deepEqual(await inner, { correlationId: 'inner', traceId: 't' })
    assert.deepEqual(await other, { correlationId: 'outer', traceId: 't', causationId: 'd' })
    assert.deepEqual(currentScope(), { correlationId: 'outer', traceId: 't' })
  })
})

test('runInScope inherits nothing', () => {
  withScope({ correlationId: 'outer', metadata: { a: 'b' } }, () =>
    runInScope({ causationId: 'd' }, () => assert.deepEqual(currentScope(), { causationId: 'd' })),
  )
})

test('an event without correlation begins its own, and keeps the scope it was made in', () => {
  const alone = Placed({ id: '1' })
  assert.equal(alone.correlationId, alone.id)
  const made = withScope({ correlationId: 'made' }, () => Placed({ id: '1' }))
  withScope({ correlationId: 'read' }, () => assert.equal(made.correlationId, 'made'))
  withScope({ correlationId: 'scope', causationId: 'scope', metadata: { a: 'scope', b: 'scope' } }, () => {
    const told = Placed({ id: '1' }, { correlationId: 'own', causationId: 'own', metadata: { b: 'own' } })
    assert.deepEqual([told.correlationId, told.causationId, told.metadata], ['own', 'own', { a: 'scope', b: 'own' }])
  })
})
