import assert from 'node:assert/strict'
import { test } from 'node:test'
import { newId } from './ids.ts'

const V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
const msOf = (id: string): number => Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16)

test('ids have the form of RFC 9562 version 7: time first, version and variant bits set', () => {
  const before = Date.now()
  for (let index = 0; index < 10_000; index++) assert.match(newId(), V7)
  const ms = msOf(newId())
  assert.ok(ms >= before && ms <= Date.now() + 50, 'the time is the clock’s, or a little ahead of it')
})

test('a million ids rise strictly, so none comes twice', () => {
  let last = newId()
  for (let index = 0; index < 1_000_000; index++) {
    const id = newId()
    if (id <= last) assert.fail(`${id} after ${last} at ${index}`)
    last = id
  }
  assert.match(last, V7)
})

test('a clock that stands still or goes back does not make ids fall', () => {
  const start = Date.now() + 1_000_000
  let last = newId(start)
  assert.equal(msOf(last), start)
  for (let index = 0; index < 20_000; index++) {
    const id = newId(start - index * 10)
    assert.ok(id > last, `${id} after ${last}`)
    last = id
  }
  assert.match(last, V7)
  assert.ok(msOf(last) > start, 'the counter overflowed into the time')
  assert.ok(newId(start + 1_000_000) > last)
})

test('the random part is drawn anew for each id', () => {
  const tails = new Set(Array.from({ length: 5_000 }, () => newId().slice(19)))
  assert.equal(tails.size, 5_000)
  // 5,000 draws leave no bit of the last byte constant.
  const bytes = [...tails].map((tail) => Number.parseInt(tail.slice(-2), 16))
  assert.equal(
    bytes.reduce((all, byte) => all | byte, 0),
    255,
  )
  assert.equal(
    bytes.reduce((all, byte) => all & byte, 255),
    0,
  )
})
