import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { type OwnServer, ownServer } from 'waybill-services'
import { isWaybillError, type WaybillError } from '../../src/core/errors.ts'
import { newId } from '../../src/core/ids.ts'
import type { WaybillEvent } from '../../src/core/observe.ts'
import type { Delivery, Message, PublishOutcome, Source, Transport } from '../../src/core/transport.ts'
import { type PulsarTransportOptions, pulsarTransport } from '../../src/pulsar.ts'
import { until } from '../../src/testing/contract-tools.ts'
import { broker } from './pulsar.ts'
import type { Target } from './fixture.ts'

const never = new AbortController().signal
const LIMIT_MS = 20_000
const unique = newId().slice(-12)
let names = 0
const freshTopic = (): string => `bad.t${unique}-${++names}`

function message(topic: string, body: Uint8Array = Buffer.from('body'), key = 'a'): Message {
  const id = newId()
  return { id, topic, key, headers: { event_id: id }, body }
}

function errorOf(outcome: PublishOutcome | undefined): WaybillError {
  assert.equal(outcome?.kind, 'rejected')
  return outcome.error
}

/** What publishing and subscribing say, each within the limit; nothing where subscribing goes on trying. */
async function refusals(
  options: PulsarTransportOptions,
): Promise<{ readonly publish: WaybillError; readonly subscribe: WaybillError | undefined; readonly admin: unknown }> {
  const transport = await pulsarTransport({ provider: 'websocket', requestTimeoutMs: 3_000, ...options })
  try {
    const topic = freshTopic()
    const [outcome] = await transport.publish([message(topic)], AbortSignal.timeout(LIMIT_MS))
    const admin = await transport.admin!.examine(AbortSignal.timeout(LIMIT_MS)).then(
      () => undefined,
      (error: unknown) => error,
    )
    return { publish: errorOf(outcome), subscribe: await endOf(transport, topic), admin }
  } finally {
    await transport.close()
  }
}

/** How a subscription ends within a second; nothing where it does not. */
async function endOf(transport: Transport, topic: string): Promise<WaybillError | undefined> {
  try {
    for await (const _ of transport.subscribe({ topics: [topic], group: 'bad/input' }, AbortSignal.timeout(1_000))) break
    return undefined
  } catch (error) {
    assert.ok(isWaybillError(error), String(error))
    return error
  }
}

/** The first delivery, acked. */
async function first(transport: Transport, source: Source): Promise<Delivery> {
  for await (const [delivery] of transport.subscribe(source, AbortSignal.timeout(LIMIT_MS))) {
    await delivery!.ack()
    return delivery!
  }
  assert.fail(`nothing came in ${LIMIT_MS} ms`)
}

const base = (server: OwnServer): PulsarTransportOptions => ({
  serviceUrl: server.url,
  webSocketUrl: server.extra['webSocketUrl']!,
  adminUrl: server.extra['adminUrl']!,
})

