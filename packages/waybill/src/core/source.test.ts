import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { checkSource } from './source.ts'
import type { Source } from './transport.ts'

suite('what is to be read', () => {
  test('has its defaults: from the oldest message, 200 at most, as a tail', () => {
    assert.deepEqual(checkSource({ topics: ['orders'] }, false), { topics: ['orders'], group: undefined, start: 'earliest', batchMax: 200 })
  })

  test('keeps what is given, and each topic once', () => {
    const at = new Date(0)
    assert.deepEqual(checkSource({ topics: ['b', 'a', 'b'], group: 'billing/send', start: { at }, batchMax: 10_000 }, true), {
      topics: ['b', 'a'],
      group: 'billing/send',
      start: { at },
      batchMax: 10_000,
    })
    assert.equal(checkSource({ topics: ['a'], start: 'latest', batchMax: 1 }, false).start, 'latest')
  })

  test('is refused where there is nothing to read, or too much at once', () => {
    for (const topics of [[], 'orders', undefined, null])
      assert.throws(() => checkSource({ topics } as unknown as Source, false), { code: 'INVALID_OPTION', where: 'topics' })
    for (const batchMax of [0, 10_001, 1.5, Number.NaN, '5'])
      assert.throws(() => checkSource({ topics: ['a'], batchMax } as Source, false), { code: 'INVALID_OPTION', where: 'batchMax' })
  })

  test('is refused where a name is none', () => {
    for (const topic of ['', 'a/b', 'a.*', '>', 'a-partition-0', 7, null])
      assert.throws(() => checkSource({ topics: ['fine', topic] } as Source, false), { code: 'INVALID_NAME', where: 'topic' })
    for (const group of ['', 'a//b', '/a', 'a b', 7, null, {}])
      assert.throws(() => checkSource({ topics: ['a'], group } as unknown as Source, false), { code: 'INVALID_NAME', where: 'group' })
  })

  test('begins at the oldest, after the newest or at a time, and nowhere else', () => {
    for (const start of ['first', '', null, 0, {}, { at: '2026-01-01' }, { at: new Date(Number.NaN) }, new Date()])
      assert.throws(() => checkSource({ topics: ['a'], start } as unknown as Source, true), { code: 'INVALID_OPTION', where: 'start' })
  })

  test('cannot begin at a time where the transport cannot: that is said, not guessed', () => {
    assert.throws(() => checkSource({ topics: ['a'], start: { at: new Date(0) } }, false), { code: 'UNSUPPORTED', where: 'start' })
  })
})
