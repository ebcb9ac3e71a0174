import type { Member } from '../../core/member.ts'
import { isWaybillError, type WaybillError } from '../../core/errors.ts'
import { arrivalsOf } from './entries.ts'
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
  onFatal(error: WaybillError): void
}

const PAUSE_MS = 500
const FETCH_MAX = 256
const FETCH_MAX_BYTES = 1024 * 1024
let tails = 0

/** Reads all partitions of a topic, without a group. Resolves when it is known where each begins, or that failed for the first time. */
export function startTail(options: TailOptions): Promise<void> {
  const started = Promise.withResolvers<void>()
  void start(options, () => started.resolve())
  return started.promise
}

async function start(options: TailOptions, onTried: () => void): Promise<void> {
  const { link, keys, topics, topic, startId, signal } = options
  while (!signal.aborted) {
    try {
      const partitions = await topics.ensure(topic)
      const all = Array.from({ length: partitions }, (_, partition) => partition)
      const starts = await Promise.all(
        all.map(async (partition) => (startId === '$' ? newest(link, keys.stream(topic, partition)) : startId)),
      )
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

async function newest(link: Link, stream: string): Promise<string> {
  const reply = (await link.call(['XREVRANGE', stream, '+', '-', 'COUNT', '1'])) as readonly (readonly [string])[]
  return reply[0]?.[0] ?? '0-0'
}

async function readPartition(
  { link, waker, keys, member, topic, signal, onFatal }: TailOptions,
  partition: number,
  startId: string,
): Promise<void> {
  const stream = keys.stream(topic, partition)
  const name = `${topic}:${partition}`
  const holding = member.hold({ id: `tail@${name}#${++tails}`, partition: name })
  let lastId = startId
  while (!signal.aborted && !holding.assignment.signal.aborted) {
    await holding.room()
    if (signal.aborted) return
    try {
      const reply = await link.script(TAIL, [stream], [lastId, String(FETCH_MAX), String(FETCH_MAX_BYTES)], { bytes: true })
      const arrivals = arrivalsOf(reply, { topic, partition, redelivered: 'unknown' })
      if (arrivals.length === 0) await waker.wait(stream, lastId, signal)
      else lastId = arrivals.at(-1)!.place
      holding.add(arrivals)
    } catch (error) {
      if (signal.aborted) return
      if (isWaybillError(error) && !error.retryable) return onFatal(error)
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
    }
  }
}
