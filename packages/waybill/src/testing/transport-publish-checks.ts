import assert from 'node:assert/strict'
import { WaybillError } from '../core/errors.ts'
import type { Message, PublishOutcome } from '../core/transport.ts'
import { needsHandled, type TransportCheck } from './transport-checks.ts'
import { ackAll, assertStored, message, messages, texts } from './transport-tools.ts'

/** Bodies that something on the way could mistake for text, or for nothing. */
const BODIES: readonly Uint8Array[] = [
  new Uint8Array(0),
  Uint8Array.of(0),
  Uint8Array.from({ length: 256 }, (_, byte) => byte),
  Uint8Array.of(0xff, 0xfe, 0xc0, 0x80),
  Buffer.from('naïve 🦊 text\r\nwith lines'),
]
const HOSTILE_TOPICS = [
  '',
  'a b',
  'a..b',
  '.a',
  '>',
  '*',
  'a.*',
  '../a',
  'a\0b',
  'a\nb',
  'persistent://public/default/a',
  'x'.repeat(65_536),
  'a\u200bb',
]

const kinds = (outcomes: readonly PublishOutcome[]): string[] => outcomes.map(({ kind }) => kind)

function rejection(outcome: PublishOutcome | undefined): WaybillError {
  assert.equal(outcome?.kind, 'rejected')
  assert.ok(outcome.error instanceof WaybillError)
  return outcome.error
}

