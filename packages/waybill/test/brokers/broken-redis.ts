import type { Delivery, Transport } from '../../src/core/transport.ts'
import type { BrokerFixture, Target } from './fixture.ts'
import { connect as connectRight } from './redis.ts'

// Transports over a real broker that are wrong in the ways that only a fault shows. They stay, to prove that the checks notice.

/** The timers of this process, which whoever tests has to clear. */
export const LEFT_BEHIND: NodeJS.Timeout[] = []

const settleNothing = async (): Promise<void> => {}

/** By the names that a target's `broken` has. */
export const BROKEN: Readonly<Record<string, (right: Transport) => Transport>> = {
  /** Says stored once it has been asked, not once the broker has answered. */
  'answers before the broker': (right) => ({
    ...right,
    capabilities: right.capabilities,
    async publish(messages, signal) {
      void right.publish(messages, signal).catch(() => undefined)
      return messages.map(() => ({ kind: 'stored' }))
    },
  }),
  /** Settles what it hands out: what a dead member had not handled yet is gone. */
  'acks before it is handled': (right) => ({
    ...right,
    capabilities: right.capabilities,
    async *subscribe(source, signal) {
      for await (const deliveries of right.subscribe(source, signal)) {
        await Promise.all(deliveries.map((delivery) => delivery.ack()))
        // One after the other, so that there is something left that it dies with.
        for (const delivery of deliveries) {
          yield [{ ...delivery, ack: settleNothing, release: settleNothing, retry: settleNothing } satisfies Delivery]
          await new Promise((resolve) => setTimeout(resolve, 1))
        }
      }
    },
  }),
  /** Leaves a timer behind. */
  'keeps the process alive': (right) => {
    LEFT_BEHIND.push(setInterval(() => {}, 60_000))
    return { ...right, capabilities: right.capabilities }
  },
}

/** A transport that is broken as its target says: also for other processes. */
export const connect: BrokerFixture['connect'] = async (target: Target, options) =>
  BROKEN[target['broken']!]!(await connectRight(target, options))
