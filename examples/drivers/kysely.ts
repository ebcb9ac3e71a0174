import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { createWaybill, defineContext, defineEvent, on } from 'waybill'
import { databaseStorage, kyselyDatabase, kyselyExecutor } from 'waybill/postgres'
import { z } from 'zod'

interface Tables {
  orders: { id: string; pence: number }
  invoices: { id: string; pence: number }
}
const pool = new pg.Pool({ connectionString: process.env['DATABASE_URL'] })
// A connection that breaks is replaced. Without these two a broken one would end the process.
pool.on('error', () => {})
pool.on('connect', (client) => client.on('error', () => {}))
const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) })
const database = kyselyDatabase(db)
for (const table of ['orders', 'invoices'])
  await db.schema
    .createTable(table)
    .addColumn('id', 'text', (id) => id.primaryKey())
    .addColumn('pence', 'integer')
    .execute()

const OrderPlaced = defineEvent('order.OrderPlaced', {
  schema: z.object({ orderId: z.string(), pence: z.int() }),
  aggregate: { type: 'order', id: (order) => order.orderId },
})
const sales = defineContext('sales', { events: [OrderPlaced], publish: 'INTER_BC_RELIABLE' })
const billing = defineContext('billing', {
  handlers: {
    // In a transaction of its own, in which the event is recorded as handled: Kysely reaches it too.
    invoice: on([OrderPlaced], async ({ payload: { orderId, pence } }, { sql }) => {
      await database.transactionOf(sql).insertInto('invoices').values({ id: orderId, pence }).execute()
    }),
  },
})

const storage = databaseStorage(database)
await storage.migrate() // or `waybill migrate`, once, before your processes start
const waybill = await createWaybill({ database: storage, contexts: [sales, billing], source: 'shop' })
await waybill.start()

// Waybill begins the transaction, and Kysely writes in it.
await waybill.unitOfWork(async (unit) => {
  await database.transactionOf(unit.sql).insertInto('orders').values({ id: 'o-1', pence: 1250 }).execute()
  await unit.publish(OrderPlaced({ orderId: 'o-1', pence: 1250 }))
})

// You begin it, and Waybill joins.
await db.transaction().execute(async (trx) => {
  await trx.insertInto('orders').values({ id: 'o-2', pence: 300 }).execute()
  await waybill.joinTransaction({ sql: kyselyExecutor(trx) }, (unit) => unit.publish(OrderPlaced({ orderId: 'o-2', pence: 300 })))
})

// Rolled back, there is neither an order nor an event.
const refused = waybill.unitOfWork(async (unit) => {
  await database.transactionOf(unit.sql).insertInto('orders').values({ id: 'o-3', pence: 1 }).execute()
  await unit.publish(OrderPlaced({ orderId: 'o-3', pence: 1 }))
  throw new Error('out of stock')
})
await refused.catch((error: Error) => console.log(`rolled back: ${error.message}`))

await waybill.drained()
console.log('orders', await db.selectFrom('orders').selectAll().orderBy('id').execute())
console.log('invoices', await db.selectFrom('invoices').selectAll().orderBy('id').execute())
await waybill.stop()
await db.destroy()
