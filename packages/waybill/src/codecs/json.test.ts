import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { MessageEnvelope } from '../core/envelope.ts'
import { isWaybillError, type WaybillErrorCode } from '../core/errors.ts'
import { jsonCodec } from './json.ts'
import type * as decoding from './json-decode.ts'
import type * as encoding from './json-encode.ts'

const codec = jsonCodec()
const base: MessageEnvelope = {
  event_id: 'e-1',
  event_type: 'order.OrderPlaced',
  occurred_at: '2024-05-17T09:30:00.000Z',
  source: 'shop',
  version: 1,
  payload: {},
}
const TRACE = '0af7651916cd43dd8448eb211c80319c'
const ID = '018f8a3c-1b2d-7abc-8def-0123456789ab'

function refused(code: WaybillErrorCode, where: string | RegExp) {
  return (error: unknown): boolean => {
    assert.ok(isWaybillError(error, code), `${code} expected, got ${String(error)}`)
    if (typeof where === 'string') assert.equal(error.where, where)
    else assert.match(error.where ?? '', where)
    return true
  }
}

const bytes = (text: string): Uint8Array => Buffer.from(text)
const decodeText = (text: string, headers: Record<string, string> = {}): MessageEnvelope => codec.decode({ headers, body: bytes(text) })
const wire = (changes: object): string => JSON.stringify({ ...base, ...changes })

test('the body is one JSON object with the wire names, absent fields omitted', () => {
  const envelope: MessageEnvelope = {
    event_id: ID,
    event_type: 'order.OrderPlaced',
    occurred_at: '2024-05-17T09:30:00.000Z',
    source: 'shop',
    correlation_id: 'c',
    causation_id: 'd',
    version: '1.0',
    aggregate_type: 'order',
    aggregate_id: 'o-1',
    aggregate_version: 3,
    bounded_context: 'sales',
    trace_id: TRACE,
    metadata: { tenant: 'acme\n' },
    payload: { total: 1.5 },
  }
  const { headers, body } = codec.encode(envelope)
  assert.deepEqual(JSON.parse(Buffer.from(body).toString()), envelope)
  assert.deepEqual(headers, {
    event_id: ID,
    event_type: 'order.OrderPlaced',
    content_type: 'application/json',
    occurred_at: '2024-05-17T09:30:00.000Z',
    source: 'shop',
    correlation_id: 'c',
    causation_id: 'd',
    version: '1.0',
    aggregate_type: 'order',
    aggregate_id: 'o-1',
    aggregate_version: '3',
    bounded_context: 'sales',
    trace_id: TRACE,
    traceparent: `00-${TRACE}-8def0123456789ab-01`,
  })
  assert.deepEqual(Object.keys(JSON.parse(Buffer.from(codec.encode(base).body).toString())).toSorted(), Object.keys(base).toSorted())
})

test('traceparent is written for W3C trace ids only, and has a span id for any event id', () => {
  const traceparent = (event_id: string, trace_id: string) => codec.encode({ ...base, event_id, trace_id }).headers['traceparent']
  assert.equal(traceparent('e-1', 'not a trace'), undefined)
  assert.equal(traceparent('e-1', '0'.repeat(32)), undefined)
  assert.match(traceparent('e-1', TRACE) ?? '', /^00-0af7651916cd43dd8448eb211c80319c-(?!0{16})[0-9a-f]{16}-01$/)
  assert.equal(traceparent('e-1', TRACE.toUpperCase()), traceparent('e-1', TRACE))
  assert.notEqual(traceparent('e-1', TRACE), traceparent('e-2', TRACE))
  assert.equal(codec.encode({ ...base, trace_id: 'not a trace' }).headers['trace_id'], 'not a trace')
})

test('a change of source, version, context or aggregate type is never served from memory', () => {
  const variants: MessageEnvelope[] = [
    base,
    { ...base, source: 'other' },
    { ...base, version: '1' },
    { ...base, version: 2 },
    { ...base, bounded_context: 'b' },
    { ...base, aggregate_type: 'a' },
  ]
  for (const envelope of [...variants, ...variants.toReversed()]) {
    const encoded = codec.encode(envelope)
    assert.deepStrictEqual(codec.decode(encoded), envelope)
    assert.equal(encoded.headers['bounded_context'], envelope.bounded_context)
    assert.equal(encoded.headers['version'], String(envelope.version))
  }
})

