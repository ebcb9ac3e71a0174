import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { compareIds, idBefore, idBeforeTime, sequenceOf } from './stream-id.ts'

const id = fc.tuple(fc.integer({ min: 1, max: 2 ** 41 }), fc.integer({ min: 0, max: 2 ** 20 })).map(([ms, number]) => `${ms}-${number}`)

suite('ids of a stream', () => {
  test('the one before comes before, with nothing in between; sequences rise like ids', () => {
    fc.assert(
      fc.property(id, id, (one, other) => {
        assert.ok(compareIds(idBefore(one), one) < 0)
        if (compareIds(other, one) < 0) assert.ok(compareIds(other, idBefore(one)) <= 0)
        assert.equal(
          Math.sign(compareIds(one, other)),
          Number(sequenceOf(one) > sequenceOf(other)) - Number(sequenceOf(one) < sequenceOf(other)),
        )
      }),
    )
  })

  test('edges', () => {
    assert.equal(idBefore('5-0'), '4-18446744073709551615')
    assert.equal(idBefore('0-0'), '0-0')
    assert.equal(idBeforeTime(-5), '0-0')
    assert.equal(idBeforeTime(1.5), '1-18446744073709551615')
    assert.ok(sequenceOf('2199023255551-9999999') < 2n ** 63n)
  })
})
