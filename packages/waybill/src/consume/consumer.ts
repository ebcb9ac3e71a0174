import { type RetryPolicy, resolveRetryPolicy } from '../core/backoff.ts'
import { type Clock, type Random, systemClock } from '../core/clock.ts'
import type { Codec } from '../core/codec.ts'
import { WaybillError } from '../core/errors.ts'
import type { RegisteredHandler } from '../core/handler.ts'
import { type Observe, observeAll, unobserved } from '../core/observe.ts'
import { checkInteger } from '../core/options.ts'
import type { EventRegistry } from '../core/registry.ts'
import type { DeadLetterStore, InboxStore } from '../core/stores.ts'
import type { Delivery, Subscriber } from '../core/transport.ts'
import { createAttempts } from './attempts.ts'
import { createBatchLane } from './batch-lane.ts'
import { createKeyedPool } from './keyed-pool.ts'
import { createSingleLane } from './lane.ts'
import { createParking } from './parking.ts'
import { insist, pause, type Patience } from './patience.ts'
import { createRouting } from './routing.ts'
import { createSettling } from './settling.ts'
import { createWorker, isLost } from './worker.ts'

export interface ConsumerOptions {
  readonly subscriber: Subscriber
  readonly deadLetters: DeadLetterStore
  readonly inbox: InboxStore
  readonly registry: EventRegistry
  readonly codec: Codec
  readonly handler: RegisteredHandler
  /** Attempts in place, and the pauses between them; also the pauses before a lost subscription or store is tried again. */
  readonly retry?: Partial<RetryPolicy> | undefined
  /** Whether a failure may pass by itself; false parks the message at once. @default every failure may */
  readonly retryWhen?: ((error: unknown) => boolean) | undefined
  /** Longest that one call of the handler may take, 1 to 3,600,000 ms. @default 30000 */
  readonly timeoutMs?: number | undefined
  /** Messages of different keys handled at the same time, 1 to 10,000. Those that wait for a retry are not counted. @default 16 */
  readonly concurrency?: number | undefined
  /** Messages pulled and not settled, 1 to 1,000,000; at the limit nothing more is pulled. @default 1000 */
  readonly queueMax?: number | undefined
  /** Whether messages that come after a parked one of their key are parked too, so that none is handled out of order. @default true */
  readonly parkFollowers?: boolean | undefined
  /** Longest that running handlers may take to end after the stop, 0 to 3,600,000 ms; then their signal aborts. @default 10000 */
  readonly shutdownMs?: number | undefined
  readonly clock?: Clock | undefined
  readonly random?: Random | undefined
  readonly observe?: Observe | undefined
}

/** Serves one handler from a transport. */
export interface Consumer {
  /**
   * Consumes until `signal` aborts; then stops pulling, lets running handlers end and gives the rest back. Survives a transport or a store that
   * fails: it says so (`consumer.failed`) and tries again with growing pauses. Rejects only with a bug.
   */
  run(signal: AbortSignal): Promise<void>
}

/**
 * At least once from the transport, each effect once through the handler's inbox. Messages of one key are handled in order, one at a time.
 *
 * - A failure is retried in place with exponential backoff and full jitter; meanwhile the key waits and the others go on. What still fails is
 *   parked: stored durably, then acked. While the dead-letter store fails, the message stays unsettled.
 * - A timeout counts as a failed attempt, and its handler's result no longer counts. The next attempt waits for that handler to end, but at most one
 *   more `timeoutMs`; if it ends even later, the inbox still lets only one of the two have its effect.
 * - `DATABASE_UNREACHABLE` spends no attempt: the message waits until the database is back.
 * - Messages that may have been at work when a process died have their attempts counted in the inbox before they are handled.
 *
 * @throws WaybillError `INVALID_OPTION`
 */
