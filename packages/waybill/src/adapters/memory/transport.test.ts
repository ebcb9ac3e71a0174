import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { createFakeClock } from '../../testing/fake-clock.ts'
import { transportContract } from '../../testing/transport-contract.ts'
import { message, messages, numberOf, texts } from '../../testing/transport-tools.ts'
import type { Delivery, PublishOutcome, Source, Transport } from '../../core/transport.ts'
import { memoryTransport } from './transport.ts'

suite('memory, acknowledging what is handled', () => {
  transportContract(test, async () => memoryTransport({ acknowledge: 'handled', messageMaxBytes: 4096 }), { messageMaxBytes: 4096 })
})

const forever = new AbortController().signal

/** One pull of a subscription that stays open. */
function subscribe(transport: Transport, source: Source): { next(): Promise<readonly Delivery[]>; leave(): void } {
  const stop = new AbortController()
  const iterator = transport.subscribe(source, stop.signal)[Symbol.asyncIterator]()
  return {
    next: async () => ((await iterator.next()) as IteratorYieldResult<readonly Delivery[]>).value,
    leave: () => stop.abort(),
  }
}

const codes = (outcomes: readonly PublishOutcome[]): string[] =>
  outcomes.map((outcome) => (outcome.kind === 'stored' ? 'stored' : outcome.error.code))

