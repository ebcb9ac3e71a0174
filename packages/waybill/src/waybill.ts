import { setMaxListeners } from 'node:events'
import { memoryStorage } from './adapters/memory/storage.ts'
import { memoryTransport } from './adapters/memory/transport.ts'
import { jsonCodec } from './codecs/json.ts'
import { createConsumer } from './consume/consumer.ts'
import { createParking } from './consume/parking.ts'
import type { BoundedContext, EventOf } from './context.ts'
import { type Clock, systemClock } from './core/clock.ts'
import type { Codec } from './core/codec.ts'
import type { SqlExecutor } from './core/database.ts'
import { WaybillError } from './core/errors.ts'
import type { DomainEvent, EventType } from './core/event.ts'
import { newId } from './core/ids.ts'
import { checkName } from './core/names.ts'
import { type Observe, observeAll } from './core/observe.ts'
import type { PublishConfig, PublishPreset } from './core/publish-config.ts'
import { createRegistry } from './core/registry.ts'
import type { Storage } from './core/stores.ts'
import type { Transport } from './core/transport.ts'
import type { Receipt, RunUnit, UnitOfWork, UnitResult } from './core/unit.ts'
import { groupsOf, handlersByType, refuseOtherHandlers, registerHandlers, relayMark } from './handlers.ts'
import { maintain } from './maintenance.ts'
import { DEFAULT_LEASE_MS, type RelayOptions, type RelayStats, createRelay } from './outbox/relay.ts'
import { type UnitOptions, createJoinTransaction, createUnitOfWork, createUnitRunner } from './outbox/unit-of-work.ts'
import type { CircuitBreakerOptions } from './publish/circuit-breaker.ts'
import { type CommandBus, type QueryBus, createCommandBus, createQueryBus } from './publish/command-bus.ts'
import { type EventBus, createEventBus } from './publish/event-bus.ts'
import { createHybridBus } from './publish/hybrid-bus.ts'
import type { PublishMetrics } from './publish/metrics.ts'
import { createPolicies } from './publish/policy.ts'

/** What {@link createWaybill} composes. */
export interface WaybillOptions<Contexts extends readonly BoundedContext[]> {
  /** Every bounded context that lives in this process. */
  readonly contexts: Contexts
  /** The database of the business and of Waybill's tables. Waybill closes it at `stop`. Without one nothing is durable, and every event is SYNC_ONLY. */
  readonly database?: Storage
  /** What carries the outbox's messages. Waybill closes it at `stop`. @default the memory transport, which retires a row only once every handler has settled it */
  readonly transport?: Transport
  /** Name of this system, as it stands in every envelope. @default 'waybill' */
  readonly source?: string
  /** @default JSON, at most 1 MiB */
  readonly codec?: Codec
  /** Told of everything that happens. */
  readonly observe?: Observe
  /** How rows are relayed. @default as said there */
  readonly relay?: Pick<
    RelayOptions,
    'batchSize' | 'inFlightMax' | 'leaseMs' | 'pollIntervalMs' | 'retry' | 'listen' | 'publishTimeoutMs' | 'breaker'
  >
  /** Breakers of the in-process and the outbox path. @default 5 failures in a row open them for 60 s */
  readonly breakers?: Pick<CircuitBreakerOptions, 'failureThreshold' | 'recoveryMs' | 'halfOpenMax' | 'successThreshold'>
  /** How long `stop` waits for what is running. @default 10000 */
  readonly shutdownMs?: number
  /** How long the inbox remembers a handled event: longer than any message may be repeated. @default 7 days */
  readonly inboxKeepMs?: number
  readonly clock?: Clock
}

/** Names of the events that `Contexts` declare. */
export type EventNames<Contexts extends readonly BoundedContext[]> = Contexts[number]['events'][number]['type']

