import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isWaybillError } from '../core/errors.ts'
import { createRecorder } from './recorder.ts'

const published = (count: number) => ({ type: 'relay.published', count, durationMs: 1 }) as const

test('records in order and sorts by type', () => {
  const recorder = createRecorder()
  recorder.observe(published(1))
  recorder.observe({ type: 'relay.failed', error: 'x' })
  recorder.observe(published(2))
  assert.equal(recorder.events.length, 3)
  assert.deepEqual(
    recorder.ofType('relay.published').map(({ count }) => count),
    [1, 2],
  )
  recorder.clear()
  assert.deepEqual(recorder.events, [])
})

test('waitFor gives what came before the call as well as what comes after', async () => {
  const recorder = createRecorder()
  recorder.observe(published(1))
  assert.equal((await recorder.waitFor('relay.published')).count, 1)
  const waiting = recorder.waitFor('relay.published', ({ count }) => count > 2)
  recorder.observe(published(2))
  recorder.observe(published(3))
  recorder.observe(published(4))
  assert.equal((await waiting).count, 3)
})

test('waitFor has a limit, and says what it saw instead', async () => {
  const recorder = createRecorder()
  recorder.observe(published(1))
  await assert.rejects(
    recorder.waitFor('relay.parked', undefined, 1),
    (error) => isWaybillError(error, 'TIMEOUT') && /1 × relay\.published/.test(error.message),
  )
  await assert.rejects(
    async () => recorder.waitFor('relay.parked', undefined, 0),
    (error) => isWaybillError(error, 'INVALID_OPTION'),
  )
})

test('a predicate that throws fails the one who waits, not the one observed', async () => {
  const recorder = createRecorder()
  const waiting = recorder.waitFor('relay.published', () => {
    throw new Error('mine')
  })
  recorder.observe(published(1))
  await assert.rejects(waiting, /mine/)
})

test('the oldest make room', () => {
  const recorder = createRecorder(2)
  for (const count of [1, 2, 3]) recorder.observe(published(count))
  assert.deepEqual(
    recorder.ofType('relay.published').map(({ count }) => count),
    [2, 3],
  )
})
