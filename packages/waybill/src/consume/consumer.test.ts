import assert from 'node:assert/strict'
import { afterEach, suite, test } from 'node:test'
import * as z from 'zod'
import { memoryStorage } from '../adapters/memory/storage.ts'
import { memoryTransport, type MemoryTransportOptions } from '../adapters/memory/transport.ts'
import { jsonCodec } from '../codecs/json.ts'
import { setCrashpointHook } from '../core/crashpoint.ts'
import { envelopeOf } from '../core/envelope.ts'
import { WaybillError } from '../core/errors.ts'
import { defineEvent, type DomainEvent } from '../core/event.ts'
import type { Handler, RegisteredHandler } from '../core/handler.ts'
import { inboxOnce } from '../core/inbox.ts'
import { createRegistry } from '../core/registry.ts'
import { currentScope, runInScope } from '../core/scope.ts'
import type { DeadLetterStore, InboxStore } from '../core/stores.ts'
import type { Message, PublishOutcome, Subscriber } from '../core/transport.ts'
import type { RunUnit, UnitScope } from '../core/unit.ts'
import { createFakeClock } from '../testing/fake-clock.ts'
import { createRecorder } from '../testing/recorder.ts'
import { createConsumer, type ConsumerOptions } from './consumer.ts'

interface Order {
  readonly id: string
  readonly n: number
}
const Placed = defineEvent<Order>('order.OrderPlaced', {
  topic: 'order',
  key: ({ id }) => id,
  schema: z.object({ id: z.string(), n: z.number() }),
})
const Shipped = defineEvent<Order>('order.OrderShipped', { topic: 'order', key: ({ id }) => id })

const NAME = 'billing/invoice'
const RETRY = { attemptsMax: 3, baseMs: 100, maxMs: 1000 }
const forever = new AbortController().signal
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
const label = ({ key, payload }: DomainEvent<Order>): string => `${key}${payload.n}`

/** Waits, turn by turn, for what the code does by itself: no time passes. */
async function until(what: string, fact: () => boolean): Promise<void> {
  for (let turns = 0; turns < 2000; turns++) {
    if (fact()) return
    await turn()
  }
  assert.fail(`waited in vain until ${what}`)
}

interface World {
  readonly handle: Handler
  readonly batchMax?: number
  readonly types?: readonly string[]
  readonly transport?: MemoryTransportOptions
}

function createWorld({ handle, batchMax = 1, types = [Placed.type], transport: transportOptions = {} }: World) {
  const clock = createFakeClock()
  const transport = memoryTransport({ acknowledge: 'handled', clock, ...transportOptions })
  const storage = memoryStorage({ clock })
  const codec = jsonCodec()
  const recorder = createRecorder()
  const runUnit: RunUnit = async (fn) => {
    const result = await storage.database.transaction((sql) => fn({ sql, closed: false } as UnitScope))
    return { result, receipts: [] }
  }
  const handler: RegisteredHandler = {
    name: NAME,
    context: 'billing',
    eventTypes: new Set(types),
    topics: ['order'],
    ordered: false,
    batchMax,
    once: inboxOnce(storage.inbox, runUnit, NAME)(handle),
    plain: handle,
  }
  const messageOf = (event: DomainEvent, extra: Partial<Message> = {}): Message => {
    const { headers, body } = codec.encode(envelopeOf(event, 'test', 'sales')) as { headers: Record<string, string>; body: Uint8Array }
    return { id: event.id, topic: 'order', key: event.key, headers, body, ...extra }
  }
  const options: ConsumerOptions = {
    subscriber: transport,
    deadLetters: storage.deadLetters,
    inbox: storage.inbox,
    registry: createRegistry([{ name: 'sales', events: [Placed, Shipped] }]),
    codec,
    handler,
    retry: RETRY,
    timeoutMs: 60_000,
    clock,
    // The upper end of full jitter: every pause as long as it can be.
    random: () => 0.999_999,
    observe: recorder.observe,
  }
  return {
    clock,
    transport,
    storage,
    recorder,
    messageOf,
    options,
    async publish(...messages: readonly (Message | DomainEvent)[]): Promise<readonly PublishOutcome[]> {
      await transport.declareGroups([{ topic: 'order', group: NAME }])
      return transport.publish(
        messages.map((each) => ('eventType' in each ? messageOf(each) : each)),
        forever,
      )
    },
    start(changes: Partial<ConsumerOptions> = {}) {
      const stop = new AbortController()
      const finished = createConsumer({ ...options, ...changes }).run(stop.signal)
      return {
        finished,
        stop() {
          stop.abort()
          return finished
        },
      }
    },
    letters: async () =>
      (await storage.deadLetters.list({ handler: NAME })).map(({ message, reason, error, attempts }) => ({
        id: message.id,
        reason,
        error,
        attempts,
      })),
  }
}

