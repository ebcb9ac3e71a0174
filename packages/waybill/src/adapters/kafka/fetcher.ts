import { setImmediate as nextTurn } from 'node:timers/promises'
import type { WaybillError } from '../../core/errors.ts'
import { monotonicOf } from '../../core/clock.ts'
import { type KafkaConsumerLike, type KafkaFetchPartition, type KafkaFetchResponse, type KafkaMetadata, cutConnections } from './client.ts'
import { hasApiId, isOutage, isUnknownTopic, leavesOf } from './errors.ts'
import type { Health } from './health.ts'
import type { Lane } from './lane.ts'
import type { CheckedKafkaOptions } from './options.ts'
import { createPace } from './pace.ts'

export interface FetcherOptions {
  readonly consumer: KafkaConsumerLike
  readonly options: CheckedKafkaOptions
  readonly health: Health
  readonly toError: (error: unknown, what: string) => WaybillError
  /** The broker no longer has what a lane wants; its oldest offset, where it told. Answers by taking the lane away. */
  readonly onOutOfRange: (lane: Lane, oldest: bigint | undefined) => Promise<void>
  /** A topic is gone, or is another one than before. Answers by taking its lanes away, unless it was a false alarm. */
  readonly onTopicLost: (topic: string) => Promise<void>
  /** What the topics are now. */
  readonly onMetadata?: (metadata: KafkaMetadata) => void
  /** Trying again will not help. */
  readonly onFatal: (error: WaybillError) => void
}

/** Fetches for the lanes that want more: one request on its way for each broker. */
export interface Fetcher {
  add(lanes: readonly Lane[]): void
  remove(lane: Lane): void
  /** Something may have room now. */
  kick(): void
  stop(): void
}

/** How long the broker waits for news. */
const WAIT_MS = 500
/** The same while a lane is left out for want of room: it must not wait for the others. */
const SHORT_WAIT_MS = 10
const METADATA_MS = 30_000
const OUT_OF_RANGE = 1

export function createFetcher({
  consumer,
  options,
  health,
  toError,
  onOutOfRange,
  onTopicLost,
  onMetadata,
  onFatal,
}: FetcherOptions): Fetcher {
  const { clock } = options
  const now = monotonicOf(clock)
  const lanes = new Set<Lane>()
  const busy = new Set<number>()
  const stopped = new AbortController()
  const pace = createPace(clock)
  let metadata: KafkaMetadata | undefined
  let metadataAtMs = 0
  let isRefreshing = false
  let isResting = false
  let isKicked = false

  function kick(): void {
    if (isKicked || stopped.signal.aborted) return
    isKicked = true
    queueMicrotask(() => {
      isKicked = false
      plan()
    })
  }

  function plan(): void {
    if (stopped.signal.aborted || isResting || isRefreshing || lanes.size === 0) return
    if (metadata === undefined || now() - metadataAtMs > METADATA_MS) return void refresh()
    const byNode = new Map<number, Lane[]>()
    let isOneLeftOut = false
    for (const lane of lanes) {
      if (!lane.wantsMore) {
        isOneLeftOut = true
        continue
      }
      const leader = metadata.topics.get(lane.topic)?.partitions[lane.partition]?.leader ?? -1
      if (leader < 0) {
        metadata = undefined
        return void rest()
      }
      if (busy.has(leader)) continue
      const ofNode = byNode.get(leader)
      if (ofNode === undefined) byNode.set(leader, [lane])
      else ofNode.push(lane)
    }
    for (const [node, wanting] of byNode) void fetchFrom(node, wanting, isOneLeftOut ? SHORT_WAIT_MS : WAIT_MS)
  }

  async function refresh(): Promise<void> {
    isRefreshing = true
    try {
      const topics = [...new Set([...lanes].map(({ topic }) => topic))]
      metadata = await consumer.metadata({ topics, forceUpdate: true })
      metadataAtMs = now()
    } catch (error) {
      isRefreshing = false
      if (stopped.signal.aborted) return
      if (isUnknownTopic(error)) for (const topic of new Set([...lanes].map((lane) => lane.topic))) await onTopicLost(topic)
      else report(error)
      return rest()
    }
    isRefreshing = false
    onMetadata?.(metadata)
    kick()
  }

  async function rest(): Promise<void> {
    if (isResting) return
    isResting = true
    await pace.rest(stopped.signal)
    isResting = false
    kick()
  }

  function report(error: unknown): void {
    const failure = toError(error, 'fetching')
    if (failure.code === 'ACCESS_DENIED') onFatal(failure)
    else if (isOutage(error)) health.down(failure)
  }

  async function fetchFrom(node: number, wanting: readonly Lane[], maxWaitTime: number): Promise<void> {
    busy.add(node)
    let hasMore = true
    try {
      const response = await consumer.fetch({ node, maxWaitTime, topics: requestOf(wanting) })
      pace.reset()
      health.up()
      if (!stopped.signal.aborted) hasMore = take(response, wanting)
    } catch (error) {
      if (!stopped.signal.aborted) await recover(error, wanting)
    } finally {
      // Where nothing is left to fetch, the next request only waits for news: handlers go first.
      if (!hasMore) await nextTurn()
      busy.delete(node)
      kick()
    }
  }

  /** Says whether the broker has more. */
  function take(response: KafkaFetchResponse, wanting: readonly Lane[]): boolean {
    let hasMore = false
    for (const { topicId, partitions } of response.responses) {
      for (const { partitionIndex, records, highWatermark } of partitions) {
        const lane = laneOf(wanting, topicId, partitionIndex)
        if (lane === undefined || !lanes.has(lane)) continue
        lane.take(records ?? [], highWatermark > lane.position)
        if (highWatermark > lane.position) hasMore = true
      }
    }
    return hasMore
  }

  async function recover(error: unknown, wanting: readonly Lane[]): Promise<void> {
    if (hasApiId(error, 'FETCH_SESSION_ID_NOT_FOUND', 'INVALID_FETCH_SESSION_EPOCH', 'FETCH_SESSION_TOPIC_ID_ERROR')) return
    metadata = undefined
    const outOfRange = outOfRangeOf(error, wanting)
    for (const { lane, oldest } of outOfRange) await onOutOfRange(lane, oldest)
    if (isUnknownTopic(error)) for (const topic of new Set(wanting.map((lane) => lane.topic))) await onTopicLost(topic)
    else if (outOfRange.length === 0) report(error)
    if (outOfRange.length === 0) await rest()
  }

  return {
    add(fresh) {
      for (const lane of fresh) lanes.add(lane)
      metadata = undefined
      kick()
    },
    remove: (lane) => void lanes.delete(lane),
    kick,
    stop() {
      stopped.abort()
      cutConnections(consumer)
      consumer.close(true).catch(() => undefined)
    },
  }
}

