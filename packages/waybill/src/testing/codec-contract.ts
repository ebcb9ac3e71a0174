import assert from 'node:assert/strict'
import type { Codec, EncodedEnvelope } from '../core/codec.ts'
import type { MessageEnvelope } from '../core/envelope.ts'
import { isWaybillError } from '../core/errors.ts'
import { type ContractTest, seededRandom } from './contract-tools.ts'
import { randomEnvelope } from './random-envelope.ts'

const SEED = 20_240_517
const ENVELOPES = 300
const HOSTILE_BODIES = 2_000

/** What every {@link Codec} promises, as tests. Values are drawn from a fixed seed, so every run is the same. */
export function codecContract(test: ContractTest, make: () => Codec): void {
  test('every envelope comes back equal', async () => {
    const codec = make()
    const random = seededRandom(SEED)
    for (let index = 0; index < ENVELOPES; index++) {
      const envelope = randomEnvelope(random)
      assert.deepStrictEqual(await codec.decode(await codec.encode(envelope)), envelope, `envelope ${index} of seed ${SEED}`)
    }
  })

  test('the headers alone tell event id, type and content type', async () => {
    const codec = make()
    const random = seededRandom(SEED + 1)
    for (let index = 0; index < ENVELOPES; index++) {
      const envelope = randomEnvelope(random)
      const { headers, body } = await codec.encode(envelope)
      assert.equal(headers['event_id'], envelope.event_id)
      assert.equal(headers['event_type'], envelope.event_type)
      assert.equal(headers['content_type'], codec.contentType)
      assert.ok(body instanceof Uint8Array)
      for (const [name, value] of Object.entries(headers)) assert.equal(typeof value, 'string', `header ${name}`)
    }
  })

  test('what is absent stays absent', async () => {
    const codec = make()
    const envelope: MessageEnvelope = {
      event_id: 'e1',
      event_type: 'order.OrderPlaced',
      occurred_at: '2024-05-17T09:30:00.000Z',
      source: 'shop',
      version: 1,
      payload: null,
    }
    const decoded = await codec.decode(await codec.encode(envelope))
    assert.deepStrictEqual(Object.keys(decoded).toSorted(), Object.keys(envelope).toSorted())
  })

  test('bytes of one message are not touched by the next', async () => {
    const codec = make()
    const random = seededRandom(SEED + 2)
    const envelopes = Array.from({ length: 200 }, () => randomEnvelope(random))
    const encoded: EncodedEnvelope[] = []
    for (const envelope of envelopes) encoded.push(await codec.encode(envelope))
    for (const [index, one] of encoded.entries()) assert.deepStrictEqual(await codec.decode(one), envelopes[index])
  })

  test('neither side changes what it was given', async () => {
    const codec = make()
    const envelope = randomEnvelope(seededRandom(SEED + 3))
    const before = structuredClone(envelope)
    const encoded = await codec.encode(envelope)
    assert.deepStrictEqual(envelope, before)
    const bytes = Uint8Array.from(encoded.body)
    const headers = { ...encoded.headers }
    await codec.decode(encoded)
    assert.deepStrictEqual(Uint8Array.from(encoded.body), bytes)
    assert.deepStrictEqual({ ...encoded.headers }, headers)
  })

  test('a payload comes back equal or is refused with its path', async () => {
    const codec = make()
    for (const [what, value] of Object.entries(awkwardValues())) {
      const envelope: MessageEnvelope = { ...randomEnvelope(seededRandom(SEED + 4)), payload: { outer: { inner: value } } }
      let encoded: EncodedEnvelope
      try {
        encoded = await codec.encode(envelope)
      } catch (error) {
        assert.ok(isWaybillError(error, 'NOT_SERIALIZABLE', 'PAYLOAD_TOO_LARGE'), `${what}: refused, but by ${String(error)}`)
        if (error.code === 'NOT_SERIALIZABLE') assert.match(error.where ?? '', /outer/, `${what}: refused without its path`)
        continue
      }
      assert.deepStrictEqual(await codec.decode(encoded), envelope, `${what}: altered silently`)
    }
  })

  test('bytes that are no message are refused with a typed error', async () => {
    const codec = make()
    const random = seededRandom(SEED + 5)
    const good = await codec.encode(randomEnvelope(random))
    for (let index = 0; index < HOSTILE_BODIES; index++) {
      const body = hostileBody(random, good.body)
      try {
        const decoded = await codec.decode({ headers: good.headers, body })
        assert.equal(typeof decoded.event_id, 'string')
      } catch (error) {
        assert.ok(isWaybillError(error, 'DECODE_FAILED', 'PAYLOAD_TOO_LARGE'), `body ${index} of seed ${SEED}: ${String(error)}`)
      }
    }
    await assert.rejects(
      async () => codec.decode({ headers: good.headers, body: new Uint8Array(0) }),
      (error) => isWaybillError(error, 'DECODE_FAILED'),
    )
  })
}

/** Random bytes, a beginning of a good message, or a good one with some bytes changed. */
function hostileBody(random: () => number, good: Uint8Array): Uint8Array {
  const kind = random()
  if (kind < 0.3) return Uint8Array.from({ length: Math.floor(random() * 200) }, () => Math.floor(random() * 256))
  if (kind < 0.6) return good.slice(0, Math.floor(random() * good.length))
  const body = Uint8Array.from(good)
  for (let changes = 1 + Math.floor(random() * 4); changes > 0; changes--)
    body[Math.floor(random() * body.length)] = Math.floor(random() * 256)
  return body
}

/** Values that codecs like to alter without a word. */
function awkwardValues(): Readonly<Record<string, unknown>> {
  const cycle: Record<string, unknown> = {}
  cycle['self'] = cycle
  let deep: unknown = 'bottom'
  for (let level = 0; level < 10_000; level++) deep = [deep]
  return {
    NaN: NaN,
    Infinity: -Infinity,
    'minus zero': -0,
    'a BigInt': 2n ** 64n,
    'undefined in an array': [1, undefined],
    'a hole': [1, , 2], // oxlint-disable-line no-sparse-arrays
    'a function': () => {},
    'a symbol': Symbol('s'),
    'a Date': new Date(0),
    'an invalid Date': new Date(NaN),
    'a Map': new Map([['a', 1]]),
    'a Set': new Set([1]),
    bytes: new Uint8Array([1, 2]),
    'a RegExp': /a/,
    'an object with toJSON': { toJSON: () => 'else' },
    'a lone surrogate': 'a\ud800b',
    'a lone surrogate as a key': { '\udc00': 1 },
    'a __proto__ key': JSON.parse('{"__proto__":{"admin":true}}'),
    'a cycle': cycle,
    'great depth': deep,
  }
}
