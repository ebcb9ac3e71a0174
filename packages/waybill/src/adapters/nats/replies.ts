import type { NatsMessage } from './client.ts'

/** Who waits for answers. */
export interface ReplyTarget {
  onReply(message: NatsMessage, index: number): void
  /** It will never come, as far as anybody knows: time ran out, or the connection was lost. */
  onLost(why: 'timeout' | 'cut', index: number): void
  /** The server refused what was asked. */
  onDenied(error: Error, index: number): void
}

/** Answers to many questions through one inbox: a slot with a number for each, and one timer for all. */
export interface Replies {
  /** Where the answer is to go; undefined where too many are open. */
  take(target: ReplyTarget, index: number, subject: string, timeoutMs: number): string | undefined
  /** What came to the inbox. */
  receive(message: NatsMessage): void
  /** The connection was lost: nothing that was asked will be answered. */
  cut(): void
  /** The server refused something that was sent to `subject`. */
  deny(subject: string, error: Error): void
  readonly open: number
}

const SLOTS_MAX = 65_536
const SWEEPS_PER_SECOND = 10

/** `inbox` ends in a dot. `now` never goes back. */
export function createReplies(inbox: string, now: () => number): Replies {
  const targets: (ReplyTarget | undefined)[] = []
  const indexes: number[] = []
  const rounds: number[] = []
  const deadlines: number[] = []
  const subjects: string[] = []
  const free: number[] = []
  let open = 0
  let timer: NodeJS.Timeout | undefined

  function release(slot: number): ReplyTarget {
    const target = targets[slot]!
    targets[slot] = undefined
    // What comes for the slot's last round must not reach its next one.
    rounds[slot] = rounds[slot]! + 1
    free.push(slot)
    open--
    return target
  }

  function sweep(): void {
    const at = now()
    for (let slot = 0; slot < targets.length; slot++) {
      if (targets[slot] !== undefined && deadlines[slot]! <= at) release(slot).onLost('timeout', indexes[slot]!)
    }
    timer = open > 0 ? setTimeout(sweep, 1000 / SWEEPS_PER_SECOND) : undefined
  }

  return {
    take(target, index, subject, timeoutMs) {
      let slot = free.pop()
      if (slot === undefined) {
        if (targets.length >= SLOTS_MAX) return undefined
        slot = targets.length
        rounds[slot] = 0
      }
      targets[slot] = target
      indexes[slot] = index
      subjects[slot] = subject
      deadlines[slot] = now() + timeoutMs
      open++
      timer ??= setTimeout(sweep, 1000 / SWEEPS_PER_SECOND)
      return `${inbox}${rounds[slot]! * SLOTS_MAX + slot}`
    },
    receive(message) {
      const number = Number(message.subject.slice(inbox.length))
      const slot = number % SLOTS_MAX
      if (targets[slot] === undefined || rounds[slot] !== (number - slot) / SLOTS_MAX) return
      release(slot).onReply(message, indexes[slot]!)
    },
    cut() {
      for (let slot = 0; slot < targets.length; slot++) if (targets[slot] !== undefined) release(slot).onLost('cut', indexes[slot]!)
    },
    deny(subject, error) {
      for (let slot = 0; slot < targets.length; slot++)
        if (targets[slot] !== undefined && subjects[slot] === subject) release(slot).onDenied(error, indexes[slot]!)
    },
    get open() {
      return open
    },
  }
}
