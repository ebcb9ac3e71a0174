import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { connect as connectSocket } from 'node:net'
import { after, before, suite, test } from 'node:test'
import { connect } from '@nats-io/transport-node'
import { type OwnServer, ownServer } from 'waybill-services'
import { natsToken } from '../../src/adapters/nats/names.ts'
import { isWaybillError, type WaybillError } from '../../src/core/errors.ts'
import { newId } from '../../src/core/ids.ts'
import type { WaybillEvent } from '../../src/core/observe.ts'
import type { Delivery, Message, PublishOutcome, Transport } from '../../src/core/transport.ts'
import { type NatsTransportOptions, natsSettings, natsStreamName, natsTransport } from '../../src/nats.ts'
import { until } from '../../src/testing/contract-tools.ts'
import { broker } from './nats.ts'

const never = new AbortController().signal
const LIMIT_MS = 20_000
const unique = newId().slice(-12)
let names = 0
const freshTopic = (): string => `bad.t${unique}-${++names}`

function message(topic: string, number = 0, body: Uint8Array = Buffer.from(String(number))): Message {
  const id = newId()
  return { id, topic, key: 'a', headers: { event_id: id }, body }
}

function errorOf(outcome: PublishOutcome | undefined): WaybillError {
  assert.equal(outcome?.kind, 'rejected')
  return outcome.error
}

/** What publishing and subscribing say, each within the limit; nothing where subscribing goes on trying. */
async function refusals(
  options: NatsTransportOptions,
  topic = freshTopic(),
): Promise<{ readonly publish: WaybillError; readonly subscribe: WaybillError | undefined; readonly admin: unknown }> {
  const transport = await natsTransport({ requestTimeoutMs: 2000, ...options })
  try {
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
    for await (const _ of transport.subscribe({ topics: [topic], group: 'bad/input' }, AbortSignal.timeout(1000))) break
    return undefined
  } catch (error) {
    assert.ok(isWaybillError(error), String(error))
    return error
  }
}

/** Stores one message, which shows that all is well. */
async function assertPasses(options: NatsTransportOptions): Promise<void> {
  const transport = await natsTransport(options)
  try {
    assert.deepEqual(await transport.publish([message(freshTopic())], AbortSignal.timeout(LIMIT_MS)), [{ kind: 'stored' }])
  } finally {
    await transport.close()
  }
}

/** Reads a group beside the test. */
function readGroup(transport: Transport, topic: string): { readonly texts: string[]; leave(): Promise<void> } {
  const stop = new AbortController()
  const texts: string[] = []
  const reading = (async () => {
    for await (const deliveries of transport.subscribe({ topics: [topic], group: 'bad/input' }, stop.signal)) {
      for (const delivery of deliveries) {
        texts.push(Buffer.from(delivery.message.body).toString())
        await delivery.ack()
      }
    }
  })()
  reading.catch(() => undefined)
  return {
    texts,
    async leave() {
      stop.abort()
      await reading
    },
  }
}

