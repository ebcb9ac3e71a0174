import type { Invoice } from './invoices.ts'

/** The consumers of the demo, by the names its result uses. */
export const CONSUMERS = ['stock', 'revenue', 'ledger', 'welcome'] as const
export type Consumer = (typeof CONSUMERS)[number]

/** What one consumer must have done about one event, told without the event's id: only its publisher knows that. */
export interface EffectKey {
  readonly consumer: string
  readonly eventType: string
  readonly topic: string
  readonly key: string
  /** Place among the events of its topic and key, from 1. */
  readonly seq: number
}

/** What the file says must have come out. */
export interface Expected {
  readonly invoices: number
  readonly lines: number
  readonly effects: readonly EffectKey[]
  /** Effects by consumer. */
  readonly handled: Readonly<Record<Consumer, number>>
  /** Sold, in pence, by country; cancellations taken off. */
  readonly revenuePence: ReadonlyMap<string, number>
  /** Change of stock by code: what is sold goes out, what is cancelled comes back. */
  readonly stock: ReadonlyMap<string, number>
}

/** The event type an invoice raises. */
export function orderTypeOf(invoice: Invoice): 'order.OrderPlaced' | 'order.OrderCancelled' {
  return invoice.cancelled ? 'order.OrderCancelled' : 'order.OrderPlaced'
}

/** What its events are kept in order by: the customer, or all guests of a country together. */
export function orderKeyOf({ customer, country }: Invoice): string {
  return customer ?? `guest:${country}`
}

/** Works out from the file alone what every consumer must have seen and done. */
export function expectedOf(invoices: readonly Invoice[]): Expected {
  const effects: EffectKey[] = []
  const handled: Record<Consumer, number> = { stock: 0, revenue: 0, ledger: 0, welcome: 0 }
  const orders = new Map<string, number>()
  const moves = new Map<string, number>()
  const revenuePence = new Map<string, number>()
  const stock = new Map<string, number>()
  let lines = 0
  const expect = (consumers: readonly Consumer[], event: Omit<EffectKey, 'consumer'>): void => {
    for (const consumer of consumers) {
      handled[consumer]++
      effects.push({ consumer, ...event })
    }
  }
  for (const invoice of invoices) {
    const key = orderKeyOf(invoice)
    const seq = bump(orders, key, 1)
    expect(['stock', 'revenue', 'ledger'], { eventType: orderTypeOf(invoice), topic: 'order', key, seq })
    if (seq === 1 && invoice.customer !== undefined)
      expect(['welcome', 'ledger'], { eventType: 'customer.CustomerRegistered', topic: 'customer.CustomerRegistered', key, seq: 1 })
    for (const code of new Set(invoice.lines.map((line) => line.code))) {
      expect(['ledger'], { eventType: 'stock.StockMoved', topic: 'stock.StockMoved', key: code, seq: bump(moves, code, 1) })
    }
    for (const { code, quantity, pence } of invoice.lines) {
      lines++
      bump(stock, code, -quantity)
      bump(revenuePence, invoice.country, quantity * pence)
    }
  }
  return { invoices: invoices.length, lines, effects, handled, revenuePence, stock }
}

function bump(totals: Map<string, number>, name: string, by: number): number {
  const total = (totals.get(name) ?? 0) + by
  totals.set(name, total)
  return total
}
