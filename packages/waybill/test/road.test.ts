import assert from 'node:assert/strict'
import { after, before, beforeEach, test } from 'node:test'
import {
  Aggregate,
  type DomainEvent,
  type PublishStrategy,
  type Storage,
  type Waybill,
  createWaybill,
  defineContext,
  defineEvent,
  isWaybillError,
  memoryStorage,
  on,
  onBatch,
  withScope,
} from 'waybill'
import { pgliteStorage } from 'waybill/postgres'

// The whole road as one process walks it: PGlite, the memory transport, relay, consumers.

const Placed = defineEvent<{ id: string; key: string; seq: number }>('order.Placed', { key: (order) => order.key, topic: 'order' })
const Shipped = defineEvent<{ id: string }>('order.Shipped', { key: (order) => order.id, topic: 'order' })

const seen: { handler: string; event: DomainEvent }[] = []
const broken = new Set<string>()
const note = (handler: string, event: DomainEvent): void => {
  if (broken.has((event.payload as { id: string }).id)) throw new Error(`cannot handle ${handler}`)
  seen.push({ handler, event })
}
const retry = { attemptsMax: 2, baseMs: 1, maxMs: 1 }
const orders = defineContext('orders', {
  events: [Placed, Shipped],
  handlers: {
    ship: on(
      [Placed],
      async (event, { sql, publish }) => {
        note('ship', event)
        await sql.query('insert into shipment (order_id) values ($1)', [event.payload.id])
        await publish(Shipped({ id: event.payload.id }), { strategy: 'ASYNC_ONLY' })
      },
      { retry },
    ),
    list: onBatch([Placed, Shipped], (events) => events.forEach((event) => note('list', event)), { ordered: true, retry }),
  },
})

let storage: Storage
let waybill: Waybill

before(async () => {
  storage = await pgliteStorage('memory://')
  await storage.database.query('create table shipment (order_id text not null)')
  waybill = await createWaybill({ database: storage, contexts: [orders], source: 'test' })
  await waybill.start()
})
after(() => waybill.stop())
beforeEach(async () => {
  await waybill.drained()
  seen.length = 0
  broken.clear()
  await storage.database.query('delete from shipment')
})

const shipments = async (): Promise<number> =>
  (await storage.database.query<{ n: number }>('select count(*)::int as n from shipment')).rows[0]!.n
const times = (handler: string, id: string): number =>
  seen.filter((call) => call.handler === handler && (call.event.payload as { id: string }).id === id && call.event.type === 'order.Placed')
    .length

// `list` is ordered, so the road serves it and a HYBRID_FAST row stays for it.
const TABLE: readonly [PublishStrategy, 'delivered' | 'pending', confirmed: boolean, list: number][] = [
  ['SYNC_ONLY', 'delivered', true, 0],
  ['ASYNC_ONLY', 'pending', false, 1],
  ['HYBRID_FAST', 'pending', true, 1],
  ['HYBRID_RELIABLE', 'pending', true, 1],
]

for (const [strategy, state, confirmed, list] of TABLE) {
  test(`${strategy} in a unit of work: settled after the commit, each effect once`, async () => {
    const { result, receipts } = await waybill.unitOfWork(async (unit) => {
      const receipt = await unit.publish(Placed({ id: strategy, key: 'k', seq: 1 }), { strategy })
      assert.equal(receipt.state, 'pending', 'inside the unit nothing is settled')
      assert.equal(seen.length, 0, 'nothing runs before the commit')
      return receipt.eventId
    })
    const [receipt] = receipts
    assert.deepEqual(
      [receipt?.eventId, receipt?.strategy, receipt?.state, receipt?.confirmed, receipt?.decidedBy],
      [result, strategy, state, confirmed, 'call'],
    )
    await waybill.drained()
    assert.deepEqual([times('ship', strategy), times('list', strategy), await shipments()], [1, list, 1])
  })

  test(`${strategy} in a unit that rolls back: nothing is ever seen`, async () => {
    const undo = new Error('undo')
    await assert.rejects(
      waybill.unitOfWork(async (unit) => {
        await unit.publish(Placed({ id: `undone-${strategy}`, key: 'k', seq: 1 }), { strategy })
        throw undo
      }),
      undo,
    )
    await waybill.drained()
    assert.equal(seen.length, 0)
  })

  test(`${strategy} outside a unit of work: each effect once`, async () => {
    const receipt = await waybill.publish(Placed({ id: strategy, key: 'k', seq: 1 }), { strategy })
    assert.deepEqual([receipt.state, receipt.confirmed], [state, confirmed])
    await waybill.drained()
    assert.deepEqual([times('ship', strategy), times('list', strategy), await shipments()], [1, list, 1])
  })
}

