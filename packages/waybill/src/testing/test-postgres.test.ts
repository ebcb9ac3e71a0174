import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { test } from 'node:test'
import { postgresStorage } from '../adapters/postgres/pg.ts'
import { until } from './contract-tools.ts'
import { testPostgres } from './test-postgres.ts'

async function rowsIn(url: string): Promise<number> {
  const storage = await postgresStorage(url)
  try {
    const { rows } = await storage.database.query<{ n: number }>('select count(*)::int as n from kept')
    return rows[0]!.n
  } finally {
    await storage.close()
  }
}

/** Whether nobody answers on `port`. */
const isDead = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const probe = connect(port, '127.0.0.1')
    probe.once('connect', () => resolve(false)).once('error', () => resolve(true))
    probe.once('connect', () => probe.destroy())
  })

test('what was committed is there after a stop, a crash and a start', async () => {
  const server = await testPostgres()
  const storage = await postgresStorage(server.url())
  await storage.database.query('create table kept (id integer)')
  await storage.database.query('insert into kept values (1)')
  await storage.close()
  for (const mode of ['fast', 'immediate'] as const) {
    const { pid } = server
    await server.stop(mode)
    await server.stop(mode)
    assert.equal(await isDead(server.port), true, mode)
    await server.start()
    await server.start()
    assert.notEqual(server.pid, pid)
    assert.equal(await rowsIn(server.url()), 1, mode)
  }
})

test('a server does not outlive its process, even one that is killed with SIGKILL', { skip: process.platform === 'win32' }, async () => {
  const script = `
    import { startPostgresServer } from ${JSON.stringify(new URL('postgres-server.ts', import.meta.url).href)}
    const { port, folder } = await startPostgresServer()
    process.send({ port, folder })
    setInterval(() => {}, 1_000)`
  const child = spawn(process.execPath, ['--conditions=waybill:source', '--input-type=module', '-e', script], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  const [{ port, folder }] = (await once(child, 'message')) as [{ port: number; folder: string }]
  assert.equal(await isDead(port), false)
  child.kill('SIGKILL')
  await once(child, 'exit')
  await until('the server is gone', () => isDead(port))
  await until('its data is gone', async () => !existsSync(folder))
})
