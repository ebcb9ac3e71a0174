import type { Clock } from '../../core/clock.ts'
import { checkInteger } from '../../core/options.ts'
import type { Assignment, Delivery } from '../../core/transport.ts'
import type { Entry } from './topic-key-line.ts'
import type { Stored } from './topic-log.ts'
import type { Topic, TopicReader } from './transport-topic.ts'

/** One subscription, at work. */
export interface Member {
  /** Ends it; what is unsettled is delivered again. */
  leave(): void
  /** Arrays of deliveries until it has left. */
  pull(): AsyncGenerator<readonly Delivery[], void, undefined>
}

export interface MemberOptions {
  readonly id: string
  readonly topics: readonly Topic[]
  /** Nothing: a tail. */
  readonly group: string | undefined
  readonly start: 'earliest' | 'latest'
  readonly batchMax: number
  readonly clock: Clock
  /** Ends waits for a delayed delivery. */
  readonly closing: AbortSignal
  onLeave(member: Member): void
}

const nothing = (): void => {}

/** Joins now, so that a subscription begins where it was made and not where it is first pulled. */
export function createMember(options: MemberOptions): Member {
  const { id, topics, group, start, batchMax, clock, closing, onLeave } = options
  const lost = new AbortController()
  const assignment: Assignment = { id, signal: lost.signal }
  let wake = nothing
  const readers = topics.map((topic) => topic.join(self(), group, start, () => wake()))
  let turn = 0

  function self(): object {
    return lost
  }

  /** Topics take turns at being first, so that a busy one does not keep the others waiting. */
  function take(): Delivery[] {
    const deliveries: Delivery[] = []
    turn++
    for (let at = 0; at < readers.length && deliveries.length < batchMax; at++) {
      const reader = readers[(turn + at) % readers.length]!
      const max = batchMax - deliveries.length
      if (reader.kind === 'tail') for (const stored of reader.take(max)) deliveries.push(tailDelivery(reader.topic, stored, assignment))
      else for (const entry of reader.take(max)) deliveries.push(groupDelivery(reader, entry))
    }
    return deliveries
  }

  function groupDelivery(reader: TopicReader & { readonly kind: 'group' }, entry: Entry): Delivery {
    const handOut = entry.handOut!
    return {
      message: entry.stored.message,
      position: { partition: reader.topic, sequence: BigInt(entry.stored.sequence) },
      redelivered: entry.deliveries > 1 ? 'yes' : entry.stored.message.resent === true ? 'unknown' : 'no',
      assignment,
      async ack() {
        reader.ack(entry, handOut)
      },
      async release() {
        reader.giveBack(entry, handOut)
      },
      async retry(afterMs) {
        checkInteger(afterMs, 'afterMs', 0, 604_800_000)
        if (!reader.setAside(entry, handOut)) return
        void clock.sleep(afterMs, closing).then(() => {
          if (!closing.aborted) reader.resume(entry)
        })
      },
    }
  }

  const member: Member = {
    leave() {
      if (lost.signal.aborted) return
      // First the signal: whoever gets these messages next must not meet somebody who still believes to hold them.
      lost.abort()
      for (const reader of readers) reader.leave()
      onLeave(member)
      wake()
    },
    async *pull() {
      try {
        while (!lost.signal.aborted) {
          const deliveries = take()
          if (deliveries.length > 0) {
            yield deliveries
            continue
          }
          await new Promise<void>((resolve) => {
            wake = resolve
          })
          wake = nothing
        }
      } finally {
        member.leave()
      }
    },
  }
  return member
}

function tailDelivery(topic: string, { message, sequence }: Stored, assignment: Assignment): Delivery {
  const settle = async (): Promise<void> => {}
  return {
    message,
    position: { partition: topic, sequence: BigInt(sequence) },
    redelivered: message.resent === true ? 'unknown' : 'no',
    assignment,
    ack: settle,
    release: settle,
    retry: settle,
  }
}
