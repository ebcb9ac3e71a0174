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

/** What all consumers of one handler and one store in this process know. */
interface ParkedKeys {
  keys: Set<string>
  /** Keys parked while the store is being read, for each reading: its answer may be older than they are. */
  readonly readings: Set<Set<string>>
}

// Shared, because a transport inside the process may hand a key from one member to another without a new assignment.
const known = new WeakMap<DeadLetterStore, Map<string, ParkedKeys>>()

function parkedKeysOf(store: DeadLetterStore, handler: string): ParkedKeys {
  const ofStore = known.get(store) ?? new Map<string, ParkedKeys>()
  known.set(store, ofStore)
  const parked = ofStore.get(handler) ?? { keys: new Set(), readings: new Set() }
  ofStore.set(handler, parked)
  return parked
}

export function createParking(store: DeadLetterStore, handler: string, parkFollowers: boolean, observe: Observe): Parking {
  const parked = parkedKeysOf(store, handler)
  return {
    async load() {
      if (!parkFollowers) return
      const meanwhile = new Set<string>()
      parked.readings.add(meanwhile)
      try {
        const keys = await store.parkedKeys(handler)
        parked.keys = new Set([...keys.map(lineKeyOf), ...meanwhile])
      } finally {
        parked.readings.delete(meanwhile)
      }
    },
    isParked: (lineKey) => parkFollowers && parked.keys.has(lineKey),
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
      const lineKey = lineKeyOf(message)
      parked.keys.add(lineKey)
      for (const meanwhile of parked.readings) meanwhile.add(lineKey)
      observe({ type: 'delivery.parked', handler, eventId: message.id, reason, error: text })
    },
  }
}
