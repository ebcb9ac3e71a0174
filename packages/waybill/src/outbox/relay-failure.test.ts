import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bench, type Bench, REFUSED, settle, STORED, UNKNOWN } from '../../test/relay-bench.ts'
import { setCrashpointHook } from '../core/crashpoint.ts'
import { WaybillError } from '../core/errors.ts'
import type { PublishOutcome } from '../core/transport.ts'

/** Leaves rows in flight with a relay that died. */
async function die(b: Bench, relayId = 'dead'): Promise<void> {
  await b.storage.outbox.acquire(relayId, 1_000)
  await b.storage.outbox.claim(relayId, { limit: 1_000, busy: [] })
  await b.clock.advance(1_001)
}

const sentOf = (b: Bench): string[][] =>
  b.publisher.calls.map((call) => call.map(({ id, resent }) => `${id}${resent === true ? ' resent' : ''}`))

test('a call that never answers is cut off: its signal aborts, and what it has not answered is sent again, in order, and says so', async () => {
  await using b = bench({ publishTimeoutMs: 2_000 })
  await b.add('a:1', 'a:2', 'b:1')
  const signals: AbortSignal[] = []
  let hangs = true
  b.publisher.answer = (_message, signal) => {
    signals.push(signal)
    return hangs ? new Promise(() => {}) : STORED
  }
  b.start()
  await b.clock.advance(1_900)
  assert.equal(signals[0]!.aborted, false)
  await b.clock.advance(200)
  assert.equal(signals[0]!.aborted, true)
  assert.equal(b.relay.stats().rowsInFlight, 3)
  hangs = false
  await b.clock.advance(3_000)
  assert.deepEqual(sentOf(b), [
    ['a:1', 'a:2', 'b:1'],
    ['a:1 resent', 'a:2 resent', 'b:1 resent'],
  ])
  assert.deepEqual(await b.statuses(), { 'a:1': 'published', 'a:2': 'published', 'b:1': 'published' })
})

test('what a call says within a second of being cut off counts', async () => {
  await using b = bench({ publishTimeoutMs: 2_000 })
  await b.add('a:1')
  b.publisher.answer = (_message, signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve(STORED)))
  b.start()
  await b.clock.advance(3_000)
  assert.equal(b.publisher.calls.length, 1)
  assert.deepEqual(await b.statuses(), { 'a:1': 'published' })
})

test('calls that never answer open the breaker: no pile of them', async () => {
  await using b = bench({ publishTimeoutMs: 1_000, breaker: { failuresMax: 3, openMs: 60_000, openMaxMs: 60_000 } })
  await b.add('a:1')
  b.publisher.answer = () => new Promise<PublishOutcome>(() => {})
  b.start()
  await b.clock.advance(30_000)
  assert.deepEqual(b.relay.stats().breakers, { default: 'open' })
  assert.equal(b.publisher.calls.length, 3)
  assert.deepEqual(await b.statuses(), { 'a:1': 'pending' })
})

for (const acknowledges of ['stored', 'handled'] as const)
  test(`a key that always fails does not keep the breaker of its destination open for the others (${acknowledges})`, async () => {
    await using b = bench({ capabilities: { acknowledges }, batchSize: 10, breaker: { failuresMax: 3, openMs: 1_000, openMaxMs: 2_000 } })
    b.publisher.answer = ({ key }) => (key === 'bad' ? UNKNOWN : STORED)
    // More of it than a claim takes, and older than all others.
    await b.add(...Array.from({ length: 30 }, (_, at) => `bad:${at}`))
    b.start()
    await b.clock.advance(5_000)
    assert.deepEqual(b.relay.stats().breakers, { default: 'open' })
    const healthy = Array.from({ length: 20 }, (_, at) => `k${at}:1`)
    await b.add(...healthy)
    await b.clock.advance(10_000)
    assert.deepEqual(b.publisher.stored.toSorted(), healthy.toSorted())
    // Alone again, it is tried again.
    b.publisher.answer = () => STORED
    await b.clock.advance(10_000)
    assert.equal((await b.storage.outbox.stats()).pending, 0)
  })