const kinds = (outcomes: readonly PublishOutcome[]): string[] => outcomes.map(({ kind }) => kind)

afterEach(() => setCrashpointHook(undefined))

suite('order', () => {
  test('a key is handled in order, one at a time; other keys do not wait', async () => {
    const gate = Promise.withResolvers<void>()
    const log: string[] = []
    const world = createWorld({
      async handle({ events: [event] }) {
        if (label(event!) === 'a1') await gate.promise
        log.push(label(event!))
      },
    })
    const consumer = world.start()
    const published = world.publish(...[1, 2, 3].flatMap((n) => [Placed({ id: 'a', n }), Placed({ id: 'b', n })]))
    await until('b is through', () => log.length === 3)
    assert.deepEqual(log, ['b1', 'b2', 'b3'])
    gate.resolve()
    assert.deepEqual(kinds(await published), Array(6).fill('stored'))
    assert.deepEqual(log.slice(3), ['a1', 'a2', 'a3'])
    await consumer.stop()
  })

  test('keys that wait for a retry do not take up the concurrency', async () => {
    const log: string[] = []
    const world = createWorld({
      async handle({ events: [event] }) {
        if (event!.key.startsWith('bad')) throw new Error('not yet')
        log.push(label(event!))
      },
    })
    const consumer = world.start({ concurrency: 2 })
    void world.publish(...['bad1', 'bad2', 'bad3', 'good'].map((id) => Placed({ id, n: 1 })))
    await until('the good one is through', () => log.length === 1)
    assert.equal(world.recorder.ofType('delivery.failed').length, 3)
    await consumer.stop()
  })
})

