import { type Clock, systemClock } from '../core/clock.ts'
import type { Codec } from '../core/codec.ts'
import type { Database } from '../core/database.ts'
import { envelopeOf } from '../core/envelope.ts'
import { WaybillError, isWaybillError } from '../core/errors.ts'
import { DomainEvent, type EventType } from '../core/event.ts'
import { type Observe, observeAll, unobserved } from '../core/observe.ts'
import { checkInteger } from '../core/options.ts'
import type { PublishConfig, PublishPreset } from '../core/publish-config.ts'
import { validate } from '../core/schema.ts'
import { currentScope } from '../core/scope.ts'
import type { OutboxEntry, OutboxStore } from '../core/stores.ts'
import type { Receipt, UnitScope } from '../core/unit.ts'
import { type BreakerLimits, createCircuitBreaker } from './circuit-breaker.ts'
import { createDurablePath } from './durable-path.ts'
import { createInProcessPath } from './in-process.ts'
import { createPublishInside } from './inside-unit.ts'
import { type Journey, createReporter } from './journey.ts'
import { type PublishMetrics, createPublishMetrics } from './metrics.ts'
import { createPublishOutside } from './outside-unit.ts'
import type { Policies, Policy } from './policy.ts'
import { type PlannerOptions, type TravelPlan, createPlanner } from './travel-plan.ts'

export interface HybridBusOptions extends PlannerOptions {
  readonly policies: Policies
  readonly codec: Codec
  /** Name of this system, as it stands in every envelope. */
  readonly source: string
  readonly outbox: { readonly store: OutboxStore; readonly database: Database } | undefined
  /** Tells the relay of this process that a row is due. */
  readonly wakeRelay: () => void
  readonly clock?: Clock
  readonly observe?: Observe
  /** Of both breakers: the in-process path's and the outbox path's. @default 5 failures in a row open them for 60 s */
  readonly breakers?: Partial<BreakerLimits> | undefined
  /** Publishes outside units of work at a time, 1 to 1,000,000; one more is refused with `QUEUE_FULL`. @default 10000 */
  readonly maxInFlight?: number
  /** How much longer than its timeout a HYBRID_FAST row in a unit of work waits before the relay takes it; 100 to 600,000. @default 1000 */
  readonly graceMs?: number
  /** How long `stop` waits for what is running, 0 to 600,000. @default 10000 */
  readonly shutdownMs?: number
  /** How far back metrics look. @default 60000 */
  readonly metricsWindowMs?: number
}

/** Publishes each event as the policies say. */
export interface HybridBus extends Pick<Policies, 'configureEvent' | 'configureBoundedContext'> {
  /**
   * Resolves with a receipt when one of the paths that the event's strategy names has succeeded, else rejects: an event is never lost silently. In
   * a unit of work it joins the transaction, resolves `pending`, and is settled after the commit.
   * @throws WaybillError `CLOSED`, `QUEUE_FULL`, `UNIT_CLOSED`, `UNKNOWN_EVENT`, `INVALID_PAYLOAD`, `INVALID_KEY`, `NOT_SERIALIZABLE` and the errors of
   * {@link Policies.of} (`INVALID_OPTION` for a date too far ahead): nothing was done. `HYBRID_WITHOUT_CONSUMER`, `HYBRID_FAST_ACROSS_CONTEXTS`: configuration, nothing was done.
   * `CIRCUIT_OPEN`: nothing was done. `PUBLISH_FAILED`: every path failed; the cause says how. `TIMEOUT`, `UNKNOWN_OUTCOME`: it may still have happened
   */
  publish(event: DomainEvent, config?: PublishConfig | PublishPreset): Promise<Receipt>
  /** Finds at start what could not work. @throws WaybillError `HYBRID_WITHOUT_CONSUMER` | `HYBRID_FAST_ACROSS_CONTEXTS` */
  checkConfiguration(): void
  /** Whether an event could travel so. @throws WaybillError `HYBRID_WITHOUT_CONSUMER` | `HYBRID_FAST_ACROSS_CONTEXTS` */
  checkPolicy(eventType: string, policy: Policy): void
  getMetrics(): PublishMetrics
  /** Refuses what comes now, waits for what is running, and aborts what does not end in time. Idempotent. */
  stop(): Promise<void>
}

