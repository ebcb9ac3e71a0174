import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { pgliteStorage } from '../adapters/postgres/pglite.ts'
import { defineEvent, type DomainEvent } from '../core/event.ts'
import { currentScope } from '../core/scope.ts'
import type { OutboxEntry, Storage } from '../core/stores.ts'
import type { Message, Publisher, PublishOutcome } from '../core/transport.ts'
import type { Receipt } from '../core/unit.ts'
import { createRelay, type Relay } from './relay.ts'
import { createJoinTransaction, createUnitOfWork, createUnitRunner } from './unit-of-work.ts'

// The same promises as on memory storage, on a real PostgreSQL: what only a database can get wrong.

const Placed = defineEvent<{ id: string; customer: string }>('order.Placed', { key: (order) => order.customer, topic: 'order' })

let storage: Storage

before(async () => {
  storage = await pgliteStorage('memory://')
  await storage.migrate()
  await storage.database.query('create table orders (id text primary key, customer text not null)')
})

after(() => storage.close())

function entryOf(event: DomainEvent, destination = 'default'): OutboxEntry {
  return {
    message: {
      id: event.id,
      topic: event.eventType.topic,
      key: event.key,
      headers: { event_type: event.type },
      body: Buffer.from(JSON.stringify(event.payload)),
    },
    eventType: event.type,
    destination,
  }
}

const publish = async (event: DomainEvent): Promise<Receipt> => {
  const receipt: Receipt = {
    eventId: event.id,
    eventType: event.type,
    strategy: 'ASYNC_ONLY',
    scope: 'INTER_BC',
    decidedBy: 'default',
    state: 'pending',
    confirmed: false,
    durationMs: 0,
  }
  const unit = currentScope().unit!
  if (unit.write === undefined) unit.enqueue(entryOf(event), async () => receipt)
  else await unit.write(entryOf(event))
  return receipt
}

const unitOfWork = (wake: () => void = () => {}): ReturnType<typeof createUnitOfWork> =>
  createUnitOfWork(createUnitRunner({ database: storage.database, outbox: storage.outbox, publish, wake }), publish)

interface Sink extends Publisher {
  readonly messages: Message[]
  answer: (message: Message) => PublishOutcome
}

function sink(acknowledges: 'stored' | 'handled' = 'handled'): Sink {
  const made: Sink = {
    capabilities: { ordering: 'key', stopsKeyAtFailure: true, acknowledges, delay: false },
    messages: [],
    answer: () => ({ kind: 'stored' }),
    publish: async (messages) => {
      made.messages.push(...messages)
      return messages.map((message) => made.answer(message))
    },
  }
  return made
}

const relayTo = (publisher: Publisher): Relay => createRelay({ store: storage.outbox, publishers: new Map([['default', publisher]]) })

async function orderIds(): Promise<string[]> {
  const { rows } = await storage.database.query<{ id: string }>('select id from orders order by id')
  return rows.map((row) => row.id)
}

test('the business change and its events are committed together, and a relay carries them in the order of each key', async () => {
  const orders = Array.from({ length: 60 }, (_, at) => ({ id: `order-${String(at).padStart(2, '0')}`, customer: `customer-${at % 5}` }))
  for (const order of orders) {
    await unitOfWork()(async (unit) => {
      await unit.sql.query('insert into orders (id, customer) values ($1, $2)', [order.id, order.customer])
      await unit.publish(Placed(order))
    })
  }
  assert.equal((await orderIds()).length, 60)
  const publisher = sink()
  assert.equal(await relayTo(publisher).publishAllPending(), 60)
  const carried = publisher.messages.map((message) => JSON.parse(Buffer.from(message.body).toString()) as { id: string; customer: string })
  for (let customer = 0; customer < 5; customer++) {
    const of = (list: readonly { id: string; customer: string }[]): string[] =>
      list.filter((order) => order.customer === `customer-${customer}`).map(({ id }) => id)
    assert.deepEqual(of(carried), of(orders))
  }
  assert.equal((await storage.outbox.stats()).pending, 0)
})

test('a unit that fails, in its own code or in the database, leaves neither rows nor events', async () => {
  const before = await orderIds()
  const order = { id: 'order-00', customer: 'customer-0' }
  await assert.rejects(
    unitOfWork()(async (unit) => {
      await unit.publish(Placed(order))
      await unit.sql.query('insert into orders (id, customer) values ($1, $2)', [order.id, order.customer])
    }),
    (error: Error) => /duplicate key/.test(`${error.message} ${String(error.cause)}`),
  )
  await assert.rejects(
    unitOfWork()(async (unit) => {
      await unit.sql.query("insert into orders (id, customer) values ('new', 'c')")
      await unit.publish(Placed({ id: 'new', customer: 'c' }))
      throw new Error('changed my mind')
    }),
    { message: 'changed my mind' },
  )
  assert.deepEqual(await orderIds(), before)
  assert.equal((await storage.outbox.stats()).pending, 0)
})

