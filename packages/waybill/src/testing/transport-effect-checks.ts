import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { memoryStorage } from '../adapters/memory/storage.ts'
import type { Message } from '../core/transport.ts'
import { needsOrderedSharing, needsSharing, type TransportCheck } from './transport-checks.ts'
import { ackAll, assertOrder, keysNamed, message, messages, textOf, texts } from './transport-tools.ts'

/** Older than this by the broker's clock is before, whatever its resolution. */
const APART_MS = 60

/** What comes of it: attributes for others to read, effects, and positions in time. */
export const effectChecks: readonly TransportCheck[] = [
  {
    check: 'envelope-attributes',
    name: 'CloudEvents attributes, traceparent and attributes that nobody knows arrive unchanged, beside a body that nobody has touched',
    async run({ topic, group, read, send }) {
      const name = topic()
      const reader = read({ topics: [name], group: await group([name]) })
      const body = Buffer.from(JSON.stringify({ specversion: '1.0', data: { amount: 1e21, text: '\u2028 "quoted" \\ 🦊', none: null } }))
      const attributes = {
        'ce-specversion': '1.0',
        'ce-id': 'A234-1234-1234',
        'ce-source': '/contexts/sales?x=%20y',
        'ce-type': 'com.example.order.placed',
        'ce-time': '2026-02-28T23:59:59.999999999Z',
        'ce-subject': 'ünï/code',
        'ce-comexampleextension1': 'value',
        traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
        tracestate: 'congo=t61rcWkgMzE,rojo=00f067aa0ba902b7',
        'x-unknown.attribute_1': '=?utf-8?q?not_decoded?= %41 + ,;:"',
      }
      const sent = message(name, 'a', 0, { body })
      const publishing = send([{ ...sent, headers: { ...sent.headers, ...attributes } }])
      const [delivery] = await reader.take(1)
      assert.deepEqual({ ...delivery!.message.headers }, { ...sent.headers, ...attributes })
      assert.ok(Buffer.from(delivery!.message.body).equals(body))
      await delivery!.ack()
      await publishing.stored
    },
  },
  {
    check: 'inbox-once',
    name: 'one event delivered five times in parallel has one effect, through an inbox',
    async run({ topic, group, read, send, within }) {
      const name = topic()
      const reader = read({ topics: [name], group: await group([name]) })
      const first = message(name, 'key-0')
      // Other keys, so that nothing keeps the copies apart. A broker that knows them again stores one.
      const publishing = send(
        Array.from({ length: 5 }, (_, index) => ({ ...first, key: `key-${index}`, body: Buffer.from(`key-${index}#0`) })),
      )
      const last = send([message(name, 'last')])
      const storage = memoryStorage()
      let effects = 0
      const handled: Promise<void>[] = []
      for (let seen = false; !seen;) {
        const [delivery] = await reader.take(1)
        seen = delivery!.message.key === 'last'
        if (seen) handled.push(delivery!.ack())
        else
          handled.push(
            storage.database
              .transaction(async (sql) => {
                const fresh = await storage.inbox.record(sql, 'contract', [delivery!.message.id])
                await delay(1)
                effects += fresh.size
              })
              .then(() => delivery!.ack()),
          )
      }
      for (const delivery of await reader.takeAll()) {
        await storage.database.transaction(async (sql) => {
          effects += (await storage.inbox.record(sql, 'contract', [delivery.message.id])).size
        })
        await delivery.ack()
      }
      await within('the handlers', Promise.all(handled))
      await Promise.all([publishing.stored, last.stored])
      assert.equal(effects, 1)
      await storage.close()
    },
  },
  {
    check: 'graceful-close-drains',
    name: 'a member that leaves with 1,000 in flight loses none; what it had settled does not come again',
    requires: needsSharing,
    async run({ topic, group, read, send }) {
      const name = topic()
      const groupName = await group([name])
      const first = read({ topics: [name], group: groupName, batchMax: 1000 })
      const sent = messages(name, keysNamed(50), 20)
      const publishing = send(sent)
      await publishing.underway
      const held = await first.take(1000)
      // The first ten of each key: a prefix, whatever the broker commits by.
      const settled = held.slice(0, 500)
      await Promise.all(settled.map((delivery) => delivery.ack()))
      await first.leave()
      const done = new Set(settled.map((delivery) => delivery.message.id))
      const second = read({ topics: [name], group: groupName })
      const again = new Set<string>()
      while (again.size < 500) {
        for (const delivery of await second.take(1)) {
          if (!done.has(delivery.message.id)) again.add(delivery.message.id)
          await delivery.ack()
        }
      }
      await publishing.stored
      assert.equal(new Set([...done, ...again]).size, sent.length)
    },
  },
  {
    check: 'key-affinity',
    name: 'what one member holds is not overtaken by what another is given of the same keys',
    requires: needsOrderedSharing,
    async run({ topic, group, read, send, within }) {
      const name = topic()
      const groupName = await group([name])
      const keys = keysNamed(8)
      const seen: Message[] = []
      const done = Promise.withResolvers<void>()
      const readers = [0, 1, 2].map(() => read({ topics: [name], group: groupName, batchMax: 5 }))
      const working = readers.map((reader) =>
        reader.each(async (deliveries) => {
          await delay(2)
          for (const delivery of deliveries) {
            if (delivery.assignment.signal.aborted) continue
            seen.push(delivery.message)
            await delivery.ack()
          }
          if (new Set(seen.map(textOf)).size === 400) done.resolve()
        }),
      )
      const publishing = send(messages(name, keys, 50))
      await within('400 messages', done.promise)
      assertOrder(seen, keys, 50)
      await publishing.stored
      await Promise.all(readers.map((reader) => reader.leave()))
      await Promise.all(working)
    },
  },
  {
    check: 'start-at-time',
    name: 'a new group that begins at a time gets what was published then or later',
    requires: ({ startsAtTime = false }) => (startsAtTime ? undefined : 'startsAtTime'),
    async run({ topic, group, read, send }) {
      const name = topic()
      const known = await group([name])
      const before = send(messages(name, ['a'], 2))
      await before.stored
      await delay(APART_MS)
      const at = new Date()
      await delay(APART_MS)
      const after = send([message(name, 'a', 2), message(name, 'a', 3)])
      await after.stored
      const deliveries = await read({ topics: [name], group: `${known}-at`, start: { at } }).take(2)
      assert.deepEqual(texts(deliveries), ['a#2', 'a#3'])
      await ackAll(deliveries)
      const tailed = await read({ topics: [name], start: { at } }).take(2)
      assert.deepEqual(texts(tailed), ['a#2', 'a#3'])
    },
  },
  {
    check: 'deduplicates',
    name: 'a message that is published twice with one id is stored once',
    requires: ({ deduplicates = false }) => (deduplicates ? undefined : 'deduplicates'),
    async run({ topic, group, read, send }) {
      const name = topic()
      const reader = read({ topics: [name], group: await group([name]) })
      const once = message(name, 'a', 0)
      await send([once]).stored
      await send([{ ...once, resent: true }, message(name, 'a', 1)]).stored
      const deliveries = await reader.take(2)
      assert.deepEqual(texts(deliveries), ['a#0', 'a#1'])
      await ackAll(deliveries)
      assert.deepEqual(texts(await reader.takeAll()), [])
    },
  },
]
