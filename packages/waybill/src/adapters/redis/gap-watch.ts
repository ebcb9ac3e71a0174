import { compareIds } from './stream-id.ts'

/** A stream and a group's place in it. */
export interface StreamState {
  /** Entries that were ever added. */
  readonly added: number
  readonly length: number
  readonly lastId: string
  /** The last one that was delivered to the group. */
  readonly delivered: string
  /** How many were delivered to the group; -1 where the server doesn't know. */
  readonly read: number
}

/** Of what a script's state says. */
export function stateOf(reply: readonly unknown[]): StreamState {
  const [added, length, lastId, delivered, read] = reply
  return { added: Number(added), length: Number(length), lastId: String(lastId), delivered: String(delivered), read: Number(read) }
}

export interface Gap {
  readonly missing: number | undefined
  readonly why: string
  /** Whether the stream is an older one than before. */
  readonly isOlder?: true
}

/** Notices that a stream lost entries which the group had not read. */
export interface GapWatch {
  /** So many came. */
  read(count: number): void
  /** It is not known any more how many came. */
  forget(): void
  /** Compares with the server. `lastId`: the last that came here. */
  look(state: StreamState, lastId: string): Gap | undefined
}

export const OLDER = 'the stream is older than what was read from it: the server lost what it had stored'

/** Counts: entries that were added are read, still there, or missing. */
export function createGapWatch(first: StreamState): GapWatch {
  let count = startOf(first)

  return {
    read(more) {
      if (count !== undefined) count += more
    },
    forget() {
      count = undefined
    },
    look(state, lastId) {
      const { added, length, lastId: newest, delivered } = state
      if (compareIds(newest, lastId) < 0) {
        count = undefined
        return { missing: undefined, why: OLDER, isOlder: true }
      }
      // A fetch is on its way: what it brings is not counted here yet.
      if (delivered !== lastId) return undefined
      const seen = delivered === newest ? added : Math.max(count ?? added - length, added - length)
      const missing = count === undefined ? 0 : seen - count
      if (count !== undefined || delivered === newest) count = seen
      if (missing === 0) return undefined
      return { missing: missing > 0 ? missing : undefined, why: 'messages were deleted or trimmed before they were read' }
    },
  }
}

function startOf({ added, length, lastId, delivered, read }: StreamState): number | undefined {
  if (delivered === lastId) return added
  return read < 0 ? undefined : Math.max(read, added - length)
}
