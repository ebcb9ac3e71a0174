import assert from 'node:assert/strict'
import { test } from 'node:test'
import client from 'prom-client'
import { WaybillError } from '../../core/errors.ts'
import type { TopicReport, TransportAdmin } from '../../core/transport.ts'
import { createLagMetric } from './lag-metric.ts'
import { prometheusMetrics } from './prometheus-metrics.ts'

const report = (topic: string, groups: readonly (readonly [group: string, lag: number | undefined])[]): TopicReport => ({
  topic,
  brokerName: topic,
  partitions: 1,
  messages: undefined,
  groups: groups.map(([group, lag]) => ({ group, members: 1, lag })),
})

function transportWith(topics: TransportAdmin['topics']) {
  return { name: 'x', admin: { topics, examine: () => Promise.reject(new Error('not asked')) } }
}

const lines = async (register: InstanceType<typeof client.Registry>): Promise<readonly string[]> =>
  (await register.metrics()).split('\n').filter((line) => /^waybill_(consumer_lag|scrape_errors_total|transport)/.test(line))

function fixture({ pairsMax = 500, timeoutMs = 1_000 } = {}) {
  const register = new client.Registry()
  const gauge = new client.Gauge({ name: 'waybill_consumer_lag', help: 'x', labelNames: ['topic', 'group'], registers: [register] })
  let nowMs = 0
  return {
    register,
    metric: createLagMetric({ gauge, timeoutMs, pairsMax, onAnswer: () => {}, now: () => nowMs }),
    later: (ms: number) => (nowMs += ms),
  }
}

test('the lag of each group is there when metrics are read, with what else the transport says', async () => {
  const register = new client.Registry()
  const metrics = await prometheusMetrics({ register, client })
  metrics.watch({
    transport: transportWith(() =>
      Promise.resolve([
        report('order', [
          ['sub', 17],
          ['gone', undefined],
        ]),
        report('a.B', [['sub', 0]]),
      ]),
    ),
  })
  metrics.watch({ transport: { name: 'memory' } })
  metrics.observe({ type: 'transport.changed', transport: 'redis', to: 'up' })
  metrics.observe({ type: 'transport.changed', transport: 'nats', to: 'down', error: new Error('x') })
  metrics.observe({ type: 'transport.gap', transport: 'redis', topic: 't', group: 'g', partition: '0', error: new Error('x') })
  assert.deepEqual((await lines(register)).toSorted(), [
    'waybill_consumer_lag{topic="a.B",group="sub"} 0',
    'waybill_consumer_lag{topic="order",group="sub"} 17',
    'waybill_scrape_errors_total 0',
    'waybill_transport_gaps_total{transport="redis"} 1',
    'waybill_transport_up{transport="nats"} 0',
    'waybill_transport_up{transport="redis"} 1',
    'waybill_transport_up{transport="x"} 1',
  ])
})

test('a broker that fails or hangs leaves the lag out and is counted; the next answer brings it back', async () => {
  const register = new client.Registry()
  const metrics = await prometheusMetrics({ register, client, scrapeTimeoutMs: 20 })
  const away = new WaybillError('TRANSPORT_UNAVAILABLE', 'away')
  let answer: () => Promise<readonly TopicReport[]> = () => Promise.reject(away)
  let asked = 0
  metrics.watch({ transport: transportWith(() => (asked++, answer())) })
  assert.deepEqual(await lines(register), ['waybill_transport_up{transport="x"} 0', 'waybill_scrape_errors_total 1'])
  const hanging = Promise.withResolvers<readonly TopicReport[]>()
  answer = () => hanging.promise
  await Promise.all([register.metrics(), register.metrics()])
  assert.deepEqual(await lines(register), ['waybill_transport_up{transport="x"} 0', 'waybill_scrape_errors_total 3'])
  assert.equal(asked, 2, 'what hangs is not asked again')
  hanging.resolve([report('order', [['sub', 1]])])
  assert.deepEqual(await lines(register), [
    'waybill_transport_up{transport="x"} 1',
    'waybill_consumer_lag{topic="order",group="sub"} 1',
    'waybill_scrape_errors_total 3',
  ])
})

test('an answer is good for 5 s, and what is no longer there is no longer said', async () => {
  const { register, metric, later } = fixture()
  let reports = [
    report('order', [
      ['sub', 3],
      ['old', 1],
    ]),
  ]
  let asked = 0
  metric.watch(transportWith(() => (asked++, Promise.resolve(reports))))
  await metric.read()
  reports = [report('order', [['sub', 2]])]
  await metric.read()
  assert.deepEqual([asked, (await lines(register)).length], [1, 2])
  later(5_001)
  await Promise.all([metric.read(), metric.read()])
  assert.equal(asked, 2)
  assert.deepEqual(await lines(register), ['waybill_consumer_lag{topic="order",group="sub"} 2'])
})

test('pairs of topic and group beyond the limit are one series; two transports of one broker are not added up', async () => {
  const { register, metric } = fixture({ pairsMax: 2 })
  const transport = transportWith(() =>
    Promise.resolve([
      report('a', [
        ['g', 1],
        ['h', 2],
      ]),
      report('b', [
        ['g', 4],
        ['h', 8],
      ]),
    ]),
  )
  metric.watch(transport)
  metric.watch({ ...transport })
  await metric.read()
  assert.deepEqual((await lines(register)).toSorted(), [
    'waybill_consumer_lag{topic="a",group="g"} 1',
    'waybill_consumer_lag{topic="a",group="h"} 2',
    'waybill_consumer_lag{topic="other",group="other"} 12',
  ])
})
