import assert from 'node:assert/strict'
import { test } from 'node:test'
import { postgresStorage } from 'waybill/postgres'
import { service } from 'waybill-services'
import { startCommand } from '../testing/command-process.ts'
import type { DemoResult } from './check.ts'

const server = await service('postgres')

test(
  'on PostgreSQL, in two processes that are killed, orders come out complete, once, in order; nothing is left behind',
  {
    skip: 'skipped' in server && server.skipped,
  },
  async () => {
    assert.ok('url' in server)
    const env = { DATABASE_URL: server.url }
    const args = ['demo', '--database', 'postgres', '--invoices', '40', '--kills', '3', '--seed', '2', '--json']
    const { code, stdout, stderr } = await startCommand(args, { env }).ended
    assert.equal(code, 0, stderr)
    const { broker, database, processes, invoices, kills, lost, duplicateEffects, orderViolations } = JSON.parse(stdout) as DemoResult
    assert.deepEqual([broker, database, processes, invoices, kills], ['inprocess', 'postgres', 2, 40, 3])
    assert.deepEqual([lost, duplicateEffects, orderViolations], [0, 0, 0])

    const { database: sql, close } = await postgresStorage(server.url)
    try {
      const { rows } = await sql.query("select nspname from pg_namespace where nspname like 'waybill\\_demo\\_%'")
      assert.deepEqual(rows, [])
    } finally {
      await close()
    }
  },
)
