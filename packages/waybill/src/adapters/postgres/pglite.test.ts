import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { OutboxEntry } from '../../core/stores.ts'
import { pgliteStorage } from './pglite.ts'
import { requirePeer } from '../../core/peer.ts'

const parent = await mkdtemp(join(tmpdir(), 'waybill-pglite-'))
// One for several tests: opening one takes seconds.
const memory = await pgliteStorage('memory://')
after(async () => {
  await memory.close()
  await rm(parent, { recursive: true, force: true })
})

const ENTRY: OutboxEntry = { eventType: 'a.B', message: { id: 'event-1', topic: 'a.B', key: 'a', headers: {}, body: new Uint8Array() } }

// Opens a folder, commits a row, says so and waits to be killed.
const OWNER = `
  const { pgliteStorage } = await import(process.argv[1])
  const storage = await pgliteStorage(process.argv[2])
  await storage.database.transaction((sql) => storage.outbox.append(sql, [${JSON.stringify(ENTRY).replace('"body":{}', '"body":new Uint8Array()')}]))
  console.log('committed')
  setInterval(() => {}, 1000)
`

test(
  'a folder has one owner, in this process and among processes; a killed one leaves the lock free and its rows there',
  { timeout: 120_000 },
  async () => {
    const folder = join(parent, 'owned')
    const owner = spawn(
      process.execPath,
      ['--conditions=waybill:source', '--input-type=module', '-e', OWNER, new URL('./pglite.ts', import.meta.url).href, folder],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    await once(owner.stdout, 'data')
    await assert.rejects(pgliteStorage(folder), { code: 'DATABASE_IN_USE', message: /owned/ })
    owner.kill('SIGKILL')
    await once(owner, 'exit')
    const storage = await pgliteStorage(folder)
    try {
      assert.deepEqual(
        (await storage.outbox.list({})).map((row) => row.eventId),
        ['event-1'],
      )
      await assert.rejects(pgliteStorage(folder), { code: 'DATABASE_IN_USE' })
    } finally {
      await storage.close()
    }
    const again = await pgliteStorage(`file://${folder}`)
    assert.equal((await again.outbox.stats()).pending, 1)
    await again.close()
  },
)

test('a statement inside a transaction that would wait for it is refused at once', async () => {
  const storage = memory
  let late: Promise<unknown> | undefined
  let leaked: Parameters<Parameters<typeof storage.database.transaction>[0]>[0] | undefined
  const ended = Promise.withResolvers<void>()
  await storage.database.transaction(async (sql) => {
    await assert.rejects(storage.database.query('select 1'), { code: 'SESSION_BUSY' })
    await assert.rejects(
      storage.database.transaction(async () => {}),
      { code: 'SESSION_BUSY' },
    )
    await assert.rejects(storage.outbox.stats(), { code: 'SESSION_BUSY' })
    assert.equal((await sql.query('select 1 as one')).rows.length, 1)
    leaked = sql
    // Started here, but not waited for here.
    late = ended.promise.then(() => storage.database.query('select 2 as two'))
  })
  ended.resolve()
  assert.deepEqual(await late, { ...(await storage.database.query('select 2 as two')) })
  await assert.rejects(leaked!.query('select 1'), { code: 'UNIT_CLOSED' })
})

test('a transaction that is used by others at the same time lets them wait, not fail', async () => {
  const storage = memory
  const log: string[] = []
  const inside = Promise.withResolvers<void>()
  const first = storage.database.transaction(async (sql) => {
    inside.resolve()
    await sql.query('select 1')
    log.push('transaction')
  })
  await inside.promise
  await Promise.all([first, storage.database.query('select 1').then(() => log.push('other'))])
  assert.deepEqual(log, ['transaction', 'other'])
})

test('the error of a transaction is the one that was thrown; a failed statement that was ignored is no commit', async () => {
  const storage = memory
  const failure = new Error('mine')
  await assert.rejects(
    storage.database.transaction(async () => {
      throw failure
    }),
    failure,
  )
  await storage.database.query('create table note (text text)')
  await assert.rejects(
    storage.database.transaction(async (sql) => {
      await sql.query(`insert into note values ('x')`)
      await sql.query('select 1 / 0').catch(() => undefined)
    }),
  )
  assert.deepEqual((await storage.database.query('select * from note')).rows, [])
})

test('what is no place for a database is one clear error', async () => {
  const file = join(parent, 'a-file')
  await writeFile(file, 'x')
  await assert.rejects(pgliteStorage(file), { code: 'INVALID_FILE', message: /a-file/ })
  await assert.rejects(pgliteStorage('idb://x'), { code: 'INVALID_OPTION' })
  await assert.rejects(pgliteStorage(''), { code: 'INVALID_OPTION' })
  await assert.rejects(pgliteStorage({} as never), { code: 'INVALID_OPTION' })
})

test('a missing package is an error that says what to install', async () => {
  const missing = 'no-such-package-anywhere'
  await assert.rejects(
    requirePeer(missing, () => import(missing)),
    { code: 'PEER_MISSING', message: /npm install no-such-package-anywhere/ },
  )
})
