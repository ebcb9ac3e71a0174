import assert from 'node:assert/strict'
import { setImmediate as turn } from 'node:timers/promises'
import { test } from 'node:test'
import { type } from 'arktype'
import * as v from 'valibot'
import { z } from 'zod'
import { isWaybillError, type WaybillErrorCode } from './errors.ts'
import { defineEvent, DomainEvent, type EventOptions, receivedEvent } from './event.ts'
import { validate } from './schema.ts'

const refused = (code: WaybillErrorCode) => (error: unknown) => isWaybillError(error, code)

test('a definition makes events that know what they are', () => {
  const OrderPlaced = defineEvent('order.OrderPlaced', {
    schema: z.object({ orderId: z.string(), customerId: z.string() }),
    version: '1.0',
    aggregate: { type: 'order', id: (order) => order.orderId },
    topic: 'order',
    key: (order) => order.customerId,
  })
  const event = OrderPlaced({ orderId: 'o-1', customerId: 'c-1' }, { aggregateVersion: 3 })
  assert.ok(event instanceof DomainEvent)
  assert.deepEqual(
    [event.type, event.eventType.topic, event.eventType.version, event.aggregateType, event.aggregateId, event.aggregateVersion, event.key],
    ['order.OrderPlaced', 'order', '1.0', 'order', 'o-1', 3, 'c-1'],
  )
  assert.match(event.id, /^[0-9a-f-]{36}$/)
  assert.equal(event.id, event.id)
  assert.equal(OrderPlaced.type, 'order.OrderPlaced')
})

test('the key is the call’s, else the definition’s, else the aggregate id, else the event’s own id', () => {
  const Bare = defineEvent<{ a: string }>('x.Bare')
  const Aggregate = defineEvent<{ a: string }>('x.Aggregate', { aggregate: { type: 'x', id: (payload) => payload.a } })
  const Keyed = defineEvent<{ a: string }>('x.Keyed', { aggregate: { type: 'x', id: (payload) => payload.a }, key: () => 'k' })
  const bare = Bare({ a: '1' })
  assert.equal(bare.key, bare.id)
  assert.equal(bare.aggregateId, undefined)
  assert.equal(Bare.topic, 'x.Bare')
  assert.equal(Aggregate({ a: '1' }).key, '1')
  assert.equal(Keyed({ a: '1' }).key, 'k')
  assert.equal(Keyed({ a: '1' }, { key: 'mine' }).key, 'mine')
})

test('unusable keys and aggregate ids are refused where they are read', () => {
  const Aggregate = defineEvent<{ a: string }>('x.Aggregate', { aggregate: { type: 'x', id: (payload) => payload.a } })
  for (const a of ['', 'a\u0000b', 'x'.repeat(10_240), 'a\nb', 7 as unknown as string, undefined as unknown as string]) {
    assert.throws(() => Aggregate({ a }).aggregateId, refused('INVALID_KEY'))
    assert.throws(() => Aggregate({ a }).key, refused('INVALID_KEY'))
  }
  assert.throws(() => Aggregate({ a: 'ok' }, { key: '\u0000' }).key, refused('INVALID_KEY'))
  for (const aggregateVersion of [-1, 1.5, NaN])
    assert.throws(() => Aggregate({ a: 'ok' }, { aggregateVersion }).aggregateVersion, refused('INVALID_OPTION'))
})

test('schemas of any vendor are taken as they are', async () => {
  const Zod = defineEvent('x.Zod', { schema: z.object({ total: z.number() }) })
  const Valibot = defineEvent('x.Valibot', { schema: v.object({ total: v.number() }) })
  const Arktype = defineEvent('x.Arktype', { schema: type({ total: 'number' }) })
  for (const eventType of [Zod, Valibot, Arktype]) {
    const event = eventType({ total: 1 })
    assert.deepEqual(await validate(eventType.options.schema!, event.payload, event.type), { total: 1 })
    await assert.rejects(
      async () => validate(eventType.options.schema!, { total: 'many' }, event.type),
      (error) => isWaybillError(error, 'INVALID_PAYLOAD') && /payload\.total: /.test(error.message) && error.where === event.type,
    )
  }
})