suite('nats, bad addresses, rights and limits', () => {
  let plain: OwnServer
  let users: OwnServer
  let token: OwnServer
  let tls: OwnServer
  let skipped: string | undefined
  const check = (name: string, run: () => Promise<void>): void =>
    void test(name, async (t) => (skipped === undefined ? run() : t.skip(skipped)))

  before(async () => {
    const shared = await broker.shared()
    if ('skipped' in shared && typeof shared.skipped === 'string') skipped = shared.skipped
    else {
      plain = await ownServer('nats', { settings: { max_payload: '65536' } })
      users = await ownServer('nats', { auth: true })
      token = await ownServer('nats', { auth: 'token' })
      tls = await ownServer('nats', { tls: true })
    }
  })
  after(async () => {
    for (const server of [plain, users, token, tls]) await server?.close()
  })

  check('a closed port and a host that is none are unreachable, by name, and publishing may be tried again', async () => {
    for (const [address, hint] of [
      ['127.0.0.1:9', /does a server listen/],
      ['nowhere.invalid:4222', /is the host name right/],
    ] as const) {
      const { publish, subscribe, admin } = await refusals({ servers: address })
      for (const error of [publish, admin as WaybillError]) {
        assert.equal(error.code, 'TRANSPORT_UNAVAILABLE')
        assert.ok(error.retryable)
        assert.match(error.message, hint)
        assert.ok(error.message.includes(address), error.message)
      }
      assert.equal(subscribe, undefined, 'a subscription keeps trying')
    }
  })

  check('no credentials, wrong ones and a user without rights are denied for good; no secret is shown', async () => {
    const { user, limitedUser, limitedPassword } = users.extra
    for (const [options, secret] of [
      [{}, 'none'],
      [{ user: user!, password: 'wr0ng-Secret' }, 'wr0ng-Secret'],
      [{ servers: `nats://${user}:wr0ng-Secret@127.0.0.1:${users.port}` }, 'wr0ng-Secret'],
      [{ user: limitedUser!, password: limitedPassword! }, limitedPassword!],
    ] as const) {
      const { publish, subscribe, admin } = await refusals({ servers: users.url, ...options })
      for (const error of [publish, subscribe, admin]) {
        assert.ok(isWaybillError(error, 'ACCESS_DENIED'), `${String(error)} with ${Object.keys(options).join()}`)
        assert.equal(error.retryable, false)
        assert.ok(!`${error.stack} ${String(error.cause)}`.includes(secret))
      }
    }
    assert.equal((await refusals({ servers: token.url, token: 'wr0ng-Secret' })).publish.code, 'ACCESS_DENIED')
    await assert.rejects(natsTransport({ servers: users.url, nkeySeed: 'SUnonsense' }), (error: unknown) => {
      assert.ok(isWaybillError(error, 'INVALID_OPTION'))
      assert.ok(!String(error.stack).includes('SUnonsense'))
      return true
    })
  })

  check('user and password, a nkey seed and a token open the door', async () => {
    const { user, password, nkeySeed } = users.extra
    await assertPasses({ servers: users.url, user: user!, password: password! })
    await assertPasses({ servers: users.url, nkeySeed: nkeySeed! })
    await assertPasses({ servers: token.url, token: token.extra['token']! })
  })

  check('TLS to a plain port and the reverse say what to look at; with the right authority it passes', async () => {
    const ca = readFileSync(tls.extra['caFile']!, 'utf8')
    const { publish } = await refusals({ servers: plain.url, tls: { ca } })
    assert.equal(publish.code, 'TRANSPORT_UNAVAILABLE')
    assert.match(publish.message, /speaks no TLS here/)
    for (const options of [{ servers: `nats://127.0.0.1:${tls.port}` }, { servers: tls.url }]) {
      const refused = (await refusals(options)).publish
      assert.equal(refused.code, 'TRANSPORT_UNAVAILABLE')
      assert.match(refused.message, /tls|certificate/i)
    }
    await assertPasses({ servers: tls.url, tls: { ca } })
  })

  check('a topic that is missing is not made where that is switched off', async () => {
    const { publish, subscribe } = await refusals({ servers: plain.url, createTopics: false })
    assert.equal(publish.code, 'TOPIC_MISSING')
    assert.equal(subscribe?.code, 'TOPIC_MISSING')
  })

  check('what the server would not take is refused before it is sent', async () => {
    const transport = await natsTransport({ servers: plain.url })
    try {
      const topic = freshTopic()
      const [small, large] = await transport.publish([message(topic), { ...message(topic, 1, new Uint8Array(65_500)), key: 'b' }], never)
      assert.equal(small?.kind, 'stored')
      assert.equal(errorOf(large).code, 'PAYLOAD_TOO_LARGE')
      assert.match(errorOf(large).message, /max_payload/)
    } finally {
      await transport.close()
    }
  })

  check('a server without JetStream says so', async () => {
    const bare = await ownServer('nats', { settings: { jetstream: 'disabled' } })
    try {
      const { publish } = await refusals({ servers: bare.url })
      assert.match(publish.message, /JetStream|nobody answers/)
    } finally {
      await bare.close()
    }
  })

  check('a stream that differs from what is declared is said, and changed only when asked; its partitions stay', async () => {
    const topic = freshTopic()
    const warned: string[] = []
    const open = async (options: NatsTransportOptions): Promise<void> => {
      const transport = await natsTransport({
        servers: plain.url,
        ...options,
        observe: (event: WaybillEvent) => void (event.type === 'transport.warned' && warned.push(event.text)),
      })
      try {
        assert.deepEqual(await transport.publish([message(topic)], never), [{ kind: 'stored' }])
        const [report] = await transport.admin!.topics([topic], never)
        assert.equal(report!.partitions, 3)
      } finally {
        await transport.close()
      }
    }
    await open({ partitions: 3, maxAgeMs: 3_600_000 })
    assert.deepEqual(warned, [])
    await open({ partitions: 5, maxAgeMs: 7_200_000 })
    assert.equal(warned.length, 1)
    assert.match(warned[0]!, /max_age is 3600000000000, declared 7200000000000.*3 partitions, declared 5/)
    await open({ partitions: 3, maxAgeMs: 7_200_000, update: true })
    await open({ partitions: 3, maxAgeMs: 7_200_000 })
    assert.equal(warned.length, 1, 'it was changed')
  })
})

