// One program for every broker: MESSAGE_BUS_TYPE and the broker's URL choose it, and without them the events stay in this process.
import { setTimeout as sleep } from 'node:timers/promises'
import { createWaybill, defineContext, defineEvent, on, transportFromEnvironment } from 'waybill'
import { pgliteStorage } from 'waybill/postgres'

const OrderPlaced = defineEvent<{ orderId: string; pence: number }>('any-broker.OrderPlaced', {
  aggregate: { type: 'order', id: (order) => order.orderId },
})

const sales = defineContext('sales', { events: [OrderPlaced], publish: 'INTER_BC_RELIABLE' })
const billing = defineContext('billing', {
  handlers: {
    invoice: on([OrderPlaced], async ({ payload: { orderId, pence } }, { sql }) => {
      await sql.query('insert into invoices values ($1, $2)', [orderId, pence])
    }),
  },
})

await using waybill = await createWaybill({
  database: await pgliteStorage('memory://'), // a service has a database that stays: './data', or postgresStorage(url)
  transport: await transportFromEnvironment(),
  contexts: [sales, billing],
  source: 'shop',
})
await waybill.sql.query('create table invoices (id text primary key, pence int)')
await waybill.start() // makes the groups of the handlers at the broker: what is published from now on waits for them

const orderId = `o-${Date.now()}`
await waybill.unitOfWork((unit) => unit.publish(OrderPlaced({ orderId, pence: 1250 })))
await waybill.drained() // over a broker: it has the event. Handled is another matter, so wait for what the handler writes

const invoice = async () => (await waybill.sql.query<{ pence: number }>('select pence from invoices where id = $1', [orderId])).rows[0]
const limit = AbortSignal.timeout(30_000)
while ((await invoice()) === undefined) await sleep(50, undefined, { signal: limit })
console.log('handled', await invoice(), 'over', process.env['MESSAGE_BUS_TYPE'] ?? 'inprocess') // handled { pence: 1250 } over redis
