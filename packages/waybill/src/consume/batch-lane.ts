import type { DomainEvent } from '../core/event.ts'
import type { Delivery } from '../core/transport.ts'
import type { Attempt } from './attempts.ts'
import type { Lane } from './lane.ts'
import { lineKeyOf } from './parking.ts'
import { pause } from './patience.ts'
import { createQueue } from './queue.ts'
import { isOutage } from './retry.ts'
import { isLost, isSuspect, type Worker, type WorkerParts } from './worker.ts'

interface Item {
  readonly delivery: Delivery
  readonly event: DomainEvent
}

/**
 * Group commit: what has arrived while one batch was at work is the next, up to `batchMax`, so batches grow by themselves where the handler is slow
 * and nothing waits where it is fast. One batch is at work at a time, which keeps each key in order.
 *
 * Messages that need care go alone, by the pool: suspects, undecodable ones, followers, and, when a batch fails, each of its messages, so that one
 * poison spends nobody else's attempts. While a key is in the pool, all of it goes there. `onBug` hears what must never happen.
 */
export function createBatchLane(parts: WorkerParts, worker: Worker, queueMax: number, onBug: (error: unknown) => void): Lane {
  const { handler, routing, attempts, parking, settling, pool, patience, observe } = parts
  const { stop, clock } = patience
  const gathering = createQueue<Delivery>()
  let inBatch = 0
  let alone = 0
  let working: Promise<void> | undefined
  let waiting: PromiseWithResolvers<void> | undefined

  const size = (): number => gathering.size + inBatch + alone

  function wake(): void {
    if (waiting === undefined || (size() >= queueMax && !stop.aborted)) return
    waiting.resolve()
    waiting = undefined
  }
  stop.addEventListener('abort', wake, { once: true })

  function goAlone(delivery: Delivery, tried?: Attempt): void {
    alone++
    pool.run(lineKeyOf(delivery.message), async () => {
      await worker.handle(delivery, tried)
      alone--
      wake()
    })
  }

  /** What the oldest delivery is good for: the event for a batch, `alone`, or `gone` where nothing is left to do. */
  async function inspect(delivery: Delivery, lineKey: string): Promise<DomainEvent | 'alone' | 'gone'> {
    if (isLost(delivery)) return 'gone'
    if (stop.aborted || isSuspect(delivery) || parking.isParked(lineKey) || pool.has(lineKey)) return 'alone'
    const read = routing.read(delivery.message)
    const content = read instanceof Promise ? await read : read
    switch (content.kind) {
      case 'event':
        return content.event
      case 'undecodable':
        return 'alone'
      case 'other':
        await settling.ack([delivery])
        return 'gone'
    }
  }

  async function gather(): Promise<readonly Item[]> {
    const batch: Item[] = []
    const keys = new Set<string>()
    const ids = new Set<string>()
    for (let delivery = gathering.peek(); delivery !== undefined && batch.length < handler.batchMax; delivery = gathering.peek()) {
      const lineKey = lineKeyOf(delivery.message)
      const found = await inspect(delivery, lineKey)
      // It must not pass those of its key that are in this batch, and a repeat of one must find it recorded: it waits until the batch has ended.
      if (found === 'alone' ? keys.has(lineKey) : found !== 'gone' && ids.has(found.id)) break
      gathering.shift()
      if (found === 'alone') goAlone(delivery)
      if (typeof found === 'string') continue
      keys.add(lineKey)
      ids.add(found.id)
      batch.push({ delivery, event: found })
    }
    return batch
  }

  async function handle(batch: readonly Item[]): Promise<void> {
    const deliveries = batch.map(({ delivery }) => delivery)
    const events = batch.map(({ event }) => event)
    const startedMs = clock.now()
    for (let outages = 1; ; outages++) {
      const outcome = await attempts.run(events, deliveries, 1)
      if (outcome.kind === 'done') {
        observeHandled(events, clock.now() - startedMs)
        return settling.ack(deliveries)
      }
      if (!isOutage(outcome.error)) return takeApart(batch, outcome)
      patience.onTrouble(outcome.error)
      await pause(patience, outages)
      if (stop.aborted) return settling.release(deliveries)
    }
  }

  async function takeApart(batch: readonly Item[], outcome: Attempt & { readonly kind: 'failed' }): Promise<void> {
    const [first] = batch
    if (batch.length === 1) return goAlone(first!.delivery, outcome)
    // Attempt 0: nobody's.
    observe({ type: 'delivery.failed', handler: handler.name, eventId: first!.event.id, attempt: 0, error: outcome.error })
    await attempts.outlast(outcome, stop)
    for (const { delivery } of batch) goAlone(delivery)
  }

  function observeHandled(events: readonly DomainEvent[], durationMs: number): void {
    const counts = new Map<string, number>()
    for (const { type } of events) counts.set(type, (counts.get(type) ?? 0) + 1)
    for (const [eventType, count] of counts) observe({ type: 'delivery.handled', handler: handler.name, eventType, count, durationMs })
  }

  async function work(): Promise<void> {
    try {
      // Everything that arrives in this turn belongs to the first batch.
      await Promise.resolve()
      while (gathering.size > 0) {
        const batch = await gather()
        inBatch = batch.length
        if (batch.length > 0) await handle(batch)
        inBatch = 0
        wake()
      }
    } catch (error) {
      onBug(error)
    } finally {
      // In the same step as the last look at `gathering`: what arrives from here on starts the work anew.
      working = undefined
    }
  }

  return {
    accept(delivery) {
      gathering.push(delivery)
      working ??= work()
    },
    room() {
      if (size() < queueMax || stop.aborted) return undefined
      waiting ??= Promise.withResolvers<void>()
      return waiting.promise
    },
    async idle() {
      while (working !== undefined || pool.size > 0) {
        await working
        await pool.idle()
      }
    },
  }
}
