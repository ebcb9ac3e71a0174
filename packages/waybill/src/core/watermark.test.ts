import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isWaybillError } from './errors.ts'
import { createWatermark } from './watermark.ts'

test('only the contiguous prefix of finished work may be committed', () => {
  const watermark = createWatermark()
  for (const sequence of [5n, 6n, 9n, 10n]) watermark.begin(sequence)
  assert.equal(watermark.finish(6n), undefined)
  assert.equal(watermark.finish(5n), 6n)
  assert.equal(watermark.finish(10n), undefined)
  assert.equal(watermark.size, 2)
  assert.equal(watermark.finish(9n), 10n)
  assert.equal(watermark.size, 0)
})

test('in any order of beginnings and ends, what is committable is below everything unfinished, and nothing finished waits without need', () => {
  const run = fc.record({
    gaps: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 60 }),
    picks: fc.array(fc.nat(), { minLength: 200, maxLength: 200 }),
  })
  fc.assert(
    fc.property(run, ({ gaps, picks }) => {
      const watermark = createWatermark()
      const open: bigint[] = []
      const begun: bigint[] = []
      let next = 0n
      let committed: bigint | undefined
      let at = 0
      const end = (): void => {
        const [sequence] = open.splice(picks[at++ % picks.length]! % open.length, 1)
        const moved = watermark.finish(sequence!)
        if (moved !== undefined) {
          assert.ok(committed === undefined || moved > committed, 'it only rises')
          committed = moved
        }
        const expected = begun.filter((one) => open.every((unfinished) => one < unfinished)).at(-1)
        assert.equal(committed, expected)
      }
      for (const gap of gaps) {
        next += BigInt(gap)
        watermark.begin(next)
        open.push(next)
        begun.push(next)
        if (picks[at++ % picks.length]! % 2 === 0) end()
      }
      while (open.length > 0) end()
      assert.equal(committed, next)
      assert.equal(watermark.size, 0)
    }),
  )
})

test('ending twice, or what never began, changes nothing', () => {
  const watermark = createWatermark()
  watermark.begin(1n)
  watermark.begin(2n)
  assert.equal(watermark.finish(2n), undefined)
  assert.equal(watermark.finish(2n), undefined)
  assert.equal(watermark.finish(7n), undefined)
  assert.equal(watermark.finish(1n), 2n)
  assert.equal(watermark.finish(1n), undefined)
})

test('positions must rise, and may run ahead only so far', () => {
  const watermark = createWatermark(2)
  watermark.begin(4n)
  for (const sequence of [4n, 3n])
    assert.throws(
      () => watermark.begin(sequence),
      (error) => isWaybillError(error, 'INVALID_OPTION'),
    )
  watermark.begin(5n)
  assert.throws(
    () => watermark.begin(6n),
    (error) => isWaybillError(error, 'QUEUE_FULL'),
  )
  watermark.finish(4n)
  watermark.begin(6n)
})
