import { newId, type OutboxEntry } from 'waybill'

const text = new TextEncoder()

/** `count` rows for an outbox, of about 300 bytes of JSON each, in turn of `keys` keys. */
export function entriesOf(count: number, keys = 1_000): readonly OutboxEntry[] {
  return Array.from({ length: count }, (_, i) => {
    const id = newId()
    return {
      eventType: 'order.OrderPlaced',
      message: {
        id,
        topic: 'order',
        key: `customer-${i % keys}`,
        headers: { event_id: id, event_type: 'order.OrderPlaced', content_type: 'application/json' },
        body: text.encode(JSON.stringify(envelopeOf(id, i))),
      },
    }
  })
}

/** The same event for those who take objects. */
export const envelopeOf = (id: string, i: number) => ({
  event_id: id,
  event_type: 'order.OrderPlaced',
  payload: { orderId: `o-${i}`, pence: i, note: 'x'.repeat(200) },
})

export async function inBatches<T>(items: readonly T[], size: number, write: (batch: readonly T[]) => Promise<unknown>): Promise<void> {
  for (let at = 0; at < items.length; at += size) await write(items.slice(at, at + size))
}
