import assert from 'node:assert/strict'
import type { Delivery, Message } from '../core/transport.ts'
import { needsOrder, needsOrderedSharing, needsSharing, type TransportCheck } from './transport-checks.ts'
import { ackAll, assertOrder, keysNamed, message, messages, numberOf } from './transport-tools.ts'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Per key, and among members. Only for transports that promise order by key. */
export const orderChecks: readonly TransportCheck[] = [
  {
    check: 'order-per-key',
    name: 'order per key: 16 keys with 1,000 messages each',
    requires: needsOrder,
    async run({ topic, group, read, send }) {
      const name = topic()
      const keys = keysNamed(16)
      const reader = read({ topics: [name], group: await group([name]) })
      const publishing = send(messages(name, keys, 1000))
      const seen: Message[] = []
      while (seen.length < 16_000) {
        const deliveries = await reader.take(200)
        for (const delivery of deliveries) seen.push(delivery.message)
        await ackAll(deliveries)
      }
      assertOrder(seen, keys, 1000)
      await publishing.stored
    },
  },
  {
    check: 'order-parallel-publishers',
    name: 'order per key: 20 publishers at once, each its own key, each with several calls under way',
    requires: needsOrder,
    async run({ topic, group, read, send, transport, within }) {
      const name = topic()
      const keys = keysNamed(20)
      const reader = read({ topics: [name], group: await group([name]) })
      const publishers = keys.map(async (key) => {
        const calls: Promise<void>[] = []
        for (let call = 0; call < 10; call++) {
          const batch = Array.from({ length: 5 }, (_, index) => message(name, key, call * 5 + index))
          const { stored } = send(batch)
          calls.push(stored)
          // Without that promise, the caller is the one who keeps a key's messages apart.
          if (!transport.capabilities.stopsKeyAtFailure) await stored
          if (call % 3 === 0) await turn()
        }
        await Promise.all(calls)
      })
      const seen: Message[] = []
      while (seen.length < 1000) {
        const [first] = await reader.take(1)
        seen.push(first!.message)
        await first!.ack()
      }
      assertOrder(seen, keys, 50)
      await within('the publishers', Promise.all(publishers))
    },
  },
  {
    check: 'order-across-types',
    name: 'order holds across two types of one key that share a topic',
    requires: needsOrder,
    async run({ topic, group, read, send }) {
      const name = topic()
      const reader = read({ topics: [name], group: await group([name]) })
      const sent = Array.from({ length: 200 }, (_, number) => {
        const plain = message(name, 'invoice-1', number)
        return { ...plain, headers: { ...plain.headers, event_type: number % 2 === 0 ? 'order.OrderPlaced' : 'order.OrderCancelled' } }
      })
      const publishing = send(sent)
      const deliveries = await reader.take(200)
      assert.deepEqual(
        deliveries.map((delivery) => delivery.message.headers['event_type']),
        sent.map(({ headers }) => headers.event_type),
      )
      assertOrder(
        deliveries.map((delivery) => delivery.message),
        ['invoice-1'],
        200,
      )
      await ackAll(deliveries)
      await publishing.stored
    },
  },
  {
    check: 'key-affinity',
    name: 'a key is never with two members at once, and stays in order among them',
    requires: needsOrderedSharing,
    async run({ topic, group, read, send, within }) {
      const name = topic()
      const groupName = await group([name])
      // Fewer keys than members: with many keys, two members rarely meet at one even where nothing keeps them apart.
      const keys = keysNamed(3)
      const holders = new Map<string, { readonly member: number; count: number }>()
      const seen: Message[] = []
      const violations: string[] = []
      const done = Promise.withResolvers<void>()
      const readers = Array.from({ length: 4 }, () => read({ topics: [name], group: groupName, batchMax: 7 }))
      const working = readers.map((reader, member) => reader.each((deliveries) => work(member, deliveries)))
      async function work(member: number, deliveries: readonly Delivery[]): Promise<void> {
        for (const {
          message: { key },
        } of deliveries) {
          const holder = holders.get(key)
          if (holder === undefined) holders.set(key, { member, count: 1 })
          else if (holder.member === member) holder.count++
          else violations.push(`${key} is with ${holder.member} and with ${member}`)
        }
        for (const delivery of deliveries) {
          const { key } = delivery.message
          await turn()
          seen.push(delivery.message)
          const holder = holders.get(key)
          if (holder?.member === member && --holder.count === 0) holders.delete(key)
          await delivery.ack()
        }
        if (seen.length >= 300) done.resolve()
      }
      const publishing = send(messages(name, keys, 100))
      await within('300 messages', done.promise)
      assert.deepEqual(violations, [])
      assertOrder(seen, keys, 100)
      await publishing.stored
      await Promise.all(readers.map((reader) => reader.leave()))
      await Promise.all(working)
    },
  },
  {
    check: 'key-affinity',
    name: 'when a member leaves, others go on with its keys, in order, from the oldest that it did not settle',
    requires: needsOrderedSharing,
    async run({ topic, group, read, send }) {
      const name = topic()
      const groupName = await group([name])
      const keys = keysNamed(5)
      const first = read({ topics: [name], group: groupName, batchMax: 40 })
      const publishing = send(messages(name, keys, 20))
      await publishing.underway
      const deliveries = await first.take(40)
      const settled = deliveries.filter((delivery) => numberOf(delivery.message) < 3)
      await ackAll(settled)
      await first.leave()
      const second = read({ topics: [name], group: groupName })
      const seen = settled.map((delivery) => delivery.message)
      while (new Set(seen.map(({ id }) => id)).size < 100) {
        const [delivery] = await second.take(1)
        seen.push(delivery!.message)
        await delivery!.ack()
      }
      assertOrder(seen, keys, 20)
      await publishing.stored
    },
  },
  {
    check: 'competing-consumers',
    name: 'ten members share 5,000 messages: none is missing, none comes twice',
    requires: needsSharing,
    async run({ topic, group, read, send, within, joined }) {
      const name = topic()
      const groupName = await group([name])
      const seen = new Map<string, number>()
      const done = Promise.withResolvers<void>()
      const readers = Array.from({ length: 10 }, () => read({ topics: [name], group: groupName, batchMax: 50 }))
      const working = readers.map((reader) =>
        reader.each(async (deliveries) => {
          await turn()
          for (const delivery of deliveries) {
            seen.set(delivery.message.id, (seen.get(delivery.message.id) ?? 0) + 1)
            await delivery.ack()
          }
          if (seen.size >= 5000) done.resolve()
        }),
      )
      // Who comes or goes may bring repeats: only then it is quiet.
      await joined(name, groupName, 10)
      const publishing = send(messages(name, keysNamed(500), 10))
      await within('5,000 messages', done.promise)
      await publishing.stored
      assert.equal(seen.size, 5000)
      assert.equal([...seen.values()].filter((count) => count > 1).length, 0)
      await Promise.all(readers.map((reader) => reader.leave()))
      await Promise.all(working)
    },
  },
]
