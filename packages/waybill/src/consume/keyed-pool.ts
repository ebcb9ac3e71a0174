import { WaybillError } from '../core/errors.ts'
import { checkInteger } from '../core/options.ts'
import { createQueue } from './queue.ts'

/** Work on one key. A promise only where it has something to wait for: without one the next task of the key follows at once. */
export type KeyedTask = () => void | Promise<void>

export interface KeyedPoolOptions {
  /** Tasks at work at the same time, 1 to 10,000. */
  readonly concurrency: number
  /** Tasks at work and waiting together, 1 to 10,000,000. */
  readonly queueMax: number
  /** Told what a task throws; the pool and the key go on. Without it the error is an uncaught exception, as anywhere else. */
  readonly onError?: (error: unknown, key: string) => void
}

/** Runs tasks: those of one key strictly one after the other, in order; different keys side by side. */
export interface KeyedPool {
  /** Starts the task now where there is a free hand, else queues it. @throws WaybillError `QUEUE_FULL` */
  run(key: string, task: KeyedTask): void
  /** Nothing where another task fits; else a promise that resolves once it does, or when `signal` aborts. */
  room(signal?: AbortSignal): Promise<void> | undefined
  /**
   * For a task that waits for a time and not for work, such as the pause before a retry: its key stays taken, its place among the `concurrency`
   * goes to others until `wait` has ended. Call it from inside a task. Resolves when the task may go on.
   */
  aside(wait: Promise<unknown>): Promise<void>
  /** Resolves as soon as nothing is at work or waiting. */
  idle(): Promise<void>
  /** Whether a task of this key is at work or waiting. */
  has(key: string): boolean
  /** Tasks at work and waiting. */
  readonly size: number
}

/** A task that waits for those before it of its key. */
interface Waiting {
  readonly task: KeyedTask
  next: Waiting | undefined
}

/** A key that has, or lately had, tasks. */
interface Slot {
  readonly key: string
  busy: boolean
  first: Waiting | undefined
  last: Waiting | undefined
}

/** Who runs a task. Its functions are made once and not per task or key: they are what a task's promise goes on to. */
interface Hand {
  slot: Slot | undefined
  readonly done: () => void
  readonly failed: (error: unknown) => void
}

// An idle key stays for a while, since most keys come back soon and changing a map costs more than all the rest; beyond so many they are swept.
const IDLE_MAX = 1024
// Tasks that start tasks of other keys start them at once, one inside the other, but only so deep: the stack has an end.
const DEPTH_MAX = 50

