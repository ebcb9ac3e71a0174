import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { createGapWatch, type StreamState } from './gap-watch.ts'

/** A stream with ids 1-0, 2-0 ...: `added` ever, the last `length` are there, delivered up to `read`. */
const state = (added: number, length: number, read: number, known = read): StreamState => ({
  added,
  length,
  lastId: `${added}-0`,
  delivered: `${read}-0`,
  read: known,
})

suite('gaps', () => {
  test('what is read, settled and trimmed is none', () => {
    const watch = createGapWatch(state(10, 10, 4))
    assert.equal(watch.look(state(10, 10, 4), '4-0'), undefined)
    watch.read(6)
    assert.equal(watch.look(state(10, 2, 10), '10-0'), undefined)
    assert.equal(watch.look(state(10, 0, 10), '10-0'), undefined)
  })

  test('what is trimmed before it was read is counted, once', () => {
    const watch = createGapWatch(state(10, 10, 4))
    assert.equal(watch.look(state(20, 10, 4), '4-0')?.missing, 6)
    assert.equal(watch.look(state(20, 10, 4), '4-0'), undefined)
    watch.read(10)
    assert.equal(watch.look(state(20, 10, 20), '20-0'), undefined)
  })

  test('what was deleted in the middle is counted when all else is read', () => {
    const watch = createGapWatch(state(10, 10, 10))
    watch.read(3)
    assert.equal(watch.look(state(15, 13, 15), '15-0')?.missing, 2)
  })

  test('while a fetch is on its way nothing is said', () => {
    const watch = createGapWatch(state(10, 10, 4))
    assert.equal(watch.look(state(20, 10, 14), '4-0'), undefined)
  })

  test('a stream that is older than what was read from it', () => {
    const watch = createGapWatch(state(10, 10, 10))
    assert.equal(watch.look(state(7, 7, 5), '10-0')?.isOlder, true)
  })

  test('without knowing where it began, it begins to count when all is read', () => {
    const watch = createGapWatch(state(10, 10, 4, -1))
    assert.equal(watch.look(state(20, 5, 4, -1), '4-0'), undefined)
    watch.forget()
    assert.equal(watch.look(state(20, 5, 20), '20-0'), undefined)
    assert.equal(watch.look(state(25, 0, 20), '20-0')?.missing, 5)
  })
})
