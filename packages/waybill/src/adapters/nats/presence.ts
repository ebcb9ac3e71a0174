import { monotonicOf } from '../../core/clock.ts'
import { newId } from '../../core/ids.ts'
import type { Connection } from './connection.ts'
import { natsToken } from './names.ts'
import type { CheckedNatsOptions } from './options.ts'

/** Who else is in a group of a topic, as far as one can hear. Only for sharing fairly: who holds what is decided elsewhere. */
export interface Presence {
  /** The numbers of the partitions that are this member's share. */
  share(partitions: number): ReadonlySet<number>
  /** To be called now and then. */
  tick(): void
  /** Others may take what was given up. */
  announceFree(): void
  leave(): void
}

export interface PresenceOptions {
  readonly connection: Connection
  readonly options: CheckedNatsOptions
  readonly topic: string
  readonly group: string
  readonly memberId: string
  /** Somebody came or went. */
  onChange(): void
  /** Somebody gave something up. */
  onFree(): void
}

const BEAT_MS = 800
/** Beats that may be missed. */
const GONE_MS = 2500
const MEMBERS_MAX = 10_000

/** How long a roll call listens. */
const ROLL_MS = 250

interface Beat {
  readonly id: string
  readonly say: (typeof SAYINGS)[number]
}

/** `roll`: somebody who is no member asks who is there. */
const SAYINGS = ['hello', 'here', 'free', 'bye', 'roll'] as const

const subjectOf = (options: CheckedNatsOptions, topic: string, group: string): string =>
  `${options.prefix}._members.${natsToken(topic)}.${natsToken(group)}`

/** How many members answer, within a quarter of a second. */
export async function countMembers(connection: Connection, options: CheckedNatsOptions, topic: string, group: string): Promise<number> {
  const subject = subjectOf(options, topic, group)
  const heard = new Set<string>()
  const unsubscribe = connection.subscribe(subject, ({ data }) => {
    const beat = readBeat(data)
    if (beat !== undefined && beat.say !== 'roll' && beat.say !== 'bye') heard.add(beat.id)
  })
  const roll: Beat = { id: newId(), say: 'roll' }
  connection.current()?.publish(subject, JSON.stringify(roll))
  await options.clock.sleep(ROLL_MS)
  unsubscribe()
  return heard.size
}

export function createPresence({ connection, options, topic, group, memberId, onChange, onFree }: PresenceOptions): Presence {
  const now = monotonicOf(options.clock)
  const subject = subjectOf(options, topic, group)
  const heard = new Map<string, number>([[memberId, Infinity]])
  let saidAt = -Infinity
  let isGone = false

  function say(what: Beat['say']): void {
    saidAt = now()
    const beat: Beat = { id: memberId, say: what }
    connection.current()?.publish(subject, JSON.stringify(beat))
  }

  const unsubscribe = connection.subscribe(subject, ({ data }) => {
    const beat = readBeat(data)
    if (beat === undefined || beat.id === memberId || isGone) return
    if (beat.say === 'roll') {
      say('here')
      return
    }
    if (beat.say === 'bye') {
      if (heard.delete(beat.id)) onChange()
      onFree()
      return
    }
    const isNew = !heard.has(beat.id)
    if (isNew && heard.size >= MEMBERS_MAX) return
    heard.set(beat.id, now())
    if (beat.say === 'hello') say('here')
    if (beat.say === 'free') onFree()
    if (isNew) onChange()
  })
  say('hello')

  return {
    share(partitions) {
      const members = [...heard.keys()].toSorted()
      const own = members.indexOf(memberId)
      // Topics begin at different members, so that many topics of few partitions do not all end at the first one.
      let turn = 0
      for (const letter of topic) turn = (turn * 31 + letter.codePointAt(0)!) >>> 0
      const numbers = Array.from({ length: partitions }, (_, number) => number)
      return new Set(numbers.filter((number) => (number + turn) % members.length === own))
    },
    tick() {
      const at = now()
      if (at - saidAt >= BEAT_MS) say('here')
      const gone = [...heard].filter(([, heardAt]) => at - heardAt > GONE_MS)
      for (const [id] of gone) heard.delete(id)
      if (gone.length > 0) onChange()
    },
    announceFree: () => say('free'),
    leave() {
      isGone = true
      unsubscribe()
      say('bye')
    },
  }
}

function readBeat(data: Uint8Array): Beat | undefined {
  try {
    const { id, say } = JSON.parse(Buffer.from(data).toString('utf8')) as Partial<Beat>
    return typeof id === 'string' && id.length <= 64 && say !== undefined && SAYINGS.includes(say) ? { id, say } : undefined
  } catch {
    // Somebody else's message on our subject.
    return undefined
  }
}
