import { drizzle } from 'drizzle-orm/node-postgres'
import { integer, pgTable, text } from 'drizzle-orm/pg-core'
import pg from 'pg'
import { createWaybill, defineContext, defineEvent, on } from 'waybill'
import { databaseStorage, drizzleDatabase, drizzleExecutor } from 'waybill/postgres'
import { z } from 'zod'

const orders = pgTable('orders', { id: text().primaryKey(), pence: integer().notNull() })
const invoices = pgTable('invoices', { id: text().primaryKey(), pence: integer().notNull() })
const pool = new pg.Pool({ connectionString: process.env['DATABASE_URL'] })
// A connection that breaks is replaced. Without these two a broken one would end the process.
pool.on('error', () => {})
pool.on('connect', (client) => client.on('error', () => {}))
const db = drizzle(pool)
const database = drizzleDatabase(db)
await db.execute('create table orders (id text primary key, pence int not null)')
await db.execute('create table invoices (id text primary key, pence int not null)')

const OrderPlaced = defineEvent('order.OrderPlaced', {
  schema: z.object({ orderId: z.string(), pence: z.int() }),
  aggregate: { type: 'order', id: (order) => order.orderId },
})
const sales = defineContext('sales', { events: [OrderPlaced], publish: 'INTER_BC_RELIABLE' })
const billing = defineContext('billing', {
  handlers: {
    // In a transaction of its own, in which the event is recorded as handled: Drizzle reaches it too.
    invoice: on([OrderPlaced], async ({ payload: { orderId, pence } }, { sql }) => {
      await database.transactionOf(sql).insert(invoices).values({ id: orderId, pence })
    }),
  },
})

const storage = databaseStorage(database)
await storage.migrate() // or `waybill migrate`, once, before your processes start
const waybill = await createWaybill({ database: storage, contexts: [sales, billing], source: 'shop' })
await waybill.start()

// Waybill begins the transaction, and Drizzle writes in it.
await waybill.unitOfWork(async (unit) => {
  await database.transactionOf(unit.sql).insert(orders).values({ id: 'o-1', pence: 1250 })
  await unit.publish(OrderPlaced({ orderId: 'o-1', pence: 1250 }))
})

// You begin it, and Waybill joins.
await db.transaction(async (tx) => {
  await tx.insert(orders).values({ id: 'o-2', pence: 300 })
  await waybill.joinTransaction({ sql: drizzleExecutor(tx) }, (unit) => unit.publish(OrderPlaced({ orderId: 'o-2', pence: 300 })))
})

// Rolled back, there is neither an order nor an event.
const refused = waybill.unitOfWork(async (unit) => {
  await database.transactionOf(unit.sql).insert(orders).values({ id: 'o-3', pence: 1 })
  await unit.publish(OrderPlaced({ orderId: 'o-3', pence: 1 }))
  throw new Error('out of stock')
})
await refused.catch((error: Error) => console.log(`rolled back: ${error.message}`))

await waybill.drained()
console.log('orders', await db.select().from(orders).orderBy(orders.id))
console.log('invoices', await db.select().from(invoices).orderBy(invoices.id))
await waybill.stop()
await pool.end()
