import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { HEADERS_MAX, checkHeaders, checkKey } from './names.ts'
import { type ReceivedParts, receivedMessage } from './received.ts'

const PLACE = 'kafka:orders:3:1207'
const bytes = (text: string): Uint8Array => Buffer.from(text)
const notText = Uint8Array.of(0xff, 0xfe, 0x80)

const received = (parts: Partial<ReceivedParts>): ReturnType<typeof receivedMessage> =>
  receivedMessage({ topic: 'orders', place: () => PLACE, id: undefined, key: undefined, headers: [], body: bytes('{}'), ...parts })

suite('a message from a broker', () => {
  test('is what it was sent as, also where the client gives bytes', () => {
    const body = Uint8Array.of(0, 255, 1)
    const headers: [string, string | Uint8Array][] = [
      ['event_type', bytes('order.OrderPlaced')],
      ['note', 'Größe 客户 😀'],
      ['empty', new Uint8Array()],
    ]
    const message = received({ id: 'e-1', key: bytes('order-17'), headers, body })
    assert.deepEqual(message, {
      id: 'e-1',
      topic: 'orders',
      key: 'order-17',
      headers: { event_type: 'order.OrderPlaced', note: 'Größe 客户 😀', empty: '' },
      body,
    })
    assert.equal(message.body, body, 'the body is not copied')
  })

  test('without an id has that of its header, and without one its place', () => {
    assert.equal(received({ headers: [['event_id', bytes('e-2')]] }).id, 'e-2')
    assert.equal(received({ id: 'e-1', headers: [['event_id', 'e-2']] }).id, 'e-1')
    assert.equal(received({}).id, PLACE)
  })

  test('with an id that nobody could carry has its place instead', () => {
    for (const id of ['', 'a\nb', 'a\u0000', '\ud800', 'a\u202eb', 'x'.repeat(201)]) {
      assert.equal(received({ id }).id, PLACE)
      assert.equal(received({ headers: [['event_id', id]] }).id, PLACE)
    }
    assert.equal(received({ id: 'x'.repeat(200) }).id.length, 200)
  })

  test('without a usable key has its id as key, so that nothing waits for it', () => {
    for (const key of [undefined, '', new Uint8Array(), notText, 'a\u0000b', 'x'.repeat(513), null as unknown as undefined])
      assert.equal(received({ id: 'e-1', key }).key, 'e-1')
    assert.equal(received({ key: notText }).key, PLACE)
  })

  test('loses the headers that are no text or that nobody could carry, and keeps the others', () => {
    const { headers } = received({
      headers: [
        ['good', 'yes'],
        ['binary', notText],
        ['a b', 'name'],
        ['', 'name'],
        ['line', 'a\r\nb: c'],
        ['long', 'x'.repeat(4097)],
        ['nothing', null as unknown as string],
        ['marked', bytes('\ufeffa')],
        ['replaced', bytes('a\ufffdb')],
        ['also-good', bytes('yes')],
      ],
    })
    assert.deepEqual(headers, { good: 'yes', replaced: 'a\ufffdb', 'also-good': 'yes' })
  })

  test('may call headers like what every object has', () => {
    const { headers } = received({
      headers: [
        ['__proto__', 'polluted'],
        ['constructor', 'a'],
        ['toString', 'b'],
        ['hasOwnProperty', bytes('c')],
      ],
    })
    assert.deepEqual(Object.entries(headers), [
      ['constructor', 'a'],
      ['toString', 'b'],
      ['hasOwnProperty', 'c'],
    ])
    assert.equal(Object.getPrototypeOf(headers), Object.prototype)
    assert.equal(({} as Record<string, unknown>)['polluted'], undefined)
  })

  test(`with more than ${HEADERS_MAX} headers keeps the first ${HEADERS_MAX} that are usable`, () => {
    const many = (count: number): [string, string][] => Array.from({ length: count }, (_, index) => [`h${index}`, String(index)])
    assert.equal(Object.keys(received({ headers: many(HEADERS_MAX) }).headers).length, HEADERS_MAX)
    const { headers } = received({ headers: [['a b', 'unusable'], ...many(500)] })
    assert.deepEqual(headers, Object.fromEntries(many(HEADERS_MAX)))
  })

  test(`counts a header that comes again once, and takes its value past the ${HEADERS_MAX}th too`, () => {
    const again = Array.from({ length: 200 }, (_, index): [string, string] => ['again', String(index)])
    const others = Array.from({ length: 70 }, (_, index): [string, string] => [`h${index}`, 'x'])
    const { headers } = received({ headers: [...again, ...others, ['again', 'last']] })
    assert.deepEqual(headers, Object.fromEntries([['again', 'last'], ...others.slice(0, HEADERS_MAX - 1)]))
  })

  test('that repeats a header has the last value of it', () => {
    assert.deepEqual(
      received({
        headers: [
          ['a', '1'],
          ['a', '2'],
        ],
      }).headers,
      { a: '2' },
    )
  })

  test('property: whatever came, it is a message that can be carried on, with its body, and nothing is thrown', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 30 }),
      fc.constantFrom('__proto__', 'event_id', 'constructor', 'a', 'x'.repeat(600)),
    )
    const value = fc.oneof(text, fc.uint8Array({ maxLength: 30 }), text.map(bytes))
    const headers = fc.oneof(
      fc.array(fc.tuple(text, value), { maxLength: 10 }),
      fc.array(fc.tuple(fc.stringMatching(/^[a-z][a-z0-9]{0,3}$/), value), { maxLength: 200 }),
    )
    fc.assert(
      fc.property(
        fc.option(text, { nil: undefined }),
        fc.option(value, { nil: undefined }),
        headers,
        fc.uint8Array(),
        (id, key, sent, body) => {
          const message = received({ id, key, headers: sent, body })
          checkKey(message.id, 'id')
          checkKey(message.key, 'key')
          checkHeaders(message.headers, 'headers')
          assert.equal(message.body, body)
          assert.equal(message.topic, 'orders')
          for (const [name, kept] of Object.entries(message.headers))
            assert.ok(sent.some(([each, original]) => each === name && Buffer.from(original as string).equals(Buffer.from(kept))))
        },
      ),
      { numRuns: 1_000 },
    )
  })
})