test('a message that makes its transport throw is found, charged and parked with its followers; all others go on meanwhile', async () => {
  await using b = bench({ retry: { attemptsMax: 3 } })
  const { publisher } = b
  const publish = publisher.publish.bind(publisher)
  Object.assign(publisher, {
    publish(...[messages, signal]: Parameters<typeof publish>) {
      if (messages.some(({ id }) => id === 'k7:1')) throw new TypeError('cannot encode this')
      return publish(messages, signal)
    },
  })
  const healthy = Array.from({ length: 20 }, (_, at) => `k${at}:1`).filter((id) => id !== 'k7:1')
  await b.add(...healthy.slice(0, 7), 'k7:1', 'k7:2', ...healthy.slice(7))
  await b.drain()
  assert.deepEqual(b.publisher.stored.toSorted(), healthy.toSorted())
  // Alone it may as well be the transport: only beside others that pass it is to blame.
  for (let at = 0; at < 4; at++) {
    await b.clock.advance(15_000)
    await b.add(`other${at}:1`, `another${at}:1`)
    await b.drain()
  }
  assert.equal(b.publisher.stored.length, 19 + 8)
  const [head, follower] = await b.storage.outbox.list({ status: 'parked' })
  assert.deepEqual([head?.eventId, head?.attempts, follower?.behind], ['k7:1', 3, head?.rowId])
  assert.match(head!.lastError!, /failed with this message alone: cannot encode this/)
  assert.deepEqual(b.relay.stats().breakers, { default: 'closed' })
})

test('a transport that always throws is down, whatever is sent: nobody is charged, and it is not asked for each key', async () => {
  await using b = bench({ breaker: { failuresMax: 3, openMs: 60_000, openMaxMs: 60_000 } })
  let calls = 0
  Object.assign(b.publisher, {
    publish() {
      calls++
      throw new Error('no connection')
    },
  })
  await b.add(...Array.from({ length: 50 }, (_, at) => `k${at}:1`))
  b.start()
  await b.clock.advance(30_000)
  assert.deepEqual(b.relay.stats().breakers, { default: 'open' })
  assert.ok(calls <= 9, `${calls} calls`)
  assert.ok(Object.values(await b.statuses()).every((status) => status === 'pending'))
})

test('what a transport says that is no outcome is unknown; an error that is not ours counts where others pass', async () => {
  await using b = bench({ retry: { attemptsMax: 2 }, breaker: { failuresMax: 1_000 } })
  b.publisher.answer = ({ key }) => {
    if (key === 'typo') return { kind: 'strored' } as unknown as PublishOutcome
    if (key === 'plain') return { kind: 'rejected', error: new Error('plain') } as unknown as PublishOutcome
    return STORED
  }
  await b.add('typo:1', 'plain:1', 'good:1')
  b.start()
  await b.clock.advance(1_000)
  const { 'typo:1': typo, 'plain:1': plain, 'good:1': good } = await b.statuses()
  assert.deepEqual([typo, good], ['pending', 'published'])
  assert.match(plain!, /^pending 1|parked 2$/)
})

test('a transport that answers with nothing at all has its messages sent again, and ends no relay', async () => {
  await using b = bench()
  let answers = false
  const { publisher } = b
  const publish = publisher.publish.bind(publisher)
  Object.assign(publisher, {
    publish: (...args: Parameters<typeof publish>) => (answers ? publish(...args) : Promise.resolve(undefined)),
  })
  await b.add('a:1')
  b.start()
  await b.clock.advance(1_000)
  assert.deepEqual(await b.statuses(), { 'a:1': 'pending' })
  answers = true
  await b.clock.advance(40_000)
  assert.deepEqual(await b.statuses(), { 'a:1': 'published' })
})

test('what is in flight is limited by its bytes too, and a message larger than that passes alone', async () => {
  const MIB = 1_048_576
  await using b = bench({ inFlightMaxBytes: 4 * MIB, batchSize: 100 })
  const large = (id: string, size: number) => ({
    message: { id, topic: 'orders', key: id, headers: {}, body: new Uint8Array(size) },
    eventType: 'order.Placed',
  })
  await b.storage.outbox.append(
    b.storage.database,
    Array.from({ length: 40 }, (_, at) => large(`m${at}`, MIB)),
  )
  await b.storage.outbox.append(b.storage.database, [large('huge', 6 * MIB)])
  let inFlight = 0
  let most = 0
  const publish = b.publisher.publish.bind(b.publisher)
  b.publisher.publish = async (messages, signal) => {
    const bytes = messages.reduce((sum, { body }) => sum + body.length, 0)
    inFlight += bytes
    most = Math.max(most, inFlight)
    await b.clock.sleep(100)
    inFlight -= bytes
    return publish(messages, signal)
  }
  b.start()
  await b.clock.advance(60_000)
  assert.equal(b.publisher.stored.length, 41)
  assert.ok(most <= 10 * MIB && most >= 4 * MIB, `${most} bytes were in flight`)
})

