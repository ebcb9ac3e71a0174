import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { service } from 'waybill-services'

const run = promisify(execFile)
const redis = await service('redis')

test(
  '06-any-broker/main.ts over Redis: the handler runs, and the program ends',
  { skip: 'skipped' in redis && redis.skipped },
  async () => {
    assert.ok('url' in redis)
    const env = { ...process.env, MESSAGE_BUS_TYPE: 'redis', REDIS_URL: redis.url }
    const options = { timeout: 120_000, env }
    const { stdout } = await run(process.execPath, ['--conditions=waybill:source', join(import.meta.dirname, 'main.ts')], options)
    assert.match(stdout, /^handled \{ pence: 1250 \} over redis$/m)
  },
)
