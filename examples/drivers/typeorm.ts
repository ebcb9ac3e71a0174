import { DataSource, EntitySchema } from 'typeorm'
import { createWaybill, defineContext, defineEvent, on } from 'waybill'
import { databaseStorage, typeormDatabase, typeormExecutor } from 'waybill/postgres'
import { z } from 'zod'

interface Amount {
  id: string
  pence: number
}
// Entities as values: decorators need a compiler, and this file runs as it is.
const amount = { id: { type: 'text', primary: true }, pence: { type: 'int' } } as const
const orders = new EntitySchema<Amount>({ name: 'orders', columns: amount })
const invoices = new EntitySchema<Amount>({ name: 'invoices', columns: amount })
const dataSource = new DataSource({ type: 'postgres', url: process.env['DATABASE_URL']!, entities: [orders, invoices], synchronize: true })
await dataSource.initialize()
const database = typeormDatabase(dataSource)

const OrderPlaced = defineEvent('order.OrderPlaced', {
  schema: z.object({ orderId: z.string(), pence: z.int() }),
  aggregate: { type: 'order', id: (order) => order.orderId },
})
const sales = defineContext('sales', { events: [OrderPlaced], publish: 'INTER_BC_RELIABLE' })
const billing = defineContext('billing', {
  handlers: {
    // In a transaction of its own, in which the event is recorded as handled: TypeORM reaches it too.
    invoice: on([OrderPlaced], async ({ payload: { orderId, pence } }, { sql }) => {
      await database.transactionOf(sql).insert(invoices, { id: orderId, pence })
    }),
  },
})

const storage = databaseStorage(database)
await storage.migrate() // or `waybill migrate`, once, before your processes start
const waybill = await createWaybill({ database: storage, contexts: [sales, billing], source: 'shop' })
await waybill.start()

// Waybill begins the transaction, and TypeORM writes in it.
await waybill.unitOfWork(async (unit) => {
  await database.transactionOf(unit.sql).insert(orders, { id: 'o-1', pence: 1250 })
  await unit.publish(OrderPlaced({ orderId: 'o-1', pence: 1250 }))
})

// You begin it, and Waybill joins.
await dataSource.transaction(async (manager) => {
  await manager.insert(orders, { id: 'o-2', pence: 300 })
  await waybill.joinTransaction({ sql: typeormExecutor(manager) }, (unit) => unit.publish(OrderPlaced({ orderId: 'o-2', pence: 300 })))
})

// Rolled back, there is neither an order nor an event.
const refused = waybill.unitOfWork(async (unit) => {
  await database.transactionOf(unit.sql).insert(orders, { id: 'o-3', pence: 1 })
  await unit.publish(OrderPlaced({ orderId: 'o-3', pence: 1 }))
  throw new Error('out of stock')
})
await refused.catch((error: Error) => console.log(`rolled back: ${error.message}`))

await waybill.drained()
console.log('orders', await dataSource.manager.find(orders, { order: { id: 'asc' } }))
console.log('invoices', await dataSource.manager.find(invoices, { order: { id: 'asc' } }))
await waybill.stop()
await dataSource.destroy()
