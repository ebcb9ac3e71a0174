import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { framed, unframed } from './pubsub-frame.ts'

suite('messages on a channel', () => {
  test('come out as they went in, whatever bytes they are', () => {
    const name = fc.stringMatching(/^[a-z][a-z0-9-]{0,8}$/)
    const text = fc.stringMatching(/^[ -~é🦊]{1,20}$/u)
    fc.assert(
      fc.property(
        text,
        text,
        fc.dictionary(name, text, { maxKeys: 5, noNullPrototype: true }),
        fc.uint8Array(),
        (id, key, headers, body) => {
          const { body: back, ...rest } = unframed(framed({ id, topic: 't', key, headers, body }), 't', () => 'place')
          assert.deepEqual({ ...rest, headers: { ...rest.headers } }, { id, topic: 't', key, headers })
          assert.deepEqual(Buffer.from(back), Buffer.from(body))
        },
      ),
    )
  })

  test('of others are bodies, also where they begin like ours', () => {
    for (const text of [
      '',
      'plain',
      '{"event_id":"1"}',
      '{"waybill":1,',
      '{"waybill":1,"id":7}\nx',
      '{"waybill":1,"id":"a","key":"k","headers":null}\nx',
    ]) {
      const { id, body } = unframed(Buffer.from(text), 't', () => 'place')
      assert.equal(id, 'place')
      assert.equal(Buffer.from(body).toString(), text)
    }
  })
})