suite('routing', () => {
  test('a type that the handler does not handle is acked without being decoded', async () => {
    const log: string[] = []
    const world = createWorld({ handle: async ({ events }) => void log.push(...events.map(label)) })
    let decoded = 0
    const codec = jsonCodec()
    const counting = { ...codec, decode: (encoded: Parameters<typeof codec.decode>[0]) => (decoded++, codec.decode(encoded)) }
    const consumer = world.start({ codec: counting })
    assert.deepEqual(kinds(await world.publish(Shipped({ id: 'a', n: 1 }), Placed({ id: 'a', n: 2 }))), ['stored', 'stored'])
    assert.deepEqual(log, ['a2'])
    assert.equal(decoded, 1)
    await consumer.stop()
  })

  for (const batchMax of [1, 10]) {
    test(`what is no envelope, or fails its schema, is parked as it came, and the group goes on (batches of ${batchMax})`, async () => {
      const log: string[] = []
      const world = createWorld({ batchMax, handle: async ({ events }) => void log.push(...events.map(label)) })
      const consumer = world.start()
      const garbage = { ...world.messageOf(Placed({ id: 'a', n: 1 })), body: Buffer.from([0xff, 0x00, 0x7b]) }
      const foreign: Message = { id: 'foreign', topic: 'order', key: 'b', headers: {}, body: Buffer.from('hello') }
      const wrong = world.messageOf(Placed({ id: 'c', n: 'one' as unknown as number }))
      assert.deepEqual(kinds(await world.publish(garbage, foreign, wrong, Placed({ id: 'd', n: 1 }))), Array(4).fill('stored'))
      assert.deepEqual(log, ['d1'])
      const letters = await world.storage.deadLetters.list({ handler: NAME })
      assert.deepEqual(new Set(letters.map(({ message }) => message.id)), new Set([garbage.id, 'foreign', wrong.id]))
      assert.ok(letters.every(({ reason, attempts }) => reason === 'undecodable' && attempts === 0))
      assert.deepEqual(letters.find(({ message }) => message.id === garbage.id)!.message.body, garbage.body)
      assert.match(letters.find(({ message }) => message.id === wrong.id)!.error!, /payload\.n/)
      await consumer.stop()
    })
  }

  test('a handler runs in the scope of its event: correlation, cause, trace and metadata, and nothing of who runs the consumer', async () => {
    const scopes: unknown[] = []
    const world = createWorld({ handle: async () => void scopes.push(currentScope()) })
    const event = Placed(
      { id: 'a', n: 1 },
      { correlationId: 'corr', metadata: { tenant: 't1' }, traceId: '0af7651916cd43dd8448eb211c80319c' },
    )
    const consumer = runInScope({ correlationId: 'of the caller', causationId: 'too' }, () => world.start())
    await world.publish(event)
    assert.deepEqual(scopes, [
      { correlationId: 'corr', causationId: event.id, traceId: '0af7651916cd43dd8448eb211c80319c', metadata: { tenant: 't1' } },
    ])
    await consumer.stop()
  })
})

