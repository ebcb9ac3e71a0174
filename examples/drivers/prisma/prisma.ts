import { PrismaPg } from '@prisma/adapter-pg'
import { createWaybill, defineContext, defineEvent, on } from 'waybill'
import { databaseStorage, prismaDatabase, prismaExecutor } from 'waybill/postgres'
import { z } from 'zod'
import { PrismaClient } from './generated/client.ts'

// The client comes from schema.prisma: `npx prisma generate`, or `node generate.ts` where Prisma's engines can't be downloaded.
const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: process.env['DATABASE_URL']! }) })
const database = prismaDatabase(prisma)
await prisma.$executeRawUnsafe('create table orders (id text primary key, pence int not null)')
await prisma.$executeRawUnsafe('create table invoices (id text primary key, pence int not null)')

const OrderPlaced = defineEvent('order.OrderPlaced', {
  schema: z.object({ orderId: z.string(), pence: z.int() }),
  aggregate: { type: 'order', id: (order) => order.orderId },
})
const sales = defineContext('sales', { events: [OrderPlaced], publish: 'INTER_BC_RELIABLE' })
const billing = defineContext('billing', {
  handlers: {
    // In a transaction of its own, in which the event is recorded as handled: Prisma reaches it too.
    invoice: on([OrderPlaced], async ({ payload: { orderId, pence } }, { sql }) => {
      await database.transactionOf(sql).invoice.create({ data: { id: orderId, pence } })
    }),
  },
})

const storage = databaseStorage(database)
await storage.migrate() // or `waybill migrate`, once, before your processes start
const waybill = await createWaybill({ database: storage, contexts: [sales, billing], source: 'shop' })
await waybill.start()

// Waybill begins the transaction, and Prisma writes in it.
await waybill.unitOfWork(async (unit) => {
  await database.transactionOf(unit.sql).order.create({ data: { id: 'o-1', pence: 1250 } })
  await unit.publish(OrderPlaced({ orderId: 'o-1', pence: 1250 }))
})

// You begin it, and Waybill joins.
await prisma.$transaction(async (tx) => {
  await tx.order.create({ data: { id: 'o-2', pence: 300 } })
  await waybill.joinTransaction({ sql: prismaExecutor(tx) }, (unit) => unit.publish(OrderPlaced({ orderId: 'o-2', pence: 300 })))
})

// Rolled back, there is neither an order nor an event.
const refused = waybill.unitOfWork(async (unit) => {
  await database.transactionOf(unit.sql).order.create({ data: { id: 'o-3', pence: 1 } })
  await unit.publish(OrderPlaced({ orderId: 'o-3', pence: 1 }))
  throw new Error('out of stock')
})
await refused.catch((error: Error) => console.log(`rolled back: ${error.message}`))

await waybill.drained()
console.log('orders', await prisma.order.findMany({ orderBy: { id: 'asc' } }))
console.log('invoices', await prisma.invoice.findMany({ orderBy: { id: 'asc' } }))
await waybill.stop()
await prisma.$disconnect()
