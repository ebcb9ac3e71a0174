import assert from 'node:assert/strict'
import { setImmediate as turn } from 'node:timers/promises'
import { test } from 'node:test'
import fc from 'fast-check'
import { z } from 'zod'
import { memoryStorage } from '../adapters/memory/storage.ts'
import { jsonCodec } from '../codecs/json.ts'
import type { Database } from '../core/database.ts'
import { WaybillError, isWaybillError, type WaybillErrorCode } from '../core/errors.ts'
import { defineEvent, type DomainEvent, type EventType } from '../core/event.ts'
import { compose, type Handler, type Invocation, type RegisteredHandler } from '../core/handler.ts'
import { inboxOnce, inTransaction } from '../core/inbox.ts'
import type { WaybillEvent } from '../core/observe.ts'
import type { PublishConfig, PublishStrategy } from '../core/publish-config.ts'
import { createRegistry } from '../core/registry.ts'
import { currentScope, withScope, type Scope } from '../core/scope.ts'
import type { OutboxRecord, OutboxStore } from '../core/stores.ts'
import type { Receipt } from '../core/unit.ts'
import { createJoinTransaction, createUnitRunner } from '../outbox/unit-of-work.ts'
import { createFakeClock } from '../testing/fake-clock.ts'
import { createEventBus } from './event-bus.ts'
import { createHybridBus, type HybridBusOptions } from './hybrid-bus.ts'
import { createPolicies } from './policy.ts'

type Handle = (event: DomainEvent, invocation: Invocation) => void | Promise<void>
interface HandlerSpec {
  readonly on: EventType
  readonly run: Handle
  readonly context?: string
  readonly ordered?: boolean
}

const Placed = defineEvent<{ id: string }>('order.Placed', { aggregate: { type: 'order', id: (order) => order.id } })
const Moved = defineEvent<{ id: string }>('stock.Moved')

/** The whole bus over real in-memory stores, on a clock that only the test moves. */
function setup(
  specs: Record<string, HandlerSpec>,
  options: Partial<HybridBusOptions> & { readonly events?: readonly EventType[]; readonly durable?: boolean } = {},
) {
  const { events = [Placed, Moved], durable = true, ...rest } = options
  const clock = createFakeClock()
  const storage = memoryStorage({ clock })
  const heard: WaybillEvent[] = []
  const broken = { append: undefined as Error | undefined, settle: undefined as Error | undefined, hang: false }
  let wakes = 0
  const outbox: OutboxStore = {
    ...storage.outbox,
    append: async (sql, entries) => {
      if (broken.append !== undefined) throw broken.append
      return storage.outbox.append(sql, entries)
    },
    retire: async (rowIds) => {
      if (broken.hang) return new Promise<void>(() => {})
      if (broken.settle !== undefined) throw broken.settle
      return storage.outbox.retire(rowIds)
    },
    release: async (rowIds) => {
      if (broken.settle !== undefined) throw broken.settle
      return storage.outbox.release(rowIds)
    },
  }
  const database: Database = storage.database
  const runUnit = createUnitRunner({ database, outbox, publish: (event, config) => bus.publish(event, config), wake: () => wakes++, clock })
  const handlers = Object.entries(specs).map(([name, { on, run, context = 'sales', ordered = false }]): RegisteredHandler => {
    const user: Handler = async (invocation) => {
      for (const event of invocation.events) await run(event, invocation)
    }
    const once = compose(user, [inboxOnce(storage.inbox, runUnit, `${context}/${name}`)])
    const plain = compose(user, [inTransaction(runUnit)])
    return { name: `${context}/${name}`, context, eventTypes: new Set([on.type]), topics: [on.topic], ordered, batchMax: 1, once, plain }
  })
  const contexts = [{ name: 'sales', events, publish: undefined }]
  const registry = createRegistry(contexts)
  const subscribers = createEventBus()
  const bus = createHybridBus({
    registry,
    policies: createPolicies({ registry, contexts, hasOutbox: durable }),
    codec: jsonCodec(),
    source: 'shop',
    outbox: durable ? { store: outbox, database } : undefined,
    handlersFor: (type) => handlers.filter(({ eventTypes }) => eventTypes.has(type)),
    subscribers,
    wakeRelay: () => wakes++,
    clock,
    observe: (event) => void heard.push(event),
    ...rest,
  })
  const rows = (): Promise<readonly OutboxRecord[]> => storage.outbox.list({ limit: 10_000 })
  /** How each pending row stands: due, or held for so many more milliseconds. */
  const standing = async (): Promise<readonly (string | number)[]> =>
    (await rows())
      .filter(({ status }) => status === 'pending')
      .map(({ dueAt }) => (dueAt === undefined || dueAt.getTime() <= clock.now() ? 'due' : dueAt.getTime() - clock.now()))
  /** Lets time pass until `promise` has settled. */
  async function passing<T>(promise: Promise<T>): Promise<T> {
    let done = false
    const settled = promise.finally(() => (done = true)).catch(() => {})
    for (let i = 0; i < 200 && !done; i++) {
      await turn()
      if (!done) await clock.advance(50)
    }
    await settled
    return promise
  }
  const unit = <T>(fn: () => Promise<T>) => runUnit(async () => fn())
  return { bus, clock, storage, heard, broken, subscribers, rows, standing, passing, unit, runUnit, outbox, handlers, wakes: () => wakes }
}

