import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, suite, test } from 'node:test'
import { createClient } from 'redis'
import { type OwnServer, ownServer, type ServerOptions } from 'waybill-services'
import { isWaybillError, type WaybillError, type WaybillErrorCode } from '../../src/core/errors.ts'
import { newId } from '../../src/core/ids.ts'
import type { WaybillEvent } from '../../src/core/observe.ts'
import type { BrokerReport, Message, PublishOutcome, Transport } from '../../src/core/transport.ts'
import {
  redisPartition,
  redisPubSub,
  redisPubSubSettings,
  redisSettings,
  redisStreamName,
  redisTransport,
  type RedisTransportOptions,
} from '../../src/redis.ts'
import { until } from '../../src/testing/contract-tools.ts'
import { sharedRedis } from './redis.ts'

const never = new AbortController().signal
const GROUP = 'bad/input'
const LIMIT_MS = 15_000
let names = 0
const freshTopic = (): string => `bad.t${++names}`

function message(topic: string, body: string, key = 'a'): Message {
  const id = newId()
  return { id, topic, key, headers: { event_id: id }, body: Buffer.from(body) }
}

function errorOf(outcome: PublishOutcome | undefined): WaybillError {
  assert.equal(outcome?.kind, 'rejected')
  return outcome.error
}

/** How publishing is refused; and how a subscription ends, where it does. */
async function refusals(
  options: RedisTransportOptions,
): Promise<{ readonly publish: WaybillError; readonly subscribe: WaybillErrorCode | undefined }> {
  const transport = await redisTransport({ requestTimeoutMs: 2_000, ...options })
  try {
    const topic = freshTopic()
    const [outcome] = await transport.publish([message(topic, 'x')], AbortSignal.timeout(LIMIT_MS))
    return { publish: errorOf(outcome), subscribe: await endOf(transport, topic) }
  } finally {
    await transport.close()
  }
}

async function endOf(transport: Transport, topic: string): Promise<WaybillErrorCode | undefined> {
  try {
    for await (const _ of transport.subscribe({ topics: [topic], group: GROUP }, AbortSignal.timeout(500))) break
    return undefined
  } catch (error) {
    assert.ok(isWaybillError(error), String(error))
    return error.code
  }
}

async function examined(options: RedisTransportOptions): Promise<BrokerReport> {
  const transport = await redisTransport(options)
  try {
    return await transport.admin!.examine(never)
  } finally {
    await transport.close()
  }
}

/** A group at work, what it got and what was observed. */
function work(transport: Transport, topic: string, group = GROUP) {
  const bodies: string[] = []
  const stop = new AbortController()
  const working = (async () => {
    for await (const deliveries of transport.subscribe({ topics: [topic], group }, stop.signal)) {
      for (const delivery of deliveries) {
        bodies.push(Buffer.from(delivery.message.body).toString())
        // What a broken connection keeps from being acked comes again.
        await delivery.ack().catch(() => undefined)
      }
    }
  })()
  return {
    bodies,
    got: (body: string) => until(`${body} to arrive, of ${bodies.join()}`, async () => bodies.includes(body)),
    async leave() {
      stop.abort()
      await working
    },
  }
}

