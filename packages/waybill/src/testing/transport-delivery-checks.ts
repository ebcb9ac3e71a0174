import assert from 'node:assert/strict'
import { needsDelay, needsKeeping, needsSharing, type TransportCheck } from './transport-checks.ts'
import { ackAll, message, messages, texts } from './transport-tools.ts'

/** Groups, positions and the settle verbs. */
export const deliveryChecks: readonly TransportCheck[] = [
  {
    check: 'groups-fan-out',
    name: 'each of three groups gets every message',
    async run({ topic, group, read, send }) {
      const name = topic()
      const groups = [await group([name]), await group([name]), await group([name])]
      const readers = groups.map((groupName) => read({ topics: [name], group: groupName }))
      const publishing = send(messages(name, ['a', 'b'], 50))
      for (const reader of readers) {
        const deliveries = await reader.take(100)
        assert.equal(new Set(deliveries.map((delivery) => delivery.message.id)).size, 100)
        await ackAll(deliveries)
      }
      await publishing.stored
    },
  },
  {
    check: 'topic-isolation',
    name: 'topics do not mix, and one subscription may read several',
    async run({ topic, group, read, send }) {
      const names = Array.from({ length: 20 }, topic)
      const alone = await Promise.all(names.map((name) => group([name])))
      const together = await group(names)
      const readers = names.map((name, index) => read({ topics: [name], group: alone[index]! }))
      const reader = read({ topics: names, group: together })
      const publishing = names.map((name) => send([message(name, name)]))
      for (const [index, name] of names.entries()) {
        const [delivery] = await readers[index]!.take(1)
        assert.equal(delivery!.message.topic, name)
        assert.equal(texts([delivery!])[0], `${name}#0`)
        await delivery!.ack()
      }
      const all = await reader.take(20)
      assert.deepEqual(all.map((delivery) => delivery.message.topic).toSorted(), names.toSorted())
      await ackAll(all)
      await Promise.all(publishing.map(({ stored }) => stored))
    },
  },
  {
    check: 'start-position',
    name: 'a new group begins where it says, and one that exists goes on where it was',
    requires: needsKeeping,
    async run({ topic, group, read, send }) {
      const name = topic()
      const known = await group([name])
      const reader = read({ topics: [name], group: known })
      const before = send([message(name, 'a', 0)])
      await before.underway
      await ackAll(await reader.take(1))
      await before.stored
      await reader.leave()
      const latest = read({ topics: [name], group: `${known}-latest`, start: 'latest' })
      const earliest = read({ topics: [name], group: `${known}-earliest`, start: 'earliest' })
      const [old] = await earliest.take(1)
      assert.deepEqual(texts([old!]), ['a#0'])
      await old!.ack()
      const after = send([message(name, 'a', 1)])
      // 'earliest' means nothing to a group that has a position.
      for (const each of [latest, earliest, read({ topics: [name], group: known, start: 'earliest' })]) {
        const [delivery] = await each.take(1)
        assert.deepEqual(texts([delivery!]), ['a#1'])
        await delivery!.ack()
      }
      await after.stored
    },
  },
  {
    check: 'start-position',
    name: 'a tail sees everything and settles nothing',
    async run({ topic, group, read, send }) {
      const name = topic()
      const tail = read({ topics: [name], start: 'latest' })
      const grouped = read({ topics: [name], group: await group([name]) })
      const publishing = send(messages(name, ['a'], 3))
      const tailed = await tail.take(3)
      assert.deepEqual(texts(tailed), ['a#0', 'a#1', 'a#2'])
      await ackAll(tailed)
      const deliveries = await grouped.take(3)
      assert.deepEqual(texts(deliveries), ['a#0', 'a#1', 'a#2'])
      await ackAll(deliveries)
      await publishing.stored
    },
  },
  {
    check: 'no-ack-no-progress',
    name: 'what was not settled when a member left is delivered again',
    requires: needsSharing,
    async run({ topic, group, read, send }) {
      const name = topic()
      const groupName = await group([name])
      const first = read({ topics: [name], group: groupName })
      const publishing = send(messages(name, ['a', 'b'], 2))
      await publishing.underway
      const held = await first.take(4)
      assert.ok(held.every(({ redelivered }) => redelivered !== 'yes'))
      await first.leave()
      assert.ok(
        held.every(({ assignment }) => assignment.signal.aborted),
        'the assignment is lost',
      )
      const again = await read({ topics: [name], group: groupName }).take(4)
      assert.deepEqual(texts(again).toSorted(), ['a#0', 'a#1', 'b#0', 'b#1'])
      assert.ok(again.every(({ redelivered }) => redelivered !== 'no'))
      await ackAll(again)
      await publishing.stored
    },
  },
  {
    check: 'contiguous-commit',
    name: 'settling out of order loses nothing: what is unsettled between settled messages comes again',
    requires: needsSharing,
    async run({ topic, group, read, send }) {
      const name = topic()
      const groupName = await group([name])
      const first = read({ topics: [name], group: groupName })
      const publishing = send(messages(name, ['a', 'b', 'c', 'd', 'e'], 1))
      await publishing.underway
      const held = await first.take(5)
      await ackAll(held.filter((delivery) => delivery.message.key === 'b' || delivery.message.key === 'd'))
      await first.leave()
      const second = read({ topics: [name], group: groupName })
      const missing = new Set(['a#0', 'c#0', 'e#0'])
      while (missing.size > 0) {
        const [delivery] = await second.take(1)
        missing.delete(texts([delivery!])[0]!)
        await delivery!.ack()
      }
      await publishing.stored
    },
  },
  {
    check: 'ack-twice-ack-after-close',
    name: 'what was settled does not come again; settling twice, or the other way afterwards, changes nothing',
    requires: needsSharing,
    async run({ topic, group, read, send }) {
      const name = topic()
      const groupName = await group([name])
      const first = read({ topics: [name], group: groupName })
      const publishing = send([message(name, 'a', 0)])
      const [delivery] = await first.take(1)
      await delivery!.ack()
      await delivery!.ack()
      await delivery!.release()
      await delivery!.retry(0)
      await publishing.stored
      await first.leave()
      const marker = send([message(name, 'a', 1)])
      const [next] = await read({ topics: [name], group: groupName }).take(1)
      assert.deepEqual(texts([next!]), ['a#1'])
      await next!.ack()
      await marker.stored
    },
  },
  {
    check: 'ack-twice-ack-after-close',
    name: 'a late settle of a member that has left does not settle what another holds',
    requires: needsSharing,
    async run({ topic, group, read, send }) {
      const name = topic()
      const groupName = await group([name])
      const first = read({ topics: [name], group: groupName })
      const publishing = send([message(name, 'a', 0)])
      await publishing.underway
      const [early] = await first.take(1)
      await first.leave()
      const second = read({ topics: [name], group: groupName })
      await second.take(1)
      await early!.ack()
      await second.leave()
      const [delivery] = await read({ topics: [name], group: groupName }).take(1)
      assert.deepEqual(texts([delivery!]), ['a#0'])
      await delivery!.ack()
      await publishing.stored
    },
  },
  {
    check: 'nack-redelivers',
    name: 'released messages come again, in their place',
    async run({ topic, group, read, send }) {
      const name = topic()
      const reader = read({ topics: [name], group: await group([name]), batchMax: 3 })
      const publishing = send(messages(name, ['a'], 5))
      await publishing.underway
      const [zero, ...others] = await reader.take(3)
      await zero!.ack()
      for (const delivery of others) await delivery.release()
      const again = await reader.take(4)
      assert.deepEqual(texts(again), ['a#1', 'a#2', 'a#3', 'a#4'])
      assert.ok(again.slice(0, 2).every(({ redelivered }) => redelivered !== 'no'))
      await ackAll(again)
      await publishing.stored
    },
  },
  {
    check: 'nack-redelivers',
    name: 'a delayed message comes again after its delay, and others do not wait for it',
    requires: needsDelay,
    async run({ topic, group, read, send }) {
      const name = topic()
      const reader = read({ topics: [name], group: await group([name]) })
      const publishing = send([message(name, 'a', 0)])
      const [delivery] = await reader.take(1)
      const startedMs = performance.now()
      await delivery!.retry(200)
      const other = send([message(name, 'b', 0)])
      const [overtaking] = await reader.take(1)
      assert.deepEqual(texts([overtaking!]), ['b#0'])
      await overtaking!.ack()
      const [again] = await reader.take(1)
      assert.deepEqual(texts([again!]), ['a#0'])
      assert.ok(performance.now() - startedMs >= 198, 'it came before its time')
      await again!.ack()
      await Promise.all([publishing.stored, other.stored])
    },
  },
  {
    check: 'back-pressure',
    name: 'not pulling is the way to pause: no array is larger than asked for',
    async run({ topic, group, read, send }) {
      const name = topic()
      const reader = read({ topics: [name], group: await group([name]), batchMax: 7 })
      const publishing = send(messages(name, ['a'], 50))
      await publishing.underway
      let seen = 0
      const done = Promise.withResolvers<void>()
      const working = reader.each(async (deliveries) => {
        assert.ok(deliveries.length > 0 && deliveries.length <= 7, `${deliveries.length} at once`)
        seen += deliveries.length
        await ackAll(deliveries)
        if (seen === 50) done.resolve()
      })
      await Promise.race([done.promise, working])
      await publishing.stored
      await reader.leave()
      await working
    },
  },
]