suite('failures', () => {
  test('a failure is tried again in place, with pauses that grow, and its key waits for it', async () => {
    const log: string[] = []
    const world = createWorld({
      async handle({ events: [event], attempt }) {
        log.push(`${label(event!)} attempt ${attempt} at ${world.clock.now() - startMs}`)
        if (label(event!) === 'a1' && attempt < 3) throw new Error('not yet')
      },
    })
    const startMs = world.clock.now()
    const consumer = world.start()
    const published = world.publish(Placed({ id: 'a', n: 1 }), Placed({ id: 'a', n: 2 }))
    await until('the first attempt failed', () => log.length === 1)
    await world.clock.advance(100)
    await world.clock.advance(200)
    assert.deepEqual(kinds(await published), ['stored', 'stored'])
    assert.deepEqual(log, ['a1 attempt 1 at 0', 'a1 attempt 2 at 100', 'a1 attempt 3 at 300', 'a2 attempt 1 at 300'])
    assert.deepEqual(await world.letters(), [])
    await consumer.stop()
  })

  for (const batchMax of [1, 10]) {
    test(`what fails for good is parked with its followers, in order; other keys go on (batches of ${batchMax})`, async () => {
      const log: string[] = []
      const world = createWorld({
        batchMax,
        async handle({ events }) {
          if (events.some((event) => label(event) === 'a1')) throw new Error('never')
          log.push(...events.map(label))
        },
      })
      const consumer = world.start()
      const events = [Placed({ id: 'a', n: 1 }), Placed({ id: 'a', n: 2 }), Placed({ id: 'b', n: 1 }), Placed({ id: 'a', n: 3 })]
      const published = world.publish(...events)
      await until('b is through', () => log.length === 1)
      await world.clock.advance(100)
      await world.clock.advance(200)
      assert.deepEqual(kinds(await published), Array(4).fill('stored'))
      assert.deepEqual(log, ['b1'])
      assert.deepEqual(await world.letters(), [
        { id: events[0]!.id, reason: 'failed', error: 'never', attempts: 3 },
        { id: events[1]!.id, reason: 'follower', error: undefined, attempts: 0 },
        { id: events[3]!.id, reason: 'follower', error: undefined, attempts: 0 },
      ])
      await consumer.stop()
      // The next consumer reads from the store which keys are parked.
      const late = Placed({ id: 'a', n: 4 })
      const next = world.start()
      await world.publish(late)
      assert.equal((await world.letters()).at(-1)!.reason, 'follower')
      assert.deepEqual(log, ['b1'])
      await next.stop()
    })
  }

  test('without parkFollowers the key goes on behind what was parked', async () => {
    const log: string[] = []
    const world = createWorld({
      async handle({ events: [event] }) {
        if (event!.payload.n === 1) throw new Error('never')
        log.push(label(event!))
      },
    })
    const consumer = world.start({ parkFollowers: false, retry: { attemptsMax: 1 } })
    await world.publish(Placed({ id: 'a', n: 1 }), Placed({ id: 'a', n: 2 }))
    assert.deepEqual(log, ['a2'])
    assert.equal((await world.letters()).length, 1)
    await consumer.stop()
  })

  test('a handler may refuse a message with a reason, and a classifier may call a failure final: both park at the first attempt', async () => {
    const world = createWorld({
      async handle({ events: [event] }) {
        if (event!.key === 'a') throw new WaybillError('DEAD_LETTERED', 'the invoice is older than the company')
        throw new TypeError('no such column')
      },
    })
    const consumer = world.start({ retryWhen: (error) => !(error instanceof TypeError) })
    await world.publish(Placed({ id: 'a', n: 1 }), Placed({ id: 'b', n: 1 }))
    assert.deepEqual(
      (await world.letters()).map(({ reason, error, attempts }) => ({ reason, error, attempts })),
      [
        { reason: 'refused', error: 'the invoice is older than the company', attempts: 1 },
        { reason: 'failed', error: 'no such column', attempts: 1 },
      ],
    )
    await consumer.stop()
  })

  test('while the dead-letter store fails, the message stays unsettled; then it is parked and acked', async () => {
    const world = createWorld({ handle: () => Promise.reject(new Error('never')) })
    let down = true
    const { deadLetters } = world.storage
    const failing: DeadLetterStore = {
      ...deadLetters,
      park: (letters) => (down ? Promise.reject(new Error('disk full')) : deadLetters.park(letters)),
    }
    const consumer = world.start({ deadLetters: failing, retry: { attemptsMax: 1, baseMs: 100, maxMs: 100 } })
    let answered = false
    const published = world.publish(Placed({ id: 'a', n: 1 })).then((outcomes) => ((answered = true), outcomes))
    await until('parking failed', () => world.recorder.ofType('consumer.failed').length === 1)
    await world.clock.advance(500)
    assert.equal(world.recorder.ofType('consumer.failed').length, 6)
    assert.equal(answered, false)
    down = false
    await world.clock.advance(100)
    assert.deepEqual(kinds(await published), ['stored'])
    assert.equal((await world.letters()).length, 1)
    await consumer.stop()
  })

  for (const batchMax of [1, 10]) {
    test(`a database that is away spends no attempts (batches of ${batchMax})`, async () => {
      let down = true
      const log: string[] = []
      const world = createWorld({ batchMax, handle: async ({ events }) => void log.push(...events.map(label)) })
      const { handler } = world.options
      const once: Handler = (invocation) =>
        down ? Promise.reject(new WaybillError('DATABASE_UNREACHABLE', 'away')) : handler.once(invocation)
      const consumer = world.start({ handler: { ...handler, once } })
      const published = world.publish(Placed({ id: 'a', n: 1 }), Placed({ id: 'a', n: 2 }))
      await until('it failed', () => world.recorder.events.some(({ type }) => type === 'delivery.failed' || type === 'consumer.failed'))
      await world.clock.advance(60_000)
      down = false
      await world.clock.advance(1000)
      assert.deepEqual(kinds(await published), ['stored', 'stored'])
      assert.deepEqual(log, ['a1', 'a2'])
      assert.deepEqual(await world.letters(), [])
      await consumer.stop()
    })
  }

  test('a timeout aborts the signal and counts as a failed attempt; the next waits for the late run, whose result does not count', async () => {
    const log: string[] = []
    const gate = Promise.withResolvers<void>()
    const world = createWorld({
      async handle({ signal, attempt }) {
        log.push(`start ${attempt}`)
        signal.addEventListener('abort', () => log.push(`abort ${attempt}`))
        if (attempt === 1) await gate.promise
        log.push(`end ${attempt}`)
      },
    })
    const consumer = world.start({ timeoutMs: 1000 })
    const published = world.publish(Placed({ id: 'a', n: 1 }))
    await until('it is at work', () => log.length === 1)
    await world.clock.advance(1000)
    await world.clock.advance(500)
    assert.deepEqual(log, ['start 1', 'abort 1'], 'the pause is over, the late run is not')
    assert.equal((world.recorder.ofType('delivery.failed')[0]!.error as WaybillError).code, 'TIMEOUT')
    gate.resolve()
    assert.deepEqual(kinds(await published), ['stored'])
    // The late run's transaction was rolled back when its time was over, so the second attempt finds no record.
    assert.deepEqual(log, ['start 1', 'abort 1', 'end 1', 'start 2', 'end 2'])
    await consumer.stop()
  })

  test('a handler that hangs for ever is waited for no longer than one more timeout each time, and ends in the dead-letter store', async () => {
    const world = createWorld({ handle: async () => {} })
    const hanging: RegisteredHandler = { ...world.options.handler, once: () => new Promise(() => {}) }
    const consumer = world.start({ handler: hanging, timeoutMs: 1000 })
    const published = world.publish(Placed({ id: 'a', n: 1 }))
    await until('it is at work', () => world.clock.pending === 1)
    await world.clock.advance(5000)
    assert.deepEqual(kinds(await published), ['stored'])
    assert.deepEqual(
      (await world.letters()).map(({ reason, attempts }) => ({ reason, attempts })),
      [{ reason: 'failed', attempts: 3 }],
    )
    await consumer.stop()
  })
})

