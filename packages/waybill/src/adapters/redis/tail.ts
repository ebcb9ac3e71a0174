import { isWaybillError, WaybillError } from '../../core/errors.ts'
import type { Arrival, Member } from '../../core/member.ts'
import type { Observe } from '../../core/observe.ts'
import { arrivalsOf, type RawEntry } from './entries.ts'
import { createGapWatch, type GapWatch, type StreamState, stateOf } from './gap-watch.ts'
import type { Link } from './link.ts'
import type { RedisKeys } from './names.ts'
import { TAIL } from './scripts.ts'
import type { Topics } from './topics.ts'
import type { Waker } from './waker.ts'

export interface TailOptions {
  readonly link: Link
  readonly waker: Waker
  readonly keys: RedisKeys
  readonly topics: Topics
  readonly member: Member<string>
  readonly topic: string
  /** An id, or `$`. */
  readonly startId: string
  readonly signal: AbortSignal
  readonly observe: Observe
  onFatal(error: WaybillError): void
}

const PAUSE_MS = 500
const FETCH_MAX = 256
const FETCH_MAX_BYTES = 1024 * 1024
let tails = 0

/** Where a partition is read from. */
interface Start {
  readonly lastId: string
  /** Whether that is a place in the stream, not just a time: a stream that ends before it is an older one then. */
  readonly isPlace: boolean
  readonly watch: GapWatch
}

/** Reads all partitions of a topic, without a group. Resolves when it is known where each begins, or that failed for the first time. */
export function startTail(options: TailOptions): Promise<void> {
  const started = Promise.withResolvers<void>()
  void start(options, () => started.resolve())
  return started.promise
}

async function start(options: TailOptions, onTried: () => void): Promise<void> {
  const { topics, topic, signal } = options
  while (!signal.aborted) {
    try {
      const partitions = await topics.ensure(topic)
      const all = Array.from({ length: partitions }, (_, partition) => partition)
      const starts = await Promise.all(all.map((partition) => startOf(options, partition)))
      for (const partition of all) void readPartition(options, partition, starts[partition]!)
      break
    } catch (error) {
      if (signal.aborted) break
      if (isWaybillError(error) && !error.retryable) {
        options.onFatal(error)
        break
      }
      onTried()
      await new Promise((next) => setTimeout(next, PAUSE_MS))
    }
  }
  onTried()
}

async function startOf(options: TailOptions, partition: number): Promise<Start> {
  const { startId } = options
  const { state } = await readAfter(options, partition, startId === '$' ? '0-0' : startId, 0)
  if (startId === '$') return { lastId: state.lastId, isPlace: true, watch: createGapWatch({ ...state, delivered: state.lastId }) }
  const isPlace = startId === '0-0'
  // How many came before a time only the reading of all that follows tells.
  return { lastId: startId, isPlace, watch: createGapWatch(isPlace ? { ...state, read: 0 } : state) }
}

interface Entries {
  /** `delivered`: the id after which was read. */
  readonly state: StreamState
  readonly arrivals: readonly Arrival<string>[]
}

async function readAfter({ link, keys, topic }: TailOptions, partition: number, lastId: string, max: number): Promise<Entries> {
  const limits = [String(max), String(FETCH_MAX_BYTES)]
  const reply = await link.script(TAIL, [keys.stream(topic, partition)], [lastId, ...limits], { bytes: true })
  const [stands, chunks] = reply as readonly [readonly unknown[], readonly (readonly RawEntry[])[]]
  return { state: stateOf([...stands, lastId, -1]), arrivals: arrivalsOf(chunks.flat(), { topic, partition, redelivered: 'unknown' }) }
}

async function readPartition(options: TailOptions, partition: number, begun: Start): Promise<void> {
  const { waker, keys, member, topic, signal, observe, onFatal } = options
  const { watch } = begun
  let { lastId, isPlace } = begun
  const stream = keys.stream(topic, partition)
  const name = `${topic}:${partition}`
  const holding = member.hold({ id: `tail@${name}#${++tails}`, partition: name })
  while (!signal.aborted && !holding.assignment.signal.aborted) {
    await holding.room()
    if (signal.aborted) return
    try {
      const { state, arrivals } = await readAfter(options, partition, lastId, FETCH_MAX)
      const gap = isPlace ? watch.look(state, lastId) : undefined
      if (gap !== undefined) {
        const counted = gap.missing === undefined ? {} : { missing: gap.missing }
        const error = new WaybillError('POSITION_LOST', gap.why, { where: name })
        observe({ type: 'transport.gap', transport: 'redis', topic, group: '', partition: String(partition), ...counted, error })
      }
      if (gap?.isOlder === true) lastId = state.lastId
      watch.read(arrivals.length)
      if (arrivals.length === 0) await waker.wait(stream, lastId, signal)
      else {
        lastId = arrivals.at(-1)!.place
        isPlace = true
      }
      holding.add(arrivals)
    } catch (error) {
      if (signal.aborted) return
      if (isWaybillError(error) && !error.retryable) return onFatal(error)
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
    }
  }
}
