import assert from 'node:assert/strict'
import type { DeadLetter, Storage } from '../core/stores.ts'
import { type ContractTest, withStorage } from './contract-tools.ts'

const HANDLER = 'billing/invoice'

/** What every dead-letter store must do. Runner-agnostic, as the outbox's. */
export function deadLetterStoreContract(test: ContractTest, make: () => Promise<Storage>): void {
  const declare = withStorage(test, make)
  keepingTests(declare)
  findingTests(declare)
}

type Declare = ReturnType<typeof withStorage>

function keepingTests(declare: Declare): void {
  declare('a dead letter is kept as it came', async ({ deadLetters }) => {
    const full: DeadLetter = {
      handler: HANDLER,
      message: {
        id: 'event-1',
        topic: 'order',
        key: 'clé "1"',
        headers: { event_type: 'order.Placed', note: 'ü"\\{}' },
        body: Uint8Array.from({ length: 256 }, (_, byte) => byte),
      },
      eventType: 'order.Placed',
      reason: 'failed',
      error: 'no such customer',
      attempts: 5,
      partition: 'order/3',
      sequence: 18_446_744_073_709_551_615n,
    }
    const bare: DeadLetter = {
      ...full,
      message: { ...full.message, id: 'event-2', headers: {}, body: new Uint8Array() },
      eventType: undefined,
      reason: 'undecodable',
      error: undefined,
      attempts: 0,
      sequence: undefined,
    }
    await deadLetters.park([full, bare])
    const [first, second] = await deadLetters.list({})
    assert.deepEqual(plain(first!), plain(full))
    assert.deepEqual(plain(second!), plain(bare))
    assert.ok(first!.parkedAt instanceof Date && !Number.isNaN(first!.parkedAt.getTime()))
  })

  declare('parking the same message of the same handler again changes nothing', async ({ deadLetters }) => {
    await deadLetters.park([letter('event-1')])
    await deadLetters.park([letter('event-1', { error: 'another one' }), letter('event-2')])
    await deadLetters.park([letter('event-1', { handler: 'billing/other' })])
    assert.deepEqual(
      (await deadLetters.list({})).map((parked) => `${parked.handler} ${parked.message.id} ${parked.error}`),
      [`${HANDLER} event-1 no`, `${HANDLER} event-2 no`, 'billing/other event-1 no'],
    )
    assert.equal(await deadLetters.count(), 3)
  })

  declare('whatever can arrive can be parked: control bytes, half characters, an endless id or key', async ({ deadLetters }) => {
    const hostile = ['nul\u0000byte', 'half \ud800', 'x'.repeat(100_000)]
    for (const text of hostile)
      await deadLetters.park([
        letter(text, {
          message: { id: text, topic: text, key: text, headers: { note: text }, body: new Uint8Array([0]) },
          error: text,
          partition: text,
        }),
      ])
    assert.equal(await deadLetters.count(), hostile.length)
    assert.deepEqual(
      (await deadLetters.list({})).map((parked) => parked.message.headers['note']),
      hostile,
    )
  })

  declare('nothing to park is no error', async ({ deadLetters }) => {
    await deadLetters.park([])
    assert.equal(await deadLetters.count(), 0)
  })
}

function findingTests(declare: Declare): void {
  declare('letters come oldest first, so many as asked for, of the handler asked for', async ({ deadLetters }) => {
    const ids = Array.from({ length: 6 }, (_, index) => `event-${9 - index}`)
    await deadLetters.park(ids.slice(0, 3).map((id) => letter(id)))
    for (const id of ids.slice(3)) await deadLetters.park([letter(id)])
    await deadLetters.park([letter('event-0', { handler: 'billing/other' })])
    const idsOf = async (filter: Parameters<typeof deadLetters.list>[0]) =>
      (await deadLetters.list(filter)).map((parked) => parked.message.id)
    assert.deepEqual(await idsOf({ handler: HANDLER }), ids)
    assert.deepEqual(await idsOf({ limit: 2 }), ids.slice(0, 2))
    assert.deepEqual(await idsOf({ handler: 'billing/other' }), ['event-0'])
    await assert.rejects(deadLetters.list({ limit: 0 }), { code: 'INVALID_OPTION' })
  })

  declare('the keys whose followers must wait are those with a letter, per handler', async ({ deadLetters }) => {
    const of = (id: string, topic: string, key: string, handler = HANDLER) =>
      letter(id, { handler, message: { id, topic, key, headers: {}, body: new Uint8Array() } })
    await deadLetters.park([
      of('1', 'order', 'a'),
      of('2', 'order', 'a'),
      of('3', 'order', 'b'),
      of('4', 'invoice', 'a'),
      of('5', 'order', 'z', 'billing/other'),
    ])
    const keys = async (handler: string) => (await deadLetters.parkedKeys(handler)).map(({ topic, key }) => `${topic}/${key}`).toSorted()
    assert.deepEqual(await keys(HANDLER), ['invoice/a', 'order/a', 'order/b'])
    assert.deepEqual(await keys('billing/other'), ['order/z'])
    assert.deepEqual(await keys('billing/none'), [])
  })
}

function letter(id: string, more: Partial<DeadLetter> = {}): DeadLetter {
  return {
    handler: HANDLER,
    message: { id, topic: 'order', key: 'a', headers: {}, body: new Uint8Array([1]) },
    eventType: 'order.Placed',
    reason: 'failed',
    error: 'no',
    attempts: 3,
    partition: 'order/0',
    sequence: 1n,
    ...more,
  }
}

function plain({
  handler,
  message: { id, topic, key, headers, body },
  eventType,
  reason,
  error,
  attempts,
  partition,
  sequence,
}: DeadLetter): unknown {
  return {
    handler,
    message: { id, topic, key, headers: { ...headers }, body: [...body] },
    eventType,
    reason,
    error,
    attempts,
    partition,
    sequence,
  }
}