test('wrong definitions are refused at once', () => {
  const cases: [unknown, unknown, WaybillErrorCode][] = [
    ['', {}, 'INVALID_NAME'],
    ['a b', {}, 'INVALID_NAME'],
    ['a\u0000', {}, 'INVALID_NAME'],
    ['x'.repeat(10_000), {}, 'INVALID_NAME'],
    [undefined, {}, 'INVALID_NAME'],
    ['x.A', { topic: 'a.*' }, 'INVALID_NAME'],
    ['x.A', { boundedContext: '../b' }, 'INVALID_NAME'],
    ['x.A', { aggregate: { type: '', id: () => 'a' } }, 'INVALID_NAME'],
    ['x.A', { aggregate: { type: 'a', id: 'orderId' } }, 'INVALID_OPTION'],
    ['x.A', { key: 'orderId' }, 'INVALID_OPTION'],
    ['x.A', { schema: { parse: () => 1 } }, 'INVALID_OPTION'],
    ['x.A', { version: '' }, 'INVALID_OPTION'],
    ['x.A', { version: 1.5 }, 'INVALID_OPTION'],
    ['x.A', { version: -1 }, 'INVALID_OPTION'],
    ['x.A', { version: 'a b' }, 'INVALID_OPTION'],
    ['x.A', { publish: 'EVENTUALLY' }, 'UNKNOWN_STRATEGY'],
    ['x.A', { publish: { priority: 11 } }, 'INVALID_OPTION'],
  ]
  for (const [name, options, code] of cases)
    assert.throws(
      () => defineEvent(name as string, options as EventOptions<unknown>),
      refused(code),
      `${String(name).slice(0, 20)} ${JSON.stringify(options)}`,
    )
})

test('a definition can’t be changed afterwards', () => {
  const options = { topic: 'order' }
  const OrderPlaced = defineEvent('order.OrderPlaced', options)
  options.topic = 'other'
  assert.equal(OrderPlaced.options.topic, 'order')
  assert.throws(() => Object.assign(OrderPlaced, { topic: 'other' }), TypeError)
})

test('the time is that of making it; one clock reading serves a burst, and only a burst', async () => {
  const Bare = defineEvent('x.Bare')
  await turn()
  const before = Date.now()
  const burst = Array.from({ length: 64 }, () => Bare({}))
  assert.equal(new Set(burst.map((event) => event.occurredAt.getTime())).size, 1)
  assert.ok(burst[0]!.occurredAt.getTime() >= before && burst[0]!.occurredAt.getTime() <= Date.now())
  await turn()
  await turn()
  const floor = Date.now()
  assert.ok(Bare({}).occurredAt.getTime() >= floor, 'the next turn reads the clock again')
  const at = new Date(Date.UTC(2020, 0, 1))
  const told = Bare({}, { occurredAt: at })
  at.setFullYear(1999)
  assert.equal(told.occurredAt.toISOString(), '2020-01-01T00:00:00.000Z')
  told.occurredAt.setFullYear(1999)
  assert.equal(told.occurredAt.toISOString(), '2020-01-01T00:00:00.000Z')
})

test('a received event has the envelope’s attributes and none of the scope’s', () => {
  const Bare = defineEvent<{ a: number }>('x.Bare')
  const event = receivedEvent(
    Bare,
    {
      event_id: 'e',
      event_type: 'x.Bare',
      occurred_at: '2024-05-17T09:30:00.000Z',
      source: 's',
      causation_id: 'd',
      version: 1,
      aggregate_version: 4,
      trace_id: 't',
      metadata: { tenant: 'acme' },
      payload: { a: 1 },
    },
    'k',
  )
  assert.deepEqual(
    [
      event.id,
      event.key,
      event.correlationId,
      event.causationId,
      event.traceId,
      event.aggregateVersion,
      event.metadata,
      event.payload,
      event.occurredAt.toISOString(),
    ],
    ['e', 'k', 'e', 'd', 't', 4, { tenant: 'acme' }, { a: 1 }, '2024-05-17T09:30:00.000Z'],
  )
})
