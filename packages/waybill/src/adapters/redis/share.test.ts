import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { shareOf } from './share.ts'

test('members share all partitions, none has two more than another, and each begins where no other does', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.stringMatching(/^[0-9a-f]{8}$/), { minLength: 1, maxLength: 20 }),
      fc.integer({ min: 1, max: 64 }),
      fc.stringMatching(/^[a-z]{1,8}$/),
      (members, partitions, topic) => {
        const shares = members.map((member) => shareOf(member, members, partitions, topic))
        const counts = shares.map(({ count }) => count)
        assert.equal(
          counts.reduce((sum, count) => sum + count, 0),
          partitions,
        )
        assert.ok(Math.max(...counts) - Math.min(...counts) <= 1)
        const taken = shares.flatMap(({ count, first }) => Array.from({ length: count }, (_, at) => (first + at) % partitions))
        assert.equal(new Set(taken).size, partitions)
        assert.deepEqual(shareOf('nobody', members, partitions, topic), { count: 0, first: 0 })
      },
    ),
  )
})
