import { type BoundedContext, type DomainEvent, type UnitOfWork, type Waybill, defineContext, defineEvent, on, onBatch } from 'waybill'
import type { Effect } from './check.ts'
import { type Consumer, orderKeyOf } from './expected.ts'
import type { Invoice } from './invoices.ts'
import { addRevenue, changeStock, insertOrder, noteEffects } from './tables.ts'

/** What an order or a cancellation says. */
export interface OrderPayload {
  readonly invoice: string
  readonly key: string
  /** Place among the orders of this key. */
  readonly seq: number
  readonly country: string
  readonly lines: readonly { readonly code: string; readonly quantity: number; readonly pence: number }[]
}

interface CustomerPayload {
  readonly customer: string
  readonly country: string
  readonly seq: number
}

interface StockPayload {
  readonly code: string
  readonly change: number
  readonly level: number
  /** Place among the changes of this code. */
  readonly seq: number
}

/** A shop whose topics and groups are its own. */
export interface Shop {
  readonly contexts: readonly BoundedContext[]
  /** Sells (or takes back) what an invoice says: its row and its events, in one transaction. `index` counts the invoices of the file from 0. */
  sell(waybill: Waybill, invoice: Invoice, index: number): Promise<void>
}

/** Every tenth invoice takes the reliable road with a confirmation in process, so that the ledger covers both. */
const RELIABLE_EVERY = 10

/** The events of the demo. `suffix` ends the names of its topics. */
function defineEvents(suffix: string) {
  // Placed and cancelled orders of one customer must stay in order among each other, so they share a topic.
  const order = {
    aggregate: { type: 'order', id: (payload: OrderPayload) => payload.invoice },
    topic: `order${suffix}`,
    key: (payload: OrderPayload) => payload.key,
  }
  return {
    OrderPlaced: defineEvent<OrderPayload, 'order.OrderPlaced'>('order.OrderPlaced', order),
    OrderCancelled: defineEvent<OrderPayload, 'order.OrderCancelled'>('order.OrderCancelled', order),
    CustomerRegistered: defineEvent<CustomerPayload, 'customer.CustomerRegistered'>('customer.CustomerRegistered', {
      aggregate: { type: 'customer', id: ({ customer }) => customer },
      topic: `customer.CustomerRegistered${suffix}`,
      publish: { strategy: 'HYBRID_FAST', scope: 'INTRA_BC', timeoutMs: 1_000 },
    }),
    StockMoved: defineEvent<StockPayload, 'stock.StockMoved'>('stock.StockMoved', {
      aggregate: { type: 'product', id: ({ code }) => code },
      topic: `stock.StockMoved${suffix}`,
    }),
  }
}

/** The bounded contexts of the demo. `suffix` ends their names, and so those of their groups, and those of the topics. */
export function createShop(suffix = ''): Shop {
  const { OrderPlaced, OrderCancelled, CustomerRegistered, StockMoved } = defineEvents(suffix)
  const effectOf = effectsWithout(suffix)

  const sales = defineContext(`sales${suffix}`, {
    events: [OrderPlaced, OrderCancelled, CustomerRegistered],
    publish: { scope: 'INTER_BC', strategy: 'ASYNC_ONLY' },
    handlers: {
      welcome: on([CustomerRegistered], (event, { sql }) => noteEffects(sql, [effectOf('welcome', event)])),
    },
  })

  const stock = defineContext(`stock${suffix}`, {
    events: [StockMoved],
    publish: { scope: 'INTER_BC', strategy: 'ASYNC_ONLY' },
    handlers: {
      move: on([OrderPlaced, OrderCancelled], async (event, context) => {
        const changes = new Map<string, number>()
        for (const { code, quantity } of event.payload.lines) changes.set(code, (changes.get(code) ?? 0) - quantity)
        // In one order everywhere: two invoices with the same codes can't wait for each other.
        const sorted = [...changes].toSorted(([a], [b]) => (a < b ? -1 : 1))
        const levels = await changeStock(context.sql, sorted, effectOf('stock', event))
        for (const { code, quantity, moves } of levels) {
          await context.publish(StockMoved({ code, change: changes.get(code)!, level: quantity, seq: moves }))
        }
      }),
    },
  })

  const revenue = defineContext(`revenue${suffix}`, {
    handlers: {
      sum: onBatch([OrderPlaced, OrderCancelled], async (events, { sql }) => {
        const sums = events.map(
          ({ payload }) => [payload.country, payload.lines.reduce((sum, { quantity, pence }) => sum + quantity * pence, 0)] as const,
        )
        await addRevenue(
          sql,
          sums,
          events.map((event) => effectOf('revenue', event)),
        )
      }),
    },
  })

  const ledger = defineContext(`ledger${suffix}`, {
    handlers: {
      record: onBatch(
        [OrderPlaced, OrderCancelled, CustomerRegistered, StockMoved],
        (events, { sql }) =>
          noteEffects(
            sql,
            events.map((event) => effectOf('ledger', event)),
          ),
        { ordered: true, batchMax: 200 },
      ),
    },
  })

  return {
    contexts: [sales, stock, revenue, ledger],
    async sell(waybill, invoice, index) {
      await waybill.unitOfWork(async (unit: UnitOfWork) => {
        const { number, customer, country, lines, cancelled, date } = invoice
        const seq = await insertOrder(unit.sql, invoice)
        const happened = { occurredAt: new Date(date) }
        const payload = { invoice: number, key: orderKeyOf(invoice), seq, country, lines }
        const reliable = index % RELIABLE_EVERY === RELIABLE_EVERY - 1
        await unit.publish(
          (cancelled ? OrderCancelled : OrderPlaced)(payload, happened),
          reliable ? { strategy: 'HYBRID_RELIABLE', timeoutMs: 5_000 } : undefined,
        )
        if (seq === 1 && customer !== undefined) await unit.publish(CustomerRegistered({ customer, country, seq: 1 }, happened))
      })
    },
  }
}

const CONSUMER_OF: Readonly<Record<string, Consumer>> = { welcome: 'welcome', move: 'stock', sum: 'revenue', record: 'ledger' }

/** The consumer's name in the demo's result. */
export function consumerOf(handler: string): string {
  return CONSUMER_OF[handler.slice(handler.indexOf('/') + 1)] ?? handler
}

/** What a consumer has done, by the names without the suffix. */
function effectsWithout(suffix: string): (consumer: Consumer, event: DomainEvent<{ readonly seq: number }>) => Effect {
  return (consumer, event) => ({
    consumer,
    eventId: event.id,
    eventType: event.type,
    topic: event.eventType.topic.slice(0, event.eventType.topic.length - suffix.length),
    key: event.key,
    seq: event.payload.seq,
    causationId: event.causationId,
  })
}