suite('bad input, Redis', async () => {
  const shared = await sharedRedis()
  const skip = 'skipped' in shared && typeof shared.skipped === 'string' ? shared.skipped : false

  suite('addresses, rights and lines', { skip }, () => {
    let server: OwnServer
    let url: (protocol: string, port?: number) => string
    let ca: string
    before(async () => {
      server = await ownServer('redis', { auth: true, tls: true })
      ca = readFileSync(server.extra['caFile']!, 'utf8')
      url = (protocol, port = server.port) => `${protocol}://127.0.0.1:${port}`
    })
    after(() => server.close())
    const tlsPort = (): number => Number(new URL(server.extra['tlsUrl']!).port)
    const credentials = () => ({ username: server.extra['user']!, password: server.extra['password']! })

    test('nobody there: rejected as unavailable, naming the address; the subscription goes on trying', async () => {
      for (const [address, hint] of [
        ['redis://127.0.0.1:1', /127\.0\.0\.1:1.*nothing listens/],
        ['redis://no-such-host.invalid:6379', /no-such-host\.invalid:6379.*no such host/],
      ] as const) {
        const { publish, subscribe } = await refusals({ url: address })
        assert.equal(publish.code, 'TRANSPORT_UNAVAILABLE')
        assert.ok(publish.retryable)
        assert.match(publish.message, hint)
        assert.equal(subscribe, undefined)
      }
    })

    test('wrong credentials, or none: access denied, and the password is not shown', async () => {
      for (const options of [
        { username: credentials().username, password: 'wr0ng-secret' },
        { username: 'nobody', password: 'wr0ng-secret' },
        {},
      ]) {
        const { publish, subscribe } = await refusals({ url: url('redis'), ...options })
        assert.equal(publish.code, 'ACCESS_DENIED', publish.message)
        assert.equal(publish.retryable, false)
        assert.equal(subscribe, 'ACCESS_DENIED')
        assert.ok(!JSON.stringify([publish.message, publish, String(publish.cause)]).includes('wr0ng-secret'))
        await assert.rejects(examined({ url: url('redis'), ...options }), { code: 'ACCESS_DENIED' })
      }
    })

    test('whoever is let in and may ask for nothing gets a report that leaves it open', async () => {
      const [username, password] = [server.extra['limitedUser']!, server.extra['limitedPassword']!]
      const { version, settings } = await examined({ url: url('redis'), username, password })
      assert.deepEqual([version, settings['appendonly']], ['unknown', 'unknown'])
    })

    test('a user without rights to keys of the prefix: an error of the report, and no list of topics', async () => {
      const rights = { url: url('redis'), username: server.extra['limitedUser']!, password: server.extra['limitedPassword']! }
      const lacking = (options: RedisTransportOptions) =>
        examined(options).then(({ findings }) => findings.filter(({ text }) => text.startsWith('this user lacks rights')))
      const [found] = await lacking(rights)
      assert.equal(found?.level, 'error')
      assert.match(found.text, /keys of topics \(waybill:\{TOPIC\}\): .*NOPERM/)
      assert.match(found.advice, /~waybill:\*/)
      const transport = await redisTransport(rights)
      await assert.rejects(transport.admin!.topics(undefined, never), { code: 'ACCESS_DENIED' })
      await transport.close()
      assert.deepEqual(await lacking({ url: url('redis'), ...credentials() }), [], 'who has them all')
      const topic = freshTopic()
      const full = await redisTransport({ url: url('redis'), ...credentials() })
      assert.deepEqual(await full.publish([message(topic, 'x')], never), [{ kind: 'stored' }])
      await full.close()
      const client = createClient({ url: server.url })
      await client.connect()
      await client.sendCommand(['ACL', 'SETUSER', 'desk', 'on', '>pass', '~waybill:{' + topic + '}*', '+@all'])
      client.destroy()
      assert.deepEqual(await lacking({ url: url('redis'), username: 'desk', password: 'pass' }), [], 'who has those of a topic')
      // It may read, and not store.
      assert.equal((await lacking({ ...rights, keyPrefix: 'limited' }))[0]?.level, 'error')
    })

    test('a user without rights: access denied', async () => {
      const { publish, subscribe } = await refusals({
        url: url('redis'),
        username: server.extra['limitedUser']!,
        password: server.extra['limitedPassword']!,
      })
      assert.equal(publish.code, 'ACCESS_DENIED', publish.message)
      assert.equal(subscribe, 'ACCESS_DENIED')
    })

    test('TLS with its authority works; without it, to a plain port, or plain to its port, it is said what to do', async () => {
      const transport = await redisTransport({ url: url('rediss', tlsPort()), ...credentials(), tls: { ca } })
      const topic = freshTopic()
      assert.deepEqual(await transport.publish([message(topic, 'x')], never), [{ kind: 'stored' }])
      await transport.close()
      const cases = [
        [{ url: url('rediss', tlsPort()) }, /not trusted.*tls\.ca/],
        [{ url: url('rediss'), tls: { ca } }, /speaks no TLS.*redis:\/\//],
        [{ url: url('redis', tlsPort()) }, /rediss:\/\//],
      ] as const
      for (const [options, hint] of cases) {
        const { publish, subscribe } = await refusals({ ...options, ...credentials() })
        assert.equal(publish.code, 'TRANSPORT_UNAVAILABLE')
        assert.match(publish.message, hint)
        assert.equal(subscribe, undefined)
      }
    })

    test('a topic that is missing and may not be made: TOPIC_MISSING, for both sides', async () => {
      const { publish, subscribe } = await refusals({ url: url('redis'), ...credentials(), createTopics: false })
      assert.equal(publish.code, 'TOPIC_MISSING')
      assert.equal(subscribe, 'TOPIC_MISSING')
    })
  })

  suite('a server that loses and refuses', { skip }, () => {
    const PARTITIONS = 2
    let server: OwnServer
    let client: ReturnType<typeof createClient>
    let transport: Transport
    let events: WaybillEvent[]
    const own = async (options: ServerOptions, more: RedisTransportOptions = {}): Promise<void> => {
      events = []
      server = await ownServer('redis', options)
      client = createClient({ url: server.url })
      client.on('error', () => {})
      await client.connect()
      transport = await redisTransport({
        url: server.url,
        partitions: PARTITIONS,
        leaseMs: 1_000,
        requestTimeoutMs: 2_000,
        trimEveryMs: 100,
        observe: (event) => events.push(event),
        ...more,
      })
    }
    const done = async (): Promise<void> => {
      await transport.close()
      client.destroy()
      await server.close()
    }
    const streamOf = (topic: string, key = 'a'): string => redisStreamName(topic, redisPartition(key, PARTITIONS))
    const publish = async (topic: string, body: string): Promise<void> =>
      assert.deepEqual(await transport.publish([message(topic, body)], never), [{ kind: 'stored' }])
    const gaps = () => events.filter((event) => event.type === 'transport.gap')
    const gapSeen = (what: string) =>
      until(`a gap after ${what}`, async () => {
        const [gap] = gaps()
        events = events.filter((event) => event.type !== 'transport.gap')
        return gap
      })

    test('FLUSHALL, a deleted stream, a deleted group, a trimmed stream: said also when idle, and the group goes on', async (t) => {
      await own({})
      t.after(done)
      const topic = freshTopic()
      const stream = streamOf(topic)
      const { got, leave } = work(transport, topic)
      await publish(topic, 'first')
      await got('first')
      const hurts: readonly (readonly [string, () => Promise<unknown>])[] = [
        ['FLUSHALL', () => client.sendCommand(['FLUSHALL'])],
        ['DEL', () => client.sendCommand(['DEL', stream])],
        ['XGROUP DESTROY', () => client.sendCommand(['XGROUP', 'DESTROY', stream, GROUP])],
      ]
      for (const [what, hurt] of hurts) {
        events = []
        await hurt()
        const gap = await gapSeen(what)
        assert.ok(isWaybillError(gap.error, 'POSITION_LOST'), what)
        assert.equal(gap.topic, topic)
        await publish(topic, `after ${what}`)
        await got(`after ${what}`)
      }
      await client.eval(
        `for number = 1, 5 do redis.call('XADD', KEYS[1], '*', 'key', 'a', 'body', 'lost') end return redis.call('XTRIM', KEYS[1], 'MAXLEN', '0')`,
        { keys: [stream] },
      )
      await until('the count of what was trimmed', async () => gaps().some(({ missing }) => missing === 5))
      await publish(topic, 'after XTRIM')
      await got('after XTRIM')
      await leave()
    })

    test('a tail that is overtaken by trimming hears how much it missed, from wherever it began; what is trimmed behind it is none', async (t) => {
      await own({})
      t.after(done)
      const topic = freshTopic()
      const stream = streamOf(topic)
      for (const body of ['trimmed', 'old', 'older']) await publish(topic, body)
      await client.sendCommand(['XTRIM', stream, 'MAXLEN', '2'])
      const stop = new AbortController()
      const starts = ['earliest', 'latest', { at: new Date(1) }, { at: new Date(Date.now() + 86_400_000) }] as const
      const heard = starts.map(() => [] as string[])
      const reading = starts.map(async (start, index) => {
        for await (const deliveries of transport.subscribe({ topics: [topic], start }, stop.signal))
          for (const { message: got } of deliveries) heard[index]!.push(Buffer.from(got.body).toString())
      })
      const all = (body: string) => until(`${body} at all tails`, async () => heard.slice(0, 3).every((bodies) => bodies.includes(body)))
      await until('the old ones to be read', async () => [0, 2].every((index) => heard[index]!.includes('older')))
      await publish(topic, 'new')
      await all('new')
      await client.sendCommand(['XTRIM', stream, 'MAXLEN', '0'])
      await publish(topic, 'newer')
      await all('newer')
      assert.deepEqual(gaps(), [])
      await client.eval(
        `for number = 1, 5 do redis.call('XADD', KEYS[1], '*', 'key', 'a', 'body', 'lost') end return redis.call('XTRIM', KEYS[1], 'MAXLEN', '0')`,
        { keys: [stream] },
      )
      await publish(topic, 'newest')
      await all('newest')
      assert.deepEqual(
        gaps().map(({ topic: where, group, missing, error }) => [where, group, missing, isWaybillError(error, 'POSITION_LOST')]),
        Array.from({ length: 3 }, () => [topic, '', 5, true]),
      )
      stop.abort()
      await Promise.all(reading)
    })

    test('a restart that loses everything is a gap, and the group goes on; that it would is said at the first connection', async (t) => {
      await own({ settings: { appendonly: 'no', save: '' } })
      t.after(done)
      const topic = freshTopic()
      const { got, leave } = work(transport, topic)
      await publish(topic, 'before')
      await got('before')
      const [warned] = events.filter((event) => event.type === 'transport.warned')
      assert.match(warned?.text ?? '', /a restart loses every message/)
      await server.stop('kill')
      await server.start()
      await gapSeen('the restart')
      await publish(topic, 'after')
      await got('after')
      await leave()
    })

    test('a server without memory rejects as full, and takes messages again when it has some', async (t) => {
      await own({})
      t.after(done)
      const topic = freshTopic()
      await publish(topic, 'first')
      await client.sendCommand(['CONFIG', 'SET', 'maxmemory', '1'])
      const error = errorOf((await transport.publish([message(topic, 'x')], never))[0])
      assert.equal(error.code, 'QUEUE_FULL')
      assert.ok(error.retryable)
      await client.sendCommand(['CONFIG', 'SET', 'maxmemory', '0'])
      await publish(topic, 'again')
    })

    test('a server without memory lets a member that starts anew take over and settle, since that is what makes room', async (t) => {
      await own({})
      t.after(done)
      const topic = freshTopic()
      await publish(topic, 'first')
      const before = work(transport, topic)
      await before.got('first')
      await before.leave()
      await publish(topic, 'second')
      await client.sendCommand(['CONFIG', 'SET', 'maxmemory', '1'])
      const successor = await redisTransport({ url: server.url, partitions: PARTITIONS, leaseMs: 1_000, requestTimeoutMs: 2_000 })
      t.after(() => successor.close())
      const { got, leave } = work(successor, topic)
      await got('second')
      await leave()
      const [report] = await successor.admin!.topics([topic], never)
      assert.deepEqual(
        report!.groups.map(({ lag }) => lag),
        [0],
      )
    })

    test('where a key of a partition is something else, that partition is refused, and no other', async (t) => {
      await own({})
      t.after(done)
      const topic = freshTopic()
      await publish(topic, 'first')
      const other = ['b', 'c', 'd', 'e', 'f'].find((key) => streamOf(topic, key) !== streamOf(topic))!
      await client.set(streamOf(topic, other), 'text')
      const outcomes = await transport.publish([message(topic, 'x', other), message(topic, 'y'), message(topic, 'z', other)], never)
      assert.deepEqual(
        outcomes.map(({ kind }) => kind),
        ['rejected', 'stored', 'rejected'],
      )
      assert.equal(errorOf(outcomes[0]).code, 'DECLARATION_DIFFERS')
    })

    test('scripts that the server has forgotten are sent again', async (t) => {
      await own({})
      t.after(done)
      const topic = freshTopic()
      await publish(topic, 'first')
      await client.sendCommand(['SCRIPT', 'FLUSH'])
      await publish(topic, 'second')
    })

    test('a user with the rights that the documentation names, and no others, can do it all', async (t) => {
      await own({})
      t.after(done)
      const named = /`(EVAL EVALSHA PING TIME[^`]+)`;/.exec(
        readFileSync(new URL('../../../../docs/brokers/redis.md', import.meta.url), 'utf8'),
      )![1]!
      const rights = `${named} CLIENT|ID CLIENT|UNBLOCK`.split(/\s+/).map((command) => `+${command.toLowerCase()}`)
      await client.sendCommand(['ACL', 'SETUSER', 'app', 'on', '>secret', '~waybill:*', ...rights])
      const failures: unknown[] = []
      const app = await redisTransport({
        url: server.url,
        username: 'app',
        password: 'secret',
        trimEveryMs: 100,
        retainMs: 0,
        retainMax: 0,
        observe: (event) => {
          if (event.type === 'transport.failed') failures.push(event.error)
          else if (event.type === 'transport.warned') events.push(event)
        },
      })
      const topic = freshTopic()
      const { got, leave } = work(app, topic)
      assert.deepEqual(await app.publish([message(topic, 'one')], never), [{ kind: 'stored' }])
      await got('one')
      assert.equal((await app.admin!.topics([topic], never))[0]?.groups.length, 1)
      await until('a trim', async () => (await client.xLen(redisStreamName(topic, redisPartition('a', 12)))) <= 1)
      await leave()
      await app.close()
      assert.deepEqual(failures, [])
      assert.match(events.find((event) => event.type === 'transport.warned' && /does not tell/.test(event.text)) ? 'said' : '', /said/)
    })

    test('messages of others arrive, whatever fields they have', async (t) => {
      await own({})
      t.after(done)
      const topic = freshTopic()
      await transport.declareGroups([{ topic, group: GROUP }])
      const stream = redisStreamName(topic, 0)
      await client.sendCommand(['XADD', stream, '*', 'anything', 'raw'])
      await client.sendCommand(['XADD', stream, '*', 'a', '1', 'b', '2'])
      await client.sendCommand(['XADD', stream, '*', 'key', 'k', 'headers', 'no json', 'body', 'body only', 'x-more', 'text'])
      const deliveries = transport.subscribe({ topics: [topic], group: GROUP }, never)[Symbol.asyncIterator]()
      const { value } = (await deliveries.next()) as { readonly value: readonly { readonly message: Message }[] }
      assert.deepEqual(
        value.map(({ message: { body } }) => Buffer.from(body).toString()),
        ['raw', '{"a":"1","b":"2"}', 'body only'],
      )
      assert.equal(value[2]?.message.key, 'k')
      assert.deepEqual({ ...value[2]?.message.headers }, { 'x-more': 'text' })
      assert.match(value[0]?.message.id ?? '', new RegExp(`^redis:${topic}:0:\\d+-\\d+$`))
      await deliveries.return?.()
    })

    test('what somebody reads as one of the group, without a lease, comes to the next holder', async (t) => {
      await own({})
      t.after(done)
      const topic = freshTopic()
      const stream = streamOf(topic)
      const first = work(transport, topic)
      await publish(topic, 'first')
      await first.got('first')
      for (let number = 0; number < 20; number++) {
        await client.xAdd(stream, '*', { key: 'a', body: `b${number}` })
        await client.xReadGroup(GROUP, 'stranger', { key: stream, id: '>' })
      }
      await publish(topic, 'last')
      await first.got('last')
      await first.leave()
      const second = work(transport, topic)
      const all = Array.from({ length: 20 }, (_, number) => `b${number}`)
      await until('all to arrive', async () => all.every((body) => first.bodies.includes(body) || second.bodies.includes(body)))
      await until('nothing to be pending', async () => (await client.xPending(stream, GROUP)).pending === 0)
      await second.leave()
    })

    test('a member whose lease was taken can neither read nor ack', async (t) => {
      await own({})
      t.after(done)
      const topic = freshTopic()
      await publish(topic, 'one')
      const deliveries = transport.subscribe({ topics: [topic], group: GROUP }, never)[Symbol.asyncIterator]()
      const { value } = (await deliveries.next()) as { readonly value: Awaited<ReturnType<typeof deliveries.next>>['value'] }
      const [delivery] = value ?? []
      await client.set(`${streamOf(topic)}:lease:${GROUP}`, 'another', { expiration: { type: 'EX', value: 60 } })
      await assert.rejects(delivery!.ack(), { code: 'LEASE_LOST' })
      assert.ok(delivery!.assignment.signal.aborted)
      assert.equal((await client.xPending(streamOf(topic), GROUP)).pending, 1)
      await deliveries.return?.()
    })

    test('trimming removes what every group has settled, and nothing else', async (t) => {
      await own({}, { retainMs: 0, retainMax: 10 })
      t.after(done)
      const topic = freshTopic()
      const stream = streamOf(topic)
      await transport.declareGroups([
        { topic, group: GROUP },
        { topic, group: 'slow' },
      ])
      const all = Array.from({ length: 1_000 }, (_, number) => message(topic, `m${number}`))
      for (const outcome of await transport.publish(all, never)) assert.equal(outcome.kind, 'stored')
      const fast = work(transport, topic)
      await fast.got('m999')
      // Only whole nodes of a stream are removed, so that a few hundred stay.
      const slow = work(transport, topic, 'slow')
      await slow.got('m999')
      assert.deepEqual(
        slow.bodies,
        all.map(({ body }) => Buffer.from(body).toString()),
      )
      await until('it to be trimmed', async () => (await client.xLen(stream)) <= 100)
      await fast.leave()
      await slow.leave()
      assert.deepEqual(gaps(), [])
    })
  })

  suite('Pub/Sub', { skip }, () => {
    test('plain messages of others arrive as bodies, and ours can be read by anybody', async () => {
      const url = 'url' in shared ? shared['url'] : ''
      const transport = await redisPubSub({ url })
      const client = await createClient({ url }).connect()
      const listener = await createClient({ url }).connect()
      const topic = `bad.p${newId().slice(-12)}`
      const { got, leave } = work(transport, topic)
      const heard: string[] = []
      await listener.subscribe(topic, (text) => void heard.push(text))
      await transport.publish([message(topic, 'ours')], never)
      await got('ours')
      for (const text of ['plain', '{"waybill":1, but no line', '']) {
        await client.publish(topic, text)
        await got(text)
      }
      const [line, body] = heard[0]!.split('\n')
      assert.equal(JSON.parse(line!).key, 'a')
      assert.equal(body, 'ours')
      await leave()
      await transport.close()
      client.destroy()
      listener.destroy()
    })

    test('a subscriber that is too slow loses the oldest, and it is counted; so is a connection that was away', async (t) => {
      const server = await ownServer('redis')
      t.after(() => server.close())
      const events: WaybillEvent[] = []
      const transport = await redisPubSub({
        url: server.url,
        bufferMax: 100,
        requestTimeoutMs: 2_000,
        observe: (event) => events.push(event),
      })
      const topic = freshTopic()
      const deliveries = transport.subscribe({ topics: [topic], batchMax: 10 }, never)[Symbol.asyncIterator]()
      const all = Array.from({ length: 2_000 }, (_, number) => message(topic, `m${number}`))
      for (const outcome of await transport.publish(all, never)) assert.equal(outcome.kind, 'stored')
      const gap = await until('the drop to be said', async () => events.find((event) => event.type === 'transport.gap'))
      assert.ok(isWaybillError(gap.error, 'QUEUE_FULL'))
      assert.ok((gap.missing ?? 0) > 1_000, `${gap.missing} missing`)
      const bodies: string[] = []
      while (!bodies.includes('m1999')) {
        const { value } = await deliveries.next()
        for (const { message: each } of value ?? []) bodies.push(Buffer.from(each.body).toString())
      }
      assert.equal(bodies.length, 2_000 - gap.missing!)
      await server.stop('kill')
      await server.start()
      const lost = await until('the gap to be said', async () =>
        events.find((event) => event.type === 'transport.gap' && isWaybillError(event.error, 'POSITION_LOST')),
      )
      assert.ok(lost.type === 'transport.gap' && lost.topic === topic)
      await until('a message to be taken', async () => (await transport.publish([message(topic, 'after')], never))[0]?.kind === 'stored')
      const { value } = await deliveries.next()
      assert.equal(Buffer.from(value![0]!.message.body).toString(), 'after')
      await transport.close()
    })
  })

  suite('options and settings', () => {
    const wrong: readonly (readonly [string, object])[] = [
      ['url', { url: 'http://127.0.0.1' }],
      ['url', { url: 'redis://user:s3cret@' }],
      ['url', { url: 'redis://:s3cret@host/zero' }],
      ['url', { url: 7 }],
      ['password', { password: '' }],
      ['tls.ca', { tls: { ca: 7 } }],
      ['keyPrefix', { keyPrefix: 'a{b' }],
      ['partitions', { partitions: 0 }],
      ['partitions', { partitions: 2_000 }],
      ['createTopics', { createTopics: 'yes' }],
      ['messageMaxBytes', { messageMaxBytes: -1 }],
      ['requestTimeoutMs', { requestTimeoutMs: 1 }],
      ['leaseMs', { leaseMs: 10 }],
      ['retainMs', { retainMs: Number.NaN }],
      ['leaseMS', { leaseMS: 5_000 }],
      ['tls.caPath', { tls: { caPath: '/ca.pem' } }],
    ]
    for (const [name, options] of wrong)
      test(`${JSON.stringify(options)} is refused, naming ${name}`, async () => {
        await assert.rejects(redisTransport(options), (error: unknown) => {
          assert.ok(isWaybillError(error, 'INVALID_OPTION'))
          assert.match(error.where ?? '', new RegExp(`redisTransport\\.${name}`))
          assert.ok(!JSON.stringify([error.message, error]).includes('s3cret'))
          return true
        })
      })

    test('Pub/Sub refuses an option of Streams, naming it', async () => {
      await assert.rejects(redisPubSub({ leaseMs: 5_000 } as object), { code: 'INVALID_OPTION', where: 'redisPubSub.leaseMs' })
    })

    test('settings become options; a wrong one is named', () => {
      const env = { REDIS_URL: 'redis://h', REDIS_PASSWORD: 'p', REDIS_PARTITIONS: '3', REDIS_STREAM_RETAIN_MS: '5', REDIS_KEY_PREFIX: '' }
      assert.deepEqual(redisSettings(env), { url: 'redis://h', password: 'p', partitions: 3, retainMs: 5 })
      assert.deepEqual(redisPubSubSettings({ REDIS_CHANNEL_PREFIX: 'x:' }), { channelPrefix: 'x:' })
      assert.throws(() => redisSettings({ REDIS_PARTITIONS: 'many' }), /REDIS_PARTITIONS/)
      assert.throws(() => redisSettings({ REDIS_TLS_CA_PATH: '/no/such/file' }), { code: 'INVALID_FILE' })
    })
  })
})
