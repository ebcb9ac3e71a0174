import knexFactory from 'knex'
import { createWaybill, defineContext, defineEvent, on } from 'waybill'
import { databaseStorage, knexDatabase, knexExecutor } from 'waybill/postgres'
import { z } from 'zod'

const knex = knexFactory({ client: 'pg', connection: process.env['DATABASE_URL']! })
const database = knexDatabase(knex)
for (const table of ['orders', 'invoices'])
  await knex.schema.createTable(table, (columns) => {
    columns.text('id').primary()
    columns.integer('pence').notNullable()
  })

const OrderPlaced = defineEvent('order.OrderPlaced', {
  schema: z.object({ orderId: z.string(), pence: z.int() }),
  aggregate: { type: 'order', id: (order) => order.orderId },
})
const sales = defineContext('sales', { events: [OrderPlaced], publish: 'INTER_BC_RELIABLE' })
const billing = defineContext('billing', {
  handlers: {
    // In a transaction of its own, in which the event is recorded as handled: Knex reaches it too.
    invoice: on([OrderPlaced], async ({ payload: { orderId, pence } }, { sql }) => {
      await database.transactionOf(sql)('invoices').insert({ id: orderId, pence })
    }),
  },
})

const storage = databaseStorage(database)
await storage.migrate() // or `waybill migrate`, once, before your processes start
const waybill = await createWaybill({ database: storage, contexts: [sales, billing], source: 'shop' })
await waybill.start()

// Waybill begins the transaction, and Knex writes in it.
await waybill.unitOfWork(async (unit) => {
  await database.transactionOf(unit.sql)('orders').insert({ id: 'o-1', pence: 1250 })
  await unit.publish(OrderPlaced({ orderId: 'o-1', pence: 1250 }))
})

// You begin it, and Waybill joins.
await knex.transaction(async (trx) => {
  await trx('orders').insert({ id: 'o-2', pence: 300 })
  await waybill.joinTransaction({ sql: knexExecutor(trx) }, (unit) => unit.publish(OrderPlaced({ orderId: 'o-2', pence: 300 })))
})

// Rolled back, there is neither an order nor an event.
const refused = waybill.unitOfWork(async (unit) => {
  await database.transactionOf(unit.sql)('orders').insert({ id: 'o-3', pence: 1 })
  await unit.publish(OrderPlaced({ orderId: 'o-3', pence: 1 }))
  throw new Error('out of stock')
})
await refused.catch((error: Error) => console.log(`rolled back: ${error.message}`))

await waybill.drained()
console.log('orders', await knex('orders').orderBy('id'))
console.log('invoices', await knex('invoices').orderBy('id'))
await waybill.stop()
await knex.destroy()
