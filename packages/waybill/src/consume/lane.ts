import type { Delivery } from '../core/transport.ts'
import type { KeyedPool } from './keyed-pool.ts'
import { lineKeyOf } from './parking.ts'
import type { Worker } from './worker.ts'

/** Takes deliveries in, in order, and sees each to its end. */
export interface Lane {
  /** Call it only where there is room. */
  accept(delivery: Delivery): void
  /** Nothing where one more fits; else resolves once it does, or at the stop. */
  room(): Promise<void> | undefined
  /** Resolves when nothing is left in it. */
  idle(): Promise<void>
}

/** Each delivery alone: keys side by side, one after the other within a key. */
export function createSingleLane(pool: KeyedPool, worker: Worker, stop: AbortSignal): Lane {
  return {
    accept: (delivery) => pool.run(lineKeyOf(delivery.message), () => worker.handle(delivery)),
    room: () => pool.room(stop),
    idle: () => pool.idle(),
  }
}