test('correlation, causation and metadata travel from hop to hop without being passed on', async () => {
  const placed = await withScope({ correlationId: 'request-7', metadata: { tenant: 't-1' } }, () =>
    waybill.publish(Placed({ id: 'traced', key: 'k', seq: 1 }), { strategy: 'ASYNC_ONLY' }),
  )
  await waybill.drained()
  const shipped = seen.find(({ event }) => event.type === 'order.Shipped')!.event
  assert.deepEqual([shipped.correlationId, shipped.causationId, shipped.metadata], ['request-7', placed.eventId, { tenant: 't-1' }])
})

test('what fails for good is parked with its followers, in order; other keys and handlers go on', async () => {
  broken.add('poison')
  for (const [id, key] of [
    ['poison', 'bad'],
    ['behind', 'bad'],
    ['other', 'good'],
  ] as const) {
    await waybill.publish(Placed({ id, key, seq: 1 }), { strategy: 'ASYNC_ONLY' })
  }
  await waybill.drained()
  const letters = await storage.deadLetters.list({ handler: 'orders/ship' })
  assert.deepEqual(
    letters.map(({ reason, attempts, message }) => [reason, attempts, message.key]),
    [
      ['failed', 2, 'bad'],
      ['follower', 0, 'bad'],
    ],
  )
  assert.match(letters[0]!.error ?? '', /cannot handle ship/)
  assert.deepEqual([times('ship', 'behind'), times('ship', 'other'), times('list', 'other')], [0, 1, 1])
})

test('a policy changed at run time decides the next publish', async () => {
  const decided = async (): Promise<unknown> => {
    const { strategy, decidedBy } = await waybill.publish(Placed({ id: 'p', key: 'k2', seq: 1 }))
    return [strategy, decidedBy]
  }
  assert.deepEqual(await decided(), ['HYBRID_FAST', 'default'])
  waybill.configureBoundedContext('orders', { strategy: 'ASYNC_ONLY' })
  assert.deepEqual(await decided(), ['ASYNC_ONLY', 'context'])
  waybill.configureEvent(Placed, { strategy: 'SYNC_ONLY' })
  assert.deepEqual(await decided(), ['SYNC_ONLY', 'event'])
  waybill.configureEvent(Placed, {})
  waybill.configureBoundedContext('orders', {})
})

test('a change at run time that could not be kept is refused, and the old policy stays', async () => {
  const far = defineEvent('far.Away')
  const two = await createWaybill({
    database: memoryStorage(),
    contexts: [
      defineContext('far', { events: [far], publish: { strategy: 'ASYNC_ONLY' } }),
      defineContext('near', { handlers: { take: on([far], () => {}) } }),
    ],
  })
  await two.start()
  for (const change of [() => two.configureEvent(far, 'INTRA_BC_FAST'), () => two.configureBoundedContext('far', 'INTRA_BC_FAST')]) {
    assert.throws(change, (error) => isWaybillError(error, 'HYBRID_FAST_ACROSS_CONTEXTS'))
    assert.equal((await two.publish(far({}))).strategy, 'ASYNC_ONLY')
  }
  await two.stop()
})

test('a unit of work writes what its aggregates raised', async () => {
  class Order extends Aggregate {
    place(id: string): void {
      this.raise(Placed({ id, key: 'agg', seq: 1 }))
    }
  }
  const { receipts } = await waybill.unitOfWork(async (unit) => {
    const order = new Order()
    unit.track(order)
    order.place('a-1')
    order.place('a-2')
  })
  await waybill.drained()
  assert.equal(receipts.length, 2)
  assert.deepEqual([times('list', 'a-1'), times('list', 'a-2')], [1, 1])
})

test('a transaction that the caller owns carries rows, and refuses what could not wait for its commit', async () => {
  await storage.database.transaction((sql) =>
    waybill.joinTransaction({ sql }, async (unit) => {
      await unit.publish(Placed({ id: 'joined', key: 'k3', seq: 1 }), { strategy: 'ASYNC_ONLY' })
      await assert.rejects(unit.publish(Placed({ id: 'no', key: 'k3', seq: 1 }), { strategy: 'SYNC_ONLY' }), (error) =>
        isWaybillError(error, 'UNSUPPORTED'),
      )
    }),
  )
  await waybill.drained()
  assert.deepEqual([times('list', 'joined'), times('list', 'no')], [1, 0])
})

test('ten thousand events of fifty keys arrive once each and in order', async () => {
  const EVENTS = 10_000
  await waybill.unitOfWork(async (unit) => {
    for (let seq = 0; seq < EVENTS; seq++)
      await unit.publish(Shipped({ id: `bulk-${seq % 50}` }, { aggregateVersion: seq }), { strategy: 'ASYNC_ONLY' })
  })
  await waybill.drained()
  const last = new Map<string, number>()
  for (const { event } of seen) {
    assert.ok((last.get(event.key) ?? -1) < event.aggregateVersion!, `${event.key} went back`)
    last.set(event.key, event.aggregateVersion!)
  }
  assert.equal(seen.length, EVENTS)
})
