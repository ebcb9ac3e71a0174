import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { checkTopic } from '../../core/names.ts'
import { fromNatsSubject, fromNatsToken, natsPartitionOf, natsPartitionSubject, natsStreamName, natsSubject, natsToken } from './names.ts'

const segment = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9_-]{0,12}$/)
const topic = fc
  .array(segment, { minLength: 1, maxLength: 8 })
  .map((segments) => segments.join('.'))
  .filter((name) => name.length <= 200 && isTopic(name))
const group = fc.array(topic, { minLength: 1, maxLength: 3 }).map((names) => names.join('/'))

function isTopic(name: string): boolean {
  try {
    checkTopic(name)
    return true
  } catch {
    return false
  }
}

suite('names at NATS', () => {
  test('a name as a token can be undone, and is one token', () => {
    fc.assert(
      fc.property(group, (name) => {
        assert.equal(fromNatsToken(natsToken(name)), name)
        assert.match(natsToken(name), /^[\w-]+$/)
      }),
    )
  })

  test('two topics never share a stream or a subject', () => {
    fc.assert(
      fc.property(topic, topic, fc.nat(20), (one, other, partition) => {
        fc.pre(one !== other)
        assert.notEqual(natsStreamName('waybill', one), natsStreamName('waybill', other))
        const subjects = new Set([
          natsSubject('w', one),
          natsPartitionSubject('w', one, partition),
          natsSubject('w', other),
          natsPartitionSubject('w', other, partition),
        ])
        assert.equal(subjects.size, 4)
      }),
    )
  })

  test('a subject tells its topic and partition', () => {
    fc.assert(
      fc.property(topic, fc.nat(255), (name, partition) => {
        assert.deepEqual(fromNatsSubject('w', natsPartitionSubject('w', name, partition)), { topic: name, partition })
        assert.deepEqual(fromNatsSubject('w', natsSubject('w', name)), { topic: name, partition: 0 })
      }),
    )
  })

  test('the longest topics have streams whose names the server takes, each its own', () => {
    const names = ['a'.repeat(200), `a${'_'.repeat(199)}`, `a${'_'.repeat(198)}b`, `a${'_'.repeat(197)}bc`].map((name) =>
      natsStreamName('p'.repeat(32), name),
    )
    assert.equal(new Set(names).size, 4)
    for (const name of names) assert.ok(name.length < 255, String(name.length))
  })

  test('a key has one partition, and keys spread', () => {
    const counts = Array.from({ length: 12 }, () => 0)
    for (let number = 0; number < 12_000; number++) counts[natsPartitionOf(`customer-${number}`, 12)]!++
    for (const count of counts) assert.ok(count > 700 && count < 1300, String(counts))
    // As others may reckon it: FNV-1a, 32 bits, over UTF-8.
    assert.equal(natsPartitionOf('a', 1000), 0xe40c292c % 1000)
    const twoBytes = Math.imul(Math.imul(0x811c9dc5 ^ 0xc3, 0x01000193) ^ 0xbc, 0x01000193) >>> 0
    assert.equal(natsPartitionOf('ü', 1000), twoBytes % 1000)
  })
})
