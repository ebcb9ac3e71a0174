import assert from 'node:assert/strict'
import { test } from 'node:test'
import { z } from 'zod'
import { isWaybillError } from './errors.ts'
import { type SchemaLike, validate } from './schema.ts'

const Order = z.object({
  orderId: z.string().min(1),
  lines: z.array(z.object({ quantity: z.number().int() })),
  note: z.string().default('none'),
})
const good = { orderId: 'o', lines: [{ quantity: 1 }] }

test('a valid payload comes back as the schema gives it, without a promise', () => {
  assert.deepEqual(validate(Order, good, 'order.OrderPlaced'), { ...good, note: 'none' })
})

test('a wrong payload is refused with path and reason', () => {
  assert.throws(
    () => validate(Order, { orderId: '', lines: [{ quantity: 1 }, { quantity: 'two' }] }, 'order.OrderPlaced'),
    (error) => {
      assert.ok(isWaybillError(error, 'INVALID_PAYLOAD'))
      assert.match(error.message, /payload\.orderId: .*payload\.lines\.1\.quantity: /)
      assert.equal(error.where, 'order.OrderPlaced')
      return true
    },
  )
  assert.throws(
    () => validate(Order, 'text', 'x'),
    (error) => isWaybillError(error, 'INVALID_PAYLOAD') && /schema: payload: /.test(error.message),
  )
})

test('an asynchronous schema is awaited', async () => {
  const Known = Order.refine(async (order) => order.orderId === 'o', 'unknown order')
  assert.deepEqual(await validate(Known, good, 'x'), { ...good, note: 'none' })
  const outcome = validate(Known, { ...good, orderId: 'p' }, 'x')
  assert.ok(outcome instanceof Promise)
  await assert.rejects(outcome, (error) => isWaybillError(error, 'INVALID_PAYLOAD') && /unknown order/.test(error.message))
})

test('many issues are cut, and paths of objects are read', () => {
  const schema: SchemaLike<never> = {
    '~standard': {
      version: 1,
      vendor: 'test',
      validate: () => ({
        issues: Array.from({ length: 9 }, (_, index) => ({ message: `m${index}`, path: [{ key: 'a' }, index, Symbol('s')] })),
      }),
    },
  }
  assert.throws(
    () => validate(schema, 1, 'x'),
    (error) =>
      isWaybillError(error, 'INVALID_PAYLOAD') &&
      error.message.includes('payload.a.0.Symbol(s): m0') &&
      error.message.includes('m4; and 4 more') &&
      !error.message.includes('m5'),
  )
})
