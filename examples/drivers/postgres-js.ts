import postgres from 'postgres'
import { createWaybill, defineContext, defineEvent, on } from 'waybill'
import { databaseStorage, postgresJsDatabase, postgresJsExecutor } from 'waybill/postgres'
import { z } from 'zod'

const sql = postgres(process.env['DATABASE_URL']!, { onnotice: () => {} })
const database = postgresJsDatabase(sql)
await sql`create table orders (id text primary key, pence int not null)`
await sql`create table invoices (id text primary key, pence int not null)`

const OrderPlaced = defineEvent('order.OrderPlaced', {
  schema: z.object({ orderId: z.string(), pence: z.int() }),
  aggregate: { type: 'order', id: (order) => order.orderId },
})
const sales = defineContext('sales', { events: [OrderPlaced], publish: 'INTER_BC_RELIABLE' })
const billing = defineContext('billing', {
  handlers: {
    // In a transaction of its own, in which the event is recorded as handled: postgres.js reaches it too.
    invoice: on([OrderPlaced], async ({ payload: { orderId, pence } }, { sql }) => {
      const tx = database.transactionOf(sql)
      await tx`insert into invoices values (${orderId}, ${pence})`
    }),
  },
})

const storage = databaseStorage(database)
await storage.migrate() // or `waybill migrate`, once, before your processes start
const waybill = await createWaybill({ database: storage, contexts: [sales, billing], source: 'shop' })
await waybill.start()

// Waybill begins the transaction, and postgres.js writes in it.
await waybill.unitOfWork(async (unit) => {
  const tx = database.transactionOf(unit.sql)
  await tx`insert into orders values (${'o-1'}, ${1250})`
  await unit.publish(OrderPlaced({ orderId: 'o-1', pence: 1250 }))
})

// You begin it, and Waybill joins.
await sql.begin(async (tx) => {
  await tx`insert into orders values (${'o-2'}, ${300})`
  await waybill.joinTransaction({ sql: postgresJsExecutor(tx) }, (unit) => unit.publish(OrderPlaced({ orderId: 'o-2', pence: 300 })))
})

// Rolled back, there is neither an order nor an event.
const refused = waybill.unitOfWork(async (unit) => {
  const tx = database.transactionOf(unit.sql)
  await tx`insert into orders values (${'o-3'}, ${1})`
  await unit.publish(OrderPlaced({ orderId: 'o-3', pence: 1 }))
  throw new Error('out of stock')
})
await refused.catch((error: Error) => console.log(`rolled back: ${error.message}`))

await waybill.drained()
console.log('orders', [...(await sql`select * from orders order by id`)])
console.log('invoices', [...(await sql`select * from invoices order by id`)])
await waybill.stop()
await sql.end()
