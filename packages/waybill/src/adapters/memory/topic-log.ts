import type { Message } from '../../core/transport.ts'

/** A message that a topic holds. */
export interface Stored {
  /** 1 for the topic's first; rises by one. */
  readonly sequence: number
  readonly message: Message
  /** Groups that have to settle it before its publisher is told; 0 where nobody waits for that. */
  waitingFor: number
  onHandled: (() => void) | undefined
}

/** The messages of one topic, oldest first, without those that nobody needs any more. */
export interface TopicLog {
  append(message: Message): Stored
  at(sequence: number): Stored | undefined
  /** Lets go of everything before `sequence`, but for the `keep` newest. */
  trim(sequence: number, keep: number): void
  /** The oldest that is held. */
  readonly first: number
  /** What the next one will get. */
  readonly end: number
}

// Places at the front are given back once they are this many and half of the array: cheap on average, and memory follows the size.
const FREED_MAX = 1024

export function createTopicLog(): TopicLog {
  let items: (Stored | undefined)[] = []
  let offset = 1
  let first = 1
  return {
    append(message) {
      const stored: Stored = { sequence: offset + items.length, message, waitingFor: 0, onHandled: undefined }
      items.push(stored)
      return stored
    },
    at: (sequence) => items[sequence - offset],
    trim(sequence, keep) {
      const until = Math.min(sequence, offset + items.length - keep)
      while (first < until) items[first++ - offset] = undefined
      const freed = first - offset
      if (freed >= FREED_MAX && freed * 2 >= items.length) {
        items = items.slice(freed)
        offset = first
      }
    },
    get first() {
      return first
    },
    get end() {
      return offset + items.length
    },
  }
}