suite('crashes', () => {
  for (const batchMax of [1, 10]) {
    test(`a message that kills the process each time ends in the dead-letter store; its attempts were counted before (batches of ${batchMax})`, async () => {
      let calls = 0
      const world = createWorld({ batchMax, handle: async () => void calls++ })
      const event = Placed({ id: 'a', n: 1 })
      for (let crash = 0; crash < RETRY.attemptsMax; crash++)
        assert.equal(await world.storage.inbox.countAttempt(NAME, event.id), crash + 1)
      const consumer = world.start()
      await world.publish(world.messageOf(event, { resent: true }))
      assert.equal(calls, 0)
      const [letter] = await world.letters()
      assert.equal(letter!.reason, 'failed')
      assert.equal(letter!.attempts, RETRY.attemptsMax)
      await consumer.stop()
    })
  }

  test('an inbox that cannot count keeps the message waiting', async () => {
    const log: string[] = []
    const world = createWorld({ handle: async ({ events }) => void log.push(...events.map(label)) })
    let down = true
    const { inbox } = world.storage
    const failing: InboxStore = {
      ...inbox,
      countAttempt: (handler, id) => (down ? Promise.reject(new Error('away')) : inbox.countAttempt(handler, id)),
    }
    const consumer = world.start({ inbox: failing })
    const published = world.publish(world.messageOf(Placed({ id: 'a', n: 1 }), { resent: true }))
    await until('it failed to count', () => world.recorder.ofType('consumer.failed').length === 1)
    await world.clock.advance(10_000)
    assert.ok(world.recorder.ofType('consumer.failed').length > 5)
    assert.deepEqual(log, [])
    down = false
    await world.clock.advance(1000)
    assert.deepEqual(kinds(await published), ['stored'])
    assert.deepEqual(log, ['a1'])
    await consumer.stop()
  })

  for (const batchMax of [1, 10]) {
    test(`dying between the effect and the ack repeats the delivery and not the effect (batches of ${batchMax})`, async () => {
      const log: string[] = []
      const world = createWorld({ batchMax, handle: async ({ events }) => void log.push(...events.map(label)) })
      setCrashpointHook((point) => {
        if (point === 'consume.beforeAck') throw new Error('killed')
      })
      const first = world.start()
      const published = world.publish(Placed({ id: 'a', n: 1 }))
      await assert.rejects(first.finished, { message: 'killed' })
      setCrashpointHook(undefined)
      const second = world.start()
      assert.deepEqual(kinds(await published), ['stored'])
      assert.deepEqual(log, ['a1'])
      assert.equal(world.recorder.ofType('delivery.received').at(-1)!.redelivered, 'yes')
      await second.stop()
    })
  }

  test('dying before the message is parked leaves it with the transport', async () => {
    const world = createWorld({ handle: () => Promise.reject(new Error('never')) })
    setCrashpointHook((point) => {
      if (point === 'consume.beforePark') throw new Error('killed')
    })
    const stopping = new AbortController()
    const dying = createConsumer({ ...world.options, retry: { attemptsMax: 1 } }).run(stopping.signal)
    void world.publish(Placed({ id: 'a', n: 1 }))
    await until('it tried to park', () => world.recorder.ofType('consumer.failed').length > 0)
    assert.deepEqual(await world.letters(), [])
    setCrashpointHook(undefined)
    stopping.abort()
    await dying
    const second = world.start({ retry: { attemptsMax: 1 } })
    await until('it is parked', () => world.recorder.ofType('delivery.parked').length === 1)
    assert.equal((await world.letters()).length, 1)
    await second.stop()
  })

  test('when the assignment is lost, running handlers are told, and what is queued is neither handled nor settled', async () => {
    const log: string[] = []
    const gate = Promise.withResolvers<void>()
    let told = false
    const world = createWorld({
      async handle({ events: [event], signal }) {
        signal.addEventListener('abort', () => (told = true))
        log.push(label(event!))
        if (log.length === 1) await gate.promise
      },
    })
    // Every subscription can be cut from here, as a broker would.
    let cut = new AbortController()
    const subscriber: Subscriber = {
      subscribe: (source, signal) => world.transport.subscribe(source, AbortSignal.any([signal, cut.signal])),
    }
    const consumer = world.start({ subscriber, concurrency: 1 })
    const published = world.publish(Placed({ id: 'a', n: 1 }), Placed({ id: 'a', n: 2 }), Placed({ id: 'b', n: 1 }))
    await until('the first is at work', () => log.length === 1)
    const lost = cut
    cut = new AbortController()
    lost.abort()
    assert.equal(told, true)
    await world.clock.advance(100)
    gate.resolve()
    assert.deepEqual(kinds(await published), Array(3).fill('stored'))
    assert.deepEqual(log.toSorted(), ['a1', 'a1', 'a2', 'b1'], 'the first a1 was rolled back with the loss, so it is handled again')
    assert.equal(world.recorder.ofType('consumer.failed').length, 1)
    await consumer.stop()
  })
})

