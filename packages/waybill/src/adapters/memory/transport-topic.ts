import type { Message } from '../../core/transport.ts'
import { createTopicGroup, type TopicGroup } from './topic-group.ts'
import type { Entry } from './topic-key-line.ts'
import { createTopicLog, type Stored } from './topic-log.ts'

/** A member's view of a topic. */
export type TopicReader =
  | { readonly kind: 'tail'; readonly topic: string; take(max: number): readonly Stored[]; leave(): void }
  | {
      readonly kind: 'group'
      readonly topic: string
      take(max: number): readonly Entry[]
      ack(entry: Entry, handOut: object): void
      giveBack(entry: Entry, handOut: object): boolean
      setAside(entry: Entry, handOut: object): boolean
      resume(entry: Entry): void
      leave(): void
    }

/** One topic: its log, its groups and their members. */
export interface Topic {
  readonly name: string
  /** Whether each group has room for one more. */
  hasRoom(queueMax: number): boolean
  append(message: Message): Stored
  declare(group: string): void
  join(member: object, group: string | undefined, start: 'earliest' | 'latest', wake: () => void): TopicReader
  /** Tells the members that there is something new, and lets go of what nobody needs. */
  announce(): void
  /** Groups whose settling a publisher waits for. */
  readonly declared: number
}

interface Group {
  readonly way: TopicGroup
  readonly wakes: Map<object, () => void>
  /** Publishers wait for this group from this message on; nothing: they don't. */
  declaredFrom: number | undefined
}

export function createTopic(name: string, retainMax: number): Topic {
  const log = createTopicLog()
  const groups = new Map<string, Group>()
  const tails = new Map<object, () => void>()
  let declared = 0

  function groupOf(group: string, start: 'earliest' | 'latest'): Group {
    const known = groups.get(group)
    if (known !== undefined) return known
    const wakes = new Map<object, () => void>()
    const way = createTopicGroup(log, start === 'latest' ? log.end : log.first, (member) => {
      if (member !== undefined) wakes.get(member)?.()
      else for (const wake of wakes.values()) wake()
    })
    const created: Group = { way, wakes, declaredFrom: undefined }
    groups.set(group, created)
    return created
  }

  function trim(): void {
    let needed = log.end
    for (const { way } of groups.values()) needed = Math.min(needed, way.cursor)
    log.trim(needed, retainMax)
  }

  function settled(group: Group, { stored }: Entry): void {
    if (group.declaredFrom === undefined || stored.sequence < group.declaredFrom || stored.waitingFor === 0) return
    stored.waitingFor--
    if (stored.waitingFor === 0) stored.onHandled?.()
  }

  function joinGroup(member: object, group: Group, wake: () => void): TopicReader {
    group.wakes.set(member, wake)
    return {
      kind: 'group',
      topic: name,
      take(max) {
        const entries = group.way.take(member, max)
        trim()
        return entries
      },
      ack(entry, handOut) {
        if (group.way.settle(entry, handOut)) settled(group, entry)
      },
      giveBack: (entry, handOut) => group.way.giveBack(entry, handOut),
      setAside: (entry, handOut) => group.way.setAside(entry, handOut),
      resume: (entry) => group.way.resume(entry),
      leave() {
        group.wakes.delete(member)
        group.way.leave(member)
      },
    }
  }

  function joinTail(member: object, start: 'earliest' | 'latest', wake: () => void): TopicReader {
    let cursor = start === 'latest' ? log.end : log.first
    tails.set(member, wake)
    return {
      kind: 'tail',
      topic: name,
      take(max) {
        // What was let go of while the tail did not look is missing from it: a tail may be slow, but it holds nobody up.
        cursor = Math.max(cursor, log.first)
        const taken: Stored[] = []
        while (taken.length < max && cursor < log.end) taken.push(log.at(cursor++)!)
        return taken
      },
      leave() {
        tails.delete(member)
      },
    }
  }

  return {
    name,
    hasRoom(queueMax) {
      for (const { way } of groups.values()) if (way.unsettled >= queueMax) return false
      return true
    },
    append(message) {
      const stored = log.append(message)
      stored.waitingFor = declared
      return stored
    },
    declare(group) {
      const known = groupOf(group, 'earliest')
      if (known.declaredFrom !== undefined) return
      known.declaredFrom = log.end
      declared++
    },
    join: (member, group, start, wake) =>
      group === undefined ? joinTail(member, start, wake) : joinGroup(member, groupOf(group, start), wake),
    announce() {
      trim()
      for (const { wakes } of groups.values()) for (const wake of wakes.values()) wake()
      for (const wake of tails.values()) wake()
    },
    get declared() {
      return declared
    },
  }
}
