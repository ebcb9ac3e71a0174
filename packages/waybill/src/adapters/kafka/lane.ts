import type { Arrival, Holding, Member } from '../../core/member.ts'
import { createWatermark } from '../../core/watermark.ts'
import type { KafkaBatch } from './client.ts'
import { fromRecord } from './wire.ts'

export interface LaneOptions {
  readonly member: Member<bigint>
  /** Of the assignment; unique in this process. */
  readonly id: string
  readonly topic: string
  readonly topicId: string
  readonly partition: number
  /** The offset to begin at. */
  readonly position: bigint
  /** Told when so many more than before may be committed; acks wait for what it gives back. Nothing: a tail. */
  readonly onSettled?: (lane: Lane, count: number) => Promise<void>
  /** Told when there is room for more. */
  readonly onRoom: () => void
}

/** One partition of ours, from its assignment until it is lost: what is fetched, handed out, settled, and may be committed. */
export interface Lane {
  readonly topic: string
  readonly topicId: string
  readonly partition: number
  readonly holding: Holding<bigint>
  /** The next offset to fetch. */
  readonly position: bigint
  /** The offset to commit: everything before it is settled. */
  readonly committable: bigint
  /** What a fetch should ask for, in bytes. */
  readonly fetchBytes: number
  readonly wantsMore: boolean
  /** Takes in what a fetch from `position` brought, in order; `isBehind`: the broker has more. */
  take(batches: readonly KafkaBatch[], isBehind: boolean): void
}

/** How far acked work may run ahead of the oldest unsettled offset of its partition. */
export const AHEAD_MAX = 10_000
const WATERMARK_MAX = 10_000_000
/** Control batches (ends of transactions) hold no messages. */
const IS_CONTROL = 1 << 5
const AT_ONCE = Promise.resolve()
const FETCH_MESSAGES = 500
const FETCH_MIN_BYTES = 32 * 1024
const FETCH_FIRST_BYTES = 64 * 1024
const FETCH_MAX_BYTES = 1024 * 1024
const FETCH_LIMIT_BYTES = 96 * 1024 * 1024
const BATCH_PREFIX_BYTES = 12

export function createLane({ member, id, topic, topicId, partition, position: start, onSettled, onRoom }: LaneOptions): Lane {
  const watermark = createWatermark(WATERMARK_MAX)
  let position = start
  let committable = start
  let hasRoom = true
  let fetchBytes = FETCH_FIRST_BYTES

  function settle(offsets: readonly bigint[]): Promise<void> {
    const before = committable
    const wasAhead = watermark.size >= AHEAD_MAX
    for (const offset of offsets) {
      const upTo = watermark.finish(offset)
      if (upTo !== undefined) committable = upTo + 1n
    }
    // What is ahead of an unsettled offset can't be committed: nobody may wait for it.
    if (committable === before || onSettled === undefined) return AT_ONCE
    if (wasAhead && watermark.size < AHEAD_MAX) onRoom()
    return onSettled(lane, Number(committable - before))
  }

  const holding = member.hold({
    id,
    partition: `${topic}-${partition}`,
    ...(onSettled !== undefined && {
      ack: settle,
    }),
  })

  function adapt(batches: readonly KafkaBatch[], count: number): void {
    let bytes = 0
    let largest = 0
    for (const { length } of batches) {
      bytes += length
      if (length > largest) largest = length
    }
    if (count === 0) return
    // Powers of two, so that the broker's memory of what we ask seldom changes.
    const wanted = Math.min(FETCH_MAX_BYTES, Math.max(FETCH_MIN_BYTES, (bytes / count) * FETCH_MESSAGES))
    fetchBytes = 2 ** Math.ceil(Math.log2(Math.max(wanted, largest + BATCH_PREFIX_BYTES)))
  }

  const lane: Lane = {
    topic,
    topicId,
    partition,
    holding,
    get position() {
      return position
    },
    get committable() {
      return committable
    },
    get fetchBytes() {
      return fetchBytes
    },
    get wantsMore() {
      return hasRoom && watermark.size < AHEAD_MAX && !holding.assignment.signal.aborted
    },
    take(batches, isBehind) {
      if (batches.length === 0) {
        // Its next batch is larger than what was asked for.
        if (isBehind) fetchBytes = Math.min(FETCH_LIMIT_BYTES, fetchBytes * 2)
        return
      }
      const arrivals: Arrival<bigint>[] = []
      for (const batch of batches) {
        if ((batch.attributes & IS_CONTROL) === 0) {
          for (const record of batch.records) {
            const offset = batch.firstOffset + BigInt(record.offsetDelta)
            // A batch comes whole, also where we begin in its middle.
            if (offset < position) continue
            if (onSettled !== undefined) watermark.begin(offset)
            arrivals.push({
              message: fromRecord(topic, partition, offset, record),
              sequence: offset,
              redelivered: 'unknown',
              place: offset,
            })
          }
        }
        const next = batch.firstOffset + BigInt(batch.lastOffsetDelta) + 1n
        if (next > position) position = next
      }
      adapt(batches, arrivals.length)
      if (arrivals.length === 0) return
      holding.add(arrivals)
      hasRoom = false
      void holding.room().then(() => {
        hasRoom = true
        onRoom()
      })
    },
  }
  return lane
}
