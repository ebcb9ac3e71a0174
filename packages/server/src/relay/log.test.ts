import assert from 'node:assert/strict'
import { test } from 'node:test'
import { WaybillError } from 'waybill'
import { createLog, logEvents } from './log.ts'

test('what a transport says is logged: changes and gaps each, warnings and failures not again and again', () => {
  const lines: Record<string, unknown>[] = []
  const observe = logEvents(
    createLog('info', (line) => void lines.push(JSON.parse(line) as Record<string, unknown>)),
    () => 0,
  )
  const lost = new WaybillError('POSITION_LOST', 'the stream was trimmed')
  const away = new WaybillError('TRANSPORT_UNAVAILABLE', 'connection reset')
  observe({ type: 'transport.changed', transport: 'redis', to: 'down', error: away })
  observe({ type: 'transport.changed', transport: 'redis', to: 'up' })
  observe({ type: 'transport.assigned', transport: 'kafka', group: 'g', gained: ['t:0', 't:1'], lost: ['t:2'] })
  for (let times = 0; times < 2; times++) {
    observe({ type: 'transport.gap', transport: 'redis', topic: 't', group: 'g', partition: '0', missing: 3, error: lost })
    observe({ type: 'transport.warned', transport: 'redis', text: 'appendonly is no', advice: 'turn it on' })
    observe({ type: 'transport.failed', transport: 'redis', error: away })
  }
  const told = lines.map(({ level, event, msg }) => [level, event, msg])
  const gap = ['error', 'transport.gap', 'the stream was trimmed']
  assert.deepEqual(told, [
    ['warn', 'transport.changed', 'redis does not answer: it is tried again'],
    ['info', 'transport.changed', 'redis answers'],
    ['info', 'transport.assigned', 'holds 2 partitions more, 1 less'],
    gap,
    ['warn', 'transport.warned', 'appendonly is no'],
    ['warn', 'transport.failed', 'connection reset'],
    gap,
  ])
  assert.deepEqual(
    [lines[0]!['reason'], lines[0]!['code'], lines[3]!['missing'], lines[3]!['code'], lines[4]!['advice']],
    ['connection reset', 'TRANSPORT_UNAVAILABLE', 3, 'POSITION_LOST', 'turn it on'],
  )
})
