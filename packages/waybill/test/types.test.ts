import { test } from 'node:test'
import { createWaybill, defineContext, defineEvent, memoryStorage, on } from 'waybill'

// What the compiler must refuse; `tsc` fails where a line marked so is accepted.

test('only events that a context declares can be published, with their own payload', async () => {
  const Placed = defineEvent('order.Placed', { key: (order: { id: string }) => order.id })
  const Stranger = defineEvent('other.Stranger')
  const sales = defineContext('sales', {
    events: [Placed],
    handlers: {
      note: on([Placed], (event) => {
        const id: string = event.payload.id
        // @ts-expect-error -- the payload's own type reaches the handler
        const wrong: number = event.payload.id
        return void [id, wrong]
      }),
    },
  })
  await using waybill = await createWaybill({ database: memoryStorage(), contexts: [sales] })
  await waybill.start()
  await waybill.publish(Placed({ id: 'o-1' }))
  // @ts-expect-error -- no context declares it
  await waybill.publish(Stranger({})).catch(() => undefined)
  // @ts-expect-error -- the payload lacks its id
  void (() => Placed({}))
  // @ts-expect-error -- no such event
  void (() => waybill.configureEvent('order.Plcaed', {}))
})