/** @throws WaybillError `INVALID_OPTION` */
export function createKeyedPool({ concurrency, queueMax, onError }: KeyedPoolOptions): KeyedPool {
  checkInteger(concurrency, 'concurrency', 1, 10_000)
  checkInteger(queueMax, 'queueMax', 1, 10_000_000)
  const slots = new Map<string, Slot>()
  const freeHands: Hand[] = []
  const ready = createQueue<Slot>()
  const returning = createQueue<() => void>()
  const waiting = new Set<() => void>()
  const lowMark = Math.floor(queueMax * 0.75)
  let emptied: PromiseWithResolvers<void> | undefined
  let size = 0
  let busy = 0
  let working = 0
  let depth = 0
  // How many wait in `ready` and `returning`, and for room or the end: one look tells the common case, in which nobody does.
  let lined = 0
  let listening = 0

  function report(error: unknown, key: string): void {
    if (onError !== undefined) return onError(error, key)
    queueMicrotask(() => {
      throw error
    })
  }

  function newHand(): Hand {
    const hand: Hand = {
      slot: undefined,
      done() {
        const slot = next(hand.slot!)
        if (slot === undefined) rest(hand)
        else work(hand, slot, take(slot))
      },
      failed(error) {
        report(error, hand.slot!.key)
        hand.done()
      },
    }
    return hand
  }

  function rest(hand: Hand): void {
    hand.slot = undefined
    if (freeHands.length < concurrency) freeHands.push(hand)
  }

  function addSlot(key: string): Slot {
    if (slots.size - busy > IDLE_MAX && slots.size > 2 * busy) sweep()
    const slot: Slot = { key, busy: false, first: undefined, last: undefined }
    slots.set(key, slot)
    return slot
  }

  /** Forgets the idle keys. Most keys are idle by then, so that it costs each key that was added a constant. */
  function sweep(): void {
    if (busy === 0) return slots.clear()
    for (const slot of slots.values()) if (!slot.busy) slots.delete(slot.key)
  }

  /** Runs `task`, then what follows, until one returns a promise or nothing is ready. The caller has counted one more at work. */
  function work(hand: Hand, firstSlot: Slot, firstTask: KeyedTask): void {
    let slot: Slot | undefined = firstSlot
    let task = firstTask
    for (;;) {
      try {
        const result = task()
        if (result !== undefined) {
          hand.slot = slot
          result.then(hand.done, hand.failed)
          return
        }
      } catch (error) {
        report(error, slot.key)
      }
      slot = next(slot)
      if (slot === undefined) return rest(hand)
      task = take(slot)
    }
  }

  function add(slot: Slot, task: KeyedTask): void {
    const waiting: Waiting = { task, next: undefined }
    if (slot.last === undefined) slot.first = waiting
    else slot.last.next = waiting
    slot.last = waiting
  }

  function take(slot: Slot): KeyedTask {
    const { task, next } = slot.first!
    slot.first = next
    if (next === undefined) slot.last = undefined
    return task
  }

  /** A task of `slot` has ended: gives back the slot that the freed hand takes up, if any. */
  function next(slot: Slot): Slot | undefined {
    const more = slot.first !== undefined
    size--
    if (!more) {
      slot.busy = false
      busy--
      if (busy === 0 && slots.size > IDLE_MAX) sweep()
    }
    if (lined === 0) {
      if (!more) working--
      if (listening > 0) tell()
      return more ? slot : undefined
    }
    if (more) lineUp(slot)
    if (listening > 0) tell()
    return takeUp()
  }

  // A key with a long queue goes to the back after each task, or keys beyond the first `concurrency` would wait for all of it.
  function lineUp(slot: Slot): void {
    ready.push(slot)
    lined++
  }

  /** A hand is free, and somebody stands in line: who comes back from a wait goes first. */
  function takeUp(): Slot | undefined {
    lined--
    const back = returning.shift()
    if (back === undefined) return ready.shift()
    back()
    return undefined
  }

  /** Puts free hands to work. */
  function pump(): void {
    while (working < concurrency && lined > 0) {
      working++
      const slot = takeUp()
      if (slot !== undefined) work(freeHands.pop() ?? newHand(), slot, take(slot))
    }
  }

  /** Wakes who waits. For room not at the first free place, as long as all hands have work: a source is asked for many at a time. */
  function tell(): void {
    if (waiting.size > 0 && size < queueMax && (size <= lowMark || working < concurrency)) for (const wake of waiting) wake()
    if (size === 0 && emptied !== undefined) {
      emptied.resolve()
      emptied = undefined
      listening--
    }
  }

  function waitForRoom(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        waiting.delete(wake)
        listening--
        signal?.removeEventListener('abort', wake)
        resolve()
      }
      waiting.add(wake)
      listening++
      signal?.addEventListener('abort', wake)
    })
  }

  return {
    run(key, task) {
      if (size >= queueMax)
        throw new WaybillError('QUEUE_FULL', 'the pool has no room', {
          got: size,
          allowed: `at most ${queueMax} tasks`,
          where: 'keyed pool',
        })
      size++
      const slot = slots.get(key) ?? addSlot(key)
      if (slot.busy) {
        add(slot, task)
        return
      }
      slot.busy = true
      busy++
      if (working < concurrency && lined === 0 && depth < DEPTH_MAX) {
        working++
        depth++
        work(freeHands.pop() ?? newHand(), slot, task)
        depth--
        return
      }
      add(slot, task)
      lineUp(slot)
      if (working < concurrency) queueMicrotask(pump)
    },
    room(signal) {
      return size < queueMax || signal?.aborted === true ? undefined : waitForRoom(signal)
    },
    async aside(wait) {
      working--
      pump()
      if (listening > 0) tell()
      try {
        await wait
      } finally {
        if (working < concurrency) working++
        else {
          await new Promise<void>((resolve) => {
            returning.push(resolve)
            lined++
          })
        }
      }
    },
    idle() {
      if (size === 0) return Promise.resolve()
      if (emptied === undefined) {
        emptied = Promise.withResolvers<void>()
        listening++
      }
      return emptied.promise
    },
    has: (key) => slots.get(key)?.busy === true,
    get size() {
      return size
    },
  }
}
