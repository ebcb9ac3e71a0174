import assert from 'node:assert/strict'
import { before, suite, test } from 'node:test'
import { webSocketMessageIds } from '../../src/adapters/pulsar/message-id.ts'
import { resolvePulsarOptions } from '../../src/adapters/pulsar/options.ts'
import { createWebSocketClient } from '../../src/adapters/pulsar/web-socket-client.ts'
import { newId } from '../../src/core/ids.ts'
import type { WaybillEvent } from '../../src/core/observe.ts'
import type { Delivery, Message, Source, Transport } from '../../src/core/transport.ts'
import { type PulsarLike, type PulsarTransportOptions, pulsarTransport } from '../../src/pulsar.ts'
import { until } from '../../src/testing/contract-tools.ts'
import { startFaultProxy } from '../../src/testing/fault-proxy.ts'
import type { Target } from './fixture.ts'
import { broker } from './pulsar.ts'

const never = new AbortController().signal
const unique = newId().slice(-12)
let names = 0
const freshTopic = (): string => `modes.t${unique}-${++names}`

const numbered = (topic: string, count: number, keys = 1, from = 0): Message[] =>
  Array.from({ length: count }, (_, index) => {
    const id = newId()
    return { id, topic, key: `key-${index % keys}`, headers: { event_id: id }, body: Buffer.from(String(from + index)) }
  })

const numberOf = ({ message }: Delivery): number => Number(Buffer.from(message.body).toString())

/** Reads in the background; `handle` settles. */
function read(transport: Transport, source: Source, handle = async (delivery: Delivery): Promise<void> => delivery.ack()) {
  const stop = new AbortController()
  const seen: Delivery[] = []
  const working = (async () => {
    for await (const deliveries of transport.subscribe(source, stop.signal)) {
      for (const delivery of deliveries) {
        seen.push(delivery)
        await handle(delivery)
      }
    }
  })()
  return {
    seen,
    async leave() {
      stop.abort()
      await working
    },
  }
}

async function publish(transport: Transport, messages: readonly Message[]): Promise<void> {
  for (const outcome of await transport.publish(messages, never)) assert.equal(outcome.kind, 'stored', JSON.stringify(outcome))
}

