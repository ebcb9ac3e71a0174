import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { checkGroup, checkTopic } from '../../core/names.ts'
import { decodeMessageId, encodeMessageId, sequenceOf } from './message-id.ts'
import { groupOfSubscription, partitionName, pulsarTopicName, subscriptionName, topicOfPulsarName } from './names.ts'

const HOME = { persistence: 'persistent', tenant: 'public', namespace: 'default' } as const
const PIECES = ['a', 'B', '0', '_', '-', '.', '/', '~', '-partition-', 'partition', '%2F', '7']
const ROUNDS = 5_000

/** Names made of what could be mistaken for something else; each seed gives the same ones. */
function* randomNames(check: (value: unknown) => string): Generator<string> {
  let seed = 7
  const next = (max: number): number => {
    seed = (seed * 48_271) % 2_147_483_647
    return seed % max
  }
  for (let round = 0; round < ROUNDS; round++) {
    const name = Array.from({ length: 1 + next(8) }, () => PIECES[next(PIECES.length)]).join('')
    try {
      yield check(name)
    } catch {
      // Refused everywhere, so there is nothing to map.
    }
  }
}

suite('names at Pulsar', () => {
  test('each topic has a name of its own, which leads back to it, from its partitions too', () => {
    const names = new Map<string, string>()
    for (const topic of randomNames(checkTopic)) {
      const name = pulsarTopicName(topic, HOME)
      assert.equal(names.get(name) ?? topic, topic)
      names.set(name, topic)
      assert.equal(topicOfPulsarName(name, HOME), topic)
      assert.equal(topicOfPulsarName(partitionName(name, 12), HOME), topic)
    }
    assert.ok(names.size > 100)
  })

  test('each group has a subscription of its own, which leads back to it and is no path', () => {
    const names = new Map<string, string>()
    for (const group of randomNames(checkGroup)) {
      const name = subscriptionName(group)
      assert.equal(names.get(name) ?? group, group)
      names.set(name, group)
      assert.equal(groupOfSubscription(name), group)
      assert.match(name, /^[\w.~-]+$/)
    }
    assert.ok(names.size > 100)
  })

  test('topics of other tenants, namespaces and kinds, and names that we could not have made, are none of ours', () => {
    for (const name of [
      'persistent://public/other/a',
      'persistent://other/default/a',
      'non-persistent://public/default/a',
      'persistent://public/default/__change_events',
      'persistent://public/default/a b',
      'persistent://public/default/',
    ])
      assert.equal(topicOfPulsarName(name, HOME), undefined, name)
  })

  test('a subscription that somebody else has named stands for itself', () => {
    assert.equal(groupOfSubscription('my sub!'), 'my sub!')
  })

  test('hostile topics and groups are refused', () => {
    for (const bad of ['', 'a b', '../a', 'a..b', 'a\0', 'persistent://public/default/a', 'a-partition-3', 'x'.repeat(300)])
      assert.throws(() => pulsarTopicName(bad, HOME), { code: 'INVALID_NAME' })
    for (const bad of ['', '/', 'a//b', 'a~b', 'a/../b']) assert.throws(() => subscriptionName(bad), { code: 'INVALID_NAME' })
  })
})

suite('places at Pulsar', () => {
  test('a place survives the way to bytes and back, also the ones before the first', () => {
    for (const ledgerId of [0n, 1n, 127n, 128n, 300n, 2n ** 40n, 2n ** 62n, -1n])
      for (const entryId of [-1n, 0n, 5n, 2n ** 20n])
        assert.deepEqual(decodeMessageId(encodeMessageId({ ledgerId, entryId })), { ledgerId, entryId, batchIndex: -1n })
  })

  test("a broker's own id is read, with what it says beyond the place", () => {
    assert.deepEqual(decodeMessageId(Buffer.from('CBAQADAA', 'base64')), { ledgerId: 16n, entryId: 0n, batchIndex: -1n })
    assert.equal(decodeMessageId(Buffer.from([...encodeMessageId({ ledgerId: 16n, entryId: 0n }), 0x20, 3]))?.batchIndex, 3n)
  })

  test('sequences rise as places do; what is no place has none', () => {
    const of = (ledgerId: bigint, entryId: bigint): bigint | undefined => sequenceOf(encodeMessageId({ ledgerId, entryId }))
    assert.ok(of(3n, 7n)! < of(3n, 8n)!)
    assert.ok(of(3n, 2n ** 27n)! < of(4n, 0n)!)
    for (const bytes of [new Uint8Array(), Uint8Array.of(8), Uint8Array.of(8, 0xff), Uint8Array.of(1, 2, 3)])
      assert.equal(sequenceOf(bytes), undefined)
    assert.equal(of(-1n, -1n), undefined)
  })
})
