import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isWaybillError } from '../core/errors.ts'
import { createFakeClock } from './fake-clock.ts'

test('sleeps end in the order in which they are due, each at its own time', async () => {
  const clock = createFakeClock(1_000)
  const seen: [string, number][] = []
  for (const [name, ms] of [
    ['c', 30],
    ['a', 10],
    ['b', 20],
    ['a2', 10],
    ['late', 51],
  ] as const)
    void clock.sleep(ms).then(() => seen.push([name, clock.now()]))
  await clock.advance(50)
  assert.deepEqual(seen, [
    ['a', 1010],
    ['a2', 1010],
    ['b', 1020],
    ['c', 1030],
  ])
  assert.equal(clock.now(), 1050)
  assert.equal(clock.pending, 1)
})

test('code that is woken runs until it sleeps again, within one advance', async () => {
  const clock = createFakeClock(0)
  const ticks: number[] = []
  const abort = new AbortController()
  const loop = (async () => {
    while (!abort.signal.aborted) {
      await clock.sleep(100, abort.signal)
      await Promise.resolve()
      ticks.push(clock.now())
    }
  })()
  await clock.advance(350)
  assert.deepEqual(ticks, [100, 200, 300])
  abort.abort()
  await loop
  assert.equal(clock.pending, 0)
})

test('an abort ends a sleep at once and without an error; a sleep of nothing ends by itself', async () => {
  const clock = createFakeClock()
  const abort = new AbortController()
  const sleeping = clock.sleep(1_000, abort.signal)
  assert.equal(clock.pending, 1)
  abort.abort()
  await sleeping
  await clock.sleep(1_000, abort.signal)
  await clock.sleep(0)
  assert.equal(clock.pending, 0)
})

test('a loop that never rests and a time that is none are errors', async () => {
  const clock = createFakeClock(0)
  await assert.rejects(clock.advance(-1), (error) => isWaybillError(error, 'INVALID_OPTION'))
  await assert.rejects(clock.advance(NaN), (error) => isWaybillError(error, 'INVALID_OPTION'))
  let stop = false
  const loop = (async () => {
    while (!stop) await clock.sleep(0.000_001)
  })()
  await assert.rejects(clock.advance(1), (error) => isWaybillError(error, 'QUEUE_FULL'))
  stop = true
  await clock.advance(1)
  await loop
})
