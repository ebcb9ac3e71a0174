import { WaybillError } from '../../core/errors.ts'
import { newId } from '../../core/ids.ts'
import { type Member, createMember } from '../../core/member.ts'
import type { CheckedSource } from '../../core/source.ts'
import { isOutage } from './errors.ts'
import { createFetcher } from './fetcher.ts'
import { createGaps } from './gaps.ts'
import { type Lane, createLane } from './lane.ts'
import { placeOf, startOffsets } from './offsets.ts'
import { createPace } from './pace.ts'
import { PREFETCH_MAX, PREFETCH_MAX_BYTES, type SubscriptionContext, createConsumer, newestNow } from './subscription.ts'

/** How often a tail looks for new topics and partitions. */
const LOOK_MS = 5_000
/** The same while a topic of it does not exist yet. */
const MISSING_MS = 200

/** Reads without a group: nothing at the broker knows of it. A topic that does not exist yet is read from its beginning once it does. */
export function subscribeTail(context: SubscriptionContext, source: CheckedSource, onEnded: () => void): Member<bigint> {
  const { admin, options, topics, health, toError } = context
  const { clock } = options
  const ended = new AbortController()
  const lanes = new Map<string, Lane>()
  const pace = createPace(clock)
  const newest = source.start === 'latest' ? newestNow(context, source.topics, ended.signal) : undefined
  /** Whether a topic was missing when we looked first: all that it gets is new then. */
  const wereMissing = new Set<string>()
  let isFirstLook = true

  const member = createMember<bigint>({
    batchMax: source.batchMax,
    clock: options.delayClock,
    prefetchMax: PREFETCH_MAX,
    prefetchMaxBytes: PREFETCH_MAX_BYTES,
    async onEnd() {
      ended.abort()
      fetcher.stop()
      await Promise.race([looking, clock.sleep(options.closeTimeoutMs / 3)])
      onEnded()
    },
  })
  const gaps = createGaps({
    context,
    group: undefined,
    begin(lane, position) {
      const place = placeOf(lane.topic, lane.partition)
      if (lanes.get(place) !== lane) return
      drop(place, lane)
      fetcher.add([hold(lane.topic, lane.topicId, lane.partition, position)])
    },
    restart(topic) {
      for (const [place, lane] of lanes) if (lane.topic === topic) drop(place, lane)
    },
    onFatal: (error) => void member.end(error),
  })
  const fetcher = createFetcher({
    consumer: createConsumer(context, 'tail', false),
    options,
    health,
    toError,
    onOutOfRange: (lane, oldest) => gaps.outOfRange(lane, oldest),
    onTopicLost: (topic) => gaps.topicLost(topic, [...lanes.values()].find((lane) => lane.topic === topic)?.topicId),
    onFatal: (error) => void member.end(error),
  })

  function hold(topic: string, topicId: string, partition: number, position: bigint): Lane {
    const lane = createLane({ member, id: `tail-${newId()}`, topic, topicId, partition, position, onRoom: () => fetcher.kick() })
    lanes.set(placeOf(topic, partition), lane)
    return lane
  }

  function drop(place: string, lane: Lane): void {
    lanes.delete(place)
    fetcher.remove(lane)
    lane.holding.lose()
  }

  /** Begins with what is there and not read yet; gives back whether all topics exist. */
  async function look(): Promise<boolean> {
    const wanted: { topic: string; topicId: string; partitions: number[] }[] = []
    let isComplete = true
    for (const topic of source.topics) {
      const facts = await topics.look(topic)
      if (facts === undefined) {
        isComplete = false
        if (!options.createTopics)
          throw new WaybillError('TOPIC_MISSING', `there is no topic ${topic}`, { got: topic, where: `Kafka at ${options.address}` })
        if (isFirstLook) wereMissing.add(topic)
        continue
      }
      if (gaps.isRenewed(topic, facts.id)) wereMissing.add(topic)
      gaps.remember(topic, facts.id)
      const partitions = Array.from({ length: facts.partitions }, (_, index) => index).filter(
        (partition) => !lanes.has(placeOf(topic, partition)),
      )
      if (partitions.length > 0) wanted.push({ topic, topicId: facts.id, partitions })
    }
    const known = wanted.filter(({ topic }) => isFirstLook && !wereMissing.has(topic))
    const starts = await (newest ?? startOffsets(admin, known, source.start))
    // Partitions that come later hold nothing that is older than we are.
    const oldest = await startOffsets(admin, wanted, 'earliest')
    isFirstLook = false
    if (ended.signal.aborted) return isComplete
    fetcher.add(
      wanted.flatMap(({ topic, topicId, partitions }) =>
        partitions.map((partition) => {
          const place = placeOf(topic, partition)
          return hold(topic, topicId, partition, (wereMissing.has(topic) ? undefined : starts.get(place)) ?? oldest.get(place) ?? 0n)
        }),
      ),
    )
    return isComplete
  }

  async function keepLooking(): Promise<void> {
    while (!ended.signal.aborted) {
      try {
        const isComplete = await look()
        pace.reset()
        await clock.sleep(isComplete ? LOOK_MS : MISSING_MS, ended.signal)
      } catch (error) {
        if (ended.signal.aborted) return
        const failure = toError(error, `tail of ${source.topics.join()}`)
        if (!failure.retryable) return void member.end(failure)
        if (isOutage(error instanceof WaybillError ? error.cause : error)) health.down(failure)
        await pace.rest(ended.signal)
      }
    }
  }
  const looking = keepLooking()
  return member
}
