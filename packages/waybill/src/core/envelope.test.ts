import assert from 'node:assert/strict'
import { test } from 'node:test'
import { envelopeOf } from './envelope.ts'
import { isWaybillError } from './errors.ts'
import { defineEvent } from './event.ts'
import { withScope } from './scope.ts'

const occurredAt = new Date('2024-05-17T09:30:00.000Z')

test('every attribute stands under its wire name', () => {
  const Placed = defineEvent<{ orderId: string }>('order.OrderPlaced', {
    version: '1.0',
    aggregate: { type: 'order', id: (order) => order.orderId },
  })
  const event = withScope({ correlationId: 'c', causationId: 'd', traceId: 't', metadata: { tenant: 'acme' } }, () =>
    Placed({ orderId: 'o-1' }, { id: 'e', occurredAt, aggregateVersion: 3 }),
  )
  assert.deepStrictEqual(envelopeOf(event, 'shop', 'sales'), {
    event_id: 'e',
    event_type: 'order.OrderPlaced',
    occurred_at: '2024-05-17T09:30:00.000Z',
    source: 'shop',
    correlation_id: 'c',
    causation_id: 'd',
    version: '1.0',
    aggregate_type: 'order',
    aggregate_id: 'o-1',
    aggregate_version: 3,
    bounded_context: 'sales',
    trace_id: 't',
    metadata: { tenant: 'acme' },
    payload: { orderId: 'o-1' },
  })
})

test('what is absent is omitted, not undefined', () => {
  const Bare = defineEvent<number>('x.Bare')
  assert.deepStrictEqual(Object.entries(envelopeOf(Bare(1, { id: 'e', occurredAt }), 'shop', undefined)).flat(), [
    'event_id',
    'e',
    'event_type',
    'x.Bare',
    'occurred_at',
    '2024-05-17T09:30:00.000Z',
    'source',
    'shop',
    'correlation_id',
    'e',
    'version',
    1,
    'payload',
    1,
  ])
})

test('an invalid date and an unusable aggregate id are refused', () => {
  const Bare = defineEvent<string>('x.Bare', { aggregate: { type: 'x', id: (payload) => payload } })
  assert.throws(
    () => envelopeOf(Bare('a', { occurredAt: new Date(NaN) }), 'shop', undefined),
    (error) => isWaybillError(error, 'NOT_SERIALIZABLE') && error.where === 'x.Bare.occurredAt',
  )
  assert.throws(
    () => envelopeOf(Bare('a\u0000'), 'shop', undefined),
    (error) => isWaybillError(error, 'INVALID_KEY'),
  )
})
