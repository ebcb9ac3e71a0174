import { createKeyLine, type Entry, type KeyLine } from './topic-key-line.ts'
import type { TopicLog } from './topic-log.ts'

/** One group's way through one topic: a cursor into the log, and what was handed out and is not settled yet. */
export interface TopicGroup {
  /** Up to `max` messages for `member`: oldest first per key, none of a key that another member works on. */
  take(member: object, max: number): readonly Entry[]
  /** Done. True if `handOut` was the entry's present one. */
  settle(entry: Entry, handOut: object): boolean
  /** Back in its place. */
  giveBack(entry: Entry, handOut: object): boolean
  /** Out of its key's way for a while; `resume` puts it back in its place. */
  setAside(entry: Entry, handOut: object): boolean
  resume(entry: Entry): void
  /** Puts everything that `member` holds back in its place. */
  leave(member: object): void
  /** Messages that are not settled. */
  readonly unsettled: number
  /** The oldest message that nobody has looked at. */
  readonly cursor: number
}

/**
 * While a member has unsettled messages of a key, all of that key goes to it; messages that another member comes across meanwhile wait at the key.
 * `onReady` is told for whom messages have become ready: one member, or anybody.
 */
export function createTopicGroup(log: TopicLog, start: number, onReady: (member: object | undefined) => void): TopicGroup {
  const lines = new Map<string, KeyLine>()
  const held = new Map<object, Set<Entry>>()
  const forMember = new Map<object, Set<KeyLine>>()
  const forAnybody = new Set<KeyLine>()
  let cursor = start
  let outstanding = 0

  function lineOf(key: string): KeyLine {
    let line = lines.get(key)
    if (line === undefined) lines.set(key, (line = createKeyLine(key)))
    return line
  }

  function readyFor(member: object): Set<KeyLine> {
    let ready = forMember.get(member)
    if (ready === undefined) forMember.set(member, (ready = new Set()))
    return ready
  }

  /** Lists the key where those look who may have its waiting messages; forgets it where nothing is left of it. */
  function list(line: KeyLine): void {
    const place = line.waiting === 0 ? undefined : line.owner === undefined ? forAnybody : readyFor(line.owner)
    if (line.listed !== place) {
      line.listed?.delete(line)
      line.listed = place
      place?.add(line)
      if (place !== undefined) onReady(line.owner)
    }
    if (line.waiting === 0 && line.unsettled === 0 && line.aside === 0) lines.delete(line.key)
  }

  function hand(entry: Entry, member: object, taken: Entry[]): void {
    const { line } = entry
    line.owner = member
    line.unsettled++
    entry.deliveries++
    entry.handOut = {}
    let mine = held.get(member)
    if (mine === undefined) held.set(member, (mine = new Set()))
    mine.add(entry)
    taken.push(entry)
  }

  function takeListed(place: Set<KeyLine>, member: object, max: number, taken: Entry[]): void {
    for (const line of place) {
      while (taken.length < max && line.waiting > 0) hand(line.shift()!, member, taken)
      list(line)
      if (taken.length >= max) return
    }
  }

  function takeNew(member: object, max: number, taken: Entry[]): void {
    while (taken.length < max && cursor < log.end) {
      const stored = log.at(cursor++)
      if (stored === undefined) continue
      outstanding++
      const line = lineOf(stored.message.key)
      const entry: Entry = { stored, line, deliveries: 0, handOut: undefined }
      if (line.waiting === 0 && (line.owner === undefined || line.owner === member)) {
        hand(entry, member, taken)
      } else {
        line.insert(entry)
        list(line)
      }
    }
  }

  /** Takes `entry` out of its holder's hands, if `handOut` is still the present one. */
  function takeBack(entry: Entry, handOut: object): boolean {
    if (entry.handOut !== handOut) return false
    const { line } = entry
    entry.handOut = undefined
    held.get(line.owner!)?.delete(entry)
    line.unsettled--
    if (line.unsettled === 0) line.owner = undefined
    return true
  }

  return {
    take(member, max) {
      const taken: Entry[] = []
      const own = forMember.get(member)
      if (own !== undefined) takeListed(own, member, max, taken)
      if (taken.length < max) takeListed(forAnybody, member, max, taken)
      takeNew(member, max, taken)
      return taken
    },
    settle(entry, handOut) {
      if (!takeBack(entry, handOut)) return false
      outstanding--
      list(entry.line)
      return true
    },
    giveBack(entry, handOut) {
      if (!takeBack(entry, handOut)) return false
      entry.line.insert(entry)
      list(entry.line)
      return true
    },
    setAside(entry, handOut) {
      if (!takeBack(entry, handOut)) return false
      entry.line.aside++
      list(entry.line)
      return true
    },
    resume(entry) {
      entry.line.aside--
      entry.line.insert(entry)
      list(entry.line)
    },
    leave(member) {
      const mine = held.get(member) ?? new Set()
      held.delete(member)
      const touched = new Set<KeyLine>()
      // Newest first: each then goes to the front of its key, which costs nothing.
      for (const entry of [...mine].toSorted((a, b) => b.stored.sequence - a.stored.sequence)) {
        takeBack(entry, entry.handOut!)
        entry.line.insert(entry)
        touched.add(entry.line)
      }
      for (const line of touched) list(line)
      forMember.delete(member)
    },
    get unsettled() {
      return outstanding + (log.end - cursor)
    },
    get cursor() {
      return cursor
    },
  }
}