test('what JSON would alter is refused with its path', () => {
  class Money {}
  const cycle: Record<string, unknown> = {}
  cycle['lines'] = [{ order: cycle }]
  let deep: unknown = 1
  for (let level = 0; level < 65; level++) deep = [deep]
  const cases: [unknown, string, RegExp][] = [
    [{ a: [1, { b: NaN }] }, 'payload.a[1].b', /NaN/],
    [{ a: -Infinity }, 'payload.a', /-Infinity/],
    [-0, 'payload', /-0/],
    [{ total: 5n }, 'payload.total', /5n/],
    [[undefined], 'payload[0]', /undefined/],
    [[1, , 2], 'payload[1]', /hole/], // oxlint-disable-line no-sparse-arrays
    [{ f: () => 1 }, 'payload.f', /function/],
    [{ s: Symbol('x') }, 'payload.s', /Symbol\(x\)/],
    [{ at: new Date(0) }, 'payload.at', /Date.*toISOString/],
    [{ at: new Date(NaN) }, 'payload.at', /Date/],
    [{ m: new Map() }, 'payload.m', /Map/],
    [{ m: new Money() }, 'payload.m', /Money/],
    [{ m: new Uint8Array(2) }, 'payload.m', /Uint8Array/],
    [{ m: new (class List extends Array {})() }, 'payload.m', /instance of a class/],
    [{ m: { toJSON: () => 1 } }, 'payload.m.toJSON', /function/],
    [{ m: Object(1) }, 'payload.m', /Number/],
    [{ 'a b': '\ud800' }, 'payload["a b"]', /surrogate/],
    [{ '\udfff': 1 }, 'payload["\\udfff"]', /surrogate/],
    [JSON.parse('{"a":{"__proto__":1}}'), 'payload.a.__proto__', /__proto__/],
    [cycle, 'payload.lines[0].order', /cycle/],
    [deep, `payload${'[0]'.repeat(64)}`, /more than 64 levels/],
    [undefined, 'payload', /undefined/],
    [
      {
        get a() {
          throw new Error('no')
        },
      },
      'payload',
      /could not be written/,
    ],
  ]
  for (const [payload, where, message] of cases) {
    assert.throws(
      () => codec.encode({ ...base, payload }),
      (error) => refused('NOT_SERIALIZABLE', where)(error) && message.test((error as Error).message),
      `${where} ${String(message)}`,
    )
  }
})

test('plain values pass: no prototype, undefined properties, shared parts, escaped surrogates that pair, 64 levels', () => {
  const shared = { a: 1 }
  let deep: unknown = 1
  for (let level = 0; level < 64; level++) deep = [deep]
  const text = JSON.parse('"\\ud83d\\ude00 \\\\ud800"') as string
  for (const [payload, expected] of [
    [Object.assign(Object.create(null), { a: 1 }), { a: 1 }],
    [{ a: undefined, b: 1 }, { b: 1 }],
    [
      [shared, shared],
      [shared, shared],
    ],
    [deep, deep],
    [{ text }, { text }],
    ['plain text', 'plain text'],
  ]) {
    assert.deepStrictEqual(codec.decode(codec.encode({ ...base, payload })).payload, expected)
  }
})

test('a payload of 2 MiB is too large, both ways, and the limit is exact', () => {
  assert.throws(() => codec.encode({ ...base, payload: 'x'.repeat(2 * 1024 * 1024) }), refused('PAYLOAD_TOO_LARGE', 'order.OrderPlaced'))
  assert.throws(() => codec.decode({ headers: {}, body: new Uint8Array(2 * 1024 * 1024) }), refused('PAYLOAD_TOO_LARGE', 'body'))
  const small = jsonCodec({ maxBytes: 1024 })
  const room = 1024 - codec.encode({ ...base, payload: '' }).body.length
  const fits = { ...base, payload: 'x'.repeat(room) }
  assert.equal(small.encode(fits).body.length, 1024)
  assert.deepStrictEqual(small.decode(small.encode(fits)), fits)
  assert.throws(() => small.encode({ ...base, payload: 'x'.repeat(room + 1) }), refused('PAYLOAD_TOO_LARGE', 'order.OrderPlaced'))
  // Counted in bytes, not in characters.
  assert.throws(() => small.encode({ ...base, payload: 'é'.repeat(room) }), refused('PAYLOAD_TOO_LARGE', 'order.OrderPlaced'))
})