export function createConsumer(options: ConsumerOptions): Consumer {
  const { subscriber, handler, clock = systemClock, random = Math.random, parkFollowers = true, retryWhen = () => true } = options
  const observe = observeAll([options.observe ?? unobserved])
  const retry = resolveRetryPolicy(options.retry)
  const timeoutMs = checkInteger(options.timeoutMs ?? 30_000, 'timeoutMs', 1, 3_600_000)
  const concurrency = checkInteger(options.concurrency ?? 16, 'concurrency', 1, 10_000)
  const queueMax = checkInteger(options.queueMax ?? 1000, 'queueMax', 1, 1_000_000)
  const shutdownMs = checkInteger(options.shutdownMs ?? 10_000, 'shutdownMs', 0, 3_600_000)
  const routing = createRouting(handler, options.registry, options.codec)
  const source = { topics: handler.topics, group: handler.name, batchMax: Math.min(queueMax, Math.max(200, handler.batchMax), 10_000) }

  function createRun() {
    const stopping = new AbortController()
    let bug: { readonly error: unknown } | undefined
    let draining: Promise<void> | undefined
    const onTrouble = (error: unknown): void => observe({ type: 'consumer.failed', handler: handler.name, error })
    const onBug = (error: unknown): void => {
      bug ??= { error }
      stopping.abort()
    }
    const patience: Patience = { stop: stopping.signal, clock, random, retry, onTrouble }
    // With batches, the lane does the counting, and the pool holds a part of it.
    const poolMax = handler.batchMax > 1 ? queueMax + source.batchMax + concurrency : queueMax
    const pool = createKeyedPool({ concurrency, queueMax: poolMax, onError: onBug })
    const attempts = createAttempts(handler, timeoutMs, clock)
    const parking = createParking(options.deadLetters, handler.name, parkFollowers, observe)
    const settling = createSettling(onTrouble)
    const parts = { handler, routing, attempts, parking, settling, inbox: options.inbox, pool, patience, observe, retryWhen }
    const worker = createWorker(parts)
    const lane = handler.batchMax > 1 ? createBatchLane(parts, worker, queueMax, onBug) : createSingleLane(pool, worker, stopping.signal)
    const assignments = new Set<string>()

    /** Parked keys are read again with each assignment: another member may have parked some meanwhile. */
    async function welcome({ assignment }: Delivery): Promise<void> {
      if (assignments.has(assignment.id)) return
      if (!(await insist(patience, () => parking.load()))) return
      assignments.add(assignment.id)
      const lose = (): void => {
        assignments.delete(assignment.id)
        attempts.abort(assignment.id)
      }
      assignment.signal.addEventListener('abort', lose, { once: true })
      if (assignment.signal.aborted) lose()
    }

    /** All that was pulled together; nothing waits in between while there is room, so that it can get into one batch. */
    async function accept(deliveries: readonly Delivery[]): Promise<void> {
      const others: Delivery[] = []
      for (const delivery of deliveries) if (!assignments.has(delivery.assignment.id)) await welcome(delivery)
      for (const delivery of deliveries) {
        const full = lane.room()
        if (full !== undefined) await full
        if (stopping.signal.aborted || isLost(delivery)) {
          await settling.release([delivery])
          continue
        }
        observe({ type: 'delivery.received', handler: handler.name, eventId: delivery.message.id, redelivered: delivery.redelivered })
        if (routing.concerns(delivery.message)) lane.accept(delivery)
        else others.push(delivery)
      }
      if (others.length > 0) await settling.ack(others)
    }

    /** Lets what runs come to its end, but not for ever, and only once. */
    function drain(): Promise<void> {
      return (draining ??= (async () => {
        const drained = new AbortController()
        await Promise.race([lane.idle(), clock.sleep(shutdownMs, drained.signal)])
        drained.abort()
        attempts.abort()
        attempts.close()
      })())
    }

    return { stopping, patience, accept, drain, settling, failure: () => bug }
  }

  /** One subscription, from its beginning until it fails or ends, or the stop. */
  async function consume({ stopping, accept, drain, settling }: ReturnType<typeof createRun>, onReceived: () => void): Promise<void> {
    const stop = stopping.signal
    const subscription = new AbortController()
    let wake = (): void => {}
    const onStop = (): void => wake()
    stop.addEventListener('abort', onStop, { once: true })
    let deliveries: AsyncIterator<readonly Delivery[]> | undefined
    let pulling: Promise<IteratorResult<readonly Delivery[]>> | undefined
    try {
      deliveries = subscriber.subscribe(source, subscription.signal)[Symbol.asyncIterator]()
      while (!stop.aborted) {
        const pulled = deliveries.next()
        pulling = pulled
        // Not a race with one long promise, which would remember every pull.
        const next = await new Promise<IteratorResult<readonly Delivery[]> | undefined>((resolve, reject) => {
          wake = () => resolve(undefined)
          pulled.then(resolve, reject)
        })
        if (next === undefined) break
        pulling = undefined
        if (next.done === true) break
        onReceived()
        await accept(next.value)
      }
      // Still subscribed: what is acked now counts.
      if (stop.aborted) await drain()
      else throw new WaybillError('TRANSPORT_UNAVAILABLE', 'the subscription ended by itself', { where: handler.name })
    } finally {
      stop.removeEventListener('abort', onStop)
      subscription.abort()
      // What came too late goes back; where the subscription's end has seen to that already, this does nothing.
      pulling?.then(
        ({ value, done }) => (done === true ? undefined : settling.release(value)),
        () => undefined,
      )
      if (deliveries !== undefined) await leave(deliveries)
    }
  }

  /** Gives the adapter time to leave in an orderly way, but no more than a stop may take. */
  async function leave(deliveries: AsyncIterator<readonly Delivery[]>): Promise<void> {
    const left = new AbortController()
    try {
      await Promise.race([deliveries.return?.(), clock.sleep(shutdownMs, left.signal)])
    } catch (error) {
      observe({ type: 'consumer.failed', handler: handler.name, error })
    } finally {
      left.abort()
    }
  }

  return {
    async run(signal) {
      const current = createRun()
      const { stopping, patience, failure } = current
      const stop = (): void => stopping.abort()
      signal.addEventListener('abort', stop, { once: true })
      if (signal.aborted) stop()
      for (let failures = 0; !stopping.signal.aborted;) {
        try {
          await consume(current, () => (failures = 0))
        } catch (error) {
          patience.onTrouble(error)
          await pause(patience, ++failures)
        }
      }
      signal.removeEventListener('abort', stop)
      await current.drain()
      const bug = failure()
      if (bug !== undefined) throw bug.error
    },
  }
}