/** The road, composed. `Name`: the events that its contexts declare, which are those that may be published; checked at run time too. */
export interface Waybill<Name extends string = string> {
  /**
   * Checks configuration, tables and that the broker can be asked, then starts relay and handlers. After it was refused it may be called again.
   * @throws WaybillError `HYBRID_WITHOUT_CONSUMER` | `HYBRID_FAST_ACROSS_CONTEXTS` | `NOT_MIGRATED` | `TRANSPORT_UNAVAILABLE` ...
   */
  start(): Promise<void>
  /** Takes nothing more in, finishes what runs, gives leases back, closes database and transport. Idempotent; bounded by `shutdownMs` a stage. */
  stop(): Promise<void>
  /** Rejects with what ended the relay or a consumer for good; resolves when stopped. */
  readonly finished: Promise<void>
  /**
   * Publishes as the most specific rule says: the call, the event type, its bounded context, or the default of the scope. Inside a unit of work or
   * a handler it joins that transaction. Resolves with a receipt, or rejects: never is an event lost silently.
   */
  publish(event: DomainEvent<unknown, Name>, config?: PublishConfig | PublishPreset): Promise<Receipt>
  /**
   * Runs `fn` in a transaction. What it and the aggregates it tracks publish is written once, last, in that transaction.
   * Resolves after commit with the settled receipts; never rejects because of handlers.
   */
  unitOfWork<T>(fn: (unit: UnitOfWork) => Promise<T>, options?: UnitOptions): Promise<UnitResult<T>>
  /**
   * Runs `fn` with a unit of work in a transaction that the caller owns, of whatever driver: hand in something that runs statements in it. Durable
   * strategies write a row at once, due with the caller's commit; SYNC_ONLY rejects, since nothing can run after a commit that is not ours.
   */
  joinTransaction<T>(transaction: { readonly sql: SqlExecutor }, fn: (unit: UnitOfWork) => Promise<T>): Promise<T>
  /** Changes how an event type travels, from the next publish on. */
  // oxlint-disable-next-line typescript/no-explicit-any -- an event type takes its payload, so any is the only type of all of them
  configureEvent(eventType: EventType<any, Name> | Name, config: PublishConfig | PublishPreset): void
  /** Changes how the events of a context travel, from the next publish on. */
  configureBoundedContext(context: string, config: PublishConfig | PublishPreset): void
  getMetrics(): PublishMetrics
  /** What the relay of this process does, and has done; `relayId` is its name in `database.outbox.leases()`. */
  relayStats(): RelayStats & { readonly relayId: string }
  /** In-process subscribers of SYNC_ONLY events, without a name and so without an inbox. Durable work belongs to a context's handlers. */
  subscribe<Type extends EventType>(eventType: Type, handler: (event: EventOf<readonly [Type]>) => void | Promise<void>): () => void
  unsubscribe<Type extends EventType>(eventType: Type, handler: (event: EventOf<readonly [Type]>) => void | Promise<void>): void
  /** Publishes all that is due now; gives back how many rows left the outbox. @throws WaybillError `CLOSED` before the start and after the stop */
  publishAllPending(): Promise<number>
  /**
   * Resolves when no row is pending. With the memory transport: when every handler has settled everything. Rejects when `signal` aborts first, with
   * `CLOSED` before the start and after the stop, and with what ended the relay or a consumer for good.
   */
  drained(signal?: AbortSignal): Promise<void>
  readonly events: EventBus
  readonly commands: CommandBus
  readonly queries: QueryBus
  /** The database as it was given. */
  readonly database: Storage
  /** Runs single statements in that database, outside of units of work. */
  readonly sql: SqlExecutor
  [Symbol.asyncDispose](): Promise<void>
}

const WEEK_MS = 7 * 24 * 3_600_000
const DRAIN_POLL_MS = 20
const RELAYS_POLL_MS = 250
const CLOSE_MIN_MS = 1_000

/**
 * The one place that composes: contexts, database, transport, bus, relay and consumers.
 * @throws WaybillError `DUPLICATE` | `INVALID_NAME` | `UNKNOWN_EVENT` | `INVALID_OPTION`
 */
