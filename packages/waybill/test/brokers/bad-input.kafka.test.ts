import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, suite, test } from 'node:test'
import { Admin, Producer } from '@platformatic/kafka'
import { type OwnServer, ownServer, service } from 'waybill-services'
import { isWaybillError } from '../../src/core/errors.ts'
import type { WaybillEvent } from '../../src/core/observe.ts'
import type { Delivery, Message, PublishOutcome, Transport } from '../../src/core/transport.ts'
import { type KafkaTransportOptions, kafkaTransport } from '../../src/kafka.ts'
import { message } from '../../src/testing/transport-tools.ts'

const never = new AbortController().signal
const LIMIT_MS = 60_000

suite('Kafka, bad input', { timeout: 600_000 }, () => {
  let server: OwnServer | undefined
  let skipped: string | undefined
  const transports = new Set<Transport>()

  before(async () => {
    const found = await service('kafka')
    if ('skipped' in found) skipped = found.skipped
    else server = await ownServer('kafka', { auth: true, tls: true })
  })
  after(async () => {
    await Promise.all([...transports].map((transport) => transport.close()))
    await server?.close()
  })

  const check = (name: string, run: (server: OwnServer) => Promise<void>): void =>
    void test(name, async (t) => {
      if (server === undefined) return t.skip(skipped)
      await run(server)
    })

  async function open(url: string, options: Partial<KafkaTransportOptions> = {}): Promise<Transport> {
    const transport = await kafkaTransport({
      bootstrapServers: [url],
      partitions: 2,
      requestTimeoutMs: 4_000,
      sessionTimeoutMs: 3_000,
      ...options,
    })
    transports.add(transport)
    return transport
  }

  async function refused(
    transport: Transport,
    what: Message = message('bad.Input', 'a'),
  ): Promise<Extract<PublishOutcome, { kind: 'rejected' }>['error']> {
    const started = performance.now()
    const [outcome] = await transport.publish([what], never)
    assert.ok(performance.now() - started < 15_000, 'bounded')
    assert.equal(outcome?.kind, 'rejected')
    return outcome.error
  }

  async function subscribeFails(
    transport: Transport,
    topic = 'bad.Input',
  ): Promise<{ readonly code?: unknown; readonly message?: unknown }> {
    try {
      for await (const _ of transport.subscribe({ topics: [topic], group: 'bad/input' }, AbortSignal.timeout(LIMIT_MS))) break
    } catch (error) {
      assert.ok(error instanceof Error)
      return error
    }
    assert.fail('the subscription ended without an error')
  }

  check('a host that does not exist, and a port where nobody is: rejected in time, with the address, to be tried again', async () => {
    for (const address of ['no-such-host.invalid:9092', '127.0.0.1:1']) {
      const error = await refused(await open(address))
      assert.equal(error.code, 'TRANSPORT_UNAVAILABLE')
      assert.equal(error.retryable, true)
      assert.ok(error.message.includes(address), error.message)
    }
  })

  check('a look at a broker that is away, or lets nobody in, tells whoever watches the transport', async ({ extra }) => {
    const sasl = { mechanism: 'PLAIN', username: extra['user']!, password: 'hunter2' } as const
    const limited = { ...sasl, username: extra['limitedUser']!, password: extra['limitedPassword']! }
    for (const [address, options, expected] of [
      ['127.0.0.1:1', {}, ['down TRANSPORT_UNAVAILABLE']],
      [extra['saslUrl']!, { sasl }, ['down ACCESS_DENIED']],
      [extra['saslUrl']!, { sasl: limited }, []],
    ] as const) {
      const told: string[] = []
      const transport = await open(address, {
        ...options,
        observe: (event) =>
          void (event.type === 'transport.changed' && told.push(`${event.to} ${isWaybillError(event.error) ? event.error.code : ''}`)),
      })
      await transport.admin!.examine(never).catch(() => undefined)
      assert.deepEqual(told, expected)
    }
  })

  check('wrong credentials are a final error, for publishing and reading, and nothing shows them', async ({ extra }) => {
    for (const mechanism of ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'] as const) {
      const transport = await open(extra['saslUrl']!, { sasl: { mechanism, username: extra['user']!, password: 'hunter2' } })
      const error = await refused(transport)
      assert.equal(error.code, 'ACCESS_DENIED')
      assert.ok(!error.message.includes('hunter2'))
      assert.equal((await subscribeFails(transport)).code, 'ACCESS_DENIED')
    }
  })

  check('right credentials pass with each mechanism, over TLS too', async ({ extra }) => {
    const ca = readFileSync(extra['caFile']!, 'utf8')
    for (const mechanism of ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'] as const) {
      const sasl = { mechanism, username: extra['user']!, password: extra['password']! }
      const plain = await (await open(extra['saslUrl']!, { sasl })).publish([message('good.Login', 'a')], never)
      const secure = await (await open(extra['saslTlsUrl']!, { sasl, tls: { ca } })).publish([message('good.Login', 'a')], never)
      assert.deepEqual([...plain, ...secure], [{ kind: 'stored' }, { kind: 'stored' }])
    }
  })

  check('a user without rights is told so, for publishing, reading and looking', async ({ url, extra }) => {
    const sasl = { mechanism: 'PLAIN', username: extra['limitedUser']!, password: extra['limitedPassword']! } as const
    const transport = await open(extra['saslUrl']!, { sasl })
    assert.equal((await refused(transport)).code, 'ACCESS_DENIED')
    assert.equal((await subscribeFails(transport)).code, 'ACCESS_DENIED')
    const [finding] = (await transport.admin!.examine(never)).findings
    assert.match(finding!.text, /^this user may not read the broker's settings/)
    assert.match(finding!.advice, /DescribeConfigs on the cluster/)
    const free = await (await open(url)).admin!.examine(never)
    assert.ok(!free.findings.some(({ text }) => text === finding!.text))
  })

  check('a login where none is asked for is told from one that is refused', async ({ url }) => {
    for (const mechanism of ['PLAIN', 'SCRAM-SHA-256'] as const) {
      const error = await refused(await open(url, { sasl: { mechanism, username: 'somebody', password: 'hunter2' } }))
      assert.equal(error.code, 'ACCESS_DENIED')
      assert.match(error.message, /this listener asks for no login \(SASL\)/)
    }
  })

  check('TLS to a plain port, plain to a TLS port, a certificate nobody knows: each says what it is', async ({ url, extra }) => {
    const toPlain = await refused(await open(url, { tls: true }))
    assert.equal(toPlain.code, 'TRANSPORT_UNAVAILABLE')
    assert.match(toPlain.message, /speaks no TLS/)
    const toTls = await refused(await open(extra['tlsUrl']!))
    assert.equal(toTls.code, 'TRANSPORT_UNAVAILABLE')
    assert.match(toTls.message, /TLS/)
    const unknown = await refused(await open(extra['tlsUrl']!, { tls: true }))
    assert.equal(unknown.code, 'TRANSPORT_UNAVAILABLE')
    assert.match(unknown.message, /certificate/)
    const ca = readFileSync(extra['caFile']!, 'utf8')
    assert.deepEqual(await (await open(extra['tlsUrl']!, { tls: { ca } })).publish([message('good.Tls', 'a')], never), [{ kind: 'stored' }])
  })

  check('no login where one is asked for: rejected in time', async ({ extra }) => {
    const error = await refused(await open(extra['saslUrl']!))
    assert.equal(error.code, 'TRANSPORT_UNAVAILABLE')
  })

  check('a missing topic that may not be made is TOPIC_MISSING, for all who ask', async ({ url }) => {
    const transport = await open(url, { createTopics: false })
    assert.equal((await refused(transport, message('bad.Missing', 'a'))).code, 'TOPIC_MISSING')
    assert.equal((await subscribeFails(transport, 'bad.Missing')).code, 'TOPIC_MISSING')
    await (await open(url)).publish([message('bad.There', 'a')], never)
    await assert.rejects(transport.admin!.topics(['bad.There', 'bad.Missing'], never), {
      code: 'TOPIC_MISSING',
      message: /^there is no topic bad\.Missing \(got "bad\.Missing"; at Kafka at /,
    })
  })

  check('two topics that Kafka can not tell apart: the error names both', async ({ url }) => {
    const transport = await open(url)
    assert.deepEqual(await transport.publish([message('clash.a', 'a')], never), [{ kind: 'stored' }])
    const error = await refused(transport, message('clash_a', 'a'))
    assert.equal(error.code, 'INVALID_NAME')
    assert.ok(error.message.includes('clash.a') && error.message.includes('clash_a'), error.message)
  })

  check('a message over the limit of a topic that others made is refused before it is sent, and so are its followers', async ({ url }) => {
    const admin = new Admin({ clientId: 'test', bootstrapBrokers: [url] })
    await admin.createTopics({ topics: ['bad.Small'], partitions: 1, configs: [{ name: 'max.message.bytes', value: '1000' }] })
    await admin.close()
    const transport = await open(url)
    const outcomes = await transport.publish(
      [
        message('bad.Small', 'a', 0),
        message('bad.Small', 'a', 1, { body: new Uint8Array(1_000) }),
        message('bad.Small', 'a', 2),
        message('bad.Small', 'b'),
      ],
      never,
    )
    assert.deepEqual(
      outcomes.map((outcome) => (outcome.kind === 'rejected' ? outcome.error.code : outcome.kind)),
      ['stored', 'PAYLOAD_TOO_LARGE', 'PUBLISH_FAILED', 'stored'],
    )
  })

  check('more than a topic takes in one batch goes in several, all of it in order', async ({ url }) => {
    const admin = new Admin({ clientId: 'test', bootstrapBrokers: [url] })
    await admin.createTopics({ topics: ['bad.Narrow'], partitions: 1, configs: [{ name: 'max.message.bytes', value: '2000' }] })
    await admin.close()
    const transport = await open(url)
    const outcomes = await transport.publish(
      Array.from({ length: 50 }, (_, number) => message('bad.Narrow', 'a', number)),
      never,
    )
    assert.ok(outcomes.every(({ kind }) => kind === 'stored'))
    const got = await take(transport, 'bad.Narrow', 'bad/narrow', 50)
    assert.deepEqual(
      got.map(({ message: { body } }) => Buffer.from(body).toString()),
      Array.from({ length: 50 }, (_, number) => `a#${number}`),
    )
  })

  check('a foreign record arrives as it is, and the group goes on', async ({ url }) => {
    const transport = await open(url)
    await transport.declareGroups([{ topic: 'bad.Foreign', group: 'bad/foreign' }])
    const producer = new Producer({ clientId: 'test', bootstrapBrokers: [url] })
    const body = Buffer.of(0, 1, 0xfe, 0xff)
    await producer.send({
      messages: [
        { topic: 'bad.Foreign', partition: 0, value: body, headers: new Map([[Buffer.of(0xff), Buffer.of(0xff)]]) },
        { topic: 'bad.Foreign', partition: 0, key: Buffer.of(0xff, 0xfe), value: body },
      ],
    })
    await producer.close()
    const got = await take(transport, 'bad.Foreign', 'bad/foreign', 2)
    assert.deepEqual(
      got.map((delivery) => delivery.message.id),
      ['kafka:bad.Foreign:0:0', 'kafka:bad.Foreign:0:1'],
    )
    for (const delivery of got) {
      assert.equal(delivery.message.key, delivery.message.id)
      assert.ok(Buffer.from(delivery.message.body).equals(body))
    }
  })

  check(
    'offsets that the broker has deleted are a gap that is said and counted, and the group goes on at the oldest message',
    async ({ url }) => {
      const events: WaybillEvent[] = []
      const transport = await open(url, { partitions: 1, observe: (event) => events.push(event) })
      await transport.publish([message('bad.Trimmed', 'a', 0)], never)
      await take(transport, 'bad.Trimmed', 'bad/trimmed', 1)
      await transport.publish(
        Array.from({ length: 5 }, (_, index) => message('bad.Trimmed', 'a', index + 1)),
        never,
      )
      const admin = new Admin({ clientId: 'test', bootstrapBrokers: [url] })
      await admin.deleteRecords({ topics: [{ name: 'bad.Trimmed', partitions: [{ partition: 0, offset: 4n }] }] })
      await admin.close()
      const got = await take(transport, 'bad.Trimmed', 'bad/trimmed', 2)
      assert.deepEqual(
        got.map(({ message: { body } }) => Buffer.from(body).toString()),
        ['a#4', 'a#5'],
      )
      const gap = events.find((event) => event.type === 'transport.gap')
      assert.ok(gap !== undefined && gap.missing === 3 && gap.group === 'bad/trimmed', JSON.stringify(gap))
      const [report] = await transport.admin!.topics(['bad.Trimmed'], never)
      assert.equal(report!.groups[0]!.lag, 0)
    },
  )

  check('a topic that is deleted under a running group is a gap; what is published then arrives', async ({ url }) => {
    const events: WaybillEvent[] = []
    const transport = await open(url, { observe: (event) => events.push(event) })
    const stop = new AbortController()
    await transport.declareGroups([{ topic: 'bad.Deleted', group: 'bad/deleted' }])
    const iterator = transport.subscribe({ topics: ['bad.Deleted'], group: 'bad/deleted' }, stop.signal)[Symbol.asyncIterator]()
    await transport.publish(
      Array.from({ length: 10 }, (_, index) => message('bad.Deleted', `k${index}`)),
      never,
    )
    const before: Delivery[] = []
    while (before.length < 10) before.push(...(await next(iterator)))
    for (const delivery of before) await delivery.ack()
    const admin = new Admin({ clientId: 'test', bootstrapBrokers: [url] })
    await admin.deleteTopics({ topics: ['bad.Deleted'] })
    await admin.close()
    const pending = next(iterator)
    const fresh = message('bad.Deleted', 'k0', 77)
    const until = performance.now() + LIMIT_MS
    while ((await transport.publish([fresh], never))[0]?.kind !== 'stored') assert.ok(performance.now() < until, 'published again')
    const [delivery] = await pending
    assert.equal(delivery!.message.id, fresh.id)
    await delivery!.ack()
    assert.ok(events.some((event) => event.type === 'transport.gap' && event.topic === 'bad.Deleted'))
    stop.abort()
  })
})

async function next(iterator: AsyncIterator<readonly Delivery[]>): Promise<readonly Delivery[]> {
  const { done, value } = await Promise.race([
    iterator.next(),
    new Promise<never>((_, reject) => setTimeout(() => reject(new Error('nothing came')), LIMIT_MS).unref()),
  ])
  assert.notEqual(done, true, 'the subscription ended')
  return value
}

/** So many deliveries, acked. */
async function take(transport: Transport, topic: string, group: string, count: number): Promise<Delivery[]> {
  const stop = new AbortController()
  const got: Delivery[] = []
  const iterator = transport.subscribe({ topics: [topic], group }, stop.signal)[Symbol.asyncIterator]()
  while (got.length < count) got.push(...(await next(iterator)))
  for (const delivery of got) await delivery.ack()
  stop.abort()
  await iterator.next()
  return got
}