test('the executor of a unit that has ended reaches no other transaction', async () => {
  let late!: (text: string) => Promise<unknown>
  await unitOfWork()(async (unit) => {
    late = (text) => unit.sql.query(text)
  })
  await assert.rejects(late("insert into orders (id, customer) values ('late', 'c')"), { code: 'UNIT_CLOSED' })
  assert.ok(!(await orderIds()).includes('late'))
})

test("in the caller's own transaction the row is there with its commit, and gone with its rollback", async () => {
  const joinTransaction = createJoinTransaction(storage.outbox, publish)
  await assert.rejects(
    storage.database.transaction(async (sql) => {
      await joinTransaction({ sql }, (unit) => unit.publish(Placed({ id: 'x', customer: 'c' })))
      throw new Error('roll back')
    }),
  )
  assert.equal((await storage.outbox.stats()).pending, 0)
  await storage.database.transaction(async (sql) => {
    await joinTransaction({ sql }, (unit) => unit.publish(Placed({ id: 'x', customer: 'c' })))
  })
  const publisher = sink()
  assert.equal(await relayTo(publisher).publishAllPending(), 1)
})

test('a relay that runs publishes what units commit while it runs, and stops when told', async () => {
  const publisher = sink()
  const relay = relayTo(publisher)
  const stop = new AbortController()
  const done = relay.run(stop.signal)
  const arrived = Promise.withResolvers<void>()
  publisher.answer = () => {
    if (publisher.messages.length === 40) arrived.resolve()
    return { kind: 'stored' }
  }
  const unit = unitOfWork(relay.wake)
  await Promise.all(Array.from({ length: 40 }, (_, at) => unit((open) => open.publish(Placed({ id: `${at}`, customer: `c-${at % 3}` })))))
  await arrived.promise
  stop.abort()
  await done
  assert.equal((await storage.outbox.stats()).pending, 0)
  assert.equal(publisher.messages.length, 40)
})

test('what a dead relay left in flight is sent again as suspect, charged, and carried in order', async () => {
  for (const id of ['1', '2', '3']) await unitOfWork()((unit) => unit.publish(Placed({ id, customer: 'suspect' })))
  await storage.outbox.acquire('dead', 100)
  assert.equal((await storage.outbox.claim('dead', { limit: 10, busy: [] })).length, 3)
  const publisher = sink('stored')
  const charged: number[] = []
  const store = {
    ...storage.outbox,
    charge: async (relayId: string, rowId: string) => {
      await storage.outbox.charge(relayId, rowId)
      charged.push((await storage.outbox.list({ rowIds: [rowId] }))[0]!.attempts)
    },
  }
  const relay = createRelay({ store, publishers: new Map([['default', publisher]]) })
  // The dead one's lease must run out by the database's own clock.
  while ((await storage.outbox.stats()).pending > 0) await relay.publishAllPending()
  assert.deepEqual(
    publisher.messages.map(({ body, resent }) => [JSON.parse(Buffer.from(body).toString()).id, resent]),
    [
      ['1', true],
      ['2', true],
      ['3', true],
    ],
  )
  assert.deepEqual(charged, [1, 1, 1])
})

test('a destination that is down does not crowd out the others, however long its backlog', async () => {
  for (let at = 0; at < 30; at++) {
    await storage.database.transaction((sql) =>
      storage.outbox.append(sql, [entryOf(Placed({ id: `${at}`, customer: `down-${at}` }), 'down')]),
    )
  }
  await storage.database.transaction((sql) => storage.outbox.append(sql, [entryOf(Placed({ id: 'up', customer: 'up' }))]))
  const [up, down] = [sink(), sink()]
  down.publish = async () => {
    throw new Error('down')
  }
  const relay = createRelay({
    store: storage.outbox,
    publishers: new Map([
      ['default', up],
      ['down', down],
    ]),
    batchSize: 5,
    retry: { baseMs: 1, maxMs: 1 },
  })
  assert.equal(await relay.publishAllPending(), 1)
  assert.deepEqual(relay.stats().breakers, { default: 'closed', down: 'open' })
  assert.equal(
    (await storage.outbox.list({ status: 'pending', limit: 100 })).every((row) => row.attempts === 0),
    true,
  )
})
