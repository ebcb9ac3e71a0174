// Checked by the type checker: the file compiles only while types are inferred as users rely on.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type } from 'arktype'
import * as v from 'valibot'
import { z } from 'zod'
import { defineEvent, type DomainEvent, type EventType, type PayloadOf } from './event.ts'
import type { PublishConfig } from './publish-config.ts'

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const holds = <T extends true>(_claim?: T): void => {}

const Zod = defineEvent('order.OrderPlaced', {
  schema: z.object({ orderId: z.string(), total: z.number() }),
  aggregate: { type: 'order', id: (order) => order.orderId },
})
const Valibot = defineEvent('order.OrderCancelled', { schema: v.object({ orderId: v.string() }), key: (order) => order.orderId })
const Arktype = defineEvent('order.OrderShipped', { schema: type({ orderId: 'string', 'note?': 'string' }) })
const Typed = defineEvent<{ orderId: string }>('order.OrderReturned')

test('payloads are inferred from schemas of any vendor, or named', () => {
  holds<Equal<PayloadOf<typeof Zod>, { orderId: string; total: number }>>()
  holds<Equal<PayloadOf<typeof Valibot>, { orderId: string }>>()
  holds<Equal<PayloadOf<typeof Arktype>, { orderId: string; note?: string }>>()
  holds<Equal<PayloadOf<typeof Typed>, { orderId: string }>>()
  holds<Equal<(typeof Zod)['type'], 'order.OrderPlaced'>>()
  const event = Zod({ orderId: 'o', total: 1 })
  holds<Equal<typeof event, DomainEvent<{ orderId: string; total: number }, 'order.OrderPlaced'>>>()
  holds<Equal<typeof event.payload.total, number>>()
  const any: EventType[] = [Zod, Valibot, Arktype, Typed]
  assert.equal(any.length, 4)
})

test('wrong payloads, keys and policies don’t compile', () => {
  const refused = [
    // @ts-expect-error a field is missing
    () => Zod({ orderId: 'o' }),
    // @ts-expect-error a field has another type
    () => Zod({ orderId: 'o', total: '1' }),
    // @ts-expect-error there is no such field
    () => defineEvent('x.A', { schema: z.object({ a: z.string() }), key: (payload) => payload.b }),
    // @ts-expect-error a key is text
    () => defineEvent('x.A', { schema: z.object({ a: z.number() }), key: (payload) => payload.a }),
    // @ts-expect-error there is no such preset
    () => defineEvent('x.A', { publish: 'EVENTUALLY' }),
  ]
  assert.equal(refused.length, 5)
  // @ts-expect-error there is no such strategy
  const config: PublishConfig = { strategy: 'SOMETIMES' }
  assert.ok(config)
})
