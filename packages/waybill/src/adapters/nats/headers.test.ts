import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import type { Message } from '../../core/transport.ts'
import { headers as newHeaders } from '@nats-io/transport-node'
import type { NatsReceivedHeaders } from './client.ts'
import { decodeMessage, encodeHeaders } from './headers.ts'

/** As the client reads what was sent. */
function received(bytes: Uint8Array): NatsReceivedHeaders {
  const { decode } = newHeaders().constructor as unknown as { decode(bytes: Uint8Array): NatsReceivedHeaders }
  return decode(bytes)
}

const back = (message: Message): Message =>
  decodeMessage(message.topic, () => 'the place', { subject: '', data: message.body, headers: received(encodeHeaders(message)) })

const plain: Message = { id: 'id-1', topic: 'a.b', key: 'key-1', headers: {}, body: Uint8Array.of(0, 255) }

suite('headers at NATS', () => {
  test('id, key and headers come back as they were, also where a client would trim them or the server would take them for its own', () => {
    for (const message of [
      plain,
      { ...plain, id: ' spaced ', key: '　wide　' },
      {
        ...plain,
        key: '%%41',
        headers: { empty: '', edge: ' a b ', mark: '%%', text: 'ünïcode 🦊', colon: 'a: b', 'x-X': '1', 'X-x': '2' },
      },
      {
        ...plain,
        headers: { 'Nats-Msg-Id': 'mine', 'nats-rollup': 'all', 'waybill-key': 'k', 'waybill-h-a': 'b', 'Nats-Expected-Stream': 'x' },
      },
    ])
      assert.deepEqual({ ...back(message), headers: { ...back(message).headers } }, message)
  })

  test('nothing of ours can be a header of the server', () => {
    const text = Buffer.from(encodeHeaders({ ...plain, id: 'a\r\nNats-Rollup: all', headers: { 'Nats-Expected-Stream': 'x' } })).toString()
    assert.equal(text.split('\r\n').filter((line) => /^nats-/i.test(line)).length, 1)
  })

  test('a message of somebody else has its place for an id, its id for a key, and its headers', () => {
    const foreign = newHeaders()
    foreign.append('Trace', 'abc')
    foreign.append('Nats-Expected-Last-Sequence', '7')
    const message = decodeMessage('a.b', () => 'nats:s:7', {
      subject: '',
      data: Uint8Array.of(1),
      headers: foreign,
    })
    assert.deepEqual(
      { ...message, headers: { ...message.headers } },
      { id: 'nats:s:7', topic: 'a.b', key: 'nats:s:7', headers: { Trace: 'abc' }, body: Uint8Array.of(1) },
    )
    assert.equal(decodeMessage('a.b', () => 'nats:s:8', { subject: '', data: Uint8Array.of() }).id, 'nats:s:8')
  })
})