test('attributes that no header can carry are refused', () => {
  for (const name of [
    'source',
    'correlation_id',
    'causation_id',
    'aggregate_id',
    'aggregate_type',
    'bounded_context',
    'trace_id',
  ] as const) {
    for (const value of ['a\r\nX-Admin: 1', 'a\u0000', '\ud800', 'x'.repeat(5000), 'a\u202eb']) {
      assert.throws(() => codec.encode({ ...base, [name]: value }), refused('INVALID_HEADER', name))
    }
    assert.throws(() => codec.encode({ ...base, [name]: 7 as unknown as string }), refused('NOT_SERIALIZABLE', name))
  }
  assert.throws(() => codec.encode({ ...base, event_id: '' }), refused('NOT_SERIALIZABLE', 'event_id'))
  assert.throws(() => codec.encode({ ...base, event_id: 'x'.repeat(129) }), refused('INVALID_HEADER', 'event_id'))
  assert.throws(() => codec.encode({ ...base, event_type: 'a..b' }), refused('NOT_SERIALIZABLE', 'event_type'))
  assert.throws(() => codec.encode({ ...base, occurred_at: 'yesterday' }), refused('NOT_SERIALIZABLE', 'occurred_at'))
  assert.throws(
    () => codec.encode({ ...base, occurred_at: 'yesterday' }),
    refused('NOT_SERIALIZABLE', 'occurred_at'),
    'also the second time',
  )
  assert.throws(() => codec.encode({ ...base, version: NaN }), refused('NOT_SERIALIZABLE', 'version'))
  assert.throws(() => codec.encode({ ...base, aggregate_version: 1.5 }), refused('NOT_SERIALIZABLE', 'aggregate_version'))
  assert.throws(() => codec.encode({ ...base, metadata: { a: 1 as unknown as string } }), refused('NOT_SERIALIZABLE', 'metadata'))
})

test('extra headers stand beside the envelope’s own, and can replace none of them', () => {
  assert.equal(jsonCodec({ headers: { deployment: 'blue' } }).encode(base).headers['deployment'], 'blue')
  for (const name of ['event_id', 'event_type', 'content_type', 'traceparent', 'correlation_id', 'Event_Type', 'version']) {
    assert.throws(() => jsonCodec({ headers: { [name]: 'x' } }), refused('INVALID_HEADER', 'headers of jsonCodec'))
  }
  assert.throws(() => jsonCodec({ headers: { a: 'b\nc' } }), refused('INVALID_HEADER', 'headers of jsonCodec'))
  assert.throws(() => jsonCodec({ maxBytes: 1 }), refused('INVALID_OPTION', 'maxBytes'))
  assert.throws(() => jsonCodec({ maxDepth: NaN }), refused('INVALID_OPTION', 'maxDepth'))
})

test('required attributes are checked, one by one', () => {
  const wrong: Record<string, unknown[]> = {
    event_id: [undefined, null, '', 1, 'x'.repeat(129), 'a\u0000b', 'a\nb'],
    event_type: [undefined, '', 'a b', 'a..b', '*', 'x'.repeat(10_000), 7],
    occurred_at: [
      undefined,
      '',
      0,
      '2024-02-30T00:00:00Z',
      '2023-02-29T00:00:00Z',
      '2024-13-01T00:00:00Z',
      '2024-01-01T24:00:00Z',
      '2024-01-01T00:00:60Z',
      '2024-01-01',
      '2024-01-01T00:00:00+02:00',
      '2024-01-01 00:00:00Z',
    ],
    source: [undefined, null, 1, 'a\u0007'],
    version: [undefined, null, true, {}],
    payload: [undefined],
    correlation_id: [1, {}, 'a\u0000'],
    aggregate_version: [-1, 1.5, '1', 2 ** 53],
    metadata: [[], 'a', { a: 1 }, { a: null }],
    trace_id: [7],
  }
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values)
      assert.throws(() => decodeText(wire({ [name]: value })), refused('DECODE_FAILED', name), `${name} = ${JSON.stringify(value)}`)
  }
  for (const occurred_at of ['2024-02-29T23:59:59Z', '2024-01-01T00:00:00.123456789Z', '2000-02-29T00:00:00+00:00', '0001-01-01T00:00:00Z'])
    assert.equal(decodeText(wire({ occurred_at })).occurred_at, occurred_at)
})