suite('pulsar, bad addresses, rights and limits', () => {
  let server: OwnServer | undefined
  let skipped: string | undefined
  const secured = (): OwnServer => {
    assert.ok(server !== undefined)
    return server
  }
  const withToken = (): PulsarTransportOptions => ({ ...base(secured()), token: secured().extra['token']! })
  const check = (name: string, run: () => Promise<void>): void =>
    void test(name, async (t) => (skipped === undefined ? run() : t.skip(skipped)))

  before(async () => {
    const shared = await broker.shared()
    if ('skipped' in shared && typeof shared.skipped === 'string') skipped = shared.skipped
    else
      server = await ownServer('pulsar', { auth: true, tls: true, settings: { allowAutoTopicCreation: 'false', maxMessageSize: '102400' } })
  })
  after(async () => await server?.close())

  check('a closed port and a host that is none are unreachable, by name, and publishing may be tried again', async () => {
    for (const [host, hint] of [
      ['127.0.0.1:9', /nobody listens/],
      ['nowhere.invalid:8080', /no such host/],
    ] as const) {
      const { publish, subscribe, admin } = await refusals({ webSocketUrl: `ws://${host}`, adminUrl: `http://${host}` })
      for (const error of [publish, admin as WaybillError]) {
        assert.equal(error.code, 'TRANSPORT_UNAVAILABLE')
        assert.match(error.message, hint)
        assert.ok(error.message.includes(host), error.message)
      }
      assert.equal(subscribe, undefined, 'a subscription keeps trying')
    }
  })

  test('a look at a broker that is away tells whoever watches the transport', async () => {
    const told: unknown[] = []
    const transport = await pulsarTransport({
      provider: 'websocket',
      adminUrl: 'http://127.0.0.1:9',
      observe: (event) => void (event.type === 'transport.changed' && told.push(event.to)),
    })
    await assert.rejects(transport.admin!.examine(AbortSignal.timeout(LIMIT_MS)), { code: 'TRANSPORT_UNAVAILABLE' })
    assert.deepEqual(told, ['down'])
    await transport.close()
  })

  check('no token, a wrong token and one without rights are denied for good; the token is never shown', async () => {
    const limited = secured().extra['limitedToken']!
    for (const token of [undefined, 'abc.def.ghi', limited]) {
      const { publish, subscribe, admin } = await refusals({ ...base(secured()), ...(token === undefined ? {} : { token }) })
      for (const error of [publish, subscribe, admin]) {
        assert.ok(isWaybillError(error, 'ACCESS_DENIED'), String(error))
        assert.equal(error.retryable, false)
        assert.ok(token === undefined || !`${error.stack} ${String(error.cause)}`.includes(token))
        assert.match(error.message, token === limited ? /no right to it/ : /the token is missing or wrong/)
        assert.doesNotMatch(error.message, /servlet|[{}]|\n/, 'the reason, and nothing around it')
      }
    }
  })

  check('the right token passes, over TLS as well; without its authority TLS is refused and says what to set', async () => {
    const { extra } = secured()
    const encrypted: PulsarTransportOptions = {
      serviceUrl: extra['tlsUrl']!,
      webSocketUrl: extra['webSocketTlsUrl']!,
      adminUrl: extra['adminTlsUrl']!,
      token: extra['token']!,
    }
    for (const options of [
      withToken(),
      { ...encrypted, tls: { caPath: extra['caFile']! } },
      { ...encrypted, token: () => extra['token']!, tls: { caPath: extra['caFile']!, validateHostname: false } },
    ]) {
      const transport = await pulsarTransport({ provider: 'websocket', ...options })
      const topic = freshTopic()
      assert.deepEqual(await transport.publish([message(topic)], never), [{ kind: 'stored' }])
      await first(transport, { topics: [topic], group: 'bad/input' })
      await transport.close()
    }
    const { publish, subscribe } = await refusals(encrypted)
    assert.equal(publish.code, 'TRANSPORT_UNAVAILABLE')
    assert.match(publish.message, /tls\.caPath \(PULSAR_TLS_CERT_PATH\)/)
    assert.equal(subscribe, undefined)
  })

  check('TLS to a plain port, and plain to a TLS port, are named as such', async () => {
    const { extra } = secured()
    const plain = new URL(extra['adminUrl']!).host
    const tls = new URL(extra['adminTlsUrl']!).host
    const toPlain = await refusals({
      webSocketUrl: `wss://${plain}`,
      adminUrl: `https://${plain}`,
      tls: { enabled: true, caPath: extra['caFile']! },
    })
    for (const error of [toPlain.publish, toPlain.admin as WaybillError]) {
      assert.equal(error.code, 'TRANSPORT_UNAVAILABLE')
      assert.match(error.message, /speaks no TLS/)
    }
    const toTls = await refusals({ webSocketUrl: `ws://${tls}`, adminUrl: `http://${tls}` })
    for (const error of [toTls.publish, toTls.admin as WaybillError]) {
      assert.equal(error.code, 'TRANSPORT_UNAVAILABLE')
      assert.match(error.message, /TLS/)
    }
  })

  check('a missing topic: made where it may be, though the broker makes none by itself; else TOPIC_MISSING', async () => {
    const transport = await pulsarTransport({ provider: 'websocket', ...withToken() })
    assert.deepEqual(await transport.publish([message(freshTopic())], never), [{ kind: 'stored' }])
    await transport.close()
    const { publish, subscribe } = await refusals({ ...withToken(), createTopics: false })
    assert.equal(publish.code, 'TOPIC_MISSING')
    assert.equal(subscribe?.code, 'TOPIC_MISSING')
    const named = await pulsarTransport({ provider: 'websocket', ...withToken() })
    const missing = freshTopic()
    await assert.rejects(named.admin!.topics([missing], never), {
      code: 'TOPIC_MISSING',
      message: `there is no topic ${missing} (got "${missing}"; at pulsar transport)`,
    })
    await named.close()
  })

  check('a look at the broker notices that messages can not go there, though its admin interface answers', async () => {
    const { extra } = secured()
    const ca = { caPath: extra['caFile']! }
    for (const [options, text] of [
      [withToken(), undefined],
      [{ ...withToken(), webSocketUrl: extra['webSocketTlsUrl']!, tls: ca }, undefined],
      [{ ...withToken(), webSocketUrl: 'ws://127.0.0.1:1' }, /^nothing can be published or read at ws:\/\/127\.0\.0\.1:1: /],
      [{ ...withToken(), webSocketUrl: extra['webSocketTlsUrl']! }, /certificate is not trusted/],
      [{ ...withToken(), webSocketUrl: extra['webSocketUrl']!.replace('ws:', 'wss:'), tls: ca }, /speaks no TLS/],
    ] as const) {
      const transport = await pulsarTransport({ provider: 'websocket', ...options })
      const { findings } = await transport.admin!.examine(never)
      await transport.close()
      const found = findings.find(({ advice }) => advice.includes('PULSAR_WEB_SOCKET_URL'))
      if (text === undefined) assert.equal(found, undefined)
      else {
        assert.equal(found?.level, 'error')
        assert.match(found.text, text)
      }
    }
  })

  check('a role that may publish and consume, and nothing else, can do all that a program does', async () => {
    const { extra } = secured()
    const call = async (method: string, path: string, body: unknown): Promise<void> => {
      const headers = { authorization: `Bearer ${extra['token']}`, 'content-type': 'application/json' }
      const response = await fetch(`${extra['adminUrl']}/admin/v2/namespaces/public/open${path}`, {
        method,
        headers,
        body: JSON.stringify(body),
      })
      assert.equal(response.status, 204, await response.text())
    }
    await call('PUT', '', {})
    await call('POST', '/autoTopicCreation', { allowAutoTopicCreation: true, topicType: 'non-partitioned' })
    await call('POST', '/permissions/limited', ['produce', 'consume'])
    const transport = await pulsarTransport({ provider: 'websocket', ...base(secured()), token: extra['limitedToken']!, namespace: 'open' })
    const topic = freshTopic()
    await transport.declareGroups([{ topic, group: 'bad/input' }])
    assert.deepEqual(await transport.publish([message(topic), message(freshTopic())], never), [{ kind: 'stored' }, { kind: 'stored' }])
    for (const group of [{ group: 'bad/input' }, {}]) await first(transport, { topics: [topic], ...group })
    const [report] = await transport.admin!.topics([topic], never)
    assert.equal(report!.messages, 1)
    await transport.close()
  })

  check('a tenant or namespace that is missing is said to be missing', async () => {
    for (const part of [{ tenant: 'nobody' }, { namespace: 'nowhere' }]) {
      const { publish, subscribe } = await refusals({ ...withToken(), ...part })
      assert.equal(publish.code, 'TOPIC_MISSING')
      assert.equal(subscribe?.code, 'TOPIC_MISSING')
    }
  })

  check('a message over a limit is refused by a typed error: ours and the frame before it is sent, the broker’s own after', async () => {
    const transport = await pulsarTransport({ provider: 'websocket', ...withToken(), messageMaxBytes: 2 * 1024 * 1024 })
    const topic = freshTopic()
    const sizes = [2 * 1024 * 1024 + 1, 1024 * 1024, 200 * 1024]
    const texts = [/the message is too large/, /WebSocket service/, /maxMessageSize/]
    for (const [index, size] of sizes.entries()) {
      const error = errorOf((await transport.publish([message(topic, new Uint8Array(size))], never))[0])
      assert.equal(error.code, 'PAYLOAD_TOO_LARGE', error.message)
      assert.match(error.message, texts[index]!)
      assert.equal(error.retryable, false)
    }
    assert.deepEqual(
      await transport.publish([message(topic, new Uint8Array(50_000))], never),
      [{ kind: 'stored' }],
      'the connection is not hurt',
    )
    await transport.close()
  })
})