suite('nats, what is lost at the server', () => {
  let server: OwnServer | undefined
  let skipped: string | undefined
  const gaps: Extract<WaybillEvent, { type: 'transport.gap' }>[] = []
  let transport: Transport

  before(async () => {
    const shared = await broker.shared()
    if ('skipped' in shared && typeof shared.skipped === 'string') skipped = shared.skipped
    else {
      server = await ownServer('nats')
      transport = await natsTransport({
        servers: server.url,
        partitions: 1,
        prefetchMax: 10,
        leaseMs: 2000,
        observe: (event: WaybillEvent) => void (event.type === 'transport.gap' && gaps.push(event)),
      })
    }
  })
  after(async () => {
    await transport?.close()
    await server?.close()
  })

  const check = (name: string, run: (topic: string, ask: (path: string) => Promise<unknown>) => Promise<void>): void =>
    void test(name, async (t) => {
      if (skipped !== undefined) return t.skip(skipped)
      const operator = await connect({ servers: server!.url })
      gaps.length = 0
      try {
        await run(freshTopic(), async (path) => {
          const answer = (await operator.request(`$JS.API.${path}`, '', { timeout: LIMIT_MS })).json<{ error?: { description: string } }>()
          assert.equal(answer.error?.description, undefined)
          return answer
        })
      } finally {
        await operator.close()
      }
    })

  const send = async (topic: string, from: number, count: number): Promise<void> => {
    const outcomes = await transport.publish(
      Array.from({ length: count }, (_, index) => ({ ...message(topic, from + index), key: `k${index % 10}` })),
      never,
    )
    assert.ok(outcomes.every(({ kind }) => kind === 'stored'))
  }

  check('a stream that is deleted under a running group: a gap is told, and the group goes on with the new one', async (topic, ask) => {
    await send(topic, 0, 3)
    const group = readGroup(transport, topic)
    await until('three to come', async () => group.texts.length === 3)
    await ask(`STREAM.DELETE.${natsStreamName('waybill', topic)}`)
    await send(topic, 3, 2)
    await until('the new ones to come', async () => group.texts.length >= 5)
    assert.deepEqual(group.texts.toSorted(), ['0', '1', '2', '3', '4'])
    assert.equal(gaps.length, 1)
    assert.ok(isWaybillError(gaps[0]!.error, 'POSITION_LOST'))
    await group.leave()
  })

  check('a consumer that is deleted under a running group is made again, and nothing is missing', async (topic, ask) => {
    await send(topic, 0, 3)
    const group = readGroup(transport, topic)
    await until('three to come', async () => group.texts.length === 3)
    const name = natsStreamName('waybill', topic)
    const { consumers } = (await ask(`CONSUMER.NAMES.${name}`)) as { consumers: string[] }
    assert.equal(consumers.length, 1)
    await ask(`CONSUMER.DELETE.${name}.${consumers[0]}`)
    await send(topic, 3, 3)
    await until('the others to come', async () => group.texts.length >= 6)
    assert.deepEqual(group.texts.toSorted(), ['0', '1', '2', '3', '4', '5'])
    assert.deepEqual(gaps, [])
    await group.leave()
  })

  check('a stream that is purged before a slow group has read it: the gap is told with its size', async (topic, ask) => {
    await send(topic, 0, 50)
    const stop = new AbortController()
    const deliveries = transport.subscribe({ topics: [topic], group: 'bad/input', batchMax: 5 }, stop.signal)[Symbol.asyncIterator]()
    const got: Delivery[] = []
    const text = (): string => Buffer.from(got.at(-1)!.message.body).toString()
    while (got.length < 10) got.push(...(await deliveries.next()).value!)
    await ask(`STREAM.PURGE.${natsStreamName('waybill', topic)}`)
    await send(topic, 50, 1)
    for (const delivery of got) await delivery.ack()
    // What had been fetched by then still comes.
    while (text() !== '50') {
      const more = (await deliveries.next()).value!
      for (const delivery of more) await delivery.ack()
      got.push(...more)
    }
    assert.equal(gaps.length, 1)
    // One that came since can't be told from one that was there: at least so many.
    assert.equal(gaps[0]!.missing, 50 - got.length)
    assert.ok(gaps[0]!.missing > 10)
    stop.abort()
    assert.equal((await deliveries.next()).done, true)
  })

  check('positions that are deleted: the group begins anew where it was told to, and nothing is skipped', async (topic, ask) => {
    await send(topic, 0, 3)
    const group = readGroup(transport, topic)
    await until('three to come', async () => group.texts.length === 3)
    await ask('STREAM.DELETE.KV_waybill-groups')
    await send(topic, 3, 2)
    await until('the new ones to come', async () => group.texts.includes('4'))
    await until('the group to have begun anew', async () => group.texts.filter((text) => text === '0').length === 2)
    assert.deepEqual([...new Set(group.texts)].toSorted(), ['0', '1', '2', '3', '4'])
    await until('it to be told', async () => gaps.length > 0)
    assert.ok(isWaybillError(gaps[0]!.error, 'POSITION_LOST'))
    await group.leave()
  })

  check('a message of somebody else, without our headers and without a partition, arrives with its place for an id', async (topic) => {
    await send(topic, 0, 1)
    const foreign = await connect({ servers: server!.url })
    foreign.publish(`waybill.${topic}`, Uint8Array.of(0xff, 0xfe))
    await foreign.flush()
    await foreign.close()
    const stop = new AbortController()
    const got: Delivery[] = []
    for await (const deliveries of transport.subscribe({ topics: [topic], group: 'bad/input' }, stop.signal)) {
      for (const delivery of deliveries) await delivery.ack()
      got.push(...deliveries)
      if (got.length === 2) break
    }
    assert.equal(got[1]!.message.id, `nats:${natsStreamName('waybill', topic)}:2`)
    assert.deepEqual(Buffer.from(got[1]!.message.body), Buffer.from([0xff, 0xfe]))
  })

  check(
    'headers of somebody else that the client throws at: their message comes without them, and a group and a tail go on',
    async (topic) => {
      await send(topic, 0, 1)
      const blocks = ['bad key: x', 'key : x', 'k\0\xff: x', 'key: a\rb'].map((line) =>
        Buffer.from(`NATS/1.0\r\n${line}\r\n\r\n`, 'latin1'),
      )
      await sendRaw(
        blocks.flatMap((head, index) => [
          Buffer.from(`HPUB waybill.${topic} ${head.length} ${head.length + 1}\r\n`),
          head,
          Buffer.from(`${index}\r\n`),
        ]),
      )
      const stop = new AbortController()
      const tailed: string[] = []
      const tailing = (async () => {
        for await (const deliveries of transport.subscribe({ topics: [topic] }, stop.signal))
          tailed.push(...deliveries.map(({ message: { body } }) => Buffer.from(body).toString()))
      })()
      await send(topic, 99, 1)
      const group = readGroup(transport, topic)
      await until('all to come', async () => group.texts.includes('99') && tailed.includes('99'))
      assert.deepEqual(group.texts, ['0', '0', '1', '2', '3', '99'])
      assert.deepEqual(tailed, group.texts)
      stop.abort()
      await tailing
      await group.leave()
    },
  )

  for (const [what, body, headers] of [
    ['deleted', '', 'KV-Operation: DEL'],
    ['purged', '', 'KV-Operation: PURGE\r\nNats-Rollup: sub'],
    ['overwritten with what is no JSON', '{', 'x: y'],
    ['overwritten with something else', 'null', 'x: y'],
  ] as const)
    check(`a position that a tool has ${what}: told, the group begins anew, and others who look are not bothered`, async (topic) => {
      await send(topic, 0, 2)
      const before = readGroup(transport, topic)
      await until('two to come', async () => before.texts.length === 2)
      await before.leave()
      const head = `NATS/1.0\r\n${headers}\r\n\r\n`
      const key = `$KV.waybill-groups.${natsToken(topic)}.${natsToken('bad/input')}.0`
      const existed = await transport.admin!.topics([topic], never)
      assert.equal(existed[0]!.groups.length, 1)
      await sendRaw([Buffer.from(`HPUB ${key} ${head.length} ${head.length + body.length}\r\n${head}${body}\r\n`)])
      const looked = await transport.admin!.topics([topic], never)
      assert.deepEqual(looked[0]!.groups, [])
      const group = readGroup(transport, topic)
      await until('all to come again', async () => group.texts.length === 2)
      assert.deepEqual(group.texts, ['0', '1'])
      assert.deepEqual(
        gaps.map(({ error }) => isWaybillError(error, 'POSITION_LOST')),
        [true],
      )
      await group.leave()
    })

  check('headers that are too many bytes for the server are refused as too large', async (topic) => {
    const headers = Object.fromEntries(Array.from({ length: 30 }, (_, index) => [`h${index}`, 'x'.repeat(4096)]))
    const [outcome] = await transport.publish([{ ...message(topic), headers }], never)
    assert.equal(errorOf(outcome).code, 'PAYLOAD_TOO_LARGE')
  })

  /** What no client would send: bytes, as they are. */
  async function sendRaw(parts: readonly Uint8Array[]): Promise<void> {
    const { hostname, port } = new URL(server!.url)
    const socket = connectSocket(Number(port), hostname)
    const answered = new Promise<void>((resolve, reject) => {
      socket.on('error', reject)
      socket.on('data', (text: Buffer) => void (text.includes('PONG') && resolve()))
    })
    socket.write(Buffer.concat([Buffer.from('CONNECT {"verbose":false,"headers":true}\r\n'), ...parts, Buffer.from('PING\r\n')]))
    await answered
    socket.destroy()
  }
})

