import assert from 'node:assert/strict'
import { test } from 'node:test'
import client from 'prom-client'
import { createWaybill, defineContext, defineEvent, memoryStorage, on } from '../../index.ts'
import { OTHER } from './bounded-labels.ts'
import { prometheusMetrics } from './prometheus-metrics.ts'

/** The value of a line of the text format; undefined where there is no such line. */
function valueIn(text: string, series: string): number | undefined {
  const line = text.split('\n').find((candidate) => candidate.startsWith(`${series} `))
  return line === undefined ? undefined : Number(line.slice(series.length + 1))
}

const stats = { pending: 3, scheduled: 4, parked: 2, oldestPendingMs: 1_500 }
const watched = (outbox: () => Promise<typeof stats>) => ({
  database: { outbox: { stats: outbox }, deadLetters: { count: () => Promise.resolve(7) } },
})

test('the counts are those of what happened', async () => {
  const register = new client.Registry()
  const metrics = await prometheusMetrics({ register, client })
  const Sold = defineEvent<{ readonly pence: number }, 'shop.Sold'>('shop.Sold')
  const Seen = defineEvent<Record<string, never>, 'shop.Seen'>('shop.Seen')
  let bills = 0
  const shop = defineContext('shop', { events: [Sold, Seen], publish: 'INTER_BC_RELIABLE' })
  const desk = defineContext('desk', {
    handlers: {
      bill: on([Sold], () => void bills++),
      refuse: on(
        [Seen],
        () => {
          throw new Error('no')
        },
        { retry: { attemptsMax: 2, baseMs: 1, maxMs: 1 } },
      ),
    },
  })
  const waybill = await createWaybill({ contexts: [shop, desk], database: memoryStorage(), observe: metrics.observe })
  metrics.watch(waybill)
  await waybill.start()
  for (let index = 0; index < 20; index++) await waybill.publish(Sold({ pence: index }, { key: `k${index % 3}` }))
  await waybill.publish(Seen({}, { key: 'a' }))
  await waybill.drained()

  const text = await register.metrics()
  const expected: Readonly<Record<string, number>> = {
    'waybill_publish_total{event_type="shop.Sold",strategy="ASYNC_ONLY",outcome="pending"}': 20,
    'waybill_publish_total{event_type="shop.Seen",strategy="ASYNC_ONLY",outcome="pending"}': 1,
    'waybill_publish_duration_seconds_count{strategy="ASYNC_ONLY"}': 21,
    waybill_hybrid_fast_fallbacks_total: 0,
    waybill_relay_published_total: 21,
    waybill_relay_failures_total: 0,
    waybill_relay_held_total: 0,
    waybill_relay_parked_total: 0,
    waybill_relay_shards: 64,
    waybill_relay_rows_in_flight: 0,
    'waybill_handler_events_total{handler="desk/bill"}': bills,
    'waybill_handler_failures_total{handler="desk/refuse"}': 2,
    'waybill_handler_parked_total{handler="desk/refuse",reason="failed"}': 1,
    waybill_dead_letters: 1,
    waybill_outbox_pending: 0,
    waybill_outbox_oldest_pending_seconds: 0,
    waybill_outbox_parked: 0,
    waybill_outbox_scheduled: 0,
    waybill_scrape_errors_total: 0,
  }
  assert.equal(bills, 20)
  for (const [series, value] of Object.entries(expected)) assert.equal(valueIn(text, series), value, series)
  assert.equal(valueIn(text, 'waybill_handler_duration_seconds_count{handler="desk/refuse"}'), undefined)
  await waybill.stop()
})

test('breakers, fallbacks and failures of relay and consumer are counted by what is observed', async () => {
  const register = new client.Registry()
  const { observe } = await prometheusMetrics({ register, client })
  observe({ type: 'breaker.changed', path: 'relay:default', from: 'closed', to: 'open' })
  observe({ type: 'breaker.changed', path: 'relay:default', from: 'open', to: 'half-open' })
  observe({ type: 'publish.fell-back', eventType: 'a.B', because: 'timeout' })
  observe({ type: 'relay.failed', error: new Error('x') })
  observe({ type: 'relay.held', rowId: '1', topic: 't', key: 'k', holdMs: 10, error: 'x' })
  observe({ type: 'relay.parked', rowId: '1', topic: 't', key: 'k', error: 'x' })
  observe({ type: 'relay.hints', state: 'listening' })
  observe({ type: 'consumer.failed', handler: 'a/b', error: 'x' })
  observe({ type: 'unit.failed', error: 'x' })
  const text = await register.metrics()
  for (const [series, value] of Object.entries({
    'waybill_circuit_breaker_state{path="relay:default"}': 2,
    'waybill_circuit_breaker_trips_total{path="relay:default"}': 1,
    waybill_hybrid_fast_fallbacks_total: 1,
    waybill_relay_failures_total: 1,
    waybill_relay_held_total: 1,
    waybill_relay_parked_total: 1,
    waybill_relay_listening: 1,
    'waybill_consumer_failures_total{handler="a/b"}': 1,
    waybill_unit_failures_total: 1,
  }))
    assert.equal(valueIn(text, series), value, series)
})

