import assert from 'node:assert/strict'
import { test } from 'node:test'
import { z } from 'zod'
import { isWaybillError, type WaybillErrorCode } from '../core/errors.ts'
import { currentScope, withScope } from '../core/scope.ts'
import { createCommandBus, createQueryBus, defineCommand, defineQuery } from './command-bus.ts'

const Place = defineCommand<{ orderId: string; pence: number }, string>('order.Place', {
  schema: z.object({ orderId: z.string(), pence: z.coerce.number<number>().int() }),
})
const Total = defineQuery<{ orderId: string }, number>('order.Total')

const rejectsWith = (promise: Promise<unknown>, code: WaybillErrorCode, text = ''): Promise<void> =>
  assert.rejects(promise, (error) => isWaybillError(error, code) && error.message.includes(text))

test('a command goes to its one handler, and its result comes back', async () => {
  const commands = createCommandBus()
  commands.register(Place, ({ orderId, pence }) => `${orderId} for ${pence}`)
  assert.equal(await commands.execute(Place({ orderId: 'o-1', pence: 5 })), 'o-1 for 5')
  const queries = createQueryBus()
  queries.register('order.Total', ({ orderId }: { orderId: string }) => orderId.length)
  assert.equal(await queries.execute(Total({ orderId: 'o-1' })), 3)
})

test('no handler is NO_HANDLER; a second one is DUPLICATE when it is registered, and the first stays', async () => {
  const commands = createCommandBus()
  await rejectsWith(commands.execute(Place({ orderId: 'o-1', pence: 5 })), 'NO_HANDLER', 'order.Place')
  const remove = commands.register(Place, () => 'first')
  assert.throws(
    () => commands.register('order.Place', () => 'second'),
    (error) => isWaybillError(error, 'DUPLICATE'),
  )
  assert.equal(await commands.execute(Place({ orderId: 'o-1', pence: 5 })), 'first')
  remove()
  commands.register(Place, () => 'third')
  remove()
  assert.equal(await commands.execute(Place({ orderId: 'o-1', pence: 5 })), 'third')
})

test('the handler gets what the schema made of the payload, and never sees one that fails it', async () => {
  const commands = createCommandBus()
  const seen: unknown[] = []
  commands.register(Place, (payload) => {
    seen.push(payload)
    return 'done'
  })
  await commands.execute(Place({ orderId: 'o-1', pence: '12' as never }))
  await rejectsWith(commands.execute(Place({ orderId: 'o-2', pence: 1.5 })), 'INVALID_PAYLOAD', 'payload.pence')
  assert.deepEqual(seen, [{ orderId: 'o-1', pence: 12 }])
})

test("the handler's own error comes through as it is, thrown or rejected", async () => {
  const queries = createQueryBus()
  const broken = new RangeError('broken')
  queries.register(Total, () => {
    throw broken
  })
  await assert.rejects(queries.execute(Total({ orderId: 'x' })), (error) => error === broken)
})

test('outside of any scope an execution starts a correlation id; inside one it keeps the scope as it is', async () => {
  const commands = createCommandBus()
  const Ask = defineCommand<void, string | undefined>('scope.Ask')
  commands.register(Ask, async () => {
    await Promise.resolve()
    return currentScope().correlationId
  })
  const [first, second] = [await commands.execute(Ask()), await commands.execute(Ask())]
  assert.match(first!, /^[0-9a-f-]{36}$/)
  assert.notEqual(first, second)
  assert.equal(await withScope({ correlationId: 'c-1' }, () => commands.execute(Ask())), 'c-1')
  assert.equal(currentScope().correlationId, undefined)
})

test('hostile names, schemas, handlers and requests are refused', async () => {
  for (const name of ['', 'a b', 'x\u0000', 'y'.repeat(10_000), undefined as never])
    assert.throws(
      () => defineCommand(name),
      (error) => isWaybillError(error, 'INVALID_NAME'),
    )
  assert.throws(
    () => defineQuery('a.B', { schema: {} as never }),
    (error) => isWaybillError(error, 'INVALID_OPTION'),
  )
  assert.throws(
    () => createCommandBus().register('a.B', 'run' as never),
    (error) => isWaybillError(error, 'INVALID_OPTION'),
  )
  assert.throws(
    () => createCommandBus().register(undefined as never, () => 1),
    (error) => isWaybillError(error, 'INVALID_NAME'),
  )
  await rejectsWith(createCommandBus().execute(Total({ orderId: 'x' }) as never), 'INVALID_OPTION', 'query')
  await rejectsWith(createCommandBus().execute(undefined as never), 'INVALID_OPTION')
})
