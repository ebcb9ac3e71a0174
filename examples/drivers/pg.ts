import pg from 'pg'
import { createWaybill, defineContext, defineEvent, on } from 'waybill'
import { databaseStorage, pgDatabase, pgExecutor } from 'waybill/postgres'
import { z } from 'zod'

const pool = new pg.Pool({ connectionString: process.env['DATABASE_URL'] })
pool.on('error', () => {}) // an idle connection that breaks is replaced; without this it would end the process
const database = pgDatabase(pool)
await pool.query('create table orders (id text primary key, pence int not null)')
await pool.query('create table invoices (id text primary key, pence int not null)')

const OrderPlaced = defineEvent('order.OrderPlaced', {
  schema: z.object({ orderId: z.string(), pence: z.int() }),
  aggregate: { type: 'order', id: (order) => order.orderId },
})
const sales = defineContext('sales', { events: [OrderPlaced], publish: 'INTER_BC_RELIABLE' })
const billing = defineContext('billing', {
  handlers: {
    // In a transaction of its own, in which the event is recorded as handled: pg reaches it too.
    invoice: on([OrderPlaced], async ({ payload: { orderId, pence } }, { sql }) => {
      await database.transactionOf(sql).query('insert into invoices values ($1, $2)', [orderId, pence])
    }),
  },
})

const storage = databaseStorage(database)
await storage.migrate() // or `waybill migrate`, once, before your processes start
const waybill = await createWaybill({ database: storage, contexts: [sales, billing], source: 'shop' })
await waybill.start()

// Waybill begins the transaction, and pg writes in it.
await waybill.unitOfWork(async (unit) => {
  await database.transactionOf(unit.sql).query('insert into orders values ($1, $2)', ['o-1', 1250])
  await unit.publish(OrderPlaced({ orderId: 'o-1', pence: 1250 }))
})

// You begin it, and Waybill joins.
const client = await pool.connect()
try {
  await client.query('begin')
  await client.query('insert into orders values ($1, $2)', ['o-2', 300])
  await waybill.joinTransaction({ sql: pgExecutor(client) }, (unit) => unit.publish(OrderPlaced({ orderId: 'o-2', pence: 300 })))
  await client.query('commit')
} catch (error) {
  await client.query('rollback')
  throw error
} finally {
  client.release()
}

// Rolled back, there is neither an order nor an event.
const refused = waybill.unitOfWork(async (unit) => {
  await database.transactionOf(unit.sql).query('insert into orders values ($1, $2)', ['o-3', 1])
  await unit.publish(OrderPlaced({ orderId: 'o-3', pence: 1 }))
  throw new Error('out of stock')
})
await refused.catch((error: Error) => console.log(`rolled back: ${error.message}`))

await waybill.drained()
console.log('orders', (await pool.query('select * from orders order by id')).rows)
console.log('invoices', (await pool.query('select * from invoices order by id')).rows)
await waybill.stop()
await pool.end()