test('the very first envelope of a process is checked like any other', async () => {
  // A module of its own: what it remembers of earlier envelopes is empty.
  const fresh = <T>(name: string): Promise<T> => import(`./${name}.ts?fresh`) as Promise<T>
  const { createJsonEncoder } = await fresh<typeof encoding>('json-encode')
  const { decodeJson } = await fresh<typeof decoding>('json-decode')
  const timeless = { ...base, occurred_at: undefined as unknown as string }
  assert.throws(() => createJsonEncoder(1024, 8, {})(timeless), refused('NOT_SERIALIZABLE', 'occurred_at'))
  const body = (changes: object) => ({ headers: {}, body: bytes(wire(changes)) })
  assert.throws(() => decodeJson(body({ event_type: undefined }), 1024, 8), refused('DECODE_FAILED', 'event_type'))
  assert.throws(() => decodeJson(body({ occurred_at: undefined }), 1024, 8), refused('DECODE_FAILED', 'occurred_at'))
})

test('fields of other systems don’t get in the way', () => {
  assert.deepStrictEqual(decodeText(wire({ partition: 7, causation_id: null, metadata: null })), base)
  assert.deepStrictEqual(decodeText(wire({ payload: null })).payload, null)
  assert.equal(decodeText('{"payload":1,' + wire({}).slice(1).replace('"payload":{}', '"payload":2')).payload, 2)
  assert.deepStrictEqual(decodeText(wire({ payload: { constructor: { prototype: { admin: true } } } })).payload, {
    constructor: { prototype: { admin: true } },
  })
  assert.equal(({} as { admin?: boolean }).admin, undefined)
})

test('hostile bodies are refused with the place', () => {
  const cases: [Uint8Array | string, string | RegExp][] = [
    ['', 'body'],
    ['[]', 'body'],
    ['null', 'body'],
    ['{"event_id":', 'body'],
    [Uint8Array.of(0xef, 0xbb, 0xbf, ...bytes(wire({}))), 'body'],
    [Uint8Array.of(0xff, 0xfe, 0x7b, 0x00), 'body'],
    [Uint8Array.of(...bytes('{"event_id":"'), 0xc3, 0x28), 'body'],
    [wire({}).replace('{"event', '{"__proto__":{},"event'), '__proto__'],
    [wire({ payload: 'P' }).replace('"P"', '{"__proto__":{"admin":true}}'), 'payload.__proto__'],
    [wire({ payload: 'P' }).replace('"P"', '{"\\u005f_proto__":{"admin":true}}'), 'payload.__proto__'],
    [wire({ payload: 'P' }).replace('"P"', '{"a":["\\ud800"]}'), 'payload.a[0]'],
    [wire({ payload: 'P' }).replace('"P"', '"\\uDFFF"'), 'payload'],
    [wire({ payload: 'P' }).replace('"P"', '1e400'), 'payload'],
    [wire({ payload: 'P' }).replace('"P"', '['.repeat(65) + ']'.repeat(65)), /^payload(\[0\]){64}$/],
    [wire({ payload: 'P' }).replace('"P"', '['.repeat(500_000) + ']'.repeat(500_000)), /^body, byte \d+$/],
    [wire({ payload: 'P' }).replace('"P"', '{"a":'.repeat(90_000) + '1' + '}'.repeat(90_000)), /^body, byte \d+$/],
  ]
  for (const [body, where] of cases)
    assert.throws(
      () => codec.decode({ headers: {}, body: typeof body === 'string' ? bytes(body) : body }),
      refused('DECODE_FAILED', where),
      String(where),
    )
  assert.throws(() => codec.decode({ headers: {}, body: 'text' as unknown as Uint8Array }), refused('DECODE_FAILED', 'body'))
})

test('braces in text don’t count as nesting', () => {
  const payload = { text: '[{"'.repeat(5_000) + '\\', list: Array.from({ length: 3_000 }, () => [{}]) }
  assert.deepStrictEqual(codec.decode(codec.encode({ ...base, payload })).payload, payload)
})

test('headers that tell another story than the body are refused', () => {
  assert.throws(() => decodeText(wire({}), { event_id: 'e-2' }), refused('DECODE_FAILED', 'event_id'))
  assert.throws(() => decodeText(wire({}), { event_type: 'order.OrderCancelled' }), refused('DECODE_FAILED', 'event_type'))
  assert.throws(() => decodeText(wire({}), { content_type: 'avro/binary' }), refused('DECODE_FAILED', 'content_type'))
  for (const content_type of ['application/json', 'application/json; charset=utf-8', 'application/vnd.acme+json'])
    assert.deepStrictEqual(decodeText(wire({}), { content_type }), base)
})
