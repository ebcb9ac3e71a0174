import type { Holding } from '../../core/member.ts'
import type { Message } from '../../core/transport.ts'

/** What waits for one subscriber. Nobody can be slowed down here, so when it is full, the oldest goes. */
export interface DroppingBuffer {
  add(message: Message): void
}

export interface DroppingBufferOptions {
  readonly holding: Holding<undefined>
  readonly messagesMax: number
  readonly bytesMax: number
  /** Told how many were dropped, at most once a second. */
  onDropped(count: number): void
}

const TELL_MS = 1_000
const STEP = 64

export function createDroppingBuffer({ holding, messagesMax, bytesMax, onDropped }: DroppingBufferOptions): DroppingBuffer {
  let waiting: Message[] = []
  let first = 0
  let bytes = 0
  let dropped = 0
  let isPumping = false
  const { signal } = holding.assignment

  function shift(): Message {
    const message = waiting[first]!
    first++
    bytes -= message.body.byteLength
    if (first > 1024 && first * 2 > waiting.length) {
      waiting = waiting.slice(first)
      first = 0
    }
    return message
  }

  function drop(): void {
    shift()
    if (++dropped > 1) return
    const timer = setTimeout(() => {
      onDropped(dropped)
      dropped = 0
    }, TELL_MS)
    timer.unref()
  }

  async function pump(): Promise<void> {
    if (isPumping) return
    isPumping = true
    while (first < waiting.length && !signal.aborted) {
      await holding.room()
      const some = Array.from({ length: Math.min(STEP, waiting.length - first) }, shift)
      holding.add(some.map((message) => ({ message, redelivered: 'no', place: undefined })))
    }
    isPumping = false
  }

  return {
    add(message) {
      if (signal.aborted) return
      waiting.push(message)
      bytes += message.body.byteLength
      while (waiting.length - first > messagesMax || (bytes > bytesMax && waiting.length - first > 1)) drop()
      void pump()
    },
  }
}
