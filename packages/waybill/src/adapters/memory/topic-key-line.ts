import type { Stored } from './topic-log.ts'

/** A message on its way through one group. */
export interface Entry {
  readonly stored: Stored
  readonly line: KeyLine
  /** How often it was handed out. */
  deliveries: number
  /** Names the present hand-out, so that a settle of an earlier one is told from it; nothing while it is with nobody. */
  handOut: object | undefined
}

/** What a group knows of a key that has messages at work. */
export interface KeyLine {
  readonly key: string
  /** The member that has unsettled messages of the key. */
  owner: object | undefined
  /** Handed out and not settled. */
  unsettled: number
  /** Set aside for a while. */
  aside: number
  /** Where it is listed as having waiting messages. */
  listed: Set<KeyLine> | undefined
  /** Puts a message among the waiting, by sequence. */
  insert(entry: Entry): void
  /** Takes out the oldest of the waiting. */
  shift(): Entry | undefined
  readonly waiting: number
}

export function createKeyLine(key: string): KeyLine {
  let entries: (Entry | undefined)[] = []
  let head = 0

  /** Where an entry of this sequence belongs. */
  function placeOf(sequence: number): number {
    let low = head
    let high = entries.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (entries[middle]!.stored.sequence < sequence) low = middle + 1
      else high = middle
    }
    return low
  }

  return {
    key,
    owner: undefined,
    unsettled: 0,
    aside: 0,
    listed: undefined,
    insert(entry) {
      const at = placeOf(entry.stored.sequence)
      if (at === entries.length) entries.push(entry)
      else if (at === head && head > 0) entries[--head] = entry
      else entries.splice(at, 0, entry)
    },
    shift() {
      const entry = entries[head]
      if (entry === undefined) return undefined
      entries[head++] = undefined
      if (head === entries.length) {
        entries = []
        head = 0
      } else if (head >= 1024 && head * 2 >= entries.length) {
        entries = entries.slice(head)
        head = 0
      }
      return entry
    },
    get waiting() {
      return entries.length - head
    },
  }
}