suite('pulsar, what is deleted or foreign while it is read', () => {
  let target: Target | undefined
  let skipped: string | undefined
  before(async () => {
    const shared = await broker.shared()
    if ('skipped' in shared && typeof shared.skipped === 'string') skipped = shared.skipped
    else target = shared
  })
  const check = (name: string, run: (target: Target) => Promise<void>): void =>
    void test(name, async (t) => (skipped === undefined ? run(target!) : t.skip(skipped)))

  /** Reads and acks all the time. */
  async function reading(
    target: Target,
    topic: string,
    run: (seen: string[], gaps: WaybillEvent[], transport: Transport) => Promise<void>,
  ): Promise<void> {
    const gaps: WaybillEvent[] = []
    const transport = await broker.connect(target, { observe: (event) => void (event.type === 'transport.gap' && gaps.push(event)) })
    await transport.declareGroups([{ topic, group: 'bad/input' }])
    const stop = new AbortController()
    const seen: string[] = []
    const working = (async () => {
      for await (const deliveries of transport.subscribe({ topics: [topic], group: 'bad/input' }, stop.signal)) {
        for (const {
          message: { body },
        } of deliveries)
          seen.push(Buffer.from(body).toString())
        // One that is gone with the subscription need not be acked.
        await Promise.allSettled(deliveries.map((delivery: Delivery) => delivery.ack()))
      }
    })()
    try {
      await run(seen, gaps, transport)
    } finally {
      stop.abort()
      await working
      await transport.close()
    }
  }

  const publishText = async (transport: Transport, topic: string, text: string): Promise<void> =>
    void (await until(
      `${text} is stored`,
      async () => (await transport.publish([message(topic, Buffer.from(text))], never))[0]?.kind === 'stored',
    ))

  for (const [what, path] of [
    ['topic', ''],
    ['subscription', '/subscription/bad~input'],
  ] as const)
    check(
      `a ${what} that is deleted under a running member: a gap is told, the group is made anew, nothing later is skipped`,
      async (at) => {
        const topic = freshTopic()
        await reading(at, topic, async (seen, gaps, transport) => {
          await publishText(transport, topic, 'before')
          await until('the first one', async () => seen.includes('before'))
          const response = await fetch(`${at['adminUrl']}/admin/v2/persistent/public/default/${topic}${path}?force=true`, {
            method: 'DELETE',
          })
          assert.equal(response.status, 204, await response.text())
          await publishText(transport, topic, 'after')
          await until('the one that was published after it', async () => seen.includes('after'))
          await until('a gap', async () => gaps.length > 0)
          const gap = gaps[0]!
          assert.ok(
            gap.type === 'transport.gap' && gap.topic === topic && gap.group === 'bad/input' && isWaybillError(gap.error, 'POSITION_LOST'),
          )
          await publishText(transport, topic, 'later')
          await until('the group goes on', async () => seen.includes('later'))
        })
      },
    )

  check('messages that expire unread are told as a gap, with how many', async (at) => {
    const topic = freshTopic()
    await reading(at, topic, async (seen, gaps, transport) => {
      const other = await broker.connect(at)
      // Held unsettled by a member of another group, so that they are there to expire.
      const stop = new AbortController()
      const told: WaybillEvent[] = []
      const watcher = await broker.connect(at, { observe: (event) => void (event.type === 'transport.gap' && told.push(event)) })
      await other.declareGroups([{ topic, group: 'bad/slow' }])
      const held = watcher.subscribe({ topics: [topic], group: 'bad/slow' }, stop.signal)[Symbol.asyncIterator]()
      await publishText(transport, topic, 'one')
      await held.next()
      // Two looks, so that the number is known from before.
      await delay(2_500)
      const response = await fetch(`${at['adminUrl']}/admin/v2/persistent/public/default/${topic}/subscription/bad~slow/expireMessages/1`, {
        method: 'POST',
      })
      assert.equal(response.status, 204, await response.text())
      await until('a gap', async () => told.length > 0)
      assert.equal(told[0]!.type === 'transport.gap' && told[0].missing, 1)
      assert.deepEqual([seen.length, gaps.length], [1, 0])
      stop.abort()
      await held.return?.()
      await Promise.all([watcher.close(), other.close()])
    })
  })

  check(
    'a message of somebody else arrives with its bytes: without our headers, without a key, with headers of its own kind',
    async (at) => {
      const topic = freshTopic()
      const transport = await broker.connect(at)
      await transport.declareGroups([{ topic, group: 'bad/input' }])
      const { WebSocket } = await import('ws')
      const socket = new WebSocket(`${at['webSocketUrl']}/ws/v2/producer/persistent/public/default/${topic}`)
      await new Promise((resolve) => socket.once('open', resolve))
      const raw = Buffer.from([0xff, 0x00, 0x7b])
      socket.send(JSON.stringify({ payload: raw.toString('base64'), properties: { 'not a header': 'x', fine: 'yes' } }))
      await new Promise((resolve) => socket.once('message', resolve))
      socket.close()
      const { message: got } = await first(transport, { topics: [topic], group: 'bad/input' })
      assert.deepEqual(Buffer.from(got.body), raw)
      assert.match(got.id, /^pulsar:persistent:\/\/public\/default\/bad\./)
      assert.equal(got.key, got.id)
      assert.deepEqual({ ...got.headers }, { fine: 'yes' })
      await transport.close()
    },
  )

  check('a batch of somebody else arrives as single messages, each with an id of its own', async (at) => {
    const topic = freshTopic()
    const transport = await broker.connect(at)
    await transport.declareGroups([{ topic, group: 'bad/input' }])
    const { WebSocket } = await import('ws')
    const socket = new WebSocket(
      `${at['webSocketUrl']}/ws/v2/producer/persistent/public/default/${topic}?batchingEnabled=true&batchingMaxMessages=5&batchingMaxPublishDelay=1000`,
    )
    await new Promise((resolve) => socket.once('open', resolve))
    for (let number = 0; number < 5; number++) socket.send(JSON.stringify({ payload: Buffer.from(String(number)).toString('base64') }))
    await new Promise((resolve) => socket.once('message', resolve))
    socket.close()
    const got: Delivery[] = []
    for await (const deliveries of transport.subscribe({ topics: [topic], group: 'bad/input' }, AbortSignal.timeout(LIMIT_MS))) {
      got.push(...deliveries)
      await Promise.all(deliveries.map((delivery) => delivery.ack()))
      if (got.length >= 5) break
    }
    assert.deepEqual(
      got.map(({ message: { body } }) => Buffer.from(body).toString()),
      ['0', '1', '2', '3', '4'],
    )
    assert.equal(new Set(got.map(({ message: { id } }) => id)).size, 5)
    assert.ok(got.every(({ position }, index) => index === 0 || position.sequence! > got[index - 1]!.position.sequence!))
    await transport.close()
  })
})
