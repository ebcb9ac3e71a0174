import { crashpoint } from '../core/crashpoint.ts'
import type { Delivery } from '../core/transport.ts'

/** The last step of each delivery. Never rejects: a settle that fails leaves the message to be delivered again, which the inbox answers for. */
export interface Settling {
  ack(deliveries: readonly Delivery[]): Promise<void>
  release(deliveries: readonly Delivery[]): Promise<void>
}

export function createSettling(onTrouble: (error: unknown) => void): Settling {
  async function settle(deliveries: readonly Delivery[], verb: 'ack' | 'release'): Promise<void> {
    // All are asked for before the first is waited for: an adapter that sends them together can.
    const asked = deliveries.filter(({ assignment }) => !assignment.signal.aborted).map((delivery) => delivery[verb]())
    for (const outcome of await Promise.allSettled(asked)) if (outcome.status === 'rejected') onTrouble(outcome.reason)
  }
  return {
    ack(deliveries) {
      crashpoint('consume.beforeAck')
      return settle(deliveries, 'ack')
    },
    release: (deliveries) => settle(deliveries, 'release'),
  }
}
