// A command and a query have exactly one handler; an event has any number.
import { createCommandBus, createQueryBus, defineCommand, defineQuery } from 'waybill'
import { z } from 'zod'

const PlaceOrder = defineCommand<{ orderId: string; pence: number }, string>('order.PlaceOrder', {
  schema: z.object({ orderId: z.string(), pence: z.int().positive() }),
})
const OrderTotal = defineQuery<{ orderId: string }, number>('order.OrderTotal')

const orders = new Map<string, number>()
const commands = createCommandBus()
const queries = createQueryBus()
commands.register(PlaceOrder, ({ orderId, pence }) => {
  orders.set(orderId, pence)
  return orderId
})
queries.register(OrderTotal, ({ orderId }) => orders.get(orderId) ?? 0)

await commands.execute(PlaceOrder({ orderId: 'o-1', pence: 1250 }))
console.log('o-1 costs', await queries.execute(OrderTotal({ orderId: 'o-1' })))
try {
  await commands.execute(PlaceOrder({ orderId: 'o-2', pence: -5 }))
} catch (error) {
  console.log((error as Error).message)
}
