import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { type PulsarTransportOptions, pulsarSettings, resolvePulsarOptions } from './options.ts'
import { createRest } from './rest.ts'
import { pulsarTransport } from './transport.ts'

const addresses = (options: PulsarTransportOptions): string[] => {
  const { serviceUrl, webSocketUrl, adminUrl } = resolvePulsarOptions(options)
  return [serviceUrl.href, webSocketUrl.origin === 'null' ? webSocketUrl.href : webSocketUrl.origin, adminUrl.origin]
}

suite('settings for Pulsar', () => {
  test('addresses that are not given follow from those that are', () => {
    assert.deepEqual(addresses({}), ['pulsar://localhost:6650', 'ws://localhost:8080', 'http://localhost:8080'])
    assert.deepEqual(addresses({ serviceUrl: 'pulsar://a:1' }), ['pulsar://a:1', 'ws://a:8080', 'http://a:8080'])
    assert.deepEqual(addresses({ serviceUrl: 'pulsar+ssl://a:6651' }), ['pulsar+ssl://a:6651', 'wss://a:8443', 'https://a:8443'])
    assert.deepEqual(addresses({ serviceUrl: 'pulsar://a:6651', tls: { enabled: true } }), [
      'pulsar+ssl://a:6651',
      'wss://a:8443',
      'https://a:8443',
    ])
    assert.deepEqual(addresses({ webSocketUrl: 'wss://w:1' })[2], 'https://w:1')
    assert.deepEqual(addresses({ serviceUrl: 'pulsar://a:1', webSocketUrl: 'ws://w:2', adminUrl: 'http://x:3' }), [
      'pulsar://a:1',
      'ws://w:2',
      'http://x:3',
    ])
  })

  test('each variable of the environment becomes its option; an empty one counts as not set', () => {
    const caPath = import.meta.filename
    assert.deepEqual(
      pulsarSettings({
        PULSAR_URL: 'pulsar+ssl://a:6651',
        PULSAR_WEB_SOCKET_URL: 'wss://a:8443',
        PULSAR_ADMIN_URL: 'https://a:8443',
        PULSAR_AUTH_TOKEN: 'secret',
        PULSAR_TLS_ENABLED: 'yes',
        PULSAR_TLS_CERT_PATH: caPath,
        PULSAR_TLS_VALIDATE_HOSTNAME: 'false',
        PULSAR_TENANT: 'shop',
        PULSAR_NAMESPACE: 'orders',
        PULSAR_SUBSCRIPTION_TYPE: 'failover',
      }),
      {
        serviceUrl: 'pulsar+ssl://a:6651',
        webSocketUrl: 'wss://a:8443',
        adminUrl: 'https://a:8443',
        token: 'secret',
        tenant: 'shop',
        namespace: 'orders',
        subscriptionType: 'Failover',
        tls: { enabled: true, caPath, validateHostname: false },
      },
    )
    assert.deepEqual(pulsarSettings({ PULSAR_SERVICE_URL: 'pulsar://b:1', PULSAR_URL: '', PULSAR_TENANT: ' ' }), {
      serviceUrl: 'pulsar://b:1',
    })
  })

  test('a wrong variable is named, with what is allowed', () => {
    for (const [name, value, code] of [
      ['PULSAR_TLS_ENABLED', 'maybe', 'INVALID_SETTING'],
      ['PULSAR_SUBSCRIPTION_TYPE', 'Private', 'INVALID_SETTING'],
      ['PULSAR_TLS_CERT_PATH', '/nowhere/at/all', 'INVALID_FILE'],
    ] as const)
      assert.throws(() => pulsarSettings({ [name]: value }), { code, message: new RegExp(name) })
  })

  test('where TLS is asked for, an address without it is refused: no token goes in the clear', async () => {
    for (const [name, option, address] of [
      ['PULSAR_WEB_SOCKET_URL', 'webSocketUrl', 'ws://a:8080'],
      ['PULSAR_ADMIN_URL', 'adminUrl', 'http://a:8080'],
    ] as const) {
      const asked = { PULSAR_TLS_ENABLED: 'true', PULSAR_AUTH_TOKEN: 'hidden', [name]: address }
      const message = new RegExp(`^PULSAR_TLS_ENABLED is true, and ${name} is without TLS \\(allowed: `)
      assert.throws(() => pulsarSettings(asked), { code: 'INVALID_SETTING', message })
      assert.equal(pulsarSettings({ ...asked, PULSAR_TLS_ENABLED: 'false' })[option], address)
      await assert.rejects(pulsarTransport({ [option]: address, tls: { enabled: true } }), {
        code: 'INVALID_OPTION',
        message: new RegExp(`tls\\.enabled is not usable \\(got true; allowed: \\w+:// in ${option}, or false`),
      })
    }
  })

  test('a wrong option is refused at the door, named, and no address or token is shown', async () => {
    const wrong: readonly PulsarTransportOptions[] = [
      { serviceUrl: 'kafka://a' },
      { serviceUrl: 'pulsar://user:hidden@a' },
      { webSocketUrl: 'http://a' },
      { adminUrl: 'nonsense' },
      { token: 'hidden\nhidden' },
      { serviceUrl: 'pulsar://:hidden@a:1,b:2' },
      { adminUrl: 'http://a,b' },
      { tenant: 'a/b' },
      { namespace: '' },
      { partitions: -1 },
      { requestTimeoutMs: 0 },
      { messageMaxBytes: 6 * 1024 * 1024 },
      { prefetchMax: 5000 },
      { serviceUrl: 'pulsar+ssl://a', tls: { enabled: false } },
      // What a JavaScript caller may hand in.
      { subscriptionType: 'Private' } as unknown as PulsarTransportOptions,
      { provider: 'grpc' } as unknown as PulsarTransportOptions,
      { createTopics: 'yes' } as unknown as PulsarTransportOptions,
      { serviceURL: 'pulsar://a' } as unknown as PulsarTransportOptions,
      { tls: { caPth: 'x' } } as unknown as PulsarTransportOptions,
    ]
    for (const options of wrong)
      await assert.rejects(pulsarTransport(options), (error: Error & { code?: string }) => {
        assert.equal(error.code, 'INVALID_OPTION', JSON.stringify(options))
        assert.match(error.message, new RegExp(`pulsarTransport\\.${Object.keys(options).at(-1)}`))
        assert.ok(!error.message.includes('hidden'))
        return true
      })
    await assert.rejects(pulsarTransport({ tls: { caPath: '/nowhere/at/all' } }), { code: 'INVALID_FILE' })
  })

  test('an error at an admin address that nobody gave says what it follows from, and what sets it', async () => {
    for (const [options, follows] of [
      [
        { serviceUrl: 'pulsar://127.0.0.1:9' },
        /127\.0\.0\.1:8080 \(which follows from serviceUrl, PULSAR_URL; adminUrl, PULSAR_ADMIN_URL, is not set\)/,
      ],
      [{ webSocketUrl: 'ws://127.0.0.1:9' }, /127\.0\.0\.1:9 \(which follows from webSocketUrl, PULSAR_WEB_SOCKET_URL; /],
      [{}, /localhost:8080 \(which follows from the default of serviceUrl, PULSAR_URL; /],
      [{ adminUrl: 'http://127.0.0.1:9' }, /at http:\/\/127\.0\.0\.1:9: /],
    ] as const) {
      const rest = createRest(resolvePulsarOptions(options))
      await assert.rejects(rest.call('GET', '/brokers/version', { signal: AbortSignal.abort() }), {
        code: 'TRANSPORT_UNAVAILABLE',
        message: follows,
      })
      rest.close()
    }
  })

  test('a transport is made without a broker, and closes', async () => {
    const transport = await pulsarTransport({ provider: 'websocket', webSocketUrl: 'ws://127.0.0.1:9' })
    assert.equal(transport.name, 'pulsar')
    await Promise.all([transport.close(), transport.close()])
    await assert.rejects(transport.publish([], new AbortController().signal), { code: 'CLOSED' })
  })

  test('the native provider says what to install', async () => {
    await assert.rejects(pulsarTransport({ provider: 'native' }), { code: 'PEER_MISSING', message: /npm install pulsar-client/ })
  })
})