function requestOf(lanes: readonly Lane[]): { topicId: string; partitions: KafkaFetchPartition[] }[] {
  const topics = new Map<string, KafkaFetchPartition[]>()
  for (const { topicId, partition, position, fetchBytes } of lanes) {
    const asked = { partition, fetchOffset: position, partitionMaxBytes: fetchBytes, currentLeaderEpoch: -1, lastFetchedEpoch: -1 }
    const partitions = topics.get(topicId)
    if (partitions === undefined) topics.set(topicId, [asked])
    else partitions.push(asked)
  }
  return [...topics].map(([topicId, partitions]) => ({ topicId, partitions }))
}

function laneOf(lanes: readonly Lane[], topicId: string, partition: number): Lane | undefined {
  return lanes.find((lane) => lane.topicId === topicId && lane.partition === partition)
}

function outOfRangeOf(error: unknown, wanting: readonly Lane[]): { readonly lane: Lane; readonly oldest: bigint | undefined }[] {
  const found: { lane: Lane; oldest: bigint | undefined }[] = []
  for (const response of responsesIn(error)) {
    for (const { topicId, partitions } of response.responses) {
      for (const { partitionIndex, errorCode, logStartOffset } of partitions) {
        const lane = errorCode === OUT_OF_RANGE ? laneOf(wanting, topicId, partitionIndex) : undefined
        if (lane !== undefined) found.push({ lane, oldest: logStartOffset < 0n ? undefined : logStartOffset })
      }
    }
  }
  return found
}

/** The library hangs a broker's whole answer on its error. */
function responsesIn(error: unknown): readonly KafkaFetchResponse[] {
  const all = [error, ...leavesOf(error), ...(error instanceof AggregateError ? error.errors : [])]
  return all.flatMap((each: unknown) => {
    const response = typeof each === 'object' && each !== null && 'response' in each ? each.response : undefined
    return typeof response === 'object' && response !== null && 'responses' in response ? [response as KafkaFetchResponse] : []
  })
}