export async function createWaybill<const Contexts extends readonly BoundedContext[]>(
  options: WaybillOptions<Contexts>,
): Promise<Waybill<EventNames<Contexts>>> {
  checkNode()
  const { contexts, clock = systemClock, codec = jsonCodec(), shutdownMs = 10_000, inboxKeepMs = WEEK_MS } = options
  const source = checkName(options.source ?? 'waybill', 'source')
  checkContexts(contexts)
  const registry = createRegistry(contexts)
  const storage = options.database ?? memoryStorage({ clock })
  const durable = options.database !== undefined
  const transport = options.transport ?? memoryTransport({ acknowledge: 'handled', clock })
  if (durable && transport.capabilities.acknowledges === 'sent')
    throw new WaybillError('UNSUPPORTED', 'this transport keeps nothing: what the outbox hands to it could be lost', {
      got: transport.name,
      allowed: 'a transport that acknowledges what is stored or handled',
      where: 'transport',
    })
  const subscribers = createEventBus()
  const observers: Observe[] = options.observe === undefined ? [] : [options.observe]
  const observe = observeAll(observers)

  const groups = groupsOf(contexts)
  const inProcess = transport.capabilities.acknowledges === 'handled'
  // Where handlers in process are what a row waits for, a process without any has nothing to relay to: another one does it.
  const relays = durable && !(inProcess && groups.length === 0)
  const relayId = `${source}-${process.pid}-${newId().slice(-12)}${relayMark(groups, transport.capabilities.acknowledges)}`
  const relay = createRelay({
    ...options.relay,
    store: storage.outbox,
    publishers: new Map([['default', transport]]),
    relayId,
    shutdownMs,
    clock,
    observe,
    beforeTakeOver,
  })
  const publish: Waybill['publish'] = (event, config) => bus.publish(event, config)
  const runUnit: RunUnit = createUnitRunner({
    database: storage.database,
    outbox: storage.outbox,
    publish,
    wake: relay.wake,
    clock,
    observe,
  })
  const unitOfWork = createUnitOfWork(runUnit, publish)
  const handlers = registerHandlers({ contexts, registry, inbox: storage.inbox, runUnit, durable, publish })
  const bus = createHybridBus({
    registry,
    policies: createPolicies({ registry, contexts, hasOutbox: durable, check: (eventType, policy) => bus.checkPolicy(eventType, policy) }),
    codec,
    source,
    outbox: durable ? { store: storage.outbox, database: storage.database } : undefined,
    handlersFor: handlersByType(handlers),
    subscribers,
    wakeRelay: relay.wake,
    clock,
    observe,
    breakers: options.breakers,
  })

  /** With handlers in this process a shard's keys come with its lease: what the process before has parked must be known before followers are handled. */
  async function beforeTakeOver(): Promise<void> {
    refuseOtherHandlers(await storage.outbox.relays(), relayId)
    if (!inProcess) return
    for (const { name, definition } of handlers) await createParking(storage.deadLetters, name, definition.parkFollowers, observe).load()
  }

  const abort = new AbortController()
  const consumersAbort = new AbortController()
  let state: 'new' | 'started' | 'stopped' = 'new'
  // Made here, so that whoever asks for it before the start is told too.
  const finished = Promise.withResolvers<void>()
  // Whoever awaits `finished` or `stop` is told; nobody has to.
  finished.promise.catch(() => undefined)
  /** Aborts when the stop begins, or a part has died. */
  const ended = new AbortController()
  setMaxListeners(0, ended.signal)
  const asking = new Set<Promise<number>>()
  let dead: { readonly error: unknown } | undefined
  let starting = false
  let running: readonly Promise<void>[] = []
  let relaying: Promise<void> = Promise.resolve()
  let stopping: Promise<void> | undefined

  async function start(): Promise<void> {
    if (state !== 'new' || starting)
      throw new WaybillError('CLOSED', 'a Waybill is started once', {
        got: starting ? 'starting' : state,
        allowed: 'start() once, before stop()',
        where: 'start',
      })
    starting = true
    try {
      bus.checkConfiguration()
      if (durable) await storage.check()
      if (relays) await refuseForGood()
      await transport.declareGroups(groups)
    } finally {
      starting = false
    }
    // Asked again: stop() may have come meanwhile, and has closed what the parts would work with.
    if (stopping !== undefined) throw new WaybillError('CLOSED', 'this Waybill was stopped while it started', { where: 'start' })
    state = 'started'
    if (!durable) return
    const consumers = handlers.map((handler) =>
      createConsumer({
        subscriber: transport,
        deadLetters: storage.deadLetters,
        inbox: storage.inbox,
        registry,
        codec,
        handler,
        retry: handler.definition.retry,
        timeoutMs: handler.definition.timeoutMs,
        concurrency: handler.definition.concurrency,
        parkFollowers: handler.definition.parkFollowers,
        shutdownMs,
        clock,
        observe,
      }).run(consumersAbort.signal),
    )
    if (relays) relaying = relay.run(abort.signal)
    running = [relaying, ...consumers, maintain({ storage, inboxKeepMs, clock, observe }, abort.signal)]
    for (const part of running) part.catch(died)
  }

  /** A relay that has died is at work by its leases until they run out: what it relayed to counts that long. */
  async function refuseForGood(): Promise<void> {
    const until = clock.now() + (options.relay?.leaseMs ?? DEFAULT_LEASE_MS) + RELAYS_POLL_MS
    for (;;) {
      try {
        refuseOtherHandlers(await storage.outbox.relays(), relayId)
        return
      } catch (error) {
        if (clock.now() >= until || stopping !== undefined) throw error
        await clock.sleep(RELAYS_POLL_MS, ended.signal)
      }
    }
  }

  /** A part that ended by itself: what it did is done by nobody any more, so somebody must hear of it. */
  function died(error: unknown): void {
    observe({ type: 'relay.failed', error })
    dead ??= { error }
    finished.reject(error)
    ended.abort()
  }

  async function stopParts(): Promise<void> {
    state = 'stopped'
    ended.abort()
    await bus.stop()
    // The relay first: with a transport that reports handled, what it has in flight needs the consumers to end.
    abort.abort()
    await Promise.allSettled([relaying, ...asking])
    consumersAbort.abort()
    await Promise.allSettled(running)
    try {
      await inTime(transport.close(), 'transport')
    } finally {
      await inTime(storage.close(), 'database').finally(finished.resolve)
    }
    // Rejected before, where a part has died.
    await finished.promise
  }

  /** What somebody still holds (a transaction that never ends) must not keep a process from stopping. */
  async function inTime(closing: Promise<void>, where: string): Promise<void> {
    const timer = new AbortController()
    const late = clock.sleep(Math.max(shutdownMs, CLOSE_MIN_MS), timer.signal).then(() => {
      if (!timer.signal.aborted) throw new WaybillError('TIMEOUT', 'it could not be closed in time; something still uses it', { where })
    })
    try {
      await Promise.race([closing, late])
    } finally {
      timer.abort('ended')
    }
  }

  /** Before the start no group is declared and nobody consumes: rows would be refused, and parked. */
  function checkStarted(where: string): void {
    if (state !== 'started')
      throw new WaybillError('CLOSED', state === 'new' ? 'this Waybill was not started yet' : 'this Waybill was stopped', {
        got: state,
        allowed: 'after start(), before stop()',
        where,
      })
  }

  async function drained(signal?: AbortSignal): Promise<void> {
    const either = signal === undefined ? ended.signal : AbortSignal.any([signal, ended.signal])
    for (;;) {
      signal?.throwIfAborted()
      // Where a part has died, what it should have done would be waited for in vain.
      if (dead !== undefined) throw dead.error
      checkStarted('drained')
      await publishDue(either)
      if (either.aborted) continue
      const { pending } = await storage.outbox.stats()
      if (pending === 0) return
      await clock.sleep(DRAIN_POLL_MS, either)
    }
  }

  /** Lets go of the relay at the stop, which waits for that: a relay that somebody uses goes on. */
  async function publishDue(signal: AbortSignal): Promise<number> {
    if (!relays) return 0
    const publishing = relay.publishAllPending(signal)
    asking.add(publishing)
    try {
      return await publishing
    } finally {
      asking.delete(publishing)
    }
  }

  const stop = (): Promise<void> => (stopping ??= stopParts())

  return {
    start,
    stop,
    finished: finished.promise,
    publish,
    async unitOfWork(fn, unitOptions) {
      if (state === 'stopped') throw new WaybillError('CLOSED', 'this Waybill was stopped', { where: 'unitOfWork' })
      return unitOfWork(fn, unitOptions)
    },
    joinTransaction: createJoinTransaction(storage.outbox, publish),
    configureEvent: bus.configureEvent,
    configureBoundedContext: bus.configureBoundedContext,
    getMetrics: bus.getMetrics,
    relayStats: () => ({ relayId, ...relay.stats() }),
    subscribe: (eventType, handler) => subscribers.subscribe(eventType, handler),
    unsubscribe: (eventType, handler) => subscribers.unsubscribe(eventType, handler),
    async publishAllPending() {
      checkStarted('publishAllPending')
      return publishDue(ended.signal)
    },
    drained,
    events: subscribers,
    commands: createCommandBus(),
    queries: createQueryBus(),
    database: storage,
    sql: storage.database,
    [Symbol.asyncDispose]: stop,
  }
}

function checkNode(): void {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  if (major > 22 || (major === 22 && minor >= 22)) return
  throw new WaybillError('UNSUPPORTED', 'this Node is too old for Waybill', {
    got: process.versions.node,
    allowed: '22.22 or newer',
    where: 'createWaybill',
  })
}

function checkContexts(contexts: readonly BoundedContext[]): void {
  const names = new Set<string>()
  for (const { name } of contexts) {
    if (names.has(name))
      throw new WaybillError('DUPLICATE', 'two bounded contexts have this name, so their handlers would share names too', {
        got: name,
        allowed: 'one context per name',
        where: 'contexts',
      })
    names.add(name)
  }
}