/** @throws WaybillError `INVALID_OPTION` */
export function createHybridBus(options: HybridBusOptions): HybridBus {
  const { registry, policies, codec, source, clock = systemClock } = options
  const maxInFlight = checkInteger(options.maxInFlight ?? 10_000, 'maxInFlight', 1, 1_000_000)
  const graceMs = checkInteger(options.graceMs ?? 1_000, 'graceMs', 100, 600_000)
  const shutdownMs = checkInteger(options.shutdownMs ?? 10_000, 'shutdownMs', 0, 600_000)
  const metrics = createPublishMetrics({ clock, ...(options.metricsWindowMs === undefined ? {} : { windowMs: options.metricsWindowMs }) })
  const observe = observeAll([metrics.observe, options.observe ?? unobserved])
  const inProcessBreaker = createCircuitBreaker({ ...options.breakers, name: 'in-process', clock, observe })
  const outboxBreaker = createCircuitBreaker({ ...options.breakers, name: 'outbox', clock, observe })
  const inProcess = createInProcessPath({ breaker: inProcessBreaker, clock, observe })
  const durable =
    options.outbox &&
    createDurablePath({ outbox: options.outbox, breaker: outboxBreaker, wakeRelay: options.wakeRelay, settleMs: graceMs, clock, observe })
  const plan = createPlanner(options)
  const reporter = createReporter(clock, observe)
  const publishOutside = createPublishOutside({ inProcess, durable, reporter })
  const publishInside = createPublishInside({ inProcess, durable, reporter, graceMs, tracked, isFull: () => inFlight > maxInFlight })

  let inFlight = 0
  let stopping: Promise<void> | undefined
  let allEnded: (() => void) | undefined

  async function tracked<T>(run: () => Promise<T>): Promise<T> {
    inFlight++
    try {
      return await run()
    } finally {
      if (--inFlight === 0) allEnded?.()
    }
  }

  /** The row that the event becomes. Nothing is awaited unless schema or codec ask for it, so that rows keep the order of the calls. */
  function entryOf({ event, policy }: Journey): OutboxEntry | Promise<OutboxEntry> {
    const { topic } = registry.get(event.type)
    const encoded = codec.encode(envelopeOf(event, source, registry.contextOf(event.type)))
    const finish = ({ headers, body }: Awaited<typeof encoded>): OutboxEntry => ({
      message: { id: event.id, topic, key: event.key, headers, body },
      eventType: event.type,
      priority: policy.priority,
      // One that is past may be too far past for the database to read.
      ...(policy.availableAt === undefined || policy.availableAt.getTime() <= clock.now() ? {} : { availableAt: policy.availableAt }),
    })
    return encoded instanceof Promise ? encoded.then(finish) : finish(encoded)
  }

  /** Checks everything that can be checked, then hands over. Until then nothing was done. */
  async function travel(unit: UnitScope | undefined, given: DomainEvent, travelPlan: TravelPlan, eventType: EventType): Promise<Receipt> {
    const startedAt = reporter.ticks()
    const checked = withValidPayload(given, eventType)
    const event = checked instanceof Promise ? await checked : checked
    const journey: Journey = { ...travelPlan, event, startedAt }
    const encoded = travelPlan.policy.strategy === 'SYNC_ONLY' ? undefined : entryOf(journey)
    const entry = encoded instanceof Promise ? await encoded : encoded
    if (unit !== undefined) return publishInside(unit, journey, entry)
    try {
      return await publishOutside(journey, entry)
    } catch (error) {
      reporter.ended(journey, 'failed')
      throw error
    }
  }

  async function publish(event: DomainEvent, config?: PublishConfig | PublishPreset): Promise<Receipt> {
    if (stopping !== undefined) throw new WaybillError('CLOSED', 'the bus was stopped', { where: 'publish' })
    if (!(event instanceof DomainEvent))
      throw new WaybillError('INVALID_OPTION', 'this is no event', {
        got: event,
        allowed: 'what an event definition made',
        where: 'publish',
      })
    const eventType = registry.get(event.type)
    const travelPlan = plan(event.type, policies.of(event.type, config))
    checkAhead(travelPlan.policy, clock, event.type)
    const { unit } = currentScope()
    if (unit?.closed === true)
      throw new WaybillError('UNIT_CLOSED', 'the unit of work has ended; was a promise in it not awaited?', { where: event.type })
    if (unit !== undefined) return travel(unit, event, travelPlan, eventType)
    if (inFlight >= maxInFlight)
      throw new WaybillError('QUEUE_FULL', 'too many publishes at the same time', {
        got: inFlight,
        allowed: `at most ${maxInFlight}`,
        where: event.type,
      })
    return tracked(() => travel(undefined, event, travelPlan, eventType))
  }

  async function stopRunning(): Promise<void> {
    const timer = new AbortController()
    const ended = new Promise<void>((resolve) => {
      allEnded = resolve
    })
    if (inFlight > 0) await Promise.race([ended, clock.sleep(shutdownMs, timer.signal)])
    timer.abort('ended')
    inProcess.abort()
  }

  return {
    publish,
    configureEvent: policies.configureEvent,
    configureBoundedContext: policies.configureBoundedContext,
    checkPolicy: (eventType, policy) => void plan(eventType, policy),
    checkConfiguration() {
      for (const { type } of registry.types) {
        try {
          plan(type, policies.of(type))
        } catch (error) {
          // A process without a database may declare durable events that it only handles; publishing one says what is missing.
          if (!isWaybillError(error, 'NO_OUTBOX')) throw error
        }
      }
    },
    getMetrics: () => ({
      ...metrics.getMetrics(),
      in_flight: inFlight,
      circuit_breakers: { in_process: inProcessBreaker.state, outbox: outboxBreaker.state },
    }),
    stop: () => (stopping ??= stopRunning()),
  }
}

// A date further ahead is a mistake of units or of signs, and would lie in the outbox for ever.
const AHEAD_MAX_MS = 3_653 * 24 * 3_600_000

function checkAhead({ availableAt }: Policy, clock: Clock, where: string): void {
  if (availableAt === undefined || availableAt.getTime() - clock.now() <= AHEAD_MAX_MS) return
  throw new WaybillError('INVALID_OPTION', 'availableAt is too far ahead', {
    got: availableAt,
    allowed: 'at most 10 years from now',
    where,
  })
}

function withValidPayload(event: DomainEvent, { options }: EventType): DomainEvent | Promise<DomainEvent> {
  if (options.schema === undefined) return event
  const accept = (payload: unknown): DomainEvent => (Object.is(payload, event.payload) ? event : event.withPayload(payload))
  const valid: unknown = validate(options.schema, event.payload, event.type)
  return valid instanceof Promise ? valid.then(accept) : accept(valid)
}