suite('flow', () => {
  test('what is no longer ours is not parked, whatever its handler says', async () => {
    const gate = Promise.withResolvers<void>()
    let calls = 0
    const world = createWorld({
      async handle() {
        if (++calls > 1) return
        await gate.promise
        throw new WaybillError('DEAD_LETTERED', 'from a former owner')
      },
    })
    let cut = new AbortController()
    const subscriber: Subscriber = {
      subscribe: (source, signal) => world.transport.subscribe(source, AbortSignal.any([signal, cut.signal])),
    }
    const consumer = world.start({ subscriber })
    const published = world.publish(Placed({ id: 'a', n: 1 }))
    await until('it is at work', () => calls === 1)
    const lost = cut
    cut = new AbortController()
    lost.abort()
    gate.resolve()
    await until('the subscription is missed', () => world.recorder.ofType('consumer.failed').length === 1)
    await world.clock.advance(100)
    assert.deepEqual(kinds(await published), ['stored'])
    assert.deepEqual(await world.letters(), [])
    assert.equal(calls, 2)
    await consumer.stop()
  })

  for (const batchMax of [1, 20]) {
    test(`a slow handler stops the pulling: no more than queueMax messages and one array are in hand (batches of ${batchMax})`, async () => {
      const gate = Promise.withResolvers<void>()
      let handled = 0
      const world = createWorld({
        batchMax,
        async handle({ events }) {
          await gate.promise
          handled += events.length
        },
      })
      let pulled = 0
      const subscriber: Subscriber = {
        async *subscribe(source, signal) {
          for await (const deliveries of world.transport.subscribe(source, signal)) {
            pulled += deliveries.length
            yield deliveries
          }
        },
      }
      const consumer = world.start({ subscriber, queueMax: 50 })
      const published = world.publish(...Array.from({ length: 1000 }, (_, n) => Placed({ id: `k${n % 100}`, n })))
      for (let turns = 0; turns < 100; turns++) await turn()
      assert.ok(pulled > 0 && pulled <= 100, `${pulled} in hand`)
      gate.resolve()
      await published
      assert.equal(handled, 1000)
      await consumer.stop()
    })
  }

  for (const batchMax of [1, 2]) {
    test(`a stop lets what runs end, and gives the rest back in order (batches of ${batchMax})`, async () => {
      const log: string[] = []
      const gate = Promise.withResolvers<void>()
      const world = createWorld({
        batchMax,
        async handle({ events }) {
          await gate.promise
          log.push(...events.map(label))
        },
      })
      const first = world.start({ concurrency: 1 })
      const published = world.publish(...[1, 2, 3, 4].map((n) => Placed({ id: 'a', n })))
      await until('all are in hand', () => world.recorder.ofType('delivery.received').length === 4)
      const stopped = first.stop()
      await turn()
      gate.resolve()
      await stopped
      assert.deepEqual(log, ['a1', 'a2'].slice(0, batchMax))
      const second = world.start()
      assert.deepEqual(kinds(await published), Array(4).fill('stored'))
      assert.deepEqual(log, ['a1', 'a2', 'a3', 'a4'])
      await second.stop()
    })
  }

  test('a stop does not wait longer than shutdownMs, and then tells the handler', async () => {
    let told = false
    const world = createWorld({
      handle: ({ signal }) =>
        new Promise(() => {
          signal.addEventListener('abort', () => (told = true))
        }),
    })
    const consumer = world.start({ shutdownMs: 5000 })
    void world.publish(Placed({ id: 'a', n: 1 }))
    await until('it is at work', () => world.recorder.ofType('delivery.received').length === 1)
    const stopped = consumer.stop()
    await world.clock.advance(4999)
    assert.equal(told, false)
    await world.clock.advance(1)
    await stopped
    assert.equal(told, true)
  })

  test('a transport that fails is told of, and subscribed to again with growing pauses', async () => {
    const log: string[] = []
    const world = createWorld({ handle: async ({ events }) => void log.push(...events.map(label)) })
    let failures = 3
    const subscriber: Subscriber = {
      subscribe(source, signal) {
        if (failures-- > 0) throw new WaybillError('TRANSPORT_UNAVAILABLE', 'away')
        return world.transport.subscribe(source, signal)
      },
    }
    const consumer = world.start({ subscriber })
    const published = world.publish(Placed({ id: 'a', n: 1 }))
    await until('it failed', () => world.clock.pending === 1)
    await world.clock.advance(100 + 200)
    assert.deepEqual(log, [])
    assert.equal(world.recorder.ofType('consumer.failed').length, 3)
    await world.clock.advance(400)
    assert.deepEqual(kinds(await published), ['stored'])
    await consumer.stop()
  })

  test('a stop before the start, or in the middle of a pause, ends at once', async () => {
    const world = createWorld({ handle: async () => {} })
    await createConsumer(world.options).run(AbortSignal.abort())
    const consumer = world.start({
      subscriber: {
        subscribe: () => {
          throw new Error('away')
        },
      },
    })
    await until('it waits', () => world.clock.pending > 0)
    await consumer.stop()
  })

  test('options out of range are refused', () => {
    const { options } = createWorld({ handle: async () => {} })
    for (const wrong of [
      { concurrency: 0 },
      { queueMax: Number.NaN },
      { timeoutMs: -1 },
      { shutdownMs: 0.5 },
      { retry: { attemptsMax: 0 } },
    ]) {
      assert.throws(() => createConsumer({ ...options, ...wrong }), { code: 'INVALID_OPTION' })
    }
  })
})

