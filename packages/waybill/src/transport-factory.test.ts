import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { MESSAGE_BUS_TYPES, type MessageBusType, messageBusType, transportFromEnvironment } from './transport-factory.ts'

/** What each broker needs at least to be named. */
const SETTINGS: Readonly<Record<Exclude<MessageBusType, 'inprocess' | 'memory'>, Readonly<Record<string, string>>>> = {
  kafka: { KAFKA_BOOTSTRAP_SERVERS: '127.0.0.1:1' },
  nats: { NATS_URL: 'nats://127.0.0.1:1' },
  redis: { REDIS_URL: 'redis://127.0.0.1:1' },
  pulsar: { PULSAR_URL: 'pulsar://127.0.0.1:1', PULSAR_WEB_SOCKET_URL: 'ws://127.0.0.1:1', PULSAR_ADMIN_URL: 'http://127.0.0.1:1' },
}

test('MESSAGE_BUS_TYPE is read in any case, and is inprocess where it is not set; an unknown one is an error with the list', () => {
  for (const value of [undefined, '', '  ']) assert.equal(messageBusType({ MESSAGE_BUS_TYPE: value }), 'inprocess')
  for (const type of MESSAGE_BUS_TYPES) assert.equal(messageBusType({ MESSAGE_BUS_TYPE: ` ${type.toUpperCase()} ` }), type)
  assert.throws(
    () => messageBusType({ MESSAGE_BUS_TYPE: 'rabbitmq' }),
    (error: Error & { code?: string }) =>
      error.code === 'INVALID_SETTING' && /MESSAGE_BUS_TYPE.*"rabbitmq".*inprocess, memory, pulsar, kafka, nats, redis/.test(error.message),
  )
})

test('in process the transport waits for handlers, so that an outbox loses nothing', async () => {
  for (const env of [{}, { MESSAGE_BUS_TYPE: 'inprocess' }, { MESSAGE_BUS_TYPE: 'memory' }]) {
    const transport = await transportFromEnvironment(env)
    assert.deepEqual([transport.name, transport.capabilities.acknowledges], ['memory', 'handled'])
    await transport.close()
  }
})

for (const [type, settings] of Object.entries(SETTINGS) as readonly (readonly [keyof typeof SETTINGS, Record<string, string>])[]) {
  test(`${type}: the environment or the caller names it, and it is not connected to before it is used`, async () => {
    // Nobody listens at port 1: a transport that connects already would reject, or complain.
    const said: string[] = []
    const options = { observe: (event: { readonly type: string }) => void said.push(event.type) }
    const named = await transportFromEnvironment({ ...settings, MESSAGE_BUS_TYPE: type }, options)
    const overridden = await transportFromEnvironment({ ...settings, MESSAGE_BUS_TYPE: 'inprocess' }, { ...options, type })
    for (const transport of [named, overridden]) {
      assert.deepEqual([transport.name, transport.capabilities.acknowledges, transport.admin === undefined], [type, 'stored', false])
      await transport.close()
    }
    assert.deepEqual(said, [])
  })
}

test('a broker that can not be reached is a typed error, from the first question on', async () => {
  for (const [type, settings] of Object.entries(SETTINGS)) {
    const transport = await transportFromEnvironment({ ...settings, MESSAGE_BUS_TYPE: type })
    try {
      await assert.rejects(
        transport.admin!.examine(AbortSignal.timeout(20_000)),
        (error: Error & { code?: string }) => error.code === 'TRANSPORT_UNAVAILABLE' && error.message.includes('127.0.0.1:1'),
        type,
      )
    } finally {
      await transport.close()
    }
  }
})

test('a setting that is missing or wrong is an error that names it', async () => {
  const cases: readonly (readonly [Readonly<Record<string, string>>, RegExp])[] = [
    [{ MESSAGE_BUS_TYPE: 'kafka' }, /^KAFKA_BOOTSTRAP_SERVERS is not set/],
    [{ MESSAGE_BUS_TYPE: 'kafka', ...SETTINGS.kafka, KAFKA_SASL_MECHANISM: 'MD5' }, /^KAFKA_SASL_MECHANISM is not usable \(got "MD5"/],
    [{ MESSAGE_BUS_TYPE: 'nats', ...SETTINGS.nats, NATS_PARTITIONS: '0' }, /^NATS_PARTITIONS is not usable/],
    [{ MESSAGE_BUS_TYPE: 'redis', ...SETTINGS.redis, REDIS_PARTITIONS: 'four' }, /^REDIS_PARTITIONS is not usable/],
    [{ MESSAGE_BUS_TYPE: 'pulsar', ...SETTINGS.pulsar, PULSAR_SUBSCRIPTION_TYPE: 'Any' }, /^PULSAR_SUBSCRIPTION_TYPE is not usable/],
  ]
  for (const [env, message] of cases) {
    await assert.rejects(
      transportFromEnvironment(env),
      (error: Error & { code?: string }) => error.code === 'INVALID_SETTING' && message.test(error.message),
      String(message),
    )
  }
})

test('who uses one broker loads no adapter of another', () => {
  const factory = fileURLToPath(new URL('./transport-factory.ts', import.meta.url))
  const script = `
    import { registerHooks } from 'node:module'
    const loaded = new Set()
    registerHooks({ load: (url, context, next) => {
      const adapter = /adapters\\/(kafka|nats|redis|pulsar)\\//.exec(url)?.[1]
      if (adapter !== undefined) loaded.add(adapter)
      return next(url, context)
    } })
    const { transportFromEnvironment } = await import(${JSON.stringify(factory)})
    await (await transportFromEnvironment({})).close()
    const before = [...loaded]
    await (await transportFromEnvironment({ MESSAGE_BUS_TYPE: 'redis' })).close()
    console.log(JSON.stringify([before, [...loaded]]))`
  const { stdout, stderr } = spawnSync(process.execPath, ['--conditions=waybill:source', '--input-type=module', '--eval', script], {
    encoding: 'utf8',
    cwd: fileURLToPath(new URL('.', import.meta.url)),
    timeout: 60_000,
  })
  assert.deepEqual(JSON.parse(stdout || 'null'), [[], ['redis']], stderr)
})
