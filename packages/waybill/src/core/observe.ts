import type { EventScope, PublishStrategy } from './publish-config.ts'

/** Everything that happens, as one union: metrics, logs, dashboards and tests listen to the same thing. The library itself never prints. */
export type WaybillEvent =
  | {
      readonly type: 'publish.settled'
      readonly eventType: string
      readonly strategy: PublishStrategy
      readonly scope: EventScope
      readonly outcome: 'delivered' | 'pending' | 'failed'
      readonly durationMs: number
    }
  | {
      readonly type: 'publish.fell-back'
      readonly eventType: string
      readonly because: 'timeout' | 'failed' | 'no handler' | 'breaker open'
    }
  | {
      readonly type: 'breaker.changed'
      readonly path: string
      readonly from: 'closed' | 'open' | 'half-open'
      readonly to: 'closed' | 'open' | 'half-open'
      /** What opened it, where a relay's was opened: the last failure. */
      readonly error?: unknown
    }
  /** Something after the commit failed that must not fail the unit of work: a fault in this library or in an observer's wake. */
  | { readonly type: 'unit.failed'; readonly error: unknown }
  | { readonly type: 'relay.acquired'; readonly relayId: string; readonly shards: number }
  | { readonly type: 'relay.published'; readonly count: number; readonly durationMs: number }
  | {
      readonly type: 'relay.held'
      readonly rowId: string
      readonly topic: string
      readonly key: string
      readonly holdMs: number
      readonly error: string
    }
  | { readonly type: 'relay.parked'; readonly rowId: string; readonly topic: string; readonly key: string; readonly error: string }
  | { readonly type: 'relay.failed'; readonly error: unknown }
  /** Whether the database's hints reach this relay. Where they don't, it polls. */
  | { readonly type: 'relay.hints'; readonly state: 'listening' | 'deaf'; readonly error?: unknown }
  | {
      readonly type: 'delivery.received'
      readonly handler: string
      readonly eventId: string
      readonly redelivered: 'yes' | 'no' | 'unknown'
    }
  | {
      readonly type: 'delivery.handled'
      readonly handler: string
      readonly eventType: string
      readonly count: number
      readonly durationMs: number
    }
  | {
      readonly type: 'delivery.failed'
      readonly handler: string
      readonly eventId: string
      readonly attempt: number
      readonly error: unknown
    }
  | {
      readonly type: 'delivery.parked'
      readonly handler: string
      readonly eventId: string
      readonly reason: string
      readonly error: string | undefined
    }
  | { readonly type: 'consumer.failed'; readonly handler: string; readonly error: unknown }
  /** A transport has lost its broker, or has it back. While it is down, it tries again by itself. */
  | { readonly type: 'transport.changed'; readonly transport: string; readonly to: 'up' | 'down'; readonly error?: unknown }
  /** A member of a group holds other partitions than before. */
  | {
      readonly type: 'transport.assigned'
      readonly transport: string
      readonly group: string
      readonly gained: readonly string[]
      readonly lost: readonly string[]
    }
  /** The broker no longer has what a group has not read; `missing`: how many messages, where that can be told. */
  | {
      readonly type: 'transport.gap'
      readonly transport: string
      readonly topic: string
      readonly group: string
      readonly partition: string
      readonly missing?: number
      readonly error: unknown
    }
  /** A setting of the broker could lose, reorder or stop what is published; said once per transport. */
  | { readonly type: 'transport.warned'; readonly transport: string; readonly text: string; readonly advice: string }
  /** Something that a transport does beside (extending a hold, leaving in order) failed, and will be tried again or does not matter. */
  | { readonly type: 'transport.failed'; readonly transport: string; readonly error: unknown }

/** Told of each {@link WaybillEvent}. Must not throw; what it throws is dropped, since nothing may hang on an observer. */
export type Observe = (event: WaybillEvent) => void

/** Hears nothing. */
export const unobserved: Observe = () => {}

/** Joins observers; one that throws does not silence the others. */
export function observeAll(observers: readonly Observe[]): Observe {
  return (event) => {
    for (const observer of observers) {
      try {
        observer(event)
      } catch {
        // An observer's fault is not the road's.
      }
    }
  }
}
