import { crc32 } from 'node:zlib'

/** How many partitions a member should hold, and at which one it looks first. */
export interface Share {
  readonly count: number
  readonly first: number
}

/** Shares evenly: no two members differ by more than one, and all together hold all. Who holds one more differs from topic to topic. */
export function shareOf(memberId: string, members: readonly string[], partitions: number, topic: string): Share {
  const sorted = members.toSorted()
  const at = sorted.indexOf(memberId)
  if (at === -1) return { count: 0, first: 0 }
  const rank = (at + (crc32(topic) % sorted.length)) % sorted.length
  const whole = Math.floor(partitions / sorted.length)
  const extra = partitions % sorted.length
  return { count: whole + (rank < extra ? 1 : 0), first: rank * whole + Math.min(rank, extra) }
}
