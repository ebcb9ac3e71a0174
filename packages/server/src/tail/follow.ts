import { setTimeout as sleep } from 'node:timers/promises'
import { type Delivery, type Source, type Transport, isWaybillError } from 'waybill'
import { type BrokerChoice, ask } from '../cli/broker.ts'
import type { Environment } from '../cli/settings.ts'

const LOOK_AGAIN_MS = 1_000
const ALIVE_MS = 60_000
const BATCH_MAX = 200

export interface FollowOptions {
  readonly transport: Transport
  readonly choice: BrokerChoice
  readonly env: Environment
  readonly topics: readonly string[]
  readonly start: NonNullable<Source['start']>
  readonly signal: AbortSignal
  /** Takes a message; `false`: no more. The next one comes when it has resolved. */
  onDelivery(delivery: Delivery): Promise<boolean>
  /** A topic that is not there yet, and so is waited for. */
  onMissing(topic: string): void
}

/**
 * Reads topics without a group until `signal` aborts or `onDelivery` has had enough. A topic that is missing is not made, but waited for.
 * @throws WaybillError `TRANSPORT_UNAVAILABLE` | `ACCESS_DENIED` ...
 */
export async function follow(options: FollowOptions): Promise<void> {
  const { topics, start, onMissing } = options
  const enough = new AbortController()
  const signal = AbortSignal.any([options.signal, enough.signal])
  const missing = await missingOf(options, topics, signal)
  for (const topic of missing) onMissing(topic)
  const there = topics.filter((topic) => !missing.includes(topic))
  const roads = [
    ...(there.length === 0 ? [] : [read({ ...options, signal }, there, start)]),
    ...missing.map(async (topic) => {
      while (!signal.aborted && (await missingOf(options, [topic], signal)).length > 0) await pause(signal)
      // All that stands in it was published after this command began.
      if (!signal.aborted) await read({ ...options, signal }, [topic], start === 'latest' ? 'earliest' : start)
    }),
  ]
  // The first that ends, ends all: enough was seen, or something failed.
  const ended = roads.map((road) => road.finally(() => enough.abort()))
  // A transport without a connection would let the process end while it waits.
  const alive = setInterval(() => {}, ALIVE_MS)
  await Promise.allSettled(ended)
  clearInterval(alive)
  await Promise.all(ended)
}

async function read(
  { transport, signal, onDelivery }: FollowOptions,
  topics: readonly string[],
  start: FollowOptions['start'],
): Promise<void> {
  for await (const deliveries of transport.subscribe({ topics, start, batchMax: BATCH_MAX }, signal)) {
    for (const delivery of deliveries) if (signal.aborted || !(await onDelivery(delivery))) return
  }
}

/** Those of `topics` that the broker has not; none where it can't, or may not, be asked. */
async function missingOf(
  { transport: { admin }, choice, env }: FollowOptions,
  topics: readonly string[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  if (admin === undefined) return []
  const looked = topics.map(async (topic) => {
    try {
      await ask(choice, env, signal, (limit) => admin.topics([topic], limit))
      return []
    } catch (error) {
      if (signal.aborted || isWaybillError(error, 'ACCESS_DENIED')) return []
      if (isWaybillError(error, 'TOPIC_MISSING')) return [topic]
      throw error
    }
  })
  return (await Promise.all(looked)).flat()
}

async function pause(signal: AbortSignal): Promise<void> {
  try {
    await sleep(LOOK_AGAIN_MS, undefined, { signal })
  } catch (error) {
    if (!signal.aborted) throw error
  }
}
