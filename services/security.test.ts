import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { type TestContext, test } from 'node:test'
import { connect as connectNats, nkeyAuthenticator, tokenAuthenticator, usernamePasswordAuthenticator } from '@nats-io/transport-node'
import { Admin } from '@platformatic/kafka'
import { createClient } from 'redis'
import WebSocket from 'ws'
import { type OwnServer, ownServerOrSkip, type ServerOptions, type ServiceName } from './index.ts'

async function secured(t: TestContext, name: ServiceName, options: ServerOptions): Promise<OwnServer | undefined> {
  const server = await ownServerOrSkip(name, options)
  if ('skipped' in server) {
    t.skip(server.skipped)
    return undefined
  }
  t.after(() => server.close())
  return server
}

test('redis: users with passwords, one with hardly any rights, and a port with TLS', async (t) => {
  const server = await secured(t, 'redis', { auth: true, tls: true })
  if (server === undefined) return
  const { extra } = server
  const set = async (url: string, ca?: string): Promise<string | null> => {
    const client = createClient({ url, socket: { reconnectStrategy: false, ...(ca === undefined ? {} : { tls: true, ca }) } })
    client.on('error', () => {})
    try {
      await client.connect()
      return await client.set('k', 'v')
    } finally {
      client.destroy()
    }
  }
  const at = (user: string, password: string) => `redis://${user}:${password}@${server.host}:${server.port}`
  assert.equal(await set(server.url), 'OK')
  assert.equal(await set(at('', extra['defaultPassword']!)), 'OK')
  assert.equal(await set(extra['tlsUrl']!, await readFile(extra['caFile']!, 'utf8')), 'OK')
  await assert.rejects(set(at(extra['user']!, 'wrong')), /WRONGPASS/)
  await assert.rejects(set(at(extra['limitedUser']!, extra['limitedPassword']!)), /NOPERM/)
  await assert.rejects(set(`redis://${server.host}:${server.port}`), /NOAUTH/)
  await assert.rejects(set(extra['tlsUrl']!), /certificate/)
})

test('nats: users, a key, a token, and TLS', async (t) => {
  const users = await secured(t, 'nats', { auth: true, tls: true })
  if (users === undefined) return
  const { extra } = users
  const tls = { caFile: extra['caFile']! }
  const join = async (options: Parameters<typeof connectNats>[0]) => {
    const connection = await connectNats({ reconnect: false, ...options })
    await connection.flush()
    await connection.close()
  }
  const key = new TextEncoder().encode(extra['nkeySeed'])
  await join({ servers: users.url, tls, authenticator: usernamePasswordAuthenticator(extra['user']!, extra['password']) })
  await join({ servers: users.url, tls, authenticator: nkeyAuthenticator(key) })
  await assert.rejects(
    join({ servers: users.url, tls, authenticator: usernamePasswordAuthenticator(extra['user']!, 'wrong') }),
    /uthorization/,
  )
  await assert.rejects(join({ servers: users.url, authenticator: nkeyAuthenticator(key) }), /certificate/)
  const token = await secured(t, 'nats', { auth: 'token' })
  await join({ servers: token!.url, authenticator: tokenAuthenticator(token!.extra['token']!) })
  await assert.rejects(join({ servers: token!.url }), /uthorization/)
})

test('kafka: PLAIN and SCRAM, a user without rights, and TLS', async (t) => {
  const server = await secured(t, 'kafka', { auth: true, tls: true })
  if (server === undefined) return
  const { extra } = server
  const ca = await readFile(extra['caFile']!, 'utf8')
  type Sasl = NonNullable<ConstructorParameters<typeof Admin>[0]['sasl']>
  const create = async (topic: string, address: string, sasl?: Sasl, withTls = false) => {
    const security = { ...(sasl === undefined ? {} : { sasl }), ...(withTls ? { tls: { ca } } : {}) }
    const admin = new Admin({ clientId: 'x', bootstrapBrokers: [address], retries: 0, ...security })
    try {
      await admin.createTopics({ topics: [topic], partitions: 1, replicas: 1 })
    } finally {
      await admin.close()
    }
  }
  const { user, password, limitedUser, limitedPassword } = extra as Readonly<Record<string, string>> & { user: string; password: string }
  for (const mechanism of ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'] as const)
    await create(`by-${mechanism}`, extra['saslUrl']!, { mechanism, username: user, password })
  await create('by-tls', extra['tlsUrl']!, undefined, true)
  await create('by-both', extra['saslTlsUrl']!, { mechanism: 'SCRAM-SHA-256', username: user, password }, true)
  await create('by-nobody', server.url)
  await assert.rejects(create('wrong', extra['saslUrl']!, { mechanism: 'SCRAM-SHA-256', username: user, password: 'wrong' }))
  await assert.rejects(create('denied', extra['saslUrl']!, { mechanism: 'PLAIN', username: limitedUser!, password: limitedPassword! }))
})

test('pulsar: tokens, one without rights, and TLS', async (t) => {
  const server = await secured(t, 'pulsar', { auth: true, tls: true })
  if (server === undefined) return
  const { extra } = server
  const ca = await readFile(extra['caFile']!, 'utf8')
  const publish = async (base: string, token?: string, ...more: readonly { readonly ca: string }[]): Promise<string> => {
    const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` }
    const socket = new WebSocket(`${base}/ws/v2/producer/persistent/public/default/t`, { headers, ...more[0] })
    try {
      await once(socket, 'open')
      socket.send(JSON.stringify({ payload: 'aGk=' }))
      const [answer] = (await once(socket, 'message')) as [Buffer]
      return (JSON.parse(answer.toString()) as { result: string }).result
    } finally {
      socket.terminate()
    }
  }
  assert.equal(await publish(extra['webSocketUrl']!, extra['token']), 'ok')
  assert.equal(await publish(extra['webSocketTlsUrl']!, extra['token'], { ca }), 'ok')
  await assert.rejects(publish(extra['webSocketUrl']!), /401/)
  await assert.rejects(publish(extra['webSocketUrl']!, `${extra['token']}x`), /401/)
  await assert.rejects(publish(extra['webSocketUrl']!, extra['limitedToken']), /40[13]/)
  await assert.rejects(publish(extra['webSocketTlsUrl']!, extra['token']), /certificate/)
})
