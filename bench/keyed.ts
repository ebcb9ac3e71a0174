import pLimit from 'p-limit'
import PQueue from 'p-queue'
import { createKeyedPool } from 'waybill'
import type { Contender, Row } from './harness.ts'

type Task = () => Promise<void>
/** Runs tasks with these keys, and resolves when all have ended. */
type Runner = (keys: readonly string[], task: Task) => Promise<void>

// As in front of a broker: nobody hands the pool more than it has room for.
const CONCURRENCY = 1_000
const QUEUE_MAX = 1_000

async function pool(keys: readonly string[], task: Task): Promise<void> {
  const keyed = createKeyedPool({ concurrency: CONCURRENCY, queueMax: QUEUE_MAX })
  for (const key of keys) {
    const room = keyed.room()
    if (room !== undefined) await room
    keyed.run(key, task)
  }
  await keyed.idle()
}

/** No order at all: every task at once, counted down. */
const unordered: Runner = (keys, task) =>
  new Promise((resolve) => {
    let left = keys.length
    const done = (): void => void (--left === 0 && resolve())
    for (let i = 0; i < keys.length; i++) void task().then(done)
  })

/** An array per active key and one loop that drains it: what one writes by hand. */
const handFifo: Runner = (keys, task) =>
  new Promise((resolve) => {
    const queues = new Map<string, Task[]>()
    let left = keys.length
    const drain = async (key: string, queue: Task[]): Promise<void> => {
      for (let i = 0; i < queue.length; i++) await queue[i]!()
      queues.delete(key)
      left -= queue.length
      if (left === 0) resolve()
    }
    for (const key of keys) {
      const queue = queues.get(key)
      if (queue !== undefined) {
        queue.push(task)
      } else {
        const begun = [task]
        queues.set(key, begun)
        void drain(key, begun)
      }
    }
  })

/** A promise per key that each task is chained to, forgotten when nothing followed. */
async function promiseChains(keys: readonly string[], task: Task): Promise<void> {
  const tails = new Map<string, Promise<void>>()
  for (const key of keys) {
    const tail: Promise<void> = (tails.get(key) ?? Promise.resolve()).then(task).finally(() => {
      if (tails.get(key) === tail) tails.delete(key)
    })
    tails.set(key, tail)
  }
  await Promise.all(tails.values())
}

async function queuePerKey(keys: readonly string[], task: Task): Promise<void> {
  const queues = new Map<string, PQueue>()
  for (const key of keys) {
    let queue = queues.get(key)
    if (queue === undefined) queues.set(key, (queue = new PQueue({ concurrency: 1 })))
    void queue.add(task)
  }
  for (const queue of queues.values()) await queue.onIdle()
}

async function limitPerKey(keys: readonly string[], task: Task): Promise<void> {
  const limits = new Map<string, ReturnType<typeof pLimit>>()
  const running: Promise<void>[] = []
  for (const key of keys) {
    let limit = limits.get(key)
    if (limit === undefined) limits.set(key, (limit = pLimit(1)))
    running.push(limit(task))
  }
  await Promise.all(running)
}

let handled = 0
const immediate: Task = async () => void handled++
const oneMs: Task = () =>
  new Promise((resolve) => {
    setTimeout(() => {
      handled++
      resolve()
    }, 1)
  })

const keysOf = (count: number, distinct: number): readonly string[] => Array.from({ length: count }, (_, i) => `customer-${i % distinct}`)

function contender(name: string, role: Contender['role'], runner: Runner, keys: readonly string[], task: Task): Contender {
  return {
    name,
    role,
    async run(operations) {
      const end = handled + operations
      await runner(keys, task)
      if (handled !== end) throw new Error(`${name} ran ${handled - end + operations} of ${operations} tasks`)
    },
  }
}

/** Rows B: keyed work in process. */
export function keyedRows(): readonly Row[] {
  const many = keysOf(200_000, 1_000)
  const slow = keysOf(20_000, 1_000)
  const once = keysOf(100_000, 100_000)
  return [
    {
      id: 'B1',
      title: 'keyed pool, 1,000 keys, handlers that end at once',
      operations: many.length,
      contenders: [
        contender('waybill', 'toolkit', pool, many, immediate),
        contender('unordered', 'floor', unordered, many, immediate),
        contender('FIFO by hand', 'floor', handFifo, many, immediate),
        contender('promise chains', 'floor', promiseChains, many, immediate),
        contender('p-queue per key', 'peer', queuePerKey, many, immediate),
        contender('p-limit per key', 'peer', limitPerKey, many, immediate),
      ],
      targets: [
        { against: 'unordered', atLeast: 0.7 },
        { against: 'promise chains', atLeast: 4 },
        { against: 'p-queue per key', atLeast: 15 },
        { against: 'p-limit per key', atLeast: 15 },
      ],
      note: '200,000 tasks; async functions that return at once. Waybill takes a thousand at a time and makes the caller wait for room; the others take all at once.',
    },
    {
      id: 'B2',
      title: 'keyed pool, 1,000 keys, handlers of 1 ms',
      operations: slow.length,
      contenders: [
        contender('waybill', 'toolkit', pool, slow, oneMs),
        contender('FIFO by hand', 'floor', handFifo, slow, oneMs),
        contender('p-queue per key', 'peer', queuePerKey, slow, oneMs),
      ],
      targets: [
        { against: 'FIFO by hand', atLeast: 0.95 },
        { against: 'p-queue per key', atLeast: 4 },
      ],
      note: '20,000 tasks. Node rounds timers to whole milliseconds, so all depends on when a task sets its timer.',
    },
    {
      id: 'B3',
      title: 'keyed pool, 100,000 keys of one task each',
      operations: once.length,
      contenders: [
        contender('waybill', 'toolkit', pool, once, immediate),
        contender('unordered', 'floor', unordered, once, immediate),
        contender('FIFO by hand', 'floor', handFifo, once, immediate),
      ],
      targets: [
        { against: 'unordered', atLeast: 0.35 },
        { against: 'FIFO by hand', atLeast: 2 },
      ],
    },
  ]
}