const okay: Handle = () => {}
const fails: Handle = () => {
  throw new Error('broken')
}
/** Goes on until it is told to stop, and then fails. */
const hangs: Handle = (_event, { signal }) =>
  new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('told to stop'))))
const order = (): DomainEvent => Placed({ id: 'o-1' })
const brief = ({ strategy, state, confirmed, unconfirmedBecause }: Receipt): string =>
  [strategy, state, confirmed ? 'confirmed' : 'unconfirmed', unconfirmedBecause].filter(Boolean).join(' ')

async function rejectsWith(promise: Promise<unknown>, code: WaybillErrorCode): Promise<WaybillError> {
  const error = await promise.then(
    (value) => assert.fail(`resolved ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  )
  if (!isWaybillError(error, code)) throw error
  return error
}

test('SYNC_ONLY outside a unit of work: handlers run now, without inbox and row', async () => {
  const seen: string[] = []
  const { bus, rows } = setup({ mail: { on: Placed, run: (event) => void seen.push(event.id) } })
  const event = order()
  const receipt = await bus.publish(event, { strategy: 'SYNC_ONLY' })
  assert.equal(brief(receipt), 'SYNC_ONLY delivered confirmed')
  assert.deepEqual([receipt.eventId, receipt.eventType, receipt.scope, receipt.decidedBy], [event.id, 'order.Placed', 'INTRA_BC', 'call'])
  await bus.publish(event, { strategy: 'SYNC_ONLY' })
  assert.deepEqual(seen, [event.id, event.id])
  assert.deepEqual(await rows(), [])
})

test('SYNC_ONLY has one path: failure, timeout and nobody there reject, with the cause', async () => {
  const { bus, clock } = setup({ bad: { on: Placed, run: fails } })
  const failed = await rejectsWith(bus.publish(order(), { strategy: 'SYNC_ONLY' }), 'PUBLISH_FAILED')
  assert.ok(isWaybillError(failed.cause, 'HANDLER_FAILED') && failed.cause.where === 'sales/bad')
  assert.match(String(failed.cause.cause), /broken/)
  await rejectsWith(bus.publish(Moved({ id: 'x' }), { strategy: 'SYNC_ONLY' }), 'PUBLISH_FAILED')

  const slow = setup({ slow: { on: Placed, run: hangs } })
  const timedOut = await rejectsWith(slow.passing(slow.bus.publish(order(), { strategy: 'SYNC_ONLY', timeoutMs: 100 })), 'TIMEOUT')
  assert.match(timedOut.message, /may still happen/)
  assert.equal(clock.pending, 0)
})

test('subscribers without a name take part in SYNC_ONLY, and hybrid events refuse them', async () => {
  const { bus, subscribers } = setup({ mail: { on: Placed, run: okay } })
  const seen: string[] = []
  subscribers.subscribe(Placed, async (event) => void seen.push(event.id))
  subscribers.subscribe(Moved, () => {
    throw new Error('no')
  })
  const receipt = await bus.publish(order(), { strategy: 'SYNC_ONLY' })
  assert.deepEqual(seen, [receipt.eventId])
  const failed = await rejectsWith(bus.publish(Moved({ id: 'x' }), { strategy: 'SYNC_ONLY' }), 'PUBLISH_FAILED')
  assert.ok(isWaybillError(failed.cause, 'HANDLER_FAILED'))
  await rejectsWith(bus.publish(order(), { strategy: 'HYBRID_FAST' }), 'HYBRID_WITHOUT_CONSUMER')
  assert.equal(seen.length, 1)
})

test('SYNC_ONLY in a unit of work: handlers run after the commit; the unit does not fail with them', async () => {
  const steps: string[] = []
  const { unit, bus, heard } = setup({ good: { on: Placed, run: () => void steps.push('handled') }, bad: { on: Moved, run: fails } })
  const { receipts } = await unit(async () => {
    assert.equal(brief(await bus.publish(order(), { strategy: 'SYNC_ONLY' })), 'SYNC_ONLY pending unconfirmed')
    await bus.publish(Moved({ id: 'x' }), { strategy: 'SYNC_ONLY' })
    await turn()
    steps.push('end of the unit')
  })
  assert.deepEqual(steps, ['end of the unit', 'handled'])
  assert.deepEqual(receipts.map(brief), ['SYNC_ONLY delivered confirmed', 'SYNC_ONLY delivered unconfirmed failed'])
  assert.deepEqual(heard.flatMap((event) => (event.type === 'publish.settled' ? [`${event.eventType} ${event.outcome}`] : [])).toSorted(), [
    'order.Placed delivered',
    'stock.Moved failed',
  ])
})

test('a rolled-back unit of work publishes nothing, whatever the strategy', async () => {
  const seen: string[] = []
  const { unit, bus, rows, heard } = setup({ mail: { on: Placed, run: () => void seen.push('handled') } })
  const failure = new Error('out of stock')
  for (const strategy of ['SYNC_ONLY', 'ASYNC_ONLY', 'HYBRID_FAST', 'HYBRID_RELIABLE'] as const) {
    const run = unit(async () => {
      await bus.publish(order(), { strategy })
      throw failure
    })
    await assert.rejects(run, (error) => error === failure)
  }
  await turn()
  assert.deepEqual([seen, await rows(), heard], [[], [], []])
})

test('ASYNC_ONLY: one row, due at once, outside in a transaction of its own; the relay is woken; nothing runs in process', async () => {
  const { bus, unit, rows, standing, wakes } = setup({ mail: { on: Placed, run: () => assert.fail('ran') } })
  assert.equal(brief(await bus.publish(order(), { strategy: 'ASYNC_ONLY', priority: 7 })), 'ASYNC_ONLY pending unconfirmed')
  assert.equal(wakes(), 1)
  const { receipts } = await unit(() => bus.publish(order(), { strategy: 'ASYNC_ONLY' }))
  assert.deepEqual(receipts.map(brief), ['ASYNC_ONLY pending unconfirmed'])
  assert.equal(wakes(), 2)
  assert.deepEqual(await standing(), ['due', 'due'])
  const [row] = await rows()
  assert.deepEqual([row!.topic, row!.key, row!.priority, row!.eventType], ['order.Placed', 'o-1', 7, 'order.Placed'])
})

test('HYBRID_FAST outside: handled now and once, without a row; else a row', async () => {
  let runs = 0
  const good = setup({ mail: { on: Placed, run: () => void runs++ } })
  const event = order()
  assert.equal(brief(await good.bus.publish(event)), 'HYBRID_FAST delivered confirmed')
  assert.deepEqual(await good.rows(), [])
  // The same event again, as the relay's copy would be: the inbox knows it.
  await good.handlers[0]!.once({ events: [event], signal: new AbortController().signal, attempt: 1 })
  assert.equal(runs, 1)

  const bad = setup({ bad: { on: Placed, run: fails } })
  assert.equal(brief(await bad.bus.publish(order())), 'HYBRID_FAST pending unconfirmed failed')
  assert.deepEqual(await bad.standing(), ['due'])
  assert.equal(bad.bus.getMetrics().hybrid_fast_fallbacks, 1)

  const slow = setup({ slow: { on: Placed, run: hangs } })
  assert.equal(brief(await slow.passing(slow.bus.publish(order(), { timeoutMs: 50 }))), 'HYBRID_FAST pending unconfirmed timeout')
  assert.deepEqual(await slow.standing(), ['due'])
})

test('HYBRID_FAST in a unit of work: the row waits for timeout and grace while handlers run, success retires it, failure makes it due', async () => {
  const during: unknown[] = []
  const good = setup({ mail: { on: Placed, run: async () => void during.push(await good.standing()) } }, { graceMs: 400 })
  const { receipts } = await good.unit(() => good.bus.publish(order(), { timeoutMs: 100 }))
  assert.deepEqual(during, [[500]])
  assert.deepEqual(receipts.map(brief), ['HYBRID_FAST delivered confirmed'])
  assert.deepEqual(await good.standing(), [])

  const bad = setup({ bad: { on: Placed, run: fails } })
  const afterFailure = await bad.unit(() => bad.bus.publish(order()))
  assert.deepEqual(afterFailure.receipts.map(brief), ['HYBRID_FAST pending unconfirmed failed'])
  assert.deepEqual(await bad.standing(), ['due'])
  assert.equal(bad.wakes(), 2)

  const slow = setup({ slow: { on: Placed, run: hangs } })
  const afterTimeout = await slow.passing(slow.unit(() => slow.bus.publish(order(), { timeoutMs: 50 })))
  assert.deepEqual(afterTimeout.receipts.map(brief), ['HYBRID_FAST pending unconfirmed timeout'])
  assert.deepEqual(await slow.standing(), ['due'])
})

test('a HYBRID_FAST row that an ordered handler needs is not retired, and that handler never runs in process', async () => {
  const fixture = setup({
    mail: { on: Placed, run: okay },
    ledger: { on: Placed, run: () => assert.fail('ran'), ordered: true },
    only: { on: Moved, run: () => assert.fail('ran'), ordered: true },
  })
  const { bus, unit, standing } = fixture
  assert.equal(brief(await bus.publish(order())), 'HYBRID_FAST pending confirmed')
  const { receipts } = await unit(async () => {
    await bus.publish(order())
    await bus.publish(Moved({ id: 'x' }))
  })
  assert.deepEqual(receipts.map(brief), ['HYBRID_FAST pending confirmed', 'HYBRID_FAST pending unconfirmed no handler'])
  assert.equal(brief(await bus.publish(Moved({ id: 'x' }))), 'HYBRID_FAST pending unconfirmed no handler')
  assert.deepEqual(await standing(), ['due', 'due', 'due', 'due'])
  assert.deepEqual(
    fixture.heard.filter(({ type }) => type === 'delivery.failed'),
    [],
  )
})

test("a row that can't be retired or released becomes due when its grace ends; the unit of work succeeds all the same", async () => {
  for (const run of [okay, fails]) {
    const { bus, unit, broken, standing, heard, clock } = setup({ mail: { on: Placed, run } })
    broken.settle = new WaybillError('DATABASE_UNREACHABLE', 'gone')
    const { receipts } = await unit(() => bus.publish(order()))
    assert.deepEqual(receipts.map(brief), [run === okay ? 'HYBRID_FAST pending confirmed' : 'HYBRID_FAST pending unconfirmed failed'])
    assert.deepEqual(await standing(), [2_000])
    assert.ok(heard.some((event) => event.type === 'unit.failed' && event.error === broken.settle))
    await clock.advance(2_000)
    assert.deepEqual(await standing(), ['due'])
  }
  const hung = setup({ mail: { on: Placed, run: okay } })
  hung.broken.hang = true
  const { receipts } = await hung.passing(hung.unit(() => hung.bus.publish(order())))
  assert.deepEqual(receipts.map(brief), ['HYBRID_FAST pending confirmed'])
  assert.ok(hung.heard.some((event) => event.type === 'unit.failed' && isWaybillError(event.error, 'TIMEOUT')))
})

test('HYBRID_RELIABLE: the row is there, and due, before any handler runs; handlers only confirm', async () => {
  const during: unknown[] = []
  const { bus, unit, standing } = setup({
    mail: { on: Placed, run: async () => void during.push(await standing()) },
    bad: { on: Moved, run: fails },
  })
  assert.equal(brief(await bus.publish(order(), 'CRITICAL_HYBRID')), 'HYBRID_RELIABLE pending confirmed')
  assert.equal(brief(await bus.publish(Moved({ id: 'x' }), 'CRITICAL_HYBRID')), 'HYBRID_RELIABLE pending unconfirmed failed')
  const { receipts } = await unit(() => bus.publish(order(), 'CRITICAL_HYBRID'))
  assert.deepEqual(receipts.map(brief), ['HYBRID_RELIABLE pending confirmed'])
  assert.deepEqual(during, [['due'], ['due', 'due', 'due']])
  assert.equal(bus.getMetrics().hybrid_fast_fallbacks, 0)
})

test('when the outbox fails, publish rejects: nothing is run first by HYBRID_RELIABLE, and both causes are told by HYBRID_FAST', async () => {
  let runs = 0
  const { bus, broken } = setup({ count: { on: Placed, run: () => void runs++ }, bad: { on: Moved, run: fails } })
  broken.append = new WaybillError('DATABASE_UNREACHABLE', 'gone')
  for (const strategy of ['ASYNC_ONLY', 'HYBRID_RELIABLE'] as const) {
    const error = await rejectsWith(bus.publish(order(), { strategy }), 'PUBLISH_FAILED')
    assert.equal(error.cause, broken.append)
  }
  assert.equal(runs, 0)
  const both = await rejectsWith(bus.publish(Moved({ id: 'x' })), 'PUBLISH_FAILED')
  assert.ok(both.cause instanceof AggregateError)
  assert.deepEqual(
    both.cause.errors.map((error: WaybillError) => error.code),
    ['HANDLER_FAILED', 'PUBLISH_FAILED'],
  )
  assert.equal(bus.getMetrics().failed, 3)
})

test('what only a person can mend is never hidden behind an open breaker', async () => {
  const { bus, broken } = setup({ mail: { on: Placed, run: okay } })
  broken.append = new WaybillError('NOT_MIGRATED', 'run `waybill migrate`')
  for (let i = 0; i < 7; i++) await rejectsWith(bus.publish(order(), { strategy: 'ASYNC_ONLY' }), 'NOT_MIGRATED')
  assert.equal(bus.getMetrics().circuit_breakers.outbox, 'closed')
})

test("a handler's signal aborts when its time is over, and not when it succeeds", async () => {
  const signals: AbortSignal[] = []
  const note: Handle = (_event, { signal }) => void signals.push(signal)
  const { bus, passing } = setup({
    good: { on: Placed, run: note },
    slow: {
      on: Moved,
      run: (event, invocation) => {
        void note(event, invocation)
        return hangs(event, invocation)
      },
    },
  })
  await bus.publish(order())
  await passing(bus.publish(Moved({ id: 'x' }), { timeoutMs: 100 }))
  assert.deepEqual(
    signals.map(({ aborted }) => aborted),
    [false, true],
  )
  assert.ok(isWaybillError(signals[1]!.reason, 'TIMEOUT'))
})

test('a cut commit is UNKNOWN_OUTCOME, and what only a person can mend comes through as it is', async () => {
  const { bus, broken } = setup({ bad: { on: Placed, run: fails } })
  for (const code of ['UNKNOWN_OUTCOME', 'NOT_MIGRATED'] as const) {
    broken.append = new WaybillError(code, 'x')
    await rejectsWith(bus.publish(order(), { strategy: 'ASYNC_ONLY' }), code)
  }
  broken.append = new WaybillError('UNKNOWN_OUTCOME', 'x')
  await rejectsWith(bus.publish(order(), { strategy: 'HYBRID_FAST' }), 'UNKNOWN_OUTCOME')
})

test('the in-process breaker sends HYBRID_FAST straight to the outbox, refuses SYNC_ONLY, and closes by itself', async () => {
  let run: Handle = fails
  const { bus, clock, unit, standing } = setup({ mail: { on: Placed, run: (event, invocation) => run(event, invocation) } })
  for (let i = 0; i < 5; i++) await bus.publish(order())
  assert.deepEqual([bus.getMetrics().circuit_breakers.in_process, bus.getMetrics().circuit_breaker_trips], ['open', 1])
  run = () => assert.fail('ran')
  assert.equal(brief(await bus.publish(order())), 'HYBRID_FAST pending unconfirmed breaker open')
  assert.equal(brief(await bus.publish(order(), 'CRITICAL_HYBRID')), 'HYBRID_RELIABLE pending unconfirmed breaker open')
  await rejectsWith(bus.publish(order(), { strategy: 'SYNC_ONLY' }), 'CIRCUIT_OPEN')
  const inUnit = await unit(() => bus.publish(order()))
  assert.deepEqual(inUnit.receipts.map(brief), ['HYBRID_FAST pending unconfirmed breaker open'])
  assert.deepEqual(await standing(), Array(8).fill('due'))
  run = okay
  // After a commit SYNC_ONLY has no other path and nobody to refuse to: it is tried.
  const last = await unit(() => bus.publish(order(), { strategy: 'SYNC_ONLY' }))
  assert.deepEqual(last.receipts.map(brief), ['SYNC_ONLY delivered confirmed'])
  await clock.advance(60_000)
  await bus.publish(order())
  assert.equal(brief(await bus.publish(order())), 'HYBRID_FAST delivered confirmed')
  assert.equal(bus.getMetrics().circuit_breakers.in_process, 'closed')
})

test('the outbox breaker refuses outside a transaction only', async () => {
  const { bus, broken, unit, standing } = setup({ mail: { on: Placed, run: okay } })
  broken.append = new WaybillError('DATABASE_UNREACHABLE', 'gone')
  for (let i = 0; i < 5; i++) await rejectsWith(bus.publish(order(), { strategy: 'ASYNC_ONLY' }), 'PUBLISH_FAILED')
  broken.append = undefined
  await rejectsWith(bus.publish(order(), { strategy: 'ASYNC_ONLY' }), 'CIRCUIT_OPEN')
  await unit(() => bus.publish(order(), { strategy: 'ASYNC_ONLY' }))
  assert.deepEqual(await standing(), ['due'])
})

test('what handlers publish carries correlation, causation and metadata, and is in no unit of the publisher', async () => {
  const scopes: Scope[] = []
  const { bus, unit } = setup({ mail: { on: Placed, run: () => void scopes.push(currentScope()) } })
  const inScope = <T>(fn: () => Promise<T>): Promise<T> =>
    withScope({ correlationId: 'c-1', causationId: 'e-0', traceId: 'a'.repeat(32), metadata: { tenant: 't' } }, fn)
  const outside = await inScope(() => bus.publish(order(), { strategy: 'SYNC_ONLY' }))
  const { receipts } = await inScope(() => unit(() => bus.publish(order())))
  assert.equal(scopes.length, 2)
  for (const [index, { eventId }] of [outside, receipts[0]!].entries()) {
    const { unit: ownUnit, ...rest } = scopes[index]!
    assert.deepEqual(rest, { correlationId: 'c-1', causationId: eventId, traceId: 'a'.repeat(32), metadata: { tenant: 't' } })
    assert.notEqual(ownUnit, undefined)
  }
})

test("the schema's value is what is handled and written, under the same id, with the key that follows from it", async () => {
  const Renamed = defineEvent('user.Renamed', {
    schema: z.object({ id: z.string().toLowerCase(), name: z.string().default('nobody') }),
    aggregate: { type: 'user', id: ({ id }: { id: string }) => id },
  })
  const seen: unknown[] = []
  const { bus, rows } = setup({ list: { on: Renamed, run: (event) => void seen.push([event.id, event.payload]) } }, { events: [Renamed] })
  const event = withScope({ correlationId: 'c-7' }, () => Renamed({ id: 'ANN' } as never))
  await bus.publish(event, 'CRITICAL_HYBRID')
  assert.deepEqual(seen, [[event.id, { id: 'ann', name: 'nobody' }]])
  const [row] = await rows()
  assert.deepEqual([row!.eventId, row!.key], [event.id, 'ann'])
  await bus.publish(Renamed({ id: 'ANN' } as never, { key: 'K' }), { strategy: 'ASYNC_ONLY' })
  assert.equal((await rows())[1]!.key, 'K')
  const refused = await rejectsWith(bus.publish(Renamed({ id: 5 } as never), 'CRITICAL_HYBRID'), 'INVALID_PAYLOAD')
  assert.match(refused.message, /payload\.id/)
})

test('bad events and settings reject before anything is done', async () => {
  const { bus, unit, rows, heard } = setup({ mail: { on: Placed, run: () => assert.fail('ran') } })
  const Unknown = defineEvent('order.Unknown')
  const circular: Record<string, unknown> = { id: 'x' }
  circular['self'] = circular
  await rejectsWith(bus.publish(Unknown({})), 'UNKNOWN_EVENT')
  await rejectsWith(bus.publish({ type: 'order.Placed' } as never), 'INVALID_OPTION')
  await rejectsWith(bus.publish(order(), 'FASTEST' as never), 'UNKNOWN_STRATEGY')
  await rejectsWith(bus.publish(order(), { priority: 11 }), 'INVALID_OPTION')
  await rejectsWith(bus.publish(order(), { scope: 'EXTERNAL', strategy: 'HYBRID_FAST' }), 'HYBRID_FAST_ACROSS_CONTEXTS')
  await rejectsWith(bus.publish(Placed(circular as never)), 'NOT_SERIALIZABLE')
  await rejectsWith(bus.publish(Placed({ id: 'a\u0000b' })), 'INVALID_KEY')
  await rejectsWith(bus.publish(Placed({ id: 'a', text: 'x'.repeat(2 << 20) } as never)), 'PAYLOAD_TOO_LARGE')
  await rejectsWith(bus.publish(Moved({ id: 'x' })), 'HYBRID_WITHOUT_CONSUMER')
  await rejectsWith(
    unit(() => bus.publish(Moved({ id: 'x' }), { strategy: 'SYNC_ONLY' })),
    'PUBLISH_FAILED',
  )
  assert.deepEqual([await rows(), heard], [[], []])
})

test('a publish in a unit of work that has ended rejects', async () => {
  const { bus, unit, rows } = setup({ mail: { on: Placed, run: okay } })
  const gate = Promise.withResolvers<void>()
  let late!: Promise<unknown>
  await unit(async () => {
    late = gate.promise.then(() => bus.publish(order()))
  })
  gate.resolve()
  await rejectsWith(late, 'UNIT_CLOSED')
  assert.deepEqual(await rows(), [])
})

test('in a transaction that the caller owns: durable strategies write a row due at once, SYNC_ONLY rejects', async () => {
  const { bus, storage, standing, outbox } = setup({ mail: { on: Placed, run: () => assert.fail('ran') } })
  const join = createJoinTransaction(outbox, bus.publish)
  await storage.database.transaction((sql) =>
    join({ sql }, async (unit) => {
      for (const strategy of ['ASYNC_ONLY', 'HYBRID_FAST', 'HYBRID_RELIABLE'] as const) {
        assert.equal(brief(await unit.publish(order(), { strategy })), `${strategy} pending unconfirmed`)
      }
      await rejectsWith(unit.publish(order(), { strategy: 'SYNC_ONLY' }), 'UNSUPPORTED')
    }),
  )
  assert.deepEqual(await standing(), ['due', 'due', 'due'])
})

test('start finds hybrid events without a consumer, and HYBRID_FAST handled by another context; run-time changes are checked on publish', async () => {
  const check = (specs: Record<string, HandlerSpec>): void => setup(specs, { events: [Placed] }).bus.checkConfiguration()
  assert.throws(
    () => check({}),
    (error) => isWaybillError(error, 'HYBRID_WITHOUT_CONSUMER'),
  )
  assert.throws(
    () => check({ mail: { on: Placed, run: okay, context: 'billing' } }),
    (error) => isWaybillError(error, 'HYBRID_FAST_ACROSS_CONTEXTS'),
  )
  check({ mail: { on: Placed, run: okay } })
  check({ mail: { on: Placed, run: okay }, ledger: { on: Placed, run: okay, context: 'billing', ordered: true } })
  const unnamed = setup({ mail: { on: Placed, run: okay } }, { events: [Placed] })
  unnamed.subscribers.subscribe(Placed, () => {})
  assert.throws(
    () => unnamed.bus.checkConfiguration(),
    (error) => isWaybillError(error, 'HYBRID_WITHOUT_CONSUMER'),
  )

  const { bus } = setup({ mail: { on: Placed, run: okay, context: 'billing' } }, { events: [Placed] })
  bus.configureEvent(Placed, { strategy: 'HYBRID_RELIABLE' })
  bus.checkConfiguration()
  bus.configureBoundedContext('sales', { priority: 3 })
  bus.configureEvent(Placed, { strategy: 'HYBRID_FAST' })
  await rejectsWith(bus.publish(order()), 'HYBRID_FAST_ACROSS_CONTEXTS')
})

test('without an outbox events are SYNC_ONLY, and a durable publish says what is missing', async () => {
  const { bus } = setup({ mail: { on: Placed, run: okay } }, { durable: false })
  bus.checkConfiguration()
  const receipt = await bus.publish(order())
  assert.deepEqual([brief(receipt), receipt.decidedBy], ['SYNC_ONLY delivered confirmed', 'default'])
  await rejectsWith(bus.publish(order(), { scope: 'INTER_BC' }), 'NO_OUTBOX')
})

test('one publish too many at the same time is refused before anything is done', async () => {
  const gate = Promise.withResolvers<void>()
  const { bus, rows, unit } = setup({ slow: { on: Placed, run: () => gate.promise } }, { maxInFlight: 2 })
  const running = [bus.publish(order()), bus.publish(order())]
  await rejectsWith(bus.publish(order(), { strategy: 'ASYNC_ONLY' }), 'QUEUE_FULL')
  assert.equal(bus.getMetrics().in_flight, 2)
  // A unit of work has committed by then, so it is the outbox that takes the load.
  const { receipts } = await unit(() => bus.publish(order()))
  assert.deepEqual(receipts.map(brief), ['HYBRID_FAST pending unconfirmed breaker open'])
  gate.resolve()
  await Promise.all(running)
  assert.equal((await rows()).length, 1)
  assert.equal(brief(await bus.publish(order(), { strategy: 'ASYNC_ONLY' })), 'ASYNC_ONLY pending unconfirmed')
})

test('stop refuses what comes later, waits for what is running, and aborts what does not end', async () => {
  const gate = Promise.withResolvers<void>()
  const polite = setup({ slow: { on: Placed, run: () => gate.promise } })
  const running = polite.bus.publish(order())
  const stopping = polite.bus.stop()
  assert.equal(polite.bus.stop(), stopping)
  await rejectsWith(polite.bus.publish(order()), 'CLOSED')
  let stopped = false
  void stopping.then(() => (stopped = true))
  await turn()
  assert.equal(stopped, false)
  gate.resolve()
  await stopping
  assert.equal(brief(await running), 'HYBRID_FAST delivered confirmed')

  const stubborn = setup({ slow: { on: Placed, run: hangs } }, { shutdownMs: 100 })
  const hanging = stubborn.bus.publish(order(), { timeoutMs: 10_000 })
  await turn()
  await stubborn.passing(stubborn.bus.stop())
  assert.equal(brief(await hanging), 'HYBRID_FAST pending unconfirmed failed')
})

test('a handler that ends badly after its time is observed, and is no unhandled rejection', async () => {
  const unheard: unknown[] = []
  const note = (reason: unknown): void => void unheard.push(reason)
  process.on('unhandledRejection', note)
  try {
    const gate = Promise.withResolvers<void>()
    const { bus, passing, heard } = setup({ late: { on: Placed, run: () => gate.promise } })
    await passing(bus.publish(order(), { timeoutMs: 10 }))
    gate.reject(new Error('too late'))
    await turn()
    await turn()
    assert.deepEqual(unheard, [])
    assert.ok(heard.some((event) => event.type === 'delivery.failed' && String(event.error).includes('too late')))
  } finally {
    process.off('unhandledRejection', note)
  }
})

// The table of the guarantees, written down once more: what each kind of handlers does to each strategy.
const HANDLERS = {
  good: { confirms: true, because: undefined, ordered: false },
  bad: { confirms: false, because: 'failed', ordered: false },
  slow: { confirms: false, because: 'timeout', ordered: false },
  mixed: { confirms: true, because: undefined, ordered: true },
  ordered: { confirms: false, because: 'no handler', ordered: true },
} as const
type Kind = keyof typeof HANDLERS
const KINDS = Object.keys(HANDLERS) as Kind[]
const TYPES = Object.fromEntries(KINDS.map((kind) => [kind, defineEvent<{ id: string }>(`kind.${kind}`)])) as Record<
  Kind,
  EventType<{ id: string }>
>

function expected(strategy: PublishStrategy, kind: Kind, inUnit: boolean): { receipt?: string; error?: WaybillErrorCode; row: boolean } {
  const { confirms, because, ordered } = HANDLERS[kind]
  const word = confirms ? 'confirmed' : `unconfirmed ${because}`
  switch (strategy) {
    case 'SYNC_ONLY':
      if (confirms || (inUnit && because !== 'no handler')) return { receipt: `SYNC_ONLY delivered ${word}`, row: false }
      return { error: because === 'timeout' ? 'TIMEOUT' : 'PUBLISH_FAILED', row: false }
    case 'ASYNC_ONLY':
      return { receipt: 'ASYNC_ONLY pending unconfirmed', row: true }
    case 'HYBRID_FAST':
      return confirms && !ordered
        ? { receipt: 'HYBRID_FAST delivered confirmed', row: false }
        : { receipt: `HYBRID_FAST pending ${word}`, row: true }
    case 'HYBRID_RELIABLE':
      return { receipt: `HYBRID_RELIABLE pending ${word}`, row: true }
  }
}

test('any sequence of configurations and publishes gives the receipts, errors and rows of the table', async () => {
  const config: fc.Arbitrary<PublishConfig> = fc.record(
    {
      strategy: fc.constantFrom('SYNC_ONLY', 'ASYNC_ONLY', 'HYBRID_FAST', 'HYBRID_RELIABLE'),
      scope: fc.constantFrom('INTRA_BC', 'INTER_BC', 'EXTERNAL'),
    },
    { requiredKeys: [] },
  )
  const kind = fc.constantFrom(...KINDS)
  const step = fc.oneof(
    fc.record({ do: fc.constant('event' as const), kind, config }),
    fc.record({ do: fc.constant('context' as const), config }),
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('publish' as const),
        kind,
        inUnit: fc.boolean(),
        call: fc.option(config, { nil: undefined }),
      }),
    },
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
      const fixture = setup(
        {
          good: { on: TYPES.good, run: okay },
          bad: { on: TYPES.bad, run: fails },
          slow: { on: TYPES.slow, run: hangs },
          mixed: { on: TYPES.mixed, run: okay },
          mixedLedger: { on: TYPES.mixed, run: fails, ordered: true },
          ledger: { on: TYPES.ordered, run: fails, ordered: true },
        },
        { events: Object.values(TYPES), breakers: { failureThreshold: 10_000 } },
      )
      const { bus } = fixture
      const events: Partial<Record<Kind, PublishConfig>> = {}
      let context: PublishConfig = {}
      let rowsExpected = 0
      const naive = (...rules: readonly (PublishConfig | undefined)[]): PublishStrategy | undefined => {
        const merged: PublishConfig = Object.assign({}, ...rules)
        const strategy = merged.strategy ?? ((merged.scope ?? 'INTRA_BC') === 'INTRA_BC' ? 'HYBRID_FAST' : 'ASYNC_ONLY')
        return strategy === 'HYBRID_FAST' && (merged.scope ?? 'INTRA_BC') !== 'INTRA_BC' ? undefined : strategy
      }
      const refusedAs = (run: () => void, refused: boolean): void =>
        refused ? assert.throws(run, (error) => isWaybillError(error, 'HYBRID_FAST_ACROSS_CONTEXTS')) : run()

      for (const current of steps) {
        if (current.do === 'event') {
          const refused = naive(context, current.config) === undefined
          refusedAs(() => bus.configureEvent(TYPES[current.kind], current.config), refused)
          if (!refused) events[current.kind] = current.config
        } else if (current.do === 'context') {
          const refused = naive(current.config) === undefined || KINDS.some((kind) => naive(current.config, events[kind]) === undefined)
          refusedAs(() => bus.configureBoundedContext('sales', current.config), refused)
          if (!refused) context = current.config
        } else {
          const event = TYPES[current.kind]({ id: 'x' })
          const publish = (): Promise<Receipt> => bus.publish(event, current.call)
          const strategy = naive(context, events[current.kind], current.call)
          const want =
            strategy === undefined
              ? { error: 'HYBRID_FAST_ACROSS_CONTEXTS' as const, row: false, receipt: undefined }
              : expected(strategy, current.kind, current.inUnit)
          const got = fixture.passing(current.inUnit ? fixture.unit(publish).then(({ receipts }) => receipts[0]!) : publish())
          if (want.error !== undefined) await rejectsWith(got, want.error)
          else {
            const receipt = await got
            assert.equal(brief(receipt), want.receipt)
            const decider = current.call?.strategy
              ? 'call'
              : events[current.kind]?.strategy
                ? 'event'
                : context.strategy
                  ? 'context'
                  : 'default'
            assert.deepEqual([receipt.decidedBy, receipt.eventId], [decider, event.id])
          }
          if (want.row) rowsExpected++
        }
        assert.deepEqual(await fixture.standing(), Array(rowsExpected).fill('due'))
      }
      assert.equal(bus.getMetrics().in_flight, 0)
    }),
    { numRuns: 150 },
  )
})
