// How an event travels is configuration: the publishing line stays the same.
import { createWaybill, defineContext, defineEvent, on } from 'waybill'
import { pgliteStorage } from 'waybill/postgres'

const Renamed = defineEvent<{ id: string; name: string }>('catalog.ProductRenamed', {
  aggregate: { type: 'product', id: (product) => product.id },
})

const seen: string[] = []
const catalog = defineContext('catalog', {
  events: [Renamed],
  handlers: {
    search: on([Renamed], (event) => {
      seen.push(event.payload.name)
    }),
  },
})

await using waybill = await createWaybill({ database: await pgliteStorage('memory://'), contexts: [catalog] })
await waybill.start()

for (const strategy of ['SYNC_ONLY', 'ASYNC_ONLY', 'HYBRID_FAST', 'HYBRID_RELIABLE'] as const) {
  waybill.configureEvent(Renamed, { strategy })
  const { receipts } = await waybill.unitOfWork((unit) => unit.publish(Renamed({ id: 'p-1', name: `by ${strategy}` })))
  const [receipt] = receipts
  console.log(`${receipt?.strategy.padEnd(15)} ${receipt?.state.padEnd(9)} confirmed: ${receipt?.confirmed}`)
}
await waybill.drained()
console.log(seen.length, 'handled, each once')
