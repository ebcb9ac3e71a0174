import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { placeOf } from './ack-subject.ts'

const consumer = '.waybill-a1.'

suite('the reply subject of a message', () => {
  test('says its sequence, its delivery and what follows it, with and without a domain', () => {
    const expected = { sequence: 1207, delivery: 12, pending: 345 }
    for (const subject of [
      '$JS.ACK.waybill-orders.waybill-a1.1.1207.12.1763772000000000000.345',
      '$JS.ACK.hub.ACCHASH.waybill-orders.waybill-a1.1.1207.12.1763772000000000000.345.r4nd0m',
      '$JS.ACK._.ACCHASH.waybill-orders.waybill-a1.1.1207.12.1763772000000000000.345.1',
    ])
      assert.deepEqual(placeOf(subject, consumer), expected)
  })

  test('a stream that is named like the beginning of the consumer, and numbers of one digit', () => {
    assert.deepEqual(placeOf('$JS.ACK.waybill-a.waybill-a1.1.1.1.1.0', consumer), { sequence: 1, delivery: 1, pending: 0 })
  })

  test('numbers beyond 32 bits are exact, and those beyond what a number can be are near', () => {
    const of = (sequence: bigint): number | undefined =>
      placeOf(`$JS.ACK.s.waybill-a1.1.${sequence}.4294967296.1763772000000000000.9007199254740991`, consumer)?.sequence
    assert.equal(of(9007199254740991n), 9007199254740991)
    assert.equal(of(4294967297n), 4294967297)
    assert.ok(Math.abs(of(18446744073709551615n)! / 2 ** 64 - 1) < 1e-9)
    assert.deepEqual(placeOf('$JS.ACK.s.waybill-a1.1.1.4294967296.1.9007199254740991', consumer), {
      sequence: 1,
      delivery: 4294967296,
      pending: 9007199254740991,
    })
  })

  test('any other subject says nothing', () => {
    for (const subject of [
      '',
      'a.reply.of.somebody',
      '$JS.ACK.waybill-orders.waybill-b2.1.1207.12.1763772000000000000.345',
      '$JS.ACK.waybill-orders.waybill-a1.1.1207.12.1763772000000000000',
      '$JS.ACK.waybill-orders.waybill-a1.1.1207.12.1763772000000000000.',
      '$JS.ACK.waybill-orders.waybill-a1.1..12.1763772000000000000.345',
      '$JS.ACK.waybill-orders.waybill-a1.1.-7.12.1763772000000000000.345',
      '$JS.ACK.waybill-orders.waybill-a1.1.1e3.12.1763772000000000000.345',
      '$JS.ACK.waybill-orders.waybill-a1.1.1207.٣.1763772000000000000.345',
      '$JS.ACK.waybill-orders.waybill-a1.',
      '$JS.ACK.waybill-orders.waybill-a1',
    ])
      assert.equal(placeOf(subject, consumer), undefined, subject)
  })
})
