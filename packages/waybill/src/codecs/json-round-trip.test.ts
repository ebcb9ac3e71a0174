import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Codec } from '../core/codec.ts'
import type { MessageEnvelope } from '../core/envelope.ts'
import { isWaybillError } from '../core/errors.ts'
import { codecContract } from '../testing/codec-contract.ts'
import { jsonCodec } from './json.ts'

const codec = jsonCodec()
const base: MessageEnvelope = {
  event_id: 'e-1',
  event_type: 'order.OrderPlaced',
  occurred_at: '2024-05-17T09:30:00.000Z',
  source: 'shop',
  version: 1,
  payload: {},
}
const bytes = (text: string): Uint8Array => Buffer.from(text)

codecContract(
  (name, run) => test(`contract: ${name}`, run),
  () => jsonCodec(),
)

test('any JSON payload comes back equal', () => {
  fc.assert(
    fc.property(fc.jsonValue({ stringUnit: 'binary', maxDepth: 4 }), (payload) => {
      // fast-check draws -0 and __proto__ keys too; they are refused, and never altered.
      const envelope = { ...base, payload }
      try {
        assert.deepStrictEqual(codec.decode(codec.encode(envelope)), envelope)
      } catch (error) {
        if (!isWaybillError(error, 'NOT_SERIALIZABLE')) throw error
        assert.match(`${error.got} ${error.message}`, /-0|__proto__|surrogate/)
      }
    }),
    { numRuns: 300 },
  )
})

test('any JavaScript value comes back equal, with undefined properties absent, or is refused', () => {
  const anything = fc.anything({
    withBigInt: true,
    withDate: true,
    withMap: true,
    withSet: true,
    withNullPrototype: true,
    withSparseArray: true,
    withTypedArray: true,
    stringUnit: 'binary',
  })
  fc.assert(
    fc.property(anything, (payload) => {
      let encoded
      try {
        encoded = codec.encode({ ...base, payload })
      } catch (error) {
        assert.ok(isWaybillError(error, 'NOT_SERIALIZABLE'), String(error))
        return
      }
      assert.deepStrictEqual(codec.decode(encoded).payload, withoutUndefined(payload))
    }),
    { numRuns: 1_000 },
  )
})

function withoutUndefined(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutUndefined)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).flatMap(([key, item]) => (item === undefined ? [] : [[key, withoutUndefined(item)]])))
}

test('any text in any attribute comes back equal or is refused', () => {
  const text = fc.string({ unit: 'binary', maxLength: 40 })
  fc.assert(
    fc.property(text, text, fc.dictionary(text, text), (source, correlation_id, metadata) => {
      const envelope = { ...base, source, correlation_id, ...(Object.keys(metadata).length === 0 ? {} : { metadata: { ...metadata } }) }
      try {
        const encoded = codec.encode(envelope)
        assert.deepStrictEqual(codec.decode(encoded), envelope)
        assert.equal(encoded.headers['source'], source)
      } catch (error) {
        assert.ok(isWaybillError(error, 'INVALID_HEADER', 'NOT_SERIALIZABLE'), String(error))
      }
    }),
    { numRuns: 500 },
  )
})

test('arbitrary bytes give a value or a typed error', () => {
  const hostile = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.json().map(bytes),
    fc.record({ at: fc.nat(300), byte: fc.nat(255) }).map(({ at, byte }) => {
      const body = Uint8Array.from(codec.encode({ ...base, payload: { text: 'Größe', list: [1, -2.5, null] } }).body)
      body[at % body.length] = byte
      return body
    }),
  )
  fc.assert(
    fc.property(hostile, (body) => {
      try {
        const envelope = codec.decode({ headers: {}, body })
        // What was accepted can be sent on.
        if (!JSON.stringify(envelope).includes('-0'))
          assert.deepStrictEqual(codec.decode(codec.encode(envelope)).event_id, envelope.event_id)
      } catch (error) {
        assert.ok(
          isWaybillError(error, 'DECODE_FAILED') || (isWaybillError(error, 'NOT_SERIALIZABLE') && /-0/.test(error.message)),
          String(error),
        )
      }
    }),
    { numRuns: 2_000 },
  )
})

test('the contract fails for codecs that alter, share or leak', async () => {
  const plain: Codec = {
    contentType: 'application/json',
    encode: (envelope) => ({
      headers: { event_id: envelope.event_id, event_type: envelope.event_type, content_type: 'application/json' },
      body: bytes(JSON.stringify(envelope)),
    }),
    decode: ({ body }) => JSON.parse(Buffer.from(body).toString()) as MessageEnvelope,
  }
  const shared = Buffer.alloc(64 * 1024)
  const broken: Record<string, Codec> = {
    'a payload comes back equal or is refused with its path': plain,
    'bytes that are no message are refused with a typed error': plain,
    'every envelope comes back equal': { ...codec, decode: (encoded) => ({ ...codec.decode(encoded), version: '1' }) },
    'what is absent stays absent': { ...codec, decode: (encoded) => ({ metadata: {}, ...codec.decode(encoded) }) },
    'the headers alone tell event id, type and content type': {
      ...codec,
      encode: (envelope) => ({ ...codec.encode(envelope), headers: {} }),
    },
    'bytes of one message are not touched by the next': {
      ...codec,
      encode: (envelope) => {
        const { headers, body } = codec.encode(envelope)
        shared.set(body)
        return { headers, body: shared.subarray(0, body.length) }
      },
    },
    'neither side changes what it was given': {
      ...codec,
      decode: (encoded) => {
        const envelope = codec.decode(encoded)
        encoded.body.fill(0)
        return envelope
      },
    },
  }
  for (const [name, bad] of Object.entries(broken)) {
    const failed: string[] = []
    const runs: Promise<void>[] = []
    codecContract(
      (promise, run) => runs.push(run().catch(() => void failed.push(promise))),
      () => bad,
    )
    await Promise.all(runs)
    assert.ok(failed.includes(name), `"${name}" did not fail`)
  }
})
