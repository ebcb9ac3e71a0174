import assert from 'node:assert/strict'
import { test } from 'node:test'
import { exportsOf, HANDED, handedOver, namedByEnvironment, versionAt } from './environment.ts'
import { isRequired } from './service.ts'

test('an address in the environment is read with its port or the usual one', () => {
  const cases = [
    ['redis', { REDIS_URL: 'redis://user:pass@h:7000/2' }, 'h', 7000],
    ['redis', { REDIS_URL: 'rediss://h' }, 'h', 6379],
    ['nats', { NATS_URL: 'nats://[::1]:4333' }, '::1', 4333],
    ['nats', { NATS_URL: 'h:4333,other:4334' }, 'h', 4333],
    ['kafka', { KAFKA_BOOTSTRAP_SERVERS: 'a:1, b:2' }, 'a', 1],
    ['postgres', { WAYBILL_TEST_POSTGRES_URL: 'postgres://u:p@h/d' }, 'h', 5432],
  ] as const
  for (const [name, environment, host, port] of cases) {
    const found = namedByEnvironment(name, environment)
    assert.deepEqual([found?.host, found?.port, found?.url], [host, port, Object.values(environment)[0]])
  }
})

test('no variable, an empty one, and somebody’s DATABASE_URL name no server', () => {
  assert.equal(namedByEnvironment('redis', {}), undefined)
  assert.equal(namedByEnvironment('redis', { REDIS_URL: '' }), undefined)
  assert.equal(namedByEnvironment('postgres', { DATABASE_URL: 'postgres://u:p@h/d' }), undefined)
})

test('Pulsar needs all its addresses', () => {
  const all = { PULSAR_URL: 'pulsar://h', PULSAR_WEB_SOCKET_URL: 'ws://h:8080', PULSAR_ADMIN_URL: 'http://h:8080' }
  assert.deepEqual(namedByEnvironment('pulsar', all), {
    name: 'pulsar',
    url: 'pulsar://h',
    host: 'h',
    port: 6650,
    extra: { webSocketUrl: 'ws://h:8080', adminUrl: 'http://h:8080' },
  })
  assert.throws(() => namedByEnvironment('pulsar', { PULSAR_URL: 'pulsar://h' }), /PULSAR_URL is set, but PULSAR_WEB_SOCKET_URL is not/)
})

test('an address that cannot be read is refused without showing it', () => {
  for (const url of ['redis://user:secret@', 'redis://user:secret@h:99999999', 'http://[secret', '://secret'])
    assert.throws(
      () => namedByEnvironment('redis', { REDIS_URL: url }),
      (error: Error) => /REDIS_URL/.test(error.message) && !/secret/.test(`${error.message}${String(error.cause)}`),
    )
})

test('an address where nobody answers is said', async () => {
  for (const name of ['redis', 'nats', 'kafka', 'postgres'] as const)
    await assert.rejects(versionAt({ name, url: '', host: '127.0.0.1', port: 1, extra: {} }), /nothing answers at 127\.0\.0\.1:1/)
})

test('what a runner hands over is taken, and something else is refused', () => {
  const server = { name: 'redis', url: 'redis://h:1', host: 'h', port: 1, version: '7', extra: {}, provider: 'installed' }
  const environment = { [HANDED]: JSON.stringify({ redis: server, kafka: { skipped: 'no Java' } }) }
  assert.deepEqual(handedOver('redis', environment), server)
  assert.deepEqual(handedOver('kafka', environment), { skipped: 'no Java' })
  assert.equal(handedOver('nats', environment), undefined)
  assert.equal(handedOver('nats', {}), undefined)
  assert.throws(() => handedOver('nats', { [HANDED]: '{' }), /WAYBILL_SERVICES is written by the test runner/)
})

test('the variables to export are those that programs read', () => {
  const base = { host: 'h', port: 1, version: '1', extra: {} }
  assert.deepEqual(exportsOf({ ...base, name: 'postgres', url: 'p' }), { DATABASE_URL: 'p' })
  assert.deepEqual(exportsOf({ ...base, name: 'kafka', url: 'k' }), { KAFKA_BOOTSTRAP_SERVERS: 'k' })
  assert.deepEqual(exportsOf({ ...base, name: 'pulsar', url: 'p', extra: { webSocketUrl: 'w', adminUrl: 'a' } }), {
    PULSAR_URL: 'p',
    PULSAR_WEB_SOCKET_URL: 'w',
    PULSAR_ADMIN_URL: 'a',
  })
})

test('servers are required by name or all at once', () => {
  assert.equal(isRequired('redis', ''), false)
  assert.equal(isRequired('redis', 'all'), true)
  assert.equal(isRequired('redis', 'nats, redis'), true)
  assert.equal(isRequired('kafka', 'nats, redis'), false)
  assert.throws(() => isRequired('redis', 'nats,reddis'), /all or a list of postgres, redis, nats, kafka, pulsar; got "reddis"/)
})
