import type { WaybillError } from '../../core/errors.ts'
import type { Member } from '../../core/member.ts'
import { type AdapterParts, type Partition, type Start, createPartition, firstRecord } from './partition.ts'
import { type Presence, createPresence } from './presence.ts'
import type { TopicStream } from './streams.ts'

/** A member's part in one topic of a group. */
export interface GroupTopic {
  tick(): void
  /** Gives back all that is held; bounded. */
  leave(): Promise<void>
}

export interface GroupTopicOptions {
  readonly topic: string
  readonly group: string
  readonly memberId: string
  readonly start: Start
  readonly member: Member<number>
  onFailed(error: WaybillError): void
}

/** How long a member listens for others before it takes anything. */
const LISTEN_MS = 75

/**
 * Fixes where the group begins, where it has no position yet.
 * @throws WaybillError as `Streams.open`
 */
export async function fixStart(
  { streams, records, options }: AdapterParts,
  { topic, group, start }: GroupTopicOptions,
): Promise<TopicStream> {
  const stream = await streams.open(topic)
  if (start !== 'latest') return stream
  const info = await streams.info(stream)
  const record = firstRecord(stream, group, start, info, options.leaseMs)
  const keys = Array.from({ length: stream.partitions }, (_, partition) => records.key(topic, group, partition))
  // Refused where there is one already.
  await Promise.all(keys.map((key) => records.write(key, record, 0)))
  return stream
}

/** Takes part: holds this member's share of the topic's partitions. */
export function joinGroupTopic(parts: AdapterParts, stream: TopicStream, groupOptions: GroupTopicOptions): GroupTopic {
  const { connection, options } = parts
  const { topic, group, memberId, member, start } = groupOptions
  let isListening = true
  let isGone = false
  const partitions: Partition[] = Array.from({ length: stream.partitions }, (_, partition) =>
    createPartition(parts, {
      stream,
      partition,
      group,
      memberId,
      start,
      member,
      onHeld(isHeld) {
        const { label } = partitions[partition]!
        options.observe({
          type: 'transport.assigned',
          transport: 'nats',
          group,
          gained: isHeld ? [label] : [],
          lost: isHeld ? [] : [label],
        })
        if (!isHeld && !isGone) presence.announceFree()
      },
      onFailed: groupOptions.onFailed,
    }),
  )
  const presence: Presence = createPresence({
    connection,
    options,
    topic,
    group,
    memberId,
    onChange: share,
    onFree() {
      for (const partition of partitions) if (!partition.isHeld) partition.nudge()
    },
  })
  const listening = setTimeout(() => {
    isListening = false
    share()
  }, LISTEN_MS)

  function share(): void {
    if (isListening || isGone) return
    const mine = presence.share(stream.partitions)
    for (const [number, partition] of partitions.entries()) partition.want(mine.has(number))
  }

  return {
    tick() {
      presence.tick()
      for (const partition of partitions) partition.tick()
    },
    async leave() {
      isGone = true
      clearTimeout(listening)
      await Promise.all(partitions.map((partition) => partition.leave()))
      presence.leave()
    },
  }
}
