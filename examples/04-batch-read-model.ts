// A read model that takes what is ready in one transaction, and stays exact when events arrive twice.
import { createWaybill, defineContext, defineEvent, onBatch } from 'waybill'
import { pgliteStorage } from 'waybill/postgres'

const Moved = defineEvent<{ code: string; quantity: number }>('stock.StockMoved', { key: (move) => move.code })

const stock = defineContext('stock', {
  events: [Moved],
  publish: { strategy: 'ASYNC_ONLY' },
  handlers: {
    level: onBatch(
      [Moved],
      async (events, { sql }) => {
        const codes = events.map((event) => event.payload.code)
        const quantities = events.map((event) => event.payload.quantity)
        await sql.query(
          `insert into stock_level select code, sum(quantity) from unnest($1::text[], $2::int[]) as move(code, quantity) group by code
           on conflict (code) do update set quantity = stock_level.quantity + excluded.quantity`,
          [codes, quantities],
        )
      },
      { ordered: true, batchMax: 500 },
    ),
  },
})

await using waybill = await createWaybill({ database: await pgliteStorage('memory://'), contexts: [stock] })
await waybill.sql.query('create table stock_level (code text primary key, quantity int not null)')
await waybill.start()

await waybill.unitOfWork(async (unit) => {
  for (let move = 0; move < 1_000; move++) await unit.publish(Moved({ code: `code-${move % 3}`, quantity: 1 }))
})
await waybill.drained()
const { rows } = await waybill.sql.query('select * from stock_level order by code')
console.log(rows) // 334, 333, 333
