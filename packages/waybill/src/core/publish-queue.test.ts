import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { suite, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { WaybillError, isWaybillError } from './errors.ts'
import { createPublishQueue, type PublishQueue, type PublishQueueOptions } from './publish-queue.ts'
import type { Message, PublishOutcome } from './transport.ts'

const forever = new AbortController().signal
const STORED: PublishOutcome = { kind: 'stored' }
const refusedByBroker: PublishOutcome = { kind: 'rejected', error: new WaybillError('MESSAGE_REJECTED', 'the broker does not want it') }

let made = 0

function message(key: string, bytes = 1, extra: Partial<Message> = {}): Message {
  return { id: `id-${++made}`, topic: 'orders', key, headers: {}, body: new Uint8Array(bytes), ...extra }
}

const kinds = (outcomes: readonly PublishOutcome[]): string[] => outcomes.map((one) => (one.kind === 'stored' ? 'stored' : one.error.code))
const keys = (messages: readonly Message[]): string[] => messages.map(({ key }) => key)

/** A batch at the broker, which answers when the test says so. */
interface Batch {
  readonly messages: readonly Message[]
  answer(outcomes?: readonly PublishOutcome[]): Promise<void>
  fail(error: unknown): Promise<void>
}

function start(options: Partial<PublishQueueOptions> = {}): {
  queue: PublishQueue
  batches: Batch[]
  publish(...messages: Message[]): Promise<string[]>
} {
  const batches: Batch[] = []
  const queue = createPublishQueue({
    where: 'test transport',
    messageMaxBytes: 100,
    keysTogether: false,
    batchMax: 10,
    batchMaxBytes: 1000,
    inFlightMax: 4,
    idleKeysMax: 0,
    send(messages) {
      const { promise, resolve, reject } = Promise.withResolvers<readonly PublishOutcome[]>()
      batches.push({
        messages,
        async answer(outcomes = messages.map(() => STORED)) {
          resolve(outcomes)
          await turn()
        },
        async fail(error) {
          reject(error instanceof Error ? error : new Error(String(error)))
          await turn()
        },
      })
      return promise
    },
    ...options,
  })
  return { queue, batches, publish: async (...messages) => kinds(await queue.publish(messages, forever)) }
}

suite('batches', () => {
  test('what is asked for within one turn goes together, and each caller hears of its own messages by index', async () => {
    const { batches, publish } = start()
    const first = publish(message('a'), message('b'))
    const second = publish(message('c'))
    await turn()
    assert.deepEqual(
      batches.map((batch) => keys(batch.messages)),
      [['a', 'b', 'c']],
    )
    await batches[0]!.answer([STORED, refusedByBroker, STORED])
    assert.deepEqual(await first, ['stored', 'MESSAGE_REJECTED'])
    assert.deepEqual(await second, ['stored'])
  })

  test('a call without messages is done at once', async () => {
    const { batches, queue } = start()
    assert.deepEqual(await queue.publish([], forever), [])
    assert.equal(batches.length, 0)
  })

  test('at most `inFlightMax` batches are on their way; what comes meanwhile goes together in the next one', async () => {
    const { batches, publish } = start({ inFlightMax: 1 })
    const calls = [publish(message('a'))]
    await turn()
    calls.push(publish(message('b')), publish(message('c')))
    await turn()
    calls.push(publish(message('d')))
    await turn()
    assert.equal(batches.length, 1)
    await batches[0]!.answer()
    assert.deepEqual(
      batches.map((batch) => keys(batch.messages)),
      [['a'], ['b', 'c', 'd']],
    )
    await batches[1]!.answer()
    assert.deepEqual((await Promise.all(calls)).flat(), ['stored', 'stored', 'stored', 'stored'])
  })

  test('a batch holds at most `batchMax` messages and `batchMaxBytes` bytes, but always one message', async () => {
    const { batches, publish } = start({ batchMax: 3, batchMaxBytes: 50 })
    const sizes = [60, 20, 30, 1, 1, 1, 1]
    void publish(...sizes.map((bytes, index) => message(`k${index}`, bytes)))
    await turn()
    assert.deepEqual(
      batches.map(({ messages }) => messages.map(({ body }) => body.byteLength)),
      [[60], [20, 30], [1, 1, 1], [1]],
    )
  })

  test('messages of one key go one batch after the other, and other keys do not wait for them', async () => {
    const { batches, publish } = start()
    const first = message('a')
    const second = message('a')
    void publish(first, message('b'), second)
    await turn()
    assert.deepEqual(
      batches.map((batch) => keys(batch.messages)),
      [['a', 'b']],
    )
    void publish(message('c'))
    await turn()
    assert.deepEqual(keys(batches[1]!.messages), ['c'])
    await batches[0]!.answer()
    assert.deepEqual(batches[2]!.messages, [second])
  })

  test('the same key in another topic is another key', async () => {
    const { batches, publish } = start()
    void publish(message('a'), message('a', 1, { topic: 'invoices' }))
    await turn()
    assert.equal(batches[0]!.messages.length, 2)
  })

  test('with `keysTogether` one batch holds several messages of a key, and still no two batches do', async () => {
    const { batches, publish } = start({ keysTogether: true, batchMax: 3 })
    void publish(...Array.from({ length: 5 }, () => message('a')), message('b'))
    await turn()
    assert.deepEqual(
      batches.map((batch) => keys(batch.messages)),
      [['a', 'a', 'a'], ['b']],
    )
    await batches[0]!.answer()
    assert.deepEqual(keys(batches[2]!.messages), ['a', 'a'])
  })

  test('a key keeps its order when its turn comes back while more of it is waiting', async () => {
    const { batches, publish } = start({ batchMax: 1, inFlightMax: 2 })
    const [one, two, three] = [message('a'), message('a'), message('a')]
    void publish(one)
    await turn()
    void publish(two)
    void publish(message('b'))
    await turn()
    void publish(three)
    await turn()
    await batches[0]!.answer()
    await batches[1]!.answer()
    assert.deepEqual(batches[2]!.messages, [two])
    await batches[2]!.answer()
    assert.deepEqual(batches[3]!.messages, [three])
  })

  test('ten thousand messages of one key pass one by one, in time that does not grow with their square', async () => {
    const seen: string[] = []
    const { publish } = start({
      async send(messages) {
        seen.push(...messages.map(({ id }) => id))
        return messages.map(() => STORED)
      },
    })
    const many = Array.from({ length: 10_000 }, () => message('a'))
    assert.deepEqual(new Set(await publish(...many)), new Set(['stored']))
    assert.deepEqual(
      seen,
      many.map(({ id }) => id),
    )
  })

  test('more keys than are remembered while they are idle keep their order, and no batch has a key that is on its way', async () => {
    const seen = new Map<string, string[]>()
    const underway = new Set<string>()
    const { publish } = start({
      idleKeysMax: 100,
      async send(messages) {
        for (const { key, id } of messages) {
          assert.ok(!underway.has(key))
          underway.add(key)
          seen.set(key, [...(seen.get(key) ?? []), id])
        }
        await turn()
        for (const { key } of messages) underway.delete(key)
        return messages.map(() => STORED)
      },
    })
    const keysMany = Array.from({ length: 300 }, (_, index) => `k${index}`)
    const rounds = Array.from({ length: 3 }, () => keysMany.map((key) => message(key)))
    for (const round of rounds) await publish(...round)
    const [again, last] = [keysMany.map((key) => message(key)), keysMany.map((key) => message(key))]
    await Promise.all([publish(...again), publish(...last)])
    for (const [index, key] of keysMany.entries())
      assert.deepEqual(
        seen.get(key),
        [...rounds, again, last].map((round) => round[index]!.id),
      )
  })
})

suite('a message that is not stored', () => {
  test('is not held any more once its caller has heard, though its key is remembered', async () => {
    if (globalThis.gc === undefined) (await import('node:v8')).setFlagsFromString('--expose-gc')
    globalThis.gc ??= (await import('node:vm')).runInNewContext('gc') as NodeJS.GCFunction
    const { queue } = start({
      idleKeysMax: 10,
      keysTogether: true,
      batchMax: 2,
      send: async (messages) => messages.map(() => refusedByBroker),
    })
    const publish = async (): Promise<readonly WeakRef<Message>[]> => {
      const three = [message('a'), message('a'), message('a')]
      assert.deepEqual(kinds(await queue.publish(three, forever)), ['MESSAGE_REJECTED', 'MESSAGE_REJECTED', 'PUBLISH_FAILED'])
      return three.map((each) => new WeakRef(each))
    }
    const held = await publish()
    // A reference that was looked at stays until the turn is over.
    await turn()
    await turn()
    globalThis.gc()
    assert.deepEqual(
      held.map((each) => each.deref()),
      [undefined, undefined, undefined],
    )
    await queue.close(forever)
  })

  test('takes those of its key with it that the same call has behind it', async () => {
    const { batches, publish } = start()
    const call = publish(message('a'), message('a'), message('a', 101), message('a'), message('b'))
    await turn()
    await batches[0]!.answer([refusedByBroker, STORED])
    assert.deepEqual(await call, ['MESSAGE_REJECTED', 'PUBLISH_FAILED', 'PAYLOAD_TOO_LARGE', 'PUBLISH_FAILED', 'stored'])
    assert.equal(batches.length, 1)
  })

  test('takes those with it that others put behind it, also where no place was free for them yet', async () => {
    for (const inFlightMax of [1, 2]) {
      const { batches, publish } = start({ inFlightMax })
      const first = publish(message('a'))
      await turn()
      const second = publish(message('a'), message('b'))
      await turn()
      await batches[0]!.fail(new Error('connection reset'))
      assert.deepEqual(await first, ['UNKNOWN_OUTCOME'])
      await batches[1]!.answer()
      assert.deepEqual(await second, ['PUBLISH_FAILED', 'stored'])
    }
  })

  test('stops its key until its caller has heard, and no longer', async () => {
    const { batches, publish } = start()
    const call = publish(message('a'), message('b'), message('b'))
    await turn()
    await batches[0]!.answer([refusedByBroker, STORED])
    assert.deepEqual(await publish(message('a')), ['PUBLISH_FAILED'], 'its caller still waits for b')
    await batches[1]!.answer()
    assert.deepEqual(await call, ['MESSAGE_REJECTED', 'stored', 'stored'])
    const again = publish(message('a'))
    await turn()
    await batches[2]!.answer()
    assert.deepEqual(await again, ['stored'])
  })

  test('does not stop what its caller asks for in the very turn in which it hears of it', async () => {
    const { batches, queue } = start()
    const again = queue.publish([message('a')], forever).then(() => queue.publish([message('a')], forever))
    const atTheDoor = queue.publish([message('b', 101)], forever).then(() => queue.publish([message('b')], forever))
    await turn()
    await batches[0]!.answer([refusedByBroker])
    for (const batch of batches.slice(1)) await batch.answer()
    assert.deepEqual([kinds(await again), kinds(await atTheDoor)], [['stored'], ['stored']])
  })

  test('stops its key for what is asked for in the same turn, where it is refused at the door', async () => {
    const { batches, publish } = start()
    const refused = publish(message('a', 101))
    const behind = publish(message('a'))
    assert.deepEqual([await refused, await behind], [['PAYLOAD_TOO_LARGE'], ['PUBLISH_FAILED']])
    assert.equal(batches.length, 0)
  })

  test('what `send` rejects with is unknown for all of the batch; its own UNKNOWN_OUTCOME is passed on', async () => {
    const { batches, queue } = start()
    const own = new WaybillError('UNKNOWN_OUTCOME', 'cut off')
    const cause = new Error('connection reset')
    for (const [index, thrown] of [cause, own].entries()) {
      const call = queue.publish([message('a'), message('b')], forever)
      await turn()
      await batches[index]!.fail(thrown)
      for (const outcome of await call) {
        assert.ok(outcome.kind === 'unknown' && outcome.error.code === 'UNKNOWN_OUTCOME')
        if (thrown === own) assert.equal(outcome.error, own)
        else assert.equal(outcome.error.cause, cause)
      }
    }
  })

  test('a `send` that throws instead of rejecting, and one that leaves messages out, are unknown too', async () => {
    const throwing = start({
      send() {
        throw new Error('a bug')
      },
    })
    assert.deepEqual(await throwing.publish(message('a')), ['UNKNOWN_OUTCOME'])
    const short = start({ send: async () => [STORED] })
    assert.deepEqual(await short.publish(message('a'), message('b')), ['stored', 'UNKNOWN_OUTCOME'])
  })
})

suite('at the door', () => {
  test('what no broker could carry is refused with its error and holds nothing else up', async () => {
    const { batches, queue } = start()
    const messages = [
      message('a', 1, { topic: 'not a topic' }),
      message('', 1),
      message('c', 1, { headers: { 'a b': 'c' } }),
      undefined as unknown as Message,
      { id: 'x', topic: 'orders', key: 'd', headers: {} } as unknown as Message,
      message('e', 101),
      message('f', 100),
    ]
    const call = queue.publish(messages, forever)
    await turn()
    assert.deepEqual(keys(batches[0]!.messages), ['f'])
    await batches[0]!.answer()
    assert.deepEqual(kinds(await call), [
      'INVALID_NAME',
      'INVALID_KEY',
      'INVALID_HEADER',
      'MESSAGE_REJECTED',
      'MESSAGE_REJECTED',
      'PAYLOAD_TOO_LARGE',
      'stored',
    ])
  })

  test('a message with bad headers stops its key like any other', async () => {
    const { publish } = start()
    assert.deepEqual(await publish(message('a', 1, { headers: { x: '\u0000' } }), message('a')), ['INVALID_HEADER', 'PUBLISH_FAILED'])
  })

  test('more than `queueMax` messages or `queueMaxBytes` bytes are refused with QUEUE_FULL until something was sent', async () => {
    const { batches, publish } = start({ queueMax: 3, queueMaxBytes: 60, inFlightMax: 1 })
    const first = publish(message('a'), message('b'), message('c'), message('d'), message('d'))
    await turn()
    const second = publish(message('e', 60), message('f'))
    const third = publish(message('g'))
    await batches[0]!.answer()
    assert.deepEqual(await first, ['stored', 'stored', 'stored', 'QUEUE_FULL', 'PUBLISH_FAILED'])
    const fourth = publish(message('h', 61), message('i', 60))
    await batches[1]!.answer()
    await batches[2]!.answer()
    assert.deepEqual([await second, await third, await fourth], [['stored', 'QUEUE_FULL'], ['QUEUE_FULL'], ['QUEUE_FULL', 'stored']])
  })

  test('many calls under one signal leave no listeners behind', async () => {
    const stop = new AbortController()
    const { queue } = start({ send: async (messages) => messages.map(() => STORED) })
    await Promise.all(Array.from({ length: 500 }, (_, index) => queue.publish([message(`k${index}`)], stop.signal)))
    assert.equal(getEventListeners(stop.signal, 'abort').length, 0)
  })
})

suite('an abort', () => {
  test('before the call sends nothing, and refuses with TRANSPORT_UNAVAILABLE', async () => {
    const { batches, queue } = start()
    assert.deepEqual(kinds(await queue.publish([message('a')], AbortSignal.abort())), ['TRANSPORT_UNAVAILABLE'])
    await turn()
    assert.equal(batches.length, 0)
  })

  test('makes what was sent unknown, and what was not rejected, at once', async () => {
    const { batches, queue, publish } = start()
    const stop = new AbortController()
    const call = queue.publish([message('a'), message('a')], stop.signal)
    await turn()
    stop.abort()
    const outcomes = await call
    assert.deepEqual(
      outcomes.map(({ kind }) => kind),
      ['unknown', 'rejected'],
    )
    assert.deepEqual(kinds(outcomes), ['UNKNOWN_OUTCOME', 'TRANSPORT_UNAVAILABLE'])
    await batches[0]!.answer()
    assert.equal(batches.length, 1)
    const next = publish(message('a'))
    await turn()
    await batches[1]!.answer()
    assert.deepEqual(await next, ['stored'])
  })

  test('ends all calls that share its signal, and none that were answered before', async () => {
    const { batches, queue } = start()
    const stop = new AbortController()
    const answered = queue.publish([message('a')], stop.signal)
    await turn()
    await batches[0]!.answer()
    const open = [queue.publish([message('b')], stop.signal), queue.publish([message('c'), message('c')], stop.signal)]
    await turn()
    const before = queue.publish([message('d')], stop.signal)
    await turn()
    await batches[2]!.answer()
    stop.abort()
    assert.deepEqual([kinds(await answered), kinds(await before)], [['stored'], ['stored']])
    assert.deepEqual((await Promise.all(open)).map(kinds), [['UNKNOWN_OUTCOME'], ['UNKNOWN_OUTCOME', 'TRANSPORT_UNAVAILABLE']])
    assert.equal(getEventListeners(stop.signal, 'abort').length, 0)
  })

  test('takes with it what others had put behind what was not sent', async () => {
    const { batches, queue, publish } = start({ inFlightMax: 1 })
    const before = publish(message('x'))
    await turn()
    const stop = new AbortController()
    const call = queue.publish([message('a'), message('b')], stop.signal)
    const behind = publish(message('a'), message('c'))
    stop.abort()
    assert.deepEqual(kinds(await call), ['TRANSPORT_UNAVAILABLE', 'TRANSPORT_UNAVAILABLE'])
    const later = publish(message('a'), message('b'))
    await batches[0]!.answer()
    assert.deepEqual(keys(batches[1]!.messages).toSorted(), ['b', 'c'])
    await batches[1]!.answer()
    assert.deepEqual([await before, await behind], [['stored'], ['PUBLISH_FAILED', 'stored']])
    assert.deepEqual(await later, ['PUBLISH_FAILED', 'stored'], 'who put it behind had not heard yet')
  })

  test('of a call leaves the answer to decide about what waits behind it', async () => {
    for (const outcome of [STORED, refusedByBroker]) {
      const { batches, queue, publish } = start()
      const stop = new AbortController()
      const call = queue.publish([message('a')], stop.signal)
      await turn()
      const behind = publish(message('a'))
      stop.abort()
      assert.deepEqual(kinds(await call), ['UNKNOWN_OUTCOME'])
      await batches[0]!.answer([outcome])
      await batches[1]?.answer()
      assert.deepEqual(await behind, [outcome.kind === 'stored' ? 'stored' : 'PUBLISH_FAILED'])
    }
  })
})

suite('close', () => {
  test('refuses what waits and what comes with CLOSED, and waits for what is on its way', async () => {
    const { batches, queue, publish } = start({ inFlightMax: 1 })
    const sent = publish(message('a'), message('a'))
    const waits = publish(message('b'))
    await turn()
    const late = publish(message('c'))
    let over = false
    const closing = queue.close(forever).then(() => (over = true))
    assert.deepEqual(await late, ['CLOSED'])
    await assert.rejects(publish(message('d')), { code: 'CLOSED' })
    await turn()
    assert.equal(over, false)
    await batches[0]!.answer()
    await closing
    assert.deepEqual(await sent, ['stored', 'CLOSED'])
    assert.deepEqual(await waits, ['stored'])
    assert.equal(batches.length, 1)
  })

  test('ends at its signal, also one that came before: what is on its way becomes unknown, and a late answer changes nothing', async () => {
    for (const before of [true, false]) {
      const { batches, queue, publish } = start()
      const sent = publish(message('a'))
      await turn()
      const stop = new AbortController()
      if (before) stop.abort()
      const closing = queue.close(stop.signal)
      stop.abort()
      await closing
      assert.deepEqual(await sent, ['UNKNOWN_OUTCOME'])
      await batches[0]!.answer()
    }
  })

  test('asked for twice, ends both times', async () => {
    const { batches, queue, publish } = start()
    void publish(message('a'))
    await turn()
    const both = Promise.all([queue.close(forever), queue.close(forever)])
    await batches[0]!.answer()
    await both
    await queue.close(forever)
  })
})

/** What the judge knows of one message. Times are steps of a logical clock. */
interface Fate {
  readonly number: number
  readonly key: string
  readonly askedAt: number
  call: Asked
  batch?: Sent
  /** Whether the broker has it: undefined until it has answered. */
  stored?: boolean
}

interface Asked {
  readonly fates: readonly Fate[]
  readonly abort: AbortController
  outcomes?: readonly PublishOutcome[]
  heardAt: number
  cut: boolean
}

interface Sent {
  readonly fates: readonly Fate[]
  readonly answer: (outcomes: readonly PublishOutcome[] | Error) => void
  over: boolean
}

const LIMITS = { messageMaxBytes: 40, batchMax: 3, batchMaxBytes: 50, inFlightMax: 2, queueMax: 8, queueMaxBytes: 120, idleKeysMax: 0 }

/** A broker and callers that write down all that happens, and say at once what must not. */
function createJudge(keysTogether: boolean) {
  let time = 0
  const fates = new Map<Message, Fate>()
  const calls: Asked[] = []
  const sent: Sent[] = []
  const lastSent = new Map<string, number>()
  const onTheirWay = (): Sent[] => sent.filter((batch) => !batch.over)

  /** What the queue would take for a failing broker. */
  const violations: unknown[] = []
  const queue = createPublishQueue({
    where: 'test',
    ...LIMITS,
    keysTogether,
    send(messages) {
      try {
        return send(messages)
      } catch (error) {
        violations.push(error)
        throw error
      }
    },
  })

  function send(messages: readonly Message[]): Promise<readonly PublishOutcome[]> {
    const { promise, resolve, reject } = Promise.withResolvers<readonly PublishOutcome[]>()
    const batch: Sent = {
      fates: messages.map((each) => fates.get(each)!),
      over: false,
      answer: (outcomes) => (outcomes instanceof Error ? reject(outcomes) : resolve(outcomes)),
    }
    const busy = new Set(onTheirWay().flatMap((other) => other.fates.map(({ key }) => key)))
    assert.ok(
      batch.fates.every(({ key }) => !busy.has(key)),
      'a key in two batches at once',
    )
    assert.ok(keysTogether || new Set(keys(messages)).size === messages.length, 'a key twice in a batch')
    assert.ok(messages.length > 0 && messages.length <= LIMITS.batchMax, 'messages in a batch')
    assert.ok(
      messages.length === 1 || messages.reduce((sum, { body }) => sum + body.byteLength, 0) <= LIMITS.batchMaxBytes,
      'bytes in a batch',
    )
    assert.ok(onTheirWay().length < LIMITS.inFlightMax, 'batches on their way')
    sent.push(batch)
    for (const fate of batch.fates) {
      assert.equal(fate.batch, undefined, 'sent twice')
      assert.ok(fate.number > (lastSent.get(fate.key) ?? -1), 'order within a key')
      assert.ok(!fate.call.cut, 'sent after its call was aborted')
      lastSent.set(fate.key, fate.number)
      fate.batch = batch
    }
    return promise
  }

  function ask(messages: readonly Message[], aborted = false): Asked {
    const call: Asked = { fates: [], abort: new AbortController(), heardAt: Infinity, cut: aborted }
    if (aborted) call.abort.abort()
    for (const each of messages) {
      const fate: Fate = { number: fates.size, key: each.key, askedAt: ++time, call }
      fates.set(each, fate)
      ;(call.fates as Fate[]).push(fate)
    }
    calls.push(call)
    void queue.publish(messages, call.abort.signal).then((outcomes) => {
      call.outcomes = outcomes
      call.heardAt = ++time
    })
    return call
  }

  /** `pattern` says of each message whether the broker has stored it; a broker that takes a key's messages together stops at the first it does not. */
  function answer(which: number, how: 'outcomes' | 'error' | 'short', pattern: number): void {
    const waiting = onTheirWay()
    const batch = waiting[which % Math.max(waiting.length, 1)]
    if (batch === undefined) return
    batch.over = true
    time++
    const failedKeys = new Set<string>()
    for (const [index, fate] of batch.fates.entries()) {
      fate.stored = how === 'outcomes' && ((pattern >> index) & 1) === 0 && !failedKeys.has(fate.key)
      if (!fate.stored) failedKeys.add(fate.key)
    }
    if (how === 'error') batch.answer(new Error('connection reset'))
    else if (how === 'short') batch.answer([])
    else batch.answer(batch.fates.map(({ stored }) => (stored === true ? STORED : refusedByBroker)))
  }

  function abort(which: number): void {
    const open = calls.filter(({ outcomes }) => outcomes === undefined)
    const call = open[which % Math.max(open.length, 1)]
    if (call === undefined) return
    time++
    call.cut = true
    call.abort.abort()
  }

  /** Each call has heard once of each message, and nothing was said that is not so. */
  function assertOutcomes(): void {
    if (violations.length > 0) throw violations[0]
    for (const call of calls) {
      assert.ok(call.outcomes !== undefined, 'a call without an answer')
      assert.equal(call.outcomes.length, call.fates.length)
      for (const [index, fate] of call.fates.entries()) {
        const outcome = call.outcomes[index]
        assert.ok(outcome !== undefined, 'a message without an answer')
        if (outcome.kind === 'stored') assert.equal(fate.stored, true, 'stored, and it is not')
        else if (outcome.kind === 'unknown') assert.ok(fate.batch !== undefined, 'unknown, and never sent')
        else
          assert.ok(
            fate.batch === undefined || (fate.stored === false && outcome.error.code === 'MESSAGE_REJECTED'),
            'rejected, and it was sent',
          )
      }
    }
  }

  /** No message was sent after an earlier one of its key that was not stored, unless it was asked for after that one's caller had heard. */
  function assertStops(): void {
    const all = [...fates.values()]
    for (const later of all.filter(({ batch }) => batch !== undefined)) {
      for (const earlier of all) {
        if (earlier.key !== later.key || earlier.number >= later.number || earlier.stored === true) continue
        const together = earlier.batch !== undefined && earlier.batch === later.batch
        assert.ok(together || later.askedAt > earlier.call.heardAt, 'sent past one that was not stored')
      }
    }
  }

  return { queue, ask, answer, abort, onTheirWay, assertOutcomes, assertStops, calls }
}

const asked = fc.record({ key: fc.constantFrom('a', 'b', 'c'), bytes: fc.constantFrom(1, 1, 1, 20, 40, 41) })
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ type: fc.constant('publish' as const), messages: fc.array(asked, { minLength: 1, maxLength: 4 }) }) },
  {
    weight: 1,
    arbitrary: fc.record({ type: fc.constant('publish aborted' as const), messages: fc.array(asked, { minLength: 1, maxLength: 2 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant('answer' as const),
      which: fc.nat(3),
      how: fc.constantFrom('outcomes' as const, 'outcomes' as const, 'outcomes' as const, 'error' as const, 'short' as const),
      pattern: fc.constantFrom(0, 0, 0, 1, 2, 4, 5),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('abort' as const), which: fc.nat(5) }) },
  { weight: 3, arbitrary: fc.record({ type: fc.constant('turn' as const) }) },
)

async function play(
  judge: ReturnType<typeof createJudge>,
  steps: readonly (typeof step extends fc.Arbitrary<infer S> ? S : never)[],
): Promise<void> {
  for (const each of steps) {
    if (each.type === 'publish' || each.type === 'publish aborted')
      judge.ask(
        each.messages.map(({ key, bytes }) => message(key, bytes)),
        each.type === 'publish aborted',
      )
    else if (each.type === 'answer') judge.answer(each.which, each.how, each.pattern)
    else if (each.type === 'abort') judge.abort(each.which)
    else await turn()
  }
}

suite('property: whatever is asked, answered and aborted, in any order,', () => {
  test('each message gets one true answer, keys stop where they must, and all limits are free again in the end', async () => {
    await fc.assert(
      fc.asyncProperty(fc.boolean(), fc.array(step, { maxLength: 60 }), async (keysTogether, steps) => {
        const judge = createJudge(keysTogether)
        await play(judge, steps)
        const rest = async (): Promise<void> => {
          await turn()
          while (judge.onTheirWay().length > 0) {
            judge.answer(0, 'outcomes', 0)
            await turn()
          }
        }
        await rest()
        judge.assertOutcomes()
        judge.assertStops()

        const full = judge.ask(Array.from({ length: LIMITS.queueMax + 1 }, (_, index) => message('abcdefghi'[index]!, 1)))
        await rest()
        assert.deepEqual(kinds(full.outcomes!), [...Array.from({ length: LIMITS.queueMax }, () => 'stored'), 'QUEUE_FULL'])
        const heavy = judge.ask(['a', 'b', 'c', 'd'].map((key) => message(key, 40)))
        await rest()
        assert.deepEqual(kinds(heavy.outcomes!), ['stored', 'stored', 'stored', 'QUEUE_FULL'])
        for (const call of judge.calls) assert.equal(getEventListeners(call.abort.signal, 'abort').length, 0)
        await judge.queue.close(forever)
      }),
      { numRuns: 500 },
    )
  })

  test('a close answers all, within its signal, and nothing is sent after it', async () => {
    await fc.assert(
      fc.asyncProperty(fc.boolean(), fc.array(step, { maxLength: 40 }), fc.boolean(), async (keysTogether, steps, answered) => {
        const judge = createJudge(keysTogether)
        await play(judge, steps)
        const stop = new AbortController()
        let over = false
        const before = judge.onTheirWay().length
        const closing = judge.queue.close(stop.signal).then(() => (over = true))
        await turn()
        assert.equal(over, before === 0)
        assert.equal(judge.onTheirWay().length, before, 'sent after the close')
        if (!answered) stop.abort()
        else {
          for (let left = before; left > 0; left--) {
            assert.equal(over, false, 'closed with a batch on its way')
            judge.answer(0, 'outcomes', left)
            await turn()
          }
        }
        await closing
        await turn()
        judge.assertOutcomes()
        judge.assertStops()
        await assert.rejects(judge.queue.publish([message('a')], forever), (error) => isWaybillError(error, 'CLOSED'))
      }),
      { numRuns: 300 },
    )
  })
})
