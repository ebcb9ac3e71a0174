import { WaybillError, isWaybillError } from '../../core/errors.ts'
import { newId } from '../../core/ids.ts'
import { type Member, createMember } from '../../core/member.ts'
import type { CheckedSource } from '../../core/source.ts'
import { assignPartitions } from './assigner.ts'
import type { KafkaAdminLike, KafkaAssignment, KafkaConsumerLike, KafkaLike } from './client.ts'
import { createCommitter } from './committer.ts'
import { type Fetcher, createFetcher } from './fetcher.ts'
import { createGaps } from './gaps.ts'
import type { Health } from './health.ts'
import { type Lane, createLane } from './lane.ts'
import { createMembership } from './membership.ts'
import { type Offsets, earliestOffsets, latestOffsets, placeOf, startOffsets } from './offsets.ts'
import type { CheckedKafkaOptions } from './options.ts'
import { createPace } from './pace.ts'
import type { Topics } from './topics.ts'

/** What all subscriptions of a transport share. */
export interface SubscriptionContext {
  readonly kafka: KafkaLike
  readonly admin: KafkaAdminLike
  readonly options: CheckedKafkaOptions
  readonly topics: Topics
  readonly health: Health
  readonly toError: (error: unknown, what: string) => WaybillError
  /** What is published must wait for this. */
  await(settling: Promise<unknown>): void
}

export const PREFETCH_MAX = 500
export const PREFETCH_MAX_BYTES = 2 * 1024 * 1024
const FETCH_MAX_BYTES = 8 * 1024 * 1024
const HEARTBEAT_MAX_MS = 1_000

/** Makes a consumer; `groupId` is never sent where it joins nothing. */
export function createConsumer({ kafka, options }: SubscriptionContext, groupId: string, isMember: boolean): KafkaConsumerLike {
  const { sessionTimeoutMs, requestTimeoutMs } = options
  return new kafka.Consumer({
    ...options.client,
    // The broker answers a JoinGroup when all members have come, which may take a session.
    ...(isMember && { requestTimeout: sessionTimeoutMs + requestTimeoutMs }),
    groupId,
    sessionTimeout: sessionTimeoutMs,
    rebalanceTimeout: sessionTimeoutMs,
    heartbeatInterval: heartbeatMsOf(options),
    maxWaitTime: 500,
    minBytes: 1,
    maxBytes: FETCH_MAX_BYTES,
    autocommit: false,
    partitionAssigner: assignPartitions,
  })
}

const heartbeatMsOf = ({ sessionTimeoutMs }: CheckedKafkaOptions): number => Math.min(HEARTBEAT_MAX_MS, Math.floor(sessionTimeoutMs / 5))

