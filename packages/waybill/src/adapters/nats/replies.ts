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

interface Slot {
  /** Its place among the slots, plus `SLOTS_MAX` for each time that it was used before: what comes for an earlier question must not reach a later one. */
  number: number
  /** Undefined where nothing is asked. */
  target: ReplyTarget | undefined
  index: number
  subject: string
  deadline: number
}

const SLOTS_MAX = 65_536
const SWEEPS_PER_SECOND = 10

/** `inbox` ends in a dot. `now` never goes back. */
export function createReplies(inbox: string, now: () => number): Replies {
  const slots: Slot[] = []
  const free: Slot[] = []
  let open = 0
  let timer: NodeJS.Timeout | undefined

  function release(slot: Slot): ReplyTarget {
    const target = slot.target!
    slot.target = undefined
    slot.number += SLOTS_MAX
    free.push(slot)
    open--
    return target
  }

  function addSlot(): Slot | undefined {
    if (slots.length >= SLOTS_MAX) return undefined
    const slot = { number: slots.length, target: undefined, index: 0, subject: '', deadline: 0 }
    slots.push(slot)
    return slot
  }

  function sweep(): void {
    const at = now()
    for (const slot of slots) if (slot.target !== undefined && slot.deadline <= at) release(slot).onLost('timeout', slot.index)
    timer = open > 0 ? setTimeout(sweep, 1000 / SWEEPS_PER_SECOND) : undefined
  }

  return {
    take(target, index, subject, timeoutMs) {
      const slot = free.pop() ?? addSlot()
      if (slot === undefined) return undefined
      slot.target = target
      slot.index = index
      slot.subject = subject
      slot.deadline = now() + timeoutMs
      open++
      timer ??= setTimeout(sweep, 1000 / SWEEPS_PER_SECOND)
      return `${inbox}${slot.number}`
    },
    receive(message) {
      const number = Number(message.subject.slice(inbox.length))
      const slot = slots[number % SLOTS_MAX]
      if (slot?.target !== undefined && slot.number === number) release(slot).onReply(message, slot.index)
    },
    cut() {
      for (const slot of slots) if (slot.target !== undefined) release(slot).onLost('cut', slot.index)
    },
    deny(subject, error) {
      for (const slot of slots) if (slot.target !== undefined && slot.subject === subject) release(slot).onDenied(error, slot.index)
    },
    get open() {
      return open
    },
  }
}