suite('memory, limits', () => {
  test('a group that is full refuses with QUEUE_FULL until something is settled; nothing of the key slips past', async () => {
    const transport = memoryTransport({ queueMax: 3 })
    await transport.declareGroups([{ topic: 't', group: 'g' }])
    const outcomes = await transport.publish(messages('t', ['a', 'b'], 2), forever)
    assert.deepEqual(codes(outcomes), ['stored', 'stored', 'stored', 'QUEUE_FULL'])
    const reader = subscribe(transport, { topics: ['t'], group: 'g' })
    const [first] = await reader.next()
    assert.deepEqual(codes(await transport.publish([message('t', 'c')], forever)), ['QUEUE_FULL'], 'handed out is not settled')
    await first!.ack()
    assert.deepEqual(codes(await transport.publish([message('t', 'b', 1), message('t', 'b', 2)], forever)), ['stored', 'QUEUE_FULL'])
    await transport.close()
  })

  test('of what all groups have passed, only the newest `retainMax` are kept for a group that begins later', async () => {
    const transport = memoryTransport({ retainMax: 3 })
    const known = subscribe(transport, { topics: ['t'], group: 'known' })
    await transport.publish(messages('t', ['a'], 10), forever)
    const held = await known.next()
    assert.equal(held.length, 10)
    const late = await subscribe(transport, { topics: ['t'], group: 'late' }).next()
    assert.deepEqual(texts(late), ['a#7', 'a#8', 'a#9'])
    // What was let go of from the log is still there for whom it was handed to.
    known.leave()
    assert.equal((await subscribe(transport, { topics: ['t'], group: 'known' }).next()).length, 10)
    await transport.close()
  })

  test('a group without members keeps its messages, however many are retained', async () => {
    const transport = memoryTransport({ retainMax: 0 })
    await transport.declareGroups([{ topic: 't', group: 'absent' }])
    for (let call = 0; call < 20; call++) await transport.publish(messages('t', ['a'], 200), forever)
    const reader = subscribe(transport, { topics: ['t'], group: 'absent', batchMax: 10_000 })
    assert.equal((await reader.next()).length, 4000)
    await transport.close()
  })

  test('a slow tail misses what was let go of, and holds nobody up', async () => {
    const transport = memoryTransport({ retainMax: 2 })
    const tail = subscribe(transport, { topics: ['t'], start: 'latest' })
    await transport.publish(messages('t', ['a'], 10), forever)
    assert.deepEqual(texts(await tail.next()), ['a#8', 'a#9'])
    await transport.close()
  })

  test('a member that does not pull keeps only the keys it has unsettled messages of; they are free when it settles', async () => {
    const transport = memoryTransport()
    const slow = subscribe(transport, { topics: ['t'], group: 'g', batchMax: 1 })
    const quick = subscribe(transport, { topics: ['t'], group: 'g' })
    await transport.publish(messages('t', ['a', 'b'], 3), forever)
    const [held] = await slow.next()
    assert.deepEqual(texts([held!]), ['a#0'])
    assert.deepEqual(texts(await quick.next()), ['b#0', 'b#1', 'b#2'])
    const waiting = quick.next()
    await held!.ack()
    assert.deepEqual(texts(await waiting), ['a#1', 'a#2'])
    await transport.close()
  })

  test('the delay of a retry is the clock’s, and ends with the transport', async () => {
    const clock = createFakeClock()
    const transport = memoryTransport({ clock })
    const reader = subscribe(transport, { topics: ['t'], group: 'g' })
    await transport.publish([message('t', 'a', 0), message('t', 'a', 1)], forever)
    const [zero, one] = await reader.next()
    await zero!.retry(5000)
    await one!.ack()
    const again = reader.next()
    await clock.advance(4999)
    assert.equal(await Promise.race([again, new Promise((resolve) => setImmediate(() => resolve('nothing')))]), 'nothing')
    await clock.advance(1)
    const [delayed] = await again
    assert.equal(delayed!.redelivered, 'yes')
    await delayed!.retry(5000)
    await transport.close()
    assert.equal(clock.pending, 0)
  })

  test('property: whatever members do, each message is handed out until it is acked, and a key’s are in order and with one member', async () => {
    const step = fc.oneof(
      fc.record({ type: fc.constant('publish' as const), key: fc.nat(3) }),
      fc.record({
        type: fc.constantFrom('pull' as const, 'ack' as const, 'release' as const, 'leave' as const),
        member: fc.nat(2),
        which: fc.nat(20),
      }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 80 }), fc.integer({ min: 1, max: 5 }), async (steps, batchMax) => {
        const transport = memoryTransport({ acknowledge: 'handled', retainMax: 0 })
        await transport.declareGroups([{ topic: 't', group: 'g' }])
        const source = { topics: ['t'], group: 'g', batchMax }
        const members = [0, 1, 2].map(() => ({ reader: subscribe(transport, source), held: [] as Delivery[], pulling: false }))
        const published = new Map<string, number>()
        const acked = new Map<string, number[]>()
        const outcomes: Promise<readonly PublishOutcome[]>[] = []
        const pull = async (member: (typeof members)[number]): Promise<void> => {
          if (member.pulling) return
          member.pulling = true
          const { reader } = member
          void reader.next().then((deliveries) => {
            // The reader was left meanwhile: these are with somebody else.
            if (reader !== member.reader || deliveries === undefined) return
            member.pulling = false
            for (const delivery of deliveries) {
              for (const other of members)
                assert.ok(
                  other === member || other.held.every((each) => each.message.key !== delivery.message.key),
                  'a key with two members',
                )
              member.held.push(delivery)
            }
          })
          await new Promise((resolve) => setImmediate(resolve))
        }
        const ackFirst = async (member: (typeof members)[number], which: number): Promise<void> => {
          const chosen = member.held[which % Math.max(member.held.length, 1)]
          // The oldest of the key, as somebody who keeps its order would.
          const delivery =
            chosen &&
            member.held
              .filter((each) => each.message.key === chosen.message.key)
              .toSorted((a, b) => Number(a.position.sequence! - b.position.sequence!))[0]
          if (delivery === undefined) return
          member.held.splice(member.held.indexOf(delivery), 1)
          await delivery.ack()
          acked.set(delivery.message.key, [...(acked.get(delivery.message.key) ?? []), numberOf(delivery.message)])
        }
        for (const each of steps) {
          if (each.type === 'publish') {
            const key = `k${each.key}`
            const number = published.get(key) ?? 0
            published.set(key, number + 1)
            outcomes.push(transport.publish([message('t', key, number)], forever))
            continue
          }
          const member = members[each.member]!
          if (each.type === 'pull') await pull(member)
          else if (each.type === 'ack') await ackFirst(member, each.which)
          else if (each.type === 'release') {
            // All of a key, newest first, as somebody who gives it up would.
            const key = member.held[each.which % Math.max(member.held.length, 1)]?.message.key
            const given = member.held.filter((delivery) => delivery.message.key === key)
            member.held = member.held.filter((delivery) => delivery.message.key !== key)
            for (const delivery of given.toReversed()) await delivery.release()
          } else {
            member.reader.leave()
            Object.assign(member, { reader: subscribe(transport, source), held: [], pulling: false })
          }
        }
        for (const member of members) member.reader.leave()
        const rest = subscribe(transport, source)
        const total = [...published.values()].reduce((sum, count) => sum + count, 0)
        while ([...acked.values()].flat().length < total) {
          for (const delivery of await rest.next()) {
            await delivery.ack()
            acked.set(delivery.message.key, [...(acked.get(delivery.message.key) ?? []), numberOf(delivery.message)])
          }
        }
        for (const [key, count] of published)
          assert.deepEqual(
            acked.get(key),
            Array.from({ length: count }, (_, number) => number),
          )
        for (const outcome of await Promise.all(outcomes)) assert.equal(outcome[0]!.kind, 'stored')
        await transport.close()
      }),
      { numRuns: 150 },
    )
  })

  test('options out of range are refused', () => {
    for (const wrong of [{ queueMax: 0 }, { retainMax: -1 }, { messageMaxBytes: Number.NaN }, { acknowledge: 'maybe' as 'stored' }]) {
      assert.throws(() => memoryTransport(wrong), { code: 'INVALID_OPTION' })
    }
    assert.throws(() => memoryTransport().subscribe({ topics: [] }, forever), { code: 'INVALID_OPTION' })
    assert.throws(() => memoryTransport().subscribe({ topics: ['t'], batchMax: 0 }, forever), { code: 'INVALID_OPTION' })
  })
})
