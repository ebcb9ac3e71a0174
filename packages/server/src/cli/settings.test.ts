import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { busType } from './broker.ts'
import { environmentSecrets, maskUrl, secretsOf } from './secrets.ts'
import { databaseSetting, openStorage } from './settings.ts'

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

test('what is secret among the settings is known, and nothing else', () => {
  const secrets = environmentSecrets({
    DATABASE_URL: 'postgres://u:hunter2@h/x',
    REDIS_URL: 'redis://:s3cret%21@h:6379',
    NATS_URL: 'nats://tok3n@a:4222, nats://u:other@b:4222',
    KAFKA_SASL_PASSWORD: ' kafka-pass ',
    KAFKA_SASL_USERNAME: 'alice',
    PULSAR_TOKEN: 'ey.j.x',
    PULSAR_TENANT: 'public',
    MY_TOKEN: 'mine',
    REDIS_PASSWORD: 'abc',
    KAFKA_BOOTSTRAP_SERVERS: 'a:9092,b:9092',
    REDIS_USERNAME: '',
  })
  assert.deepEqual(secrets.toSorted(), ['hunter2', 's3cret%21', 's3cret!', 'tok3n', 'other', 'kafka-pass', 'ey.j.x'].toSorted())
  assert.equal(maskUrl('nats://tok3n@a:4222,nats://u:other@b:4222'), 'nats://***@a:4222,nats://u:***@b:4222')
  assert.equal(maskUrl('nats://u:p4ss@a:4222,v:w0rd@b:4222'), 'nats://u:***@b:4222')
  assert.ok(secretsOf('nats://u:p4ss@a:4222,v:w0rd@b:4222').includes('w0rd'))
  assert.equal(maskUrl('redis://h:6379/0'), 'redis://h:6379/0')
})

test('MESSAGE_BUS_TYPE is one of the known types; an unknown one is named with the nearest', () => {
  for (const type of [undefined, '', 'inprocess']) assert.equal(busType({ MESSAGE_BUS_TYPE: type }), 'inprocess')
  for (const type of ['memory', 'pulsar', 'kafka', 'nats', 'redis'] as const)
    assert.equal(busType({ MESSAGE_BUS_TYPE: ` ${type.toUpperCase()} ` }), type)
  assert.throws(
    () => busType({ MESSAGE_BUS_TYPE: 'kafkka' }),
    /MESSAGE_BUS_TYPE is unknown; did you mean "kafka"\?.*allowed: inprocess, memory, pulsar, kafka, nats, redis/,
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
