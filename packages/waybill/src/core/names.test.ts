import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isWaybillError } from './errors.ts'
import {
  checkGroup,
  checkHeaders,
  checkKey,
  checkName,
  checkTopic,
  HEADER_VALUE_MAX_BYTES,
  HEADERS_MAX,
  KEY_MAX_BYTES,
  NAME_MAX,
} from './names.ts'

test('dotted names pass as they are', () => {
  for (const name of [
    'order.OrderPlaced',
    'OrderCreated',
    'Genesis.Session.Started',
    'domain.events',
    'a',
    '0',
    'a-b_c.d',
    'x'.repeat(NAME_MAX),
  ])
    assert.equal(checkName(name, 'event name'), name)
})

test('hostile names are refused, and shown escaped', () => {
  const hostile = [
    '',
    '.',
    'a.',
    '.a',
    'a..b',
    '..',
    '../etc',
    'a/b',
    'a b',
    ' a',
    'a\n',
    'a\u0000b',
    'a\u0007',
    '*',
    'a.*',
    'a.>',
    '>',
    '$x',
    '_a',
    '-a',
    'ü',
    'a\u202eb',
    'a\u200bb',
    'persistent://a',
    'a:b',
    'x'.repeat(NAME_MAX + 1),
    'x'.repeat(10_000),
    undefined,
    null,
    7,
    {},
    ['a'],
  ]
  for (const name of hostile) {
    assert.throws(
      () => checkName(name, 'event name'),
      (error) =>
        isWaybillError(error, 'INVALID_NAME') &&
        error.where === 'event name' &&
        error.message.length < 400 &&
        !/[\u0000-\u001f]/.test(error.message),
      String(name).slice(0, 40),
    ) // oxlint-disable-line no-control-regex
  }
})

test('whatever passes as a name is safe everywhere: ASCII, no wildcard, no path, no empty segment', () => {
  const nearly = fc.string({
    unit: fc.constantFrom('a', 'Z', '9', '.', '-', '_', '*', '>', '/', ' ', '\n', '\u0000', 'é', '\u202e'),
    maxLength: 12,
  })
  fc.assert(
    fc.property(fc.oneof(nearly, fc.string({ unit: 'binary' })), (name) => {
      try {
        checkName(name, 'name')
      } catch (error) {
        assert.ok(isWaybillError(error, 'INVALID_NAME'))
        return
      }
      assert.match(name, /^[A-Za-z0-9._-]+$/)
      assert.ok(!name.includes('..') && !name.startsWith('.') && !name.endsWith('.'))
    }),
    { numRuns: 500 },
  )
})

test('a topic is a name that no broker takes for a part of another topic', () => {
  for (const topic of [
    'orders',
    'order.OrderPlaced',
    'a-partition-',
    'a-partition-x',
    'partition-7',
    'a-partition-1.b',
    'x'.repeat(NAME_MAX),
  ])
    assert.equal(checkTopic(topic), topic)
  for (const topic of [
    'a-partition-0',
    'orders.eu-partition-12',
    'a-partition-1-partition-2',
    '',
    'a/b',
    'a.*',
    'x'.repeat(NAME_MAX + 1),
    7,
    null,
    undefined,
  ])
    assert.throws(
      () => checkTopic(topic),
      (error) => isWaybillError(error, 'INVALID_NAME') && error.where === 'topic',
      String(topic).slice(0, 40),
    )
})

test('a group is names joined by slashes, as handlers are called', () => {
  for (const group of ['billing', 'billing/send', 'eu.billing/send.mail/2', `a/${'x'.repeat(NAME_MAX - 2)}`])
    assert.equal(checkGroup(group), group)
  const hostile = [
    '',
    '/',
    'a/',
    '/a',
    'a//b',
    '../a',
    'a b',
    'a/*',
    'a/>',
    'a\n',
    'a:b',
    `a/${'x'.repeat(NAME_MAX - 1)}`,
    7,
    null,
    undefined,
    true,
    ['a'],
    {},
  ]
  for (const group of hostile)
    assert.throws(
      () => checkGroup(group),
      (error) => isWaybillError(error, 'INVALID_NAME') && error.where === 'group',
      String(group).slice(0, 40),
    )
})

test('keys may be any text that every database and broker can carry', () => {
  for (const key of [
    'order-17',
    'guest:United Kingdom',
    'a b',
    '客户',
    '😀',
    'a*>/..',
    'é'.repeat(KEY_MAX_BYTES / 2),
    'x'.repeat(KEY_MAX_BYTES),
  ])
    assert.equal(checkKey(key, 'key'), key)
  for (const key of [
    '',
    'a\u0000',
    'a\nb',
    '\u007f',
    'a\u2028',
    'a\u202eb',
    'a\u200db',
    '\ufeffa',
    '\ud800',
    'é'.repeat(KEY_MAX_BYTES / 2 + 1),
    'x'.repeat(10_240),
    7,
    null,
    undefined,
  ]) {
    assert.throws(
      () => checkKey(key, 'aggregate id'),
      (error) => isWaybillError(error, 'INVALID_KEY') && error.where === 'aggregate id',
      String(key).slice(0, 20),
    )
  }
})

test('a key that passes survives UTF-8', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 200 }), (key) => {
      try {
        checkKey(key, 'key')
      } catch {
        return
      }
      assert.equal(Buffer.from(key).toString(), key)
      assert.ok(Buffer.byteLength(key) <= KEY_MAX_BYTES)
    }),
    { numRuns: 1_000 },
  )
})

test('a header is looked at each time, whatever stood under its name before', () => {
  for (const value of ['good', 'good', 'better'] as const) checkHeaders({ 'x-again': value }, 'here')
  for (const value of ['a\nb', 'x'.repeat(HEADER_VALUE_MAX_BYTES + 1), undefined as unknown as string, 7 as unknown as string])
    assert.throws(() => checkHeaders({ 'x-again': value }, 'here'), { code: 'INVALID_HEADER' })
  checkHeaders({ 'x-again': 'good' }, 'here')
  assert.throws(() => checkHeaders({ 'x-fresh': undefined as unknown as string }, 'here'), { code: 'INVALID_HEADER' })
})

test('headers are bounded in number, name and value', () => {
  checkHeaders({}, 'headers')
  checkHeaders({ event_id: '1', 'x-a.b': 'Größe "1"', empty: '', long: 'x'.repeat(HEADER_VALUE_MAX_BYTES) }, 'headers')
  const many = Object.fromEntries(Array.from({ length: HEADERS_MAX + 1 }, (_, index) => [`h${index}`, '']))
  const refused: Record<string, string>[] = [
    many,
    { '': 'a' },
    { 'a b': 'c' },
    { 'a:b': 'c' },
    { 'a\n': 'c' },
    { ['x'.repeat(129)]: 'c' },
    { a: 'b\r\nc: d' },
    { a: '\u0000' },
    { a: '\ud800' },
    { a: 'x'.repeat(HEADER_VALUE_MAX_BYTES + 1) },
    { a: 'é'.repeat(HEADER_VALUE_MAX_BYTES) },
    { a: 7 as unknown as string },
  ]
  for (const headers of refused)
    assert.throws(
      () => checkHeaders(headers, 'here'),
      (error) => isWaybillError(error, 'INVALID_HEADER') && error.where === 'here',
    )
})
