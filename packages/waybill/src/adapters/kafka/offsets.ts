import type { CheckedSource } from '../../core/source.ts'
import type { KafkaAdminLike } from './client.ts'

/** Offsets, by `topic\npartition`. */
export type Offsets = ReadonlyMap<string, bigint>

/** A partition of a topic, as a key. */
export const placeOf = (topic: string, partition: number): string => `${topic}\n${partition}`

const LATEST = -1n
const EARLIEST = -2n

interface Wanted {
  readonly topic: string
  readonly partitions: readonly number[]
}

async function list(admin: KafkaAdminLike, wanted: readonly Wanted[], timestamp: bigint): Promise<Offsets> {
  const listed = await admin.listOffsets({
    topics: wanted.map(({ topic, partitions }) => ({
      name: topic,
      partitions: partitions.map((partitionIndex) => ({ partitionIndex, timestamp })),
    })),
  })
  return new Map(
    listed.flatMap(({ name, partitions }) =>
      partitions.map(({ partitionIndex, offset }) => [placeOf(name, partitionIndex), offset] as const),
    ),
  )
}

/** The offsets after the newest messages. */
export const latestOffsets = (admin: KafkaAdminLike, wanted: readonly Wanted[]): Promise<Offsets> => list(admin, wanted, LATEST)

/** The offsets of the oldest messages. */
export const earliestOffsets = (admin: KafkaAdminLike, wanted: readonly Wanted[]): Promise<Offsets> => list(admin, wanted, EARLIEST)

/** Where `start` is at this moment. */
export async function startOffsets(admin: KafkaAdminLike, wanted: readonly Wanted[], start: CheckedSource['start']): Promise<Offsets> {
  if (wanted.length === 0) return new Map()
  if (start === 'earliest') return earliestOffsets(admin, wanted)
  // First, so that what is published between the two questions is not passed over.
  const latest = await latestOffsets(admin, wanted)
  if (start === 'latest') return latest
  const at = await list(admin, wanted, BigInt(start.at.getTime()))
  return new Map([...latest].map(([place, offset]) => [place, (at.get(place) ?? -1n) < 0n ? offset : at.get(place)!]))
}
