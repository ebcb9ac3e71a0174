import assert from 'node:assert/strict'
import { test } from 'node:test'
import { service } from 'waybill-services'
import { startCommand } from '../testing/command-process.ts'
import type { DemoResult } from './check.ts'

const server = await service('redis')

test(
  'over Redis Streams, in one process that is killed, orders come out complete, once, in order',
  {
    skip: 'skipped' in server && server.skipped,
  },
  async () => {
    assert.ok('url' in server)
    const env = { REDIS_URL: server.url }
    const { code, stdout, stderr } = await startCommand(['demo', '--broker', 'redis', '--invoices', '24', '--kills', '1', '--json'], {
      env,
    }).ended
    assert.equal(code, 0, stderr)
    const { broker, database, invoices, kills, lost, duplicateEffects, orderViolations } = JSON.parse(stdout) as DemoResult
    assert.deepEqual([broker, database, invoices, kills], ['redis', 'pglite', 24, 1])
    assert.deepEqual([lost, duplicateEffects, orderViolations], [0, 0, 0])
  },
)
