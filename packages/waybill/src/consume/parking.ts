import { crashpoint } from '../core/crashpoint.ts'
import { messageOf } from '../core/errors.ts'
import type { Observe } from '../core/observe.ts'
import type { DeadLetter, DeadLetterStore } from '../core/stores.ts'
import type { Delivery, Message } from '../core/transport.ts'

/** Which keys of a handler are parked, and the way there. */
export interface Parking {
  /** Reads the parked keys anew. Rejects where the store does. */
  load(): Promise<void>
  /** Whether messages of this key have to follow one that is parked. */
  isParked(lineKey: string): boolean
  /** Durable when it resolves; only then may the delivery be acked. Rejects where the store does. */
  park(delivery: Delivery, reason: DeadLetter['reason'], error: unknown, attempts: number): Promise<void>
}

/** Names a key across topics. Topics hold no line end. */
export function lineKeyOf({ topic, key }: Pick<Message, 'topic' | 'key'>): string {
  return `${topic}\n${key}`
}

export function createParking(store: DeadLetterStore, handler: string, parkFollowers: boolean, observe: Observe): Parking {
  let parked = new Set<string>()
  // Keys parked while the store is being read: its answer may be older than they are.
  let meanwhile: Set<string> | undefined

  return {
    async load() {
      if (!parkFollowers) return
      const since = new Set<string>()
      meanwhile = since
      const keys = await store.parkedKeys(handler)
      parked = new Set([...keys.map(lineKeyOf), ...since])
      if (meanwhile === since) meanwhile = undefined
    },
    isParked: (lineKey) => parked.has(lineKey),
    async park(delivery, reason, error, attempts) {
      const { message, position } = delivery
      const text = error === undefined ? undefined : messageOf(error)
      crashpoint('consume.beforePark')
      await store.park([
        {
          handler,
          message,
          eventType: message.headers['event_type'],
          reason,
          error: text,
          attempts,
          partition: position.partition,
          sequence: position.sequence,
        },
      ])
      if (parkFollowers) {
        parked.add(lineKeyOf(message))
        meanwhile?.add(lineKeyOf(message))
      }
      observe({ type: 'delivery.parked', handler, eventId: message.id, reason, error: text })
    },
  }
}
