import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { parseRedisStreamName, redisKeys, redisPartition, redisStreamName } from './names.ts'

const segment = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9_-]{0,8}$/)
const topic = fc
  .array(segment, { minLength: 1, maxLength: 4 })
  .map((parts) => parts.join('.'))
  .filter((name) => !/-partition-\d+$/.test(name))
const partition = fc.integer({ min: 0, max: 1023 })
const prefix = fc.stringMatching(/^[a-z][a-z0-9_.-]{0,8}$/)

suite('names of streams', () => {
  test('a stream leads back to its topic and partition, and no two share one', () => {
    fc.assert(
      fc.property(topic, partition, prefix, topic, partition, (one, number, before, other, otherNumber) => {
        const name = redisStreamName(one, number, before)
        assert.deepEqual(parseRedisStreamName(name, before), { topic: one, partition: number })
        if (one !== other || number !== otherNumber) assert.notEqual(name, redisStreamName(other, otherNumber, before))
      }),
    )
  })

  test('all keys of a partition share a hash tag, and so a slot of a cluster', () => {
    const keys = redisKeys('waybill', 'test')
    const stream = keys.stream('order.Placed', 3)
    for (const key of [stream, keys.lease(stream, 'a/b'), keys.fence(stream)]) assert.equal(/\{([^}]+)\}/.exec(key)?.[1], 'order.Placed:3')
    for (const key of [keys.topic('order.Placed'), keys.members('order.Placed', 'a/b'), keys.bell('order.Placed', 'a/b')])
      assert.equal(/\{([^}]+)\}/.exec(key)?.[1], 'order.Placed')
  })

  test('what is none of ours leads nowhere', () => {
    for (const name of [
      '',
      'waybill',
      'waybill:{a}',
      'waybill:{a:01}',
      'waybill:{a:x}',
      'waybill:{a b:1}',
      'other:{a:1}',
      'waybill:{a:1}:fence',
    ])
      assert.equal(parseRedisStreamName(name), undefined, name)
    assert.throws(() => redisStreamName('a b', 0), { code: 'INVALID_NAME' })
    assert.throws(() => redisStreamName('a', 0, '{'), { code: 'INVALID_OPTION' })
  })

  test('the partition of a key is the CRC-32 that other languages know', () => {
    // Python: zlib.crc32('123456789'.encode()) == 0xcbf43926
    assert.equal(redisPartition('123456789', 1024), 0xcbf43926 % 1024)
    assert.equal(redisPartition('clé 🔑', 1), 0)
    fc.assert(fc.property(fc.string(), fc.integer({ min: 1, max: 1024 }), (key, count) => redisPartition(key, count) < count))
  })
})
