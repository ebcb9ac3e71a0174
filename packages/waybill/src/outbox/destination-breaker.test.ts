import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createDestinationBreaker, type DestinationBreaker } from './destination-breaker.ts'
import { createRecentRows } from './recent-rows.ts'

function bench(): { readonly breaker: DestinationBreaker; readonly changes: string[]; readonly pass: (ms: number) => void } {
  const changes: string[] = []
  let nowMs = 0
  const clock = { now: () => nowMs, sleep: async () => {} }
  const breaker = createDestinationBreaker(clock, (from, to) => changes.push(`${from} > ${to}`), {
    failuresMax: 2,
    openMs: 100,
    openMaxMs: 300,
  })
  const pass = (ms: number): void => {
    nowMs += ms
  }
  return { breaker, changes, pass }
}

test('it opens at failures in a row, not at failures in all', () => {
  const { breaker, changes } = bench()
  for (let round = 0; round < 5; round++) {
    breaker.failed()
    breaker.succeeded()
  }
  assert.equal(breaker.admits, 'all')
  breaker.failed()
  breaker.failed()
  assert.deepEqual([breaker.admits, breaker.waitMs, changes], ['none', 100, ['closed > open']])
})

test('half-open it admits one probe at a time, and the next where that one had no answer', () => {
  const { breaker, pass } = bench()
  breaker.failed()
  breaker.failed()
  pass(99)
  assert.equal(breaker.admits, 'none')
  pass(1)
  assert.equal(breaker.admits, 'one')
  breaker.probe()
  assert.equal(breaker.admits, 'none')
  breaker.abandonProbe()
  assert.equal(breaker.admits, 'one')
})

test('a failed probe opens it for twice as long, up to a limit; a success closes it and forgets that', () => {
  const { breaker, pass, changes } = bench()
  breaker.failed()
  breaker.failed()
  const waits: number[] = []
  for (let round = 0; round < 4; round++) {
    waits.push(breaker.waitMs)
    pass(breaker.waitMs)
    assert.equal(breaker.state, 'half-open')
    breaker.probe()
    breaker.failed()
  }
  assert.deepEqual(waits, [100, 200, 300, 300])
  pass(300)
  assert.equal(breaker.state, 'half-open')
  breaker.succeeded()
  assert.equal(breaker.admits, 'all')
  breaker.failed()
  breaker.failed()
  assert.equal(breaker.waitMs, 100)
  assert.equal(changes.at(-1), 'closed > open')
})

test('answers to calls from before it opened change nothing', () => {
  const { breaker } = bench()
  breaker.failed()
  breaker.failed()
  breaker.succeeded()
  breaker.failed()
  assert.deepEqual([breaker.state, breaker.waitMs], ['open', 100])
})

test('remembered rows are bounded; the oldest are forgotten', () => {
  const rows = createRecentRows(2)
  for (const rowId of ['1', '2', '3']) rows.add(rowId)
  assert.deepEqual(
    ['1', '2', '3'].map((rowId) => rows.has(rowId)),
    [false, true, true],
  )
  rows.delete('2')
  assert.equal(rows.has('2'), false)
})

test('a clock that is set back does not keep it open', () => {
  const { breaker, pass } = bench()
  breaker.failed()
  breaker.failed()
  pass(-3_600_000)
  assert.equal(breaker.admits, 'one')
})