suite('batches', () => {
  test('a message that must go alone does not pass those of its key that are in the batch before it', async () => {
    const gate = Promise.withResolvers<void>()
    const log: string[] = []
    const world = createWorld({
      batchMax: 100,
      async handle({ events }) {
        await gate.promise
        log.push(...events.map(label))
      },
    })
    const consumer = world.start()
    const garbage = { ...world.messageOf(Placed({ id: 'a', n: 2 })), body: Buffer.from('{') }
    const published = world.publish(Placed({ id: 'a', n: 1 }), Placed({ id: 'b', n: 1 }), garbage, Placed({ id: 'a', n: 3 }))
    await until('all are in hand', () => world.recorder.ofType('delivery.received').length === 4)
    for (let turns = 0; turns < 10; turns++) await turn()
    assert.deepEqual(await world.letters(), [], 'the first of its key is still at work')
    gate.resolve()
    await published
    assert.deepEqual(log, ['a1', 'b1'])
    assert.deepEqual(
      (await world.letters()).map(({ reason }) => reason),
      ['undecodable', 'follower'],
    )
    await consumer.stop()
  })

  test('what gathers while a batch is at work is the next one', async () => {
    const sizes: number[] = []
    const gate = Promise.withResolvers<void>()
    const world = createWorld({
      batchMax: 100,
      async handle({ events }) {
        sizes.push(events.length)
        if (sizes.length === 1) await gate.promise
      },
    })
    const consumer = world.start()
    const first = world.publish(Placed({ id: 'a', n: 1 }))
    await until('the first is at work', () => sizes.length === 1)
    const others = world.publish(...Array.from({ length: 150 }, (_, n) => Placed({ id: `k${n % 7}`, n })))
    await until('they are in hand', () => world.recorder.ofType('delivery.received').length === 151)
    gate.resolve()
    await Promise.all([first, others])
    assert.deepEqual(sizes, [1, 100, 50])
    await consumer.stop()
  })

  test('one poison in a batch spends nobody else an attempt: the batch is taken apart, the others pass at their first', async () => {
    const attempts: string[] = []
    const done: string[] = []
    const world = createWorld({
      batchMax: 100,
      async handle({ events, attempt }) {
        if (events.length === 1) attempts.push(`${label(events[0]!)}:${attempt}`)
        if (events.some(({ key }) => key === 'poison')) throw new Error('never')
        done.push(...events.map(label))
      },
    })
    const consumer = world.start()
    const published = world.publish(...[1, 2].flatMap((n) => ['a', 'poison', 'b'].map((id) => Placed({ id, n }))))
    await until('the others are through', () => done.length === 4)
    await world.clock.advance(300)
    await published
    assert.deepEqual(attempts.filter((each) => !each.startsWith('poison')).toSorted(), ['a1:1', 'a2:1', 'b1:1', 'b2:1'])
    assert.deepEqual(
      attempts.filter((each) => each.startsWith('poison')),
      ['poison1:1', 'poison1:2', 'poison1:3'],
    )
    assert.deepEqual(
      (await world.letters()).map(({ reason }) => reason),
      ['failed', 'follower'],
    )
    await consumer.stop()
  })
})
