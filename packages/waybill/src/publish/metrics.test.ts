import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Clock } from '../core/clock.ts'
import { isWaybillError } from '../core/errors.ts'
import { createHistogram } from './latency-histogram.ts'
import { ALERT_THRESHOLDS, createPublishMetrics } from './metrics.ts'

function setup() {
  let now = 1_000_000_000
  const clock: Clock & { advance(ms: number): void } = { now: () => now, sleep: async () => {}, advance: (ms) => void (now += ms) }
  const metrics = createPublishMetrics({ clock })
  const publish = (outcome: 'delivered' | 'pending' | 'failed', durationMs = 1, eventType = 'order.Placed', times = 1): void => {
    for (let i = 0; i < times; i++)
      metrics.observe({ type: 'publish.settled', eventType, strategy: 'HYBRID_FAST', scope: 'INTRA_BC', outcome, durationMs })
  }
  const names = (): string[] => metrics.getMetrics().alerts.map(({ name, level }) => `${name} ${level}`)
  return { clock, metrics, publish, names }
}

test('starts at zero, with no alert', () => {
  const { metrics } = setup()
  const got = metrics.getMetrics()
  assert.deepEqual(
    [got.published, got.failed, got.failure_rate, got.average_latency_ms, got.latency_percentiles_ms, got.alerts],
    [0, 0, 0, 0, { p50: 0, p95: 0, p99: 0 }, []],
  )
})

test('counts outcomes, strategies, event types, fallbacks and trips', () => {
  const { metrics, publish } = setup()
  publish('delivered')
  publish('pending', 1, 'stock.Moved')
  publish('failed')
  metrics.observe({
    type: 'publish.settled',
    eventType: 'a.B',
    strategy: 'ASYNC_ONLY',
    scope: 'INTER_BC',
    outcome: 'pending',
    durationMs: 1,
  })
  metrics.observe({ type: 'publish.fell-back', eventType: 'a.B', because: 'timeout' })
  metrics.observe({ type: 'breaker.changed', path: 'outbox', from: 'closed', to: 'open' })
  metrics.observe({ type: 'breaker.changed', path: 'outbox', from: 'open', to: 'half-open' })
  const got = metrics.getMetrics()
  assert.deepEqual([got.published, got.failed, got.failure_rate, got.hybrid_fast_fallbacks, got.circuit_breaker_trips], [3, 1, 0.25, 1, 1])
  assert.deepEqual(got.by_strategy, { SYNC_ONLY: 0, ASYNC_ONLY: 1, HYBRID_FAST: 3, HYBRID_RELIABLE: 0 })
  assert.deepEqual(got.by_event_type, { 'order.Placed': 2, 'stock.Moved': 1, 'a.B': 1 })
})

test('rates, latencies and alerts look back one window; counts go back to the start', () => {
  const { clock, metrics, publish, names } = setup()
  publish('failed', 900)
  metrics.observe({ type: 'breaker.changed', path: 'outbox', from: 'closed', to: 'open' })
  assert.deepEqual(names(), ['failure_rate alert', 'circuit_breaker_trips alert', 'average_latency_ms warning'])
  clock.advance(55_000)
  publish('delivered', 100)
  assert.equal(metrics.getMetrics().failure_rate, 0.5)
  clock.advance(5_001)
  const got = metrics.getMetrics()
  assert.deepEqual([got.failure_rate, got.average_latency_ms, got.failed, got.circuit_breaker_trips], [0, 100, 1, 1])
  assert.deepEqual(names(), [])
  clock.advance(3_600_000)
  assert.equal(metrics.getMetrics().average_latency_ms, 0)
})

test('each threshold alerts when it is exceeded, not when it is reached', () => {
  const rate = setup()
  rate.publish('failed', 1, 'a.B', 5)
  rate.publish('delivered', 1, 'a.B', 95)
  assert.deepEqual(rate.names(), [])
  rate.publish('failed')
  assert.deepEqual(rate.names(), ['failure_rate alert'])

  const latency = setup()
  latency.publish('delivered', 500)
  assert.deepEqual(latency.names(), [])
  latency.publish('delivered', 501)
  assert.deepEqual(latency.names(), ['average_latency_ms warning'])

  const fallbacks = setup()
  for (let i = 0; i < 50; i++) fallbacks.metrics.observe({ type: 'publish.fell-back', eventType: 'a.B', because: 'failed' })
  assert.deepEqual(fallbacks.names(), [])
  fallbacks.metrics.observe({ type: 'publish.fell-back', eventType: 'a.B', because: 'failed' })
  const [alert] = fallbacks.metrics.getMetrics().alerts
  assert.deepEqual(
    [alert?.name, alert?.value, alert?.threshold],
    ['hybrid_fast_fallbacks', 51, ALERT_THRESHOLDS.hybrid_fast_fallbacks.threshold],
  )
  assert.match(alert!.advice, /ASYNC_ONLY/)
})

test('event types beyond a thousand are counted together', () => {
  const { metrics, publish } = setup()
  for (let i = 0; i < 1_500; i++) publish('delivered', 1, `type.N${i}`)
  publish('delivered', 1, 'type.N0')
  const { by_event_type: types } = metrics.getMetrics()
  assert.equal(Object.keys(types).length, 1_001)
  assert.deepEqual([types['type.N0'], types['(other)']], [2, 500])
})

test('a clock that jumps, back or far ahead, breaks nothing', () => {
  const { clock, metrics, publish } = setup()
  publish('delivered', 10)
  clock.advance(-7_200_000)
  publish('delivered', 10)
  assert.equal(metrics.getMetrics().published, 2)
  clock.advance(86_400_000_000)
  publish('delivered', Number.NaN)
  publish('delivered', -5)
  assert.equal(metrics.getMetrics().average_latency_ms, 0)
})

test('percentiles are the exact ones, or at most 9 % more', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 0.02, max: 600_000, noNaN: true }), { minLength: 1, maxLength: 300 }),
      fc.constantFrom(0.5, 0.95, 0.99),
      (values, part) => {
        const histogram = createHistogram()
        for (const value of values) histogram.add(value)
        const exact = values.toSorted((a, b) => a - b)[Math.max(1, Math.ceil(values.length * part)) - 1]!
        const got = histogram.percentile(part)
        assert.ok(got >= exact * 0.999_999 && got <= exact * 1.0906, `${got} for ${exact}`)
      },
    ),
  )
})

test('a window out of range is refused', () => {
  assert.throws(
    () => createPublishMetrics({ windowMs: 0 }),
    (error) => isWaybillError(error, 'INVALID_OPTION'),
  )
})