suite('nats, settings', () => {
  test('options out of range, misspelt ones and credentials of two kinds are refused at the door', async () => {
    for (const options of [
      { partitions: 0 },
      { partitions: 257 },
      { replicas: 6 },
      { prefix: 'a.b' },
      { servers: [] },
      { servers: 'http://x' },
      { user: 'a', token: 'b' },
      { password: 'b' },
      { storage: 'tape' as 'file' },
      { urll: 'nats://x' } as object,
      { tls: { caPath: '/ca.pem' } as object },
    ])
      await assert.rejects(natsTransport(options), { code: 'INVALID_OPTION' }, JSON.stringify(options))
  })

  test('the environment is read as documented, and a wrong value is named', () => {
    assert.deepEqual(
      natsSettings({ NATS_URL: 'nats://a,nats://b', NATS_USER: 'u', NATS_PASSWORD: 'p', NATS_PARTITIONS: '4', NATS_TLS_ENABLED: 'yes' }),
      {
        servers: 'nats://a,nats://b',
        user: 'u',
        password: 'p',
        partitions: 4,
        tls: {},
      },
    )
    assert.deepEqual(natsSettings({ NATS_URL: '' }), {})
    assert.throws(() => natsSettings({ NATS_PARTITIONS: 'many' }), { code: 'INVALID_SETTING', message: /NATS_PARTITIONS/ })
    assert.throws(() => natsSettings({ NATS_STREAM_STORAGE: 'tape' }), { code: 'INVALID_SETTING', message: /file, memory/ })
    assert.throws(() => natsSettings({ NATS_CREDS_PATH: '/nowhere' }), { code: 'INVALID_FILE' })
  })
})