test('where the transport waits for handlers, a call may take as long as they do', async () => {
  await using b = bench({ publishTimeoutMs: 1_000, capabilities: { acknowledges: 'handled' } })
  await b.add('a:1')
  const gate = Promise.withResolvers<PublishOutcome>()
  b.publisher.answer = () => gate.promise
  b.start()
  await b.clock.advance(120_000)
  gate.resolve(STORED)
  await b.clock.advance(100)
  assert.equal(b.publisher.calls.length, 1)
  assert.deepEqual(await b.statuses(), { 'a:1': 'published' })
})

for (const code of ['ACCESS_DENIED', 'TOPIC_MISSING', 'DECLARATION_DIFFERS'] as const)
  test(`${code} is the destination's fault: the rows wait, uncharged, and pass once somebody has mended it`, async () => {
    await using b = bench({ retry: { attemptsMax: 2 }, breaker: { failuresMax: 3, openMs: 1_000, openMaxMs: 2_000 } })
    await b.add('a:1', 'b:1')
    b.publisher.answer = () => ({ kind: 'rejected', error: new WaybillError(code, 'not now') })
    b.start()
    await b.clock.advance(60_000)
    assert.deepEqual(await b.statuses(), { 'a:1': 'pending', 'b:1': 'pending' })
    b.publisher.answer = () => STORED
    await b.clock.advance(10_000)
    assert.deepEqual(await b.statuses(), { 'a:1': 'published', 'b:1': 'published' })
  })

test('a suspect that is refused is charged once, and is parked after attemptsMax of them', async () => {
  await using b = bench({ retry: { attemptsMax: 3, baseMs: 100, maxMs: 100 } })
  await b.add('a:1')
  await die(b)
  b.publisher.answer = () => REFUSED
  b.start()
  await b.clock.advance(50)
  assert.deepEqual(await b.statuses(), { 'a:1': 'pending 1' })
  await b.clock.advance(10_000)
  assert.deepEqual(await b.statuses(), { 'a:1': 'parked 3' })
  assert.equal(b.publisher.calls.length, 3)
})

test('a suspect that passes lets the next one go at once, whatever its key; no time passes, and no claim is made for each', async () => {
  await using b = bench()
  const ids = Array.from({ length: 60 }, (_, at) => `k${at % 3}:${Math.floor(at / 3)}`)
  await b.add(...ids)
  await die(b)
  b.start()
  b.asked()
  await settle(600)
  assert.equal(b.publisher.calls.length, 60)
  assert.ok(b.publisher.calls.every((call) => call.length === 1))
  for (const key of ['k0', 'k1', 'k2'])
    assert.deepEqual(
      b.publisher.stored.filter((id) => id.startsWith(`${key}:`)),
      ids.filter((id) => id.startsWith(`${key}:`)),
    )
  assert.ok(b.asked()['claim']! < 10)
})

test('a suspect that does not pass keeps the others of its key back, and nobody else', async () => {
  await using b = bench()
  await b.add('a:1', 'a:2', 'b:1', 'b:2')
  await die(b)
  b.publisher.answer = (message) => (message.id === 'a:1' ? UNKNOWN : STORED)
  b.start()
  await b.clock.advance(20)
  assert.deepEqual(sentOf(b).flat(), ['a:1 resent', 'b:1 resent', 'b:2 resent'])
})

test('a crash point stands at each line where a death would hurt', async (t) => {
  t.after(() => setCrashpointHook(undefined))
  const b = bench({ retry: { attemptsMax: 2, baseMs: 10, maxMs: 10 } })
  const reached: string[] = []
  setCrashpointHook((point) => void reached.push(`${point} ${b.publisher.stored.length} ${b.relay.stats().published}`))
  await b.add('a:1')
  await b.drain()
  assert.deepEqual(reached, [
    'relay.afterAcquire 0 0',
    'relay.afterClaim 0 0',
    'relay.beforePublish 0 0',
    'relay.afterPublish 1 0',
    'relay.afterMark 1 0',
    'relay.beforeRelinquish 1 1',
  ])
  reached.length = 0
  await b.add('bad:1')
  await die(b)
  b.publisher.answer = () => REFUSED
  const run = b.start()
  await b.clock.advance(5_000)
  run.stop()
  await b.clock.advance(5_000)
  const passed = reached.map((line) => line.split(' ')[0]!.slice('relay.'.length)).filter((point) => point !== 'afterAcquire')
  assert.deepEqual(passed, [
    'afterClaim',
    'afterCharge',
    'beforePublish',
    'afterPublish',
    'afterHold',
    'afterClaim',
    'beforePublish',
    'afterPublish',
    'afterPark',
    'beforeRelinquish',
  ])
})
