import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { type PulsarClientConfig, type PulsarPackageLike, createNativeClient } from './native-client.ts'
import { type PulsarTransportOptions, resolvePulsarOptions } from './options.ts'
import type { PulsarLike } from './pulsar-like.ts'

const refuse = (): never => assert.fail('only the configuration is looked at')

/** Stands for the official package, which is native and not everywhere to be had: this shows what it is told, not what it does. */
async function configured(options: PulsarTransportOptions): Promise<PulsarClientConfig & { readonly token: string | undefined }> {
  let got: PulsarClientConfig | undefined
  class Client implements PulsarLike {
    createProducer = refuse
    subscribe = refuse
    createReader = refuse
    close = refuse
    constructor(config: PulsarClientConfig) {
      got = config
    }
  }
  class AuthenticationToken {
    readonly read: () => Promise<string>
    constructor({ token }: { token: () => Promise<string> }) {
      this.read = token
    }
  }
  const fake: PulsarPackageLike = { Client, AuthenticationToken, MessageId: { earliest: refuse, deserialize: refuse } }
  createNativeClient(fake, resolvePulsarOptions(options))
  assert.ok(got !== undefined)
  const { authentication, ...config } = got
  return { ...config, token: authentication instanceof AuthenticationToken ? await authentication.read() : undefined }
}

suite('the official package is told', () => {
  test('where the service is, and how long to wait', async () => {
    assert.deepEqual(await configured({ serviceUrl: 'pulsar://a:6650', requestTimeoutMs: 2_500 }), {
      serviceUrl: 'pulsar://a:6650',
      operationTimeoutSeconds: 3,
      connectionTimeoutMs: 2_500,
      token: undefined,
    })
  })

  test('the token, as it is at each connection, and whom to trust', async () => {
    let tokens = 0
    const caPath = import.meta.filename
    assert.deepEqual(
      await configured({ serviceUrl: 'pulsar+ssl://a:6651', token: () => `token-${++tokens}`, tls: { caPath, validateHostname: false } }),
      {
        serviceUrl: 'pulsar+ssl://a:6651',
        operationTimeoutSeconds: 10,
        connectionTimeoutMs: 10_000,
        tlsTrustCertsFilePath: caPath,
        tlsValidateHostname: false,
        token: 'token-1',
      },
    )
    assert.equal((await configured({ serviceUrl: 'pulsar+ssl://a:6651' })).tlsValidateHostname, true)
  })
})