/** What goes in, what is refused, and what the sender is told. */
export const publishChecks: readonly TransportCheck[] = [
  {
    check: 'roundtrip-fidelity',
    name: 'id, key, headers and body arrive as they were sent, whatever bytes they are',
    async run({ topic, group, read, send }) {
      const name = topic()
      const reader = read({ topics: [name], group: await group([name]) })
      const sent = Array.from({ length: 100 }, (_, index): Message => {
        const headers: Record<string, string> = {
          'x-text': 'ünïcode 🦊',
          'x-empty': '',
          traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
        }
        for (let count = 0; count < index % 50; count++) headers[`x-${count}`] = `${count}`
        const plain = message(name, `clé-${index} 🔑`)
        return { ...plain, headers: { ...plain.headers, ...headers }, body: BODIES[index % BODIES.length]! }
      })
      const publishing = send(sent)
      const deliveries = await reader.take(sent.length)
      const byId = new Map(deliveries.map((delivery) => [delivery.message.id, delivery.message]))
      for (const expected of sent) {
        const got = byId.get(expected.id)
        assert.ok(got !== undefined, `message ${expected.id} is missing`)
        assert.equal(got.topic, expected.topic)
        assert.equal(got.key, expected.key)
        assert.deepEqual({ ...got.headers }, { ...expected.headers })
        assert.ok(Buffer.from(got.body).equals(expected.body), `body of ${expected.id}`)
      }
      await ackAll(deliveries)
      await publishing.stored
    },
  },
  {
    check: 'names-validated',
    name: 'names, keys and headers that could mean something to a broker are refused, each by an error of its own',
    async run({ topic, group, publish, transport }) {
      const name = topic()
      await group([name])
      for (const hostile of HOSTILE_TOPICS) {
        const [outcome] = await publish([message(hostile, 'a')])
        assert.equal(rejection(outcome).retryable, false, `topic ${JSON.stringify(hostile.slice(0, 40))}`)
        await assert.rejects(async () => {
          for await (const _ of transport.subscribe({ topics: [hostile], group: 'contract/hostile' }, AbortSignal.timeout(1000))) break
        }, WaybillError)
      }
      const bad: readonly Partial<Message>[] = [
        { key: '' },
        { key: 'a\0b' },
        { key: 'k'.repeat(10_240) },
        { id: '' },
        { id: 'i'.repeat(70_000) },
        { id: 'a\nb' },
        { id: 17 as unknown as string },
        { body: 'text' as unknown as Uint8Array },
        { body: new ArrayBuffer(3) as unknown as Uint8Array },
        { headers: { 'x-a': 'one\r\nx-b: two' } },
        { headers: { 'x a': 'one' } },
        { headers: Object.fromEntries(Array.from({ length: 10_000 }, (_, index) => [`x-${index}`, ''])) },
      ]
      // Where it is the handlers that acknowledge, nobody is here to handle a neighbour.
      const neighbours = transport.capabilities.acknowledges === 'handled' ? [] : [message(name, 'b')]
      for (const each of bad) {
        const [outcome, ...others] = await publish([message(name, 'a', 0, each), ...neighbours])
        assert.equal(rejection(outcome).retryable, false, JSON.stringify(each).slice(0, 60))
        assert.ok(
          others.every(({ kind }) => kind === 'stored'),
          'what is wrong with one message says nothing of another',
        )
      }
      for (const hostile of ['', 'a b', '>', 'a/../b']) {
        await assert.rejects(async () => {
          for await (const _ of transport.subscribe({ topics: [name], group: hostile }, AbortSignal.timeout(1000))) break
        }, WaybillError)
      }
    },
  },
  {
    check: 'batch-partial-failure',
    name: 'exactly the messages that are refused are named, and nothing of a key passes its refused one',
    async run({ topic, group, read, publish, transport, within }) {
      const name = topic()
      const reader = read({ topics: [name], group: await group([name]) })
      const bad = message(name, 'a', 1, { headers: { 'x-a': 'one\ntwo' } })
      const first = publish([message(name, 'a', 0), bad, message(name, 'a', 2), message(name, 'b', 0)])
      // In the same turn: its caller can't have heard of the refusal yet.
      const second = publish([message(name, 'a', 3)])
      if (!transport.capabilities.stopsKeyAtFailure) {
        await ackAll(await reader.takeAll())
        assert.equal((await within('outcomes', first))[1]?.kind, 'rejected')
        return
      }
      const deliveries = await reader.take(2)
      await ackAll(deliveries)
      assert.deepEqual(texts(deliveries).toSorted(), ['a#0', 'b#0'])
      const outcomes = await within('outcomes', first)
      assert.deepEqual(kinds(outcomes), ['stored', 'rejected', 'rejected', 'stored'])
      assert.equal(rejection(outcomes[1]).retryable, false)
      assert.equal(rejection(outcomes[2]).retryable, true, 'a follower may be sent again')
      assert.equal(rejection((await within('outcomes', second))[0]).retryable, true)
      const again = publish([message(name, 'a', 4)])
      const [delivery] = await reader.take(1)
      assert.equal(texts([delivery!])[0], 'a#4')
      await delivery!.ack()
      assertStored(await within('outcomes', again))
    },
  },
  {
    check: 'payload-limit',
    name: 'a body of the limit passes, one byte more is refused before anything is sent',
    async run({ topic, group, read, publish, send }, { messageMaxBytes }) {
      if (messageMaxBytes === undefined) return
      const name = topic()
      const reader = read({ topics: [name], group: await group([name]) })
      assert.equal(
        rejection((await publish([message(name, 'a', 0, { body: new Uint8Array(messageMaxBytes + 1) })]))[0]).code,
        'PAYLOAD_TOO_LARGE',
      )
      const publishing = send([message(name, 'a', 0, { body: new Uint8Array(messageMaxBytes) })])
      const [delivery] = await reader.take(1)
      assert.equal(delivery!.message.body.byteLength, messageMaxBytes)
      await delivery!.ack()
      await publishing.stored
    },
  },
  {
    check: 'publish-unknown-outcome-typed',
    name: 'a call that was aborted before it began sends nothing, and says so',
    async run({ topic, group, read, publish, send }) {
      const name = topic()
      const reader = read({ topics: [name], group: await group([name]) })
      const outcomes = await publish(messages(name, ['a'], 3), AbortSignal.abort())
      assert.deepEqual(kinds(outcomes), ['rejected', 'rejected', 'rejected'])
      assert.equal(rejection(outcomes[0]).retryable, true)
      const publishing = send([message(name, 'a', 9)])
      const [delivery] = await reader.take(1)
      assert.equal(texts([delivery!])[0], 'a#9')
      await delivery!.ack()
      await publishing.stored
    },
  },
  {
    check: 'batch-partial-failure',
    name: 'an empty call is answered with nothing',
    async run({ publish }) {
      assert.deepEqual(await publish([]), [])
    },
  },
  {
    check: 'acknowledges-handled',
    name: 'where it acknowledges what is handled: stored is said once each declared group has settled, absent ones included',
    requires: needsHandled,
    async run({ topic, group, read, publish, within }) {
      const name = topic()
      assert.equal(rejection((await publish([message(name, 'a')]))[0]).retryable, false, 'without a declared group nobody could report')
      const [one, other] = [await group([name]), await group([name])]
      let answered = false
      const publishing = publish(messages(name, ['a', 'b'], 1)).then((outcomes) => {
        answered = true
        return outcomes
      })
      await ackAll(await read({ topics: [name], group: one }).take(2))
      const [first, second] = await read({ topics: [name], group: other }).take(2)
      await first!.ack()
      await new Promise((resolve) => setImmediate(resolve))
      assert.equal(answered, false, 'one message is still with a group')
      await second!.ack()
      assertStored(await within('outcomes', publishing))
    },
  },
  {
    check: 'acknowledges-handled',
    name: 'where it acknowledges what is handled: a wait that is cut short ends as unknown, never as stored',
    requires: needsHandled,
    async run({ topic, group, publish, read, transport, within }) {
      const name = topic()
      const reader = read({ topics: [name], group: await group([name]) })
      const cut = new AbortController()
      const publishing = publish(messages(name, ['a'], 2), cut.signal)
      const [first] = await reader.take(2)
      await first!.ack()
      cut.abort()
      assert.deepEqual(kinds(await within('outcomes', publishing)), ['stored', 'unknown'])
      const closed = publish([message(name, 'b')])
      await transport.close()
      assert.deepEqual(kinds(await within('outcomes', closed)), ['unknown'])
    },
  },
  {
    check: 'close-bounded-idempotent',
    name: 'closing is bounded, may be asked for twice at once, ends subscriptions, and what is published then rejects',
    async run({ topic, group, read, publish, send, transport, within }) {
      const name = topic()
      const groupName = await group([name])
      const reader = read({ topics: [name], group: groupName })
      await send([message(name, 'a')]).underway
      const [delivery] = await reader.take(1)
      const ended = reader.each(async () => {})
      await within('close', Promise.all([transport.close(), transport.close()]))
      await within('close', transport.close())
      await within('the subscription to end', ended)
      assert.equal(delivery!.assignment.signal.aborted, true, 'after close() the assignment of a delivery is aborted')
      await delivery!.ack()
      await delivery!.release()
      await assert.rejects(publish([message(name, 'a')]), { code: 'CLOSED' }, 'publish() after close() rejects with CLOSED')
      await assert.rejects(
        async () => {
          for await (const _ of transport.subscribe({ topics: [name], group: groupName }, AbortSignal.timeout(1000))) break
        },
        { code: 'CLOSED' },
        'subscribe() after close() throws CLOSED, at once or with the first pull; it does not end as an empty one would',
      )
    },
  },
]