test('labels are bounded: event types beyond the limit are counted together', async () => {
  const register = new client.Registry()
  const { observe } = await prometheusMetrics({ register, client, labelValuesMax: 10 })
  const settled = { type: 'publish.settled', strategy: 'SYNC_ONLY', scope: 'INTRA_BC', outcome: 'delivered', durationMs: -1 } as const
  for (let index = 0; index < 1_000; index++) observe({ ...settled, eventType: `a.B${index}` })
  observe({ ...settled, eventType: 'a.B3' })
  const text = await register.metrics()
  const series = text.split('\n').filter((line) => line.startsWith('waybill_publish_total{'))
  assert.equal(series.length, 11)
  const labels = (eventType: string) => `waybill_publish_total{event_type="${eventType}",strategy="SYNC_ONLY",outcome="delivered"}`
  assert.equal(valueIn(text, labels(OTHER)), 990)
  assert.equal(valueIn(text, labels('a.B3')), 2)
})

test('a question that fails leaves its gauges out, is counted, and spoils nothing else', async () => {
  const register = new client.Registry()
  const metrics = await prometheusMetrics({ register, client })
  let fails = false
  metrics.watch(watched(() => (fails ? Promise.reject(new Error('the database is away')) : Promise.resolve(stats))))
  const before = await register.metrics()
  assert.equal(valueIn(before, 'waybill_outbox_pending'), 3)
  assert.equal(valueIn(before, 'waybill_outbox_oldest_pending_seconds'), 1.5)
  assert.equal(valueIn(before, 'waybill_outbox_parked'), 2)
  assert.equal(valueIn(before, 'waybill_outbox_scheduled'), 4)
  assert.equal(valueIn(before, 'waybill_scrape_errors_total'), 0)
  fails = true
  const during = await register.metrics()
  assert.equal(valueIn(during, 'waybill_outbox_pending'), undefined)
  assert.equal(valueIn(during, 'waybill_dead_letters'), 7)
  assert.equal(valueIn(during, 'waybill_scrape_errors_total'), 1)
  fails = false
  assert.equal(valueIn(await register.metrics(), 'waybill_outbox_pending'), 3)
})

test('a question that hangs is not asked twice, and holds up no reader', async () => {
  const register = new client.Registry()
  const metrics = await prometheusMetrics({ register, client, scrapeTimeoutMs: 1 })
  let asked = 0
  const { promise, resolve } = Promise.withResolvers<typeof stats>()
  metrics.watch(
    watched(() => {
      asked++
      return promise
    }),
  )
  await Promise.all([register.metrics(), register.metrics()])
  assert.equal(valueIn(await register.metrics(), 'waybill_outbox_pending'), undefined)
  assert.equal(asked, 1)
  resolve(stats)
  // What the hanging question finds in the end is somebody's answer too; the one after it is a new question.
  for (let tries = 0; tries < 1_000 && asked < 2; tries++) await register.metrics()
  assert.equal(asked, 2)
})

test('what several say is added up', async () => {
  const register = new client.Registry()
  const metrics = await prometheusMetrics({ register, client })
  metrics.watch(watched(() => Promise.resolve(stats)))
  metrics.watch(watched(() => Promise.resolve({ ...stats, oldestPendingMs: 200 })))
  metrics.watch({ relayStats: () => ({ shards: 64, rowsInFlight: 5, keysResting: 1 }) })
  const text = await register.metrics()
  assert.equal(valueIn(text, 'waybill_outbox_pending'), 6)
  assert.equal(valueIn(text, 'waybill_outbox_oldest_pending_seconds'), 1.5)
  assert.equal(valueIn(text, 'waybill_dead_letters'), 14)
  assert.equal(valueIn(text, 'waybill_relay_rows_in_flight'), 5)
  assert.equal(valueIn(text, 'waybill_relay_keys_resting'), 1)
})

test('a registry takes the metrics once; the installed package is found; options are checked', async () => {
  const register = new client.Registry()
  await prometheusMetrics({ register })
  await assert.rejects(prometheusMetrics({ register }), { code: 'DUPLICATE' })
  await assert.rejects(prometheusMetrics({ client, labelValuesMax: 0 }), { code: 'INVALID_OPTION' })
  await assert.rejects(prometheusMetrics({ client, scrapeTimeoutMs: 0 }), { code: 'INVALID_OPTION' })
})
