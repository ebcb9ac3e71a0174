import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { checkBusType, databaseSetting, openStorage, secretsOf } from './settings.ts'

const folder = mkdtempSync(join(tmpdir(), 'waybill-settings-'))
after(() => rmSync(folder, { recursive: true }))

const read = (url: string | undefined): ReturnType<typeof databaseSetting> =>
  databaseSetting(url === undefined ? {} : { DATABASE_URL: url })

test('DATABASE_URL names a PostgreSQL server or a PGlite folder', () => {
  assert.deepEqual(read('postgres://u:p@localhost:5432/shop'), { kind: 'postgres', url: 'postgres://u:p@localhost:5432/shop' })
  assert.deepEqual(read('postgresql://localhost/shop').kind, 'postgres')
  for (const url of ['./data', 'pglite:data', 'pglite://data', 'file:data', pathToFileURL(resolve('data')).href]) {
    assert.deepEqual(read(url), { kind: 'pglite', folder: resolve('data') })
  }
  assert.deepEqual(databaseSetting({ DATABASE_URL: 'postgres://localhost/a' }, './b'), { kind: 'pglite', folder: resolve('b') })
})

test('a wrong DATABASE_URL is an error that names the setting, what it got and what is allowed', () => {
  for (const url of [
    undefined,
    '',
    '  ',
    'mysql://localhost/shop',
    'postgres://local host/x y',
    'memory://',
    'nonsense',
    'pglite:',
    'file://host.example/x',
  ]) {
    assert.throws(
      () => read(url),
      (error: Error & { code?: string }) => error.code === 'INVALID_SETTING' && /^DATABASE_URL .*allowed: postgres:/.test(error.message),
      String(url),
    )
  }
  assert.throws(() => databaseSetting({}, 'mysql://x'), /^WaybillError: --database/)
})

test('a password is never part of an error', () => {
  for (const url of [
    'mysql://u:hunter2@localhost/shop',
    'postgres://u:hunter2@local host/',
    'redis://u:hunt%65r2@h',
    'mysql://h/x?password=hunter2',
  ]) {
    assert.throws(
      () => read(url),
      (error: Error) => !/hunter2|hunt%65r2/.test(error.message),
    )
  }
  assert.deepEqual(secretsOf('postgres://u:hunt%65r2@h', undefined), ['hunt%65r2', 'hunter2'])
  assert.deepEqual(secretsOf('postgres://u:a@h')[0], ':a@')
  assert.deepEqual(secretsOf('postgres://u@h/x', './folder'), [])
})

test('MESSAGE_BUS_TYPE is one of the known types, and one that this version carries', () => {
  for (const type of [undefined, '', 'inprocess', 'memory']) checkBusType({ MESSAGE_BUS_TYPE: type })
  assert.throws(
    () => checkBusType({ MESSAGE_BUS_TYPE: 'kafkka' }),
    /MESSAGE_BUS_TYPE is unknown; did you mean "kafka"\?.*allowed: inprocess, memory, pulsar, kafka, nats, redis/,
  )
  assert.throws(
    () => checkBusType({ MESSAGE_BUS_TYPE: 'kafka' }),
    (error: Error & { code?: string }) => error.code === 'UNSUPPORTED',
  )
})

test('a folder that is no database is left alone', async () => {
  writeFileSync(join(folder, 'letter.txt'), 'dear')
  for (const [path, create] of [
    [folder, true],
    [join(folder, 'letter.txt'), true],
    [join(folder, 'new'), false],
  ] as const) {
    await assert.rejects(
      openStorage({ kind: 'pglite', folder: path }, { create }),
      (error: Error & { code?: string }) => error.code === 'INVALID_SETTING',
    )
  }
})