/** A member of a group. It joins at once. */
export function subscribeGroup(context: SubscriptionContext, source: CheckedSource, group: string, onEnded: () => void): Member<bigint> {
  const { admin, options, topics, health, toError } = context
  const { clock, observe } = options
  const ended = new AbortController()
  const lanes = new Set<Lane>()
  let held: readonly string[] = []
  /** Partitions of each topic, as they were divided. */
  const divided = new Map<string, number>()
  const start = source.start === 'latest' ? newestNow(context, source.topics, ended.signal) : undefined
  const consumer = createConsumer(context, group, true)
  for (const topic of source.topics) consumer.topics.track(topic)

  const committer = createCommitter(consumer, clock, (error) => {
    const failure = toError(error, `committing for group ${group}`)
    if (!ended.signal.aborted) observe({ type: 'transport.failed', transport: 'kafka', error: failure })
  })
  const member = createMember<bigint>({
    batchMax: source.batchMax,
    clock: options.delayClock,
    prefetchMax: PREFETCH_MAX,
    prefetchMaxBytes: PREFETCH_MAX_BYTES,
    async onEnd() {
      ended.abort()
      fetcher.stop()
      const half = Math.floor(options.closeTimeoutMs / 3)
      const limit = new AbortController()
      await Promise.race([committer.flush(), clock.sleep(half, limit.signal)])
      await membership.leave(half)
      limit.abort()
      onEnded()
    },
  })
  const fetcher: Fetcher = createFetcher({
    consumer: createConsumer(context, group, false),
    options,
    health,
    toError,
    onOutOfRange: (lane, oldest) => gaps.outOfRange(lane, oldest),
    onMetadata(metadata) {
      for (const topic of source.topics) {
        const count = metadata.topics.get(topic)?.partitionsCount ?? 0
        if (count > (divided.get(topic) ?? count)) grow(topic, count)
      }
    },
    onTopicLost: (topic) => gaps.topicLost(topic, [...lanes].find((lane) => lane.topic === topic)?.topicId),
    onFatal: (error) => void member.end(error),
  })
  const gaps = createGaps({
    context,
    group,
    begin(lane, position) {
      if (!lanes.has(lane)) return
      drop(lane)
      const fresh = hold(lane.topic, lane.topicId, lane.partition, position, `gap-${newId()}`)
      void committer.mark(fresh, 0)
      fetcher.add([fresh])
    },
    restart(topic, because) {
      for (const lane of lanes) if (lane.topic === topic) drop(lane)
      membership.rejoin(because)
    },
    onFatal: (error) => void member.end(error),
  })

  function hold(topic: string, topicId: string, partition: number, position: bigint, id: string): Lane {
    const lane = createLane({
      member,
      id: `${id}/${topic}-${partition}`,
      topic,
      topicId,
      partition,
      position,
      onSettled: (settled, count) => (lanes.has(settled) ? committer.mark(settled, count) : Promise.resolve()),
      onRoom: () => fetcher.kick(),
    })
    lanes.add(lane)
    return lane
  }

  /** The leader of the group divides them anew when it joins again; for the others it changes nothing. */
  function grow(topic: string, partitions: number): void {
    divided.set(topic, partitions)
    topics.forget(topic)
    consumer.clearMetadata()
    membership.rejoin(new WaybillError('LEASE_LOST', 'the topic has more partitions than before', { where: topic }))
  }

  function drop(lane: Lane): void {
    lanes.delete(lane)
    committer.unmark(lane)
    fetcher.remove(lane)
    lane.holding.lose()
  }

  async function begin(assignments: readonly KafkaAssignment[], generation: string, isCurrent: () => boolean): Promise<void> {
    const wanted = assignments.filter(({ partitions }) => partitions.length > 0)
    const facts = new Map(await Promise.all(wanted.map(async ({ topic }) => [topic, await topics.ensure(topic)] as const)))
    const positions = await positionsOf(wanted, facts)
    if (!isCurrent()) return
    for (const [topic, { id, partitions }] of facts) {
      gaps.remember(topic, id)
      divided.set(topic, partitions)
    }
    const fresh: Lane[] = []
    for (const { topic, partitions } of wanted) {
      for (const partition of partitions) {
        fresh.push(hold(topic, facts.get(topic)!.id, partition, positions.get(placeOf(topic, partition))!, generation))
      }
    }
    const names = fresh.map(({ topic, partition }) => `${topic}-${partition}`)
    observeAssigned(names)
    fetcher.add(fresh)
  }

  function observeAssigned(names: readonly string[]): void {
    const [gained, lost] = [names.filter((name) => !held.includes(name)), held.filter((name) => !names.includes(name))]
    held = names
    if (gained.length + lost.length > 0) observe({ type: 'transport.assigned', transport: 'kafka', group, gained, lost })
  }

  /** Committed offsets, and where there are none, those of the start, which are committed at once: a group's beginning must not move. */
  async function positionsOf(
    wanted: readonly KafkaAssignment[],
    facts: ReadonlyMap<string, { readonly id: string }>,
  ): Promise<Map<string, bigint>> {
    const committed = wanted.length === 0 ? new Map<string, bigint[]>() : await consumer.listCommittedOffsets({ topics: [...wanted] })
    const positions = new Map<string, bigint>()
    const without: { topic: string; partitions: number[] }[] = []
    const renewed: { topic: string; partitions: number[] }[] = []
    for (const { topic, partitions } of wanted) {
      if (gaps.isRenewed(topic, facts.get(topic)!.id)) {
        renewed.push({ topic, partitions })
        continue
      }
      const missing: number[] = []
      for (const partition of partitions) {
        const offset = committed.get(topic)?.[partition] ?? -1n
        if (offset < 0n) missing.push(partition)
        else positions.set(placeOf(topic, partition), offset)
      }
      if (missing.length > 0) without.push({ topic, partitions: missing })
    }
    const starts = without.length === 0 ? new Map<string, bigint>() : await (start ?? startOffsets(admin, without, source.start))
    const oldest = await earliestOffsets(admin, [...renewed, ...(start === undefined ? [] : without)])
    const settled: { topic: string; partition: number; committable: bigint }[] = []
    for (const { topic, partitions } of [...without, ...renewed]) {
      for (const partition of partitions) {
        const place = placeOf(topic, partition)
        const isNew = renewed.some((each) => each.topic === topic)
        const committable = (isNew ? undefined : starts.get(place)) ?? oldest.get(place) ?? 0n
        positions.set(place, committable)
        settled.push({ topic, partition, committable })
      }
    }
    await committer.commit(settled)
    return positions
  }

  const membership = createMembership({
    consumer,
    admin,
    group,
    options,
    heartbeatMs: heartbeatMsOf(options),
    health,
    toError,
    async prepare() {
      await Promise.all(source.topics.map((topic) => topics.ensure(topic)))
    },
    onAssigned: begin,
    onLost() {
      committer.sendLast()
      for (const lane of lanes) drop(lane)
    },
    onFatal: (error) => void member.end(error),
  })
  return member
}

/** Offsets after the newest messages as they are now; what this transport publishes waits for them. Partitions that come later are read from their beginning. */
export function newestNow(context: SubscriptionContext, topics: readonly string[], ended: AbortSignal): Promise<Offsets> {
  const { admin, options, toError } = context
  const pace = createPace(options.clock)
  const ask = async (): Promise<Offsets> => {
    for (;;) {
      try {
        const facts = await Promise.all(topics.map(async (topic) => ({ topic, facts: await context.topics.look(topic) })))
        const wanted = facts.flatMap(({ topic, facts: known }) =>
          known === undefined ? [] : [{ topic, partitions: Array.from({ length: known.partitions }, (_, index) => index) }],
        )
        return wanted.length === 0 ? new Map() : await latestOffsets(admin, wanted)
      } catch (error) {
        if (ended.aborted) return new Map()
        const failure = toError(error, 'reading positions')
        if (isWaybillError(failure) && !failure.retryable) throw failure
        await pace.rest(ended)
      }
    }
  }
  const asked = ask()
  asked.catch(() => undefined)
  context.await(asked)
  return asked
}
