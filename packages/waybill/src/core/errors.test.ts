import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isWaybillError, messageOf, show, WaybillError } from './errors.ts'

test('a message carries what was got, what is allowed and where, and so do the fields', () => {
  const cause = new Error('deep')
  const error = new WaybillError('INVALID_OPTION', 'the wait is too long', { got: 7, allowed: '1 to 5', where: 'retry.maxMs', cause })
  assert.equal(error.message, 'the wait is too long (got 7; allowed: 1 to 5; at retry.maxMs)')
  assert.deepEqual(
    [error.name, error.code, error.got, error.allowed, error.where, error.cause],
    ['WaybillError', 'INVALID_OPTION', '7', '1 to 5', 'retry.maxMs', cause],
  )
  assert.ok(error instanceof Error)
  const bare = new WaybillError('CLOSED', 'stopped')
  assert.equal(bare.message, 'stopped')
  assert.equal(Object.hasOwn(bare, 'cause'), false)
  assert.equal(bare.got, undefined)
  assert.equal(new WaybillError('INVALID_OPTION', 'x', { got: undefined }).message, 'x (got undefined)')
})

test('codes say whether trying again may help', () => {
  assert.equal(new WaybillError('TIMEOUT', 'x').retryable, true)
  assert.equal(new WaybillError('UNKNOWN_OUTCOME', 'x').retryable, true)
  assert.equal(new WaybillError('INVALID_NAME', 'x').retryable, false)
  assert.equal(new WaybillError('DECODE_FAILED', 'x').retryable, false)
})

test('isWaybillError matches on codes', () => {
  const error = new WaybillError('CLOSED', 'x')
  assert.ok(isWaybillError(error))
  assert.ok(isWaybillError(error, 'TIMEOUT', 'CLOSED'))
  assert.ok(!isWaybillError(error, 'TIMEOUT'))
  assert.ok(!isWaybillError(new Error('CLOSED')))
  assert.ok(!isWaybillError({ code: 'CLOSED' }))
})

test('show escapes what could forge a log line or hide, and cuts what is long', () => {
  assert.equal(show('a\nb'), '"a\\nb"')
  assert.equal(show('a\u202eb\u200b\u0085\u2028'), '"a\\u202eb\\u200b\\u0085\\u2028"')
  assert.equal(show('x'.repeat(10_000)), `"${'x'.repeat(79)}… (10000 characters)`)
  assert.ok(show({ text: 'y'.repeat(10_000) }).length < 100)
  assert.deepEqual([NaN, -1.5, 5n, true, null, undefined, ['a'], Symbol('s')].map(show), [
    'NaN',
    '-1.5',
    '5n',
    'true',
    'null',
    'undefined',
    '["a"]',
    'Symbol(s)',
  ])
  assert.equal(
    show(function named() {}),
    'function named',
  )
  assert.equal(
    show(() => {}),
    'function (anonymous)',
  )
  const cycle: Record<string, unknown> = {}
  cycle['self'] = cycle
  assert.equal(show(cycle), '[object Object]')
  assert.equal(show(Object.defineProperty(() => {}, 'name', { value: 'a\nb' })), 'function a\\u000ab')
  assert.equal(show(Symbol('a\r\nb')), 'Symbol(a\\u000d\\u000ab)')
})

test('show gives short, printable text for anything', () => {
  fc.assert(
    fc.property(fc.anything({ withBigInt: true, withDate: true, withMap: true, stringUnit: 'binary', maxDepth: 3 }), (value) => {
      const text = show(value)
      assert.ok(text.length < 1_000)
      // oxlint-disable-next-line no-control-regex
      assert.doesNotMatch(text, /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e]/)
    }),
    { numRuns: 200 },
  )
})

test('messageOf gives a message of anything that can be thrown', () => {
  assert.equal(messageOf(new Error('boom')), 'boom')
  assert.equal(messageOf('text'), '"text"')
  assert.equal(messageOf(undefined), 'undefined')
  assert.equal(messageOf(new AggregateError([new Error('a'), 'b'])), 'a; "b"')
  assert.equal(messageOf(new AggregateError([new Error('a')], 'all failed')), 'all failed')
})
