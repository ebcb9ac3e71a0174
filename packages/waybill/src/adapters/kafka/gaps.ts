import { WaybillError } from '../../core/errors.ts'
import type { Lane } from './lane.ts'
import { earliestOffsets, placeOf } from './offsets.ts'
import type { SubscriptionContext } from './subscription.ts'

export interface GapsOptions {
  readonly context: SubscriptionContext
  /** Undefined: a tail. */
  readonly group: string | undefined
  /** Reads a lane's partition from there on, as a new assignment. */
  begin(lane: Lane, position: bigint): void
  /** Takes up everything anew: a topic is another one now. */
  restart(topic: string, because: WaybillError): void
  onFatal(error: WaybillError): void
}

/** What happens where the broker no longer has what was to be read: it is said, and reading goes on at the oldest message. */
export interface Gaps {
  outOfRange(lane: Lane, oldest: bigint | undefined): Promise<void>
  /** `knownId`: the topic as it was read until now. */
  topicLost(topic: string, knownId: string | undefined): Promise<void>
  /** Whether the topic was deleted and made again since it was read last. */
  isRenewed(topic: string, id: string): boolean
  /** Remembers which topic it is that is read now. */
  remember(topic: string, id: string): void
}

export function createGaps({ context, group, begin, restart, onFatal }: GapsOptions): Gaps {
  const { admin, topics, toError } = context
  const { observe } = context.options
  const ids = new Map<string, string>()

  const observeGap = (topic: string, partition: string, error: WaybillError, missing?: number): void =>
    observe({
      type: 'transport.gap',
      transport: 'kafka',
      topic,
      group: group ?? '',
      partition,
      error,
      ...(missing !== undefined && { missing }),
    })

  return {
    async outOfRange(lane, oldest) {
      const { topic, partition, position } = lane
      try {
        const target = oldest ?? (await earliestOffsets(admin, [{ topic, partitions: [partition] }])).get(placeOf(topic, partition)) ?? 0n
        const missing = target > position ? Number(target - position) : undefined
        const error = new WaybillError('POSITION_LOST', 'the broker no longer has the offset that was to be read next', {
          got: position,
          allowed: `${target} or later`,
          where: `${topic}-${partition}`,
        })
        observeGap(topic, `${topic}-${partition}`, error, missing)
        begin(lane, target)
      } catch (error) {
        observe({
          type: 'transport.failed',
          transport: 'kafka',
          error: toError(error, `finding the oldest offset of ${topic}-${partition}`),
        })
      }
    },
    async topicLost(topic, knownId) {
      topics.forget(topic)
      try {
        const facts = group === undefined ? await topics.look(topic) : await topics.ensure(topic)
        // A broker that has just started may not know it for a moment.
        if (facts === undefined || knownId === undefined || facts.id === knownId) return
        restart(topic, new WaybillError('POSITION_LOST', 'the topic was deleted', { where: topic }))
      } catch (error) {
        const failure = toError(error, `topic ${topic}`)
        if (!failure.retryable) onFatal(failure)
      }
    },
    isRenewed(topic, id) {
      const known = ids.get(topic)
      if (known === undefined || known === id) return false
      observeGap(topic, topic, new WaybillError('POSITION_LOST', 'the topic was deleted, and made again', { where: topic }))
      return true
    },
    remember: (topic, id) => void ids.set(topic, id),
  }
}