suite('pulsar, its own modes', () => {
  let skipped: string | undefined
  let target: Target = {}
  before(async () => {
    const shared = await broker.shared()
    if ('skipped' in shared && typeof shared.skipped === 'string') skipped = shared.skipped
    else target = shared
  })
  const open = (options: PulsarTransportOptions = {}): Promise<Transport> =>
    pulsarTransport({
      provider: 'websocket',
      serviceUrl: target['url']!,
      webSocketUrl: target['webSocketUrl']!,
      adminUrl: target['adminUrl']!,
      ...options,
    })
  const check = (name: string, run: () => Promise<void>): void =>
    void test(name, async (t) => (skipped === undefined ? run() : t.skip(skipped)))
  const rest = async (method: string, path: string, body?: unknown): Promise<void> => {
    const headers = { 'content-type': 'application/json' }
    const url = `${target['adminUrl']}/admin/v2/${path}`
    const response = await until(path, async () => {
      const answer = await fetch(url, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) })
      // 412: a subscription of the topic is being made at this moment.
      return answer.status === 412 ? undefined : answer
    })
    assert.ok(response.ok, `${path}: ${response.status} ${await response.text()}`)
  }

  check('processes that start together declare the same new groups at once', async () => {
    await using disposed = new AsyncDisposableStack()
    const transports = await Promise.all([open(), open(), open(), open()])
    for (const transport of transports) disposed.defer(() => transport.close())
    for (let round = 0; round < 5; round++) {
      const topic = freshTopic()
      const groups = ['modes/one', 'modes/two', 'modes/three'].map((group) => ({ topic, group }))
      await Promise.all(transports.map((transport) => transport.declareGroups(groups)))
    }
  })

  check('partitions: keys keep their order and spread, a tail sees all of them, the report counts them', async () => {
    await using disposed = new AsyncDisposableStack()
    const transport = await open({ partitions: 3 })
    disposed.defer(() => transport.close())
    const topic = freshTopic()
    await transport.declareGroups([{ topic, group: 'modes/parts' }])
    const tail = read(transport, { topics: [topic], start: 'latest' })
    await publish(transport, numbered(topic, 300, 10))
    const [before] = await transport.admin!.topics([topic], never)
    assert.deepEqual(
      { ...before, groups: before!.groups.map(({ group, lag }) => ({ group, lag })) },
      {
        topic,
        brokerName: `persistent://public/default/${topic}`,
        partitions: 3,
        messages: 300,
        groups: [{ group: 'modes/parts', lag: 300 }],
      },
    )
    const reader = read(transport, { topics: [topic], group: 'modes/parts' })
    await until('all, twice', async () => reader.seen.length === 300 && tail.seen.length === 300)
    assert.ok(new Set(reader.seen.map(({ position }) => position.partition)).size > 1)
    for (const { seen } of [reader, tail])
      for (let key = 0; key < 10; key++) {
        const numbers = seen.filter(({ message }) => message.key === `key-${key}`).map(numberOf)
        assert.deepEqual(
          numbers,
          Array.from({ length: 30 }, (_, index) => index * 10 + key),
        )
      }
    await Promise.all([reader.leave(), tail.leave()])
  })

  check('partitions that are added to a topic are read by members that are there already', async () => {
    await using disposed = new AsyncDisposableStack()
    const transport = await open({ partitions: 2, watchIntervalMs: 200 })
    disposed.defer(() => transport.close())
    const topic = freshTopic()
    await transport.declareGroups([{ topic, group: 'modes/more' }])
    const reader = read(transport, { topics: [topic], group: 'modes/more' })
    await rest('POST', `persistent/public/default/${topic}/partitions`, 6)
    const other = await open()
    disposed.defer(() => other.close())
    await publish(other, numbered(topic, 200, 200))
    await until('all', async () => new Set(reader.seen.map(numberOf)).size === 200)
    await reader.leave()
  })

  check('Shared: members share messages, and no order is promised', async () => {
    await using disposed = new AsyncDisposableStack()
    const transport = await open({ subscriptionType: 'Shared', prefetchMax: 10 })
    disposed.defer(() => transport.close())
    assert.equal(transport.capabilities.ordering, 'none')
    const topic = freshTopic()
    await transport.declareGroups([{ topic, group: 'modes/shared' }])
    const readers = [1, 2].map(() => read(transport, { topics: [topic], group: 'modes/shared' }))
    await until('two members', async () => (await transport.admin!.topics([topic], never))[0]!.groups[0]?.members === 2)
    await publish(transport, numbered(topic, 400))
    await until('all', async () => readers.reduce((sum, { seen }) => sum + seen.length, 0) === 400)
    assert.ok(
      readers.every(({ seen }) => seen.length > 0),
      'one key, and yet both',
    )
    for (const reader of readers) await reader.leave()
  })

  for (const subscriptionType of ['Failover', 'Exclusive'] as const)
    check(`${subscriptionType}: one member works, another goes on when it has left, from the oldest that it did not settle`, async () => {
      await using disposed = new AsyncDisposableStack()
      const transport = await open({ subscriptionType })
      disposed.defer(() => transport.close())
      assert.equal(transport.capabilities.ordering, 'key')
      const topic = freshTopic()
      const group = 'modes/single'
      await transport.declareGroups([{ topic, group }])
      const one = read(transport, { topics: [topic], group }, async (delivery) => (numberOf(delivery) < 5 ? delivery.ack() : undefined))
      await publish(transport, numbered(topic, 20))
      await until('all at the first', async () => one.seen.length === 20)
      const other = read(transport, { topics: [topic], group })
      await one.leave()
      await until('the rest at the other', async () => other.seen.length === 15)
      assert.deepEqual(
        other.seen.map(numberOf),
        Array.from({ length: 15 }, (_, index) => index + 5),
      )
      await other.leave()
    })

  check('a tail that is cut goes on where it was: nothing is missing, nothing comes twice', async () => {
    await using disposed = new AsyncDisposableStack()
    const web = new URL(target['adminUrl']!)
    const proxy = await startFaultProxy({ target: { host: web.hostname, port: Number(web.port) } })
    disposed.defer(() => proxy.close())
    const events: WaybillEvent[] = []
    const cut = await open({
      webSocketUrl: `ws://127.0.0.1:${proxy.port}`,
      adminUrl: `http://127.0.0.1:${proxy.port}`,
      observe: (event) => void events.push(event),
    })
    disposed.defer(() => cut.close())
    const straight = await open()
    disposed.defer(() => straight.close())
    const topic = freshTopic()
    const from = new Date()
    await publish(straight, numbered(topic, 50))
    const tails = [read(cut, { topics: [topic] }), read(cut, { topics: [topic], start: { at: from } })]
    await until('the first ones', async () => tails.every(({ seen }) => seen.length === 50))
    for (let round = 1; round <= 3; round++) {
      proxy.cut()
      await publish(straight, numbered(topic, 50, 1, round * 50))
      await until('those of this round', async () => tails.every(({ seen }) => seen.length >= (round + 1) * 50))
    }
    for (const { seen, leave } of tails) {
      assert.deepEqual(
        seen.map(numberOf),
        Array.from({ length: 200 }, (_, index) => index),
      )
      await leave()
    }
    assert.ok(events.some(({ type }) => type === 'transport.changed'))
    const [report] = await straight.admin!.topics([topic], never)
    assert.deepEqual(report!.groups, [], 'no trace at the broker')
  })

  check('a broker that stops at its limit of unacked messages goes on as they are settled', async () => {
    await using disposed = new AsyncDisposableStack()
    const namespace = `modes-${unique}`
    await rest('PUT', `namespaces/public/${namespace}`, {})
    await rest('POST', `namespaces/public/${namespace}/maxUnackedMessagesPerConsumer`, 20)
    const transport = await open({ namespace })
    disposed.defer(() => transport.close())
    const topic = freshTopic()
    await transport.declareGroups([{ topic, group: 'modes/limit' }])
    await publish(transport, numbered(topic, 100))
    let waiting = 0
    const reader = read(transport, { topics: [topic], group: 'modes/limit' }, async (delivery) => {
      // Each is put off once, so that all that the broker gives out is held here for a while.
      if (delivery.redelivered === 'yes') return delivery.ack()
      waiting++
      return delivery.retry(50)
    })
    await until('all, twice', async () => reader.seen.length === 200)
    assert.equal(waiting, 100)
    await reader.leave()
  })

  check('a client that is handed in, with no more than the official package has, does the same', async () => {
    await using disposed = new AsyncDisposableStack()
    const { WebSocket } = await import('ws')
    const options: PulsarTransportOptions = { webSocketUrl: target['webSocketUrl']!, adminUrl: target['adminUrl']! }
    const full = createWebSocketClient(WebSocket, resolvePulsarOptions(options))
    let closed = false
    const client: PulsarLike = {
      createProducer: (config) => full.createProducer(config),
      async subscribe(config) {
        const consumer = await full.subscribe(config)
        return {
          batchReceive: () => consumer.batchReceive(),
          acknowledgeId: (messageId) => consumer.acknowledgeId(messageId),
          close: () => consumer.close(),
        }
      },
      async createReader(config) {
        const reader = await full.createReader(config)
        return { readNext: () => reader.readNext(), close: () => reader.close() }
      },
      async close() {
        closed = true
      },
    }
    const transport = await pulsarTransport({ ...options, client, messageIds: webSocketMessageIds })
    disposed.defer(() => transport.close())
    const topic = freshTopic()
    await transport.declareGroups([{ topic, group: 'modes/given' }])
    const tail = read(transport, { topics: [topic], start: 'latest' })
    const one = read(transport, { topics: [topic], group: 'modes/given' })
    await publish(transport, numbered(topic, 100, 5))
    await until('all, twice', async () => one.seen.length === 100 && tail.seen.length === 100)
    await Promise.all([one.leave(), tail.leave()])
    await until('nothing is left', async () => (await transport.admin!.topics([topic], never))[0]!.groups[0]!.lag === 0)
    const without = await pulsarTransport({ ...options, client })
    disposed.defer(() => without.close())
    await assert.rejects(
      async () => {
        for await (const _ of without.subscribe({ topics: [topic] }, never)) break
      },
      { code: 'UNSUPPORTED' },
    )
    await transport.close()
    assert.equal(closed, false, 'it is not ours to close')
  })

  check('the broker is examined: its version, what a setting would lose', async () => {
    await using disposed = new AsyncDisposableStack()
    const namespace = `lossy-${unique}`
    await rest('PUT', `namespaces/public/${namespace}`, {})
    await rest('POST', `namespaces/public/${namespace}/messageTTL`, 60)
    await rest('POST', `namespaces/public/${namespace}/backlogQuota`, { limitSize: 1_000_000, policy: 'consumer_backlog_eviction' })
    await rest('POST', `namespaces/public/${namespace}/persistence`, {
      bookkeeperEnsemble: 1,
      bookkeeperWriteQuorum: 1,
      bookkeeperAckQuorum: 1,
      managedLedgerMaxMarkDeleteRate: 1,
    })
    const transport = await open({ namespace })
    disposed.defer(() => transport.close())
    const report = await transport.admin!.examine(never)
    assert.equal(report.product, 'Apache Pulsar')
    assert.match(report.version, /^\d+\.\d+\.\d+/)
    assert.equal(report.address, new URL(target['adminUrl']!).origin)
    for (const text of [/consumer_backlog_eviction/, /within 60 s/, /ackQuorum 1/])
      assert.ok(
        report.findings.some((finding) => text.test(finding.text)),
        String(text),
      )
    assert.equal(report.findings[0]!.level, 'error')
  })
})
