import { createWaybill, defineContext, defineEvent, on } from 'waybill'
import { pgliteStorage } from 'waybill/postgres'
import { z } from 'zod'

const OrderPlaced = defineEvent('order.OrderPlaced', {
  schema: z.object({ orderId: z.string(), pence: z.int() }),
  aggregate: { type: 'order', id: (order) => order.orderId },
  topic: 'order', // types whose order matters to each other share a topic
})
const OrderCancelled = defineEvent('order.OrderCancelled', {
  schema: z.object({ orderId: z.string() }),
  aggregate: { type: 'order', id: (order) => order.orderId },
  topic: 'order',
})

const sales = defineContext('sales', { events: [OrderPlaced, OrderCancelled], publish: 'INTER_BC_RELIABLE' })
const billing = defineContext('billing', {
  handlers: {
    // Runs in a transaction of its own, in which the event is recorded as handled: once, however often it arrives.
    invoice: on([OrderPlaced, OrderCancelled], async (event, { sql }) => {
      const pence = event.type === 'order.OrderPlaced' ? event.payload.pence : 0
      await sql.query('insert into invoices values ($1, $2) on conflict (id) do update set pence = $2', [event.payload.orderId, pence])
    }),
  },
})

await using waybill = await createWaybill({ database: await pgliteStorage('memory://'), contexts: [sales, billing], source: 'shop' })
await waybill.sql.query('create table orders (id text primary key)')
await waybill.sql.query('create table invoices (id text primary key, pence int)')
await waybill.start()

const { receipts } = await waybill.unitOfWork(async (unit) => {
  await unit.sql.query("insert into orders values ('o-1')")
  await unit.publish(OrderPlaced({ orderId: 'o-1', pence: 1250 })) // a row in this transaction: rolled back with it, or never lost
})
await waybill.drained() // in memory: handled. Over a broker: stored there, and the handler runs a moment later

const { rows } = await waybill.sql.query('select * from invoices')
console.log(receipts[0]?.strategy, receipts[0]?.state, rows) // ASYNC_ONLY pending [ { id: 'o-1', pence: 1250 } ]
