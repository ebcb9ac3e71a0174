import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bench, driven, settle, STORED } from '../../test/relay-bench.ts'
import { WaybillError } from '../core/errors.ts'
import type { OutboxHints, OutboxStore } from '../core/stores.ts'

type On = Parameters<OutboxHints['listen']>[1]

/** Hints that the test gives. */
function handMade(): {
  readonly hints: OutboxHints
  readonly calls: string[]
  on: On | undefined
  signal: AbortSignal | undefined
  fail: Error | undefined
} {
  const made = {
    calls: [] as string[],
    on: undefined as On | undefined,
    signal: undefined as AbortSignal | undefined,
    fail: undefined as Error | undefined,
    hints: {
      async listen(_relayId: string, on: On, signal: AbortSignal) {
        made.calls.push('listen')
        if (made.fail !== undefined) throw made.fail
        made.on = on
        made.signal = signal
        on.state('listening')
        await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
      },
      async asleep() {
        made.calls.push('asleep')
        if (made.fail !== undefined) throw made.fail
      },
    } satisfies OutboxHints,
  }
  return made
}

test('a hint wakes a relay that waits; it says once that it does, looks once more, and again only after rows came', async () => {
  const made = handMade()
  const around = (store: OutboxStore): OutboxStore => ({
    ...store,
    hints: made.hints,
    claim: (...given) => (made.calls.push('claim'), store.claim(...given)),
  })
  await using b = bench({ around })
  b.start()
  await b.clock.advance(5_000)
  assert.equal(b.relay.stats().listening, true)
  assert.equal(made.calls.filter((call) => call === 'asleep').length, 1)
  assert.equal(made.calls[made.calls.indexOf('asleep') + 1], 'claim')
  await b.add('a:1')
  made.on!.hint()
  await settle()
  assert.deepEqual(b.publisher.stored, ['a:1'])
  await b.clock.advance(20_000)
  assert.equal(made.calls.filter((call) => call === 'asleep').length, 2)
  // A hint for another relay's rows finds nothing, and is no reason to say it again.
  made.on!.hint()
  await b.clock.advance(5_000)
  assert.equal(made.calls.filter((call) => call === 'asleep').length, 2)
  assert.deepEqual(
    b.observed.filter((event) => event.type === 'relay.hints'),
    [{ type: 'relay.hints', state: 'listening' }],
  )
})

test('what is committed between the last look and saying asleep is found by the look after it', async () => {
  const made = handMade()
  const at: number[] = []
  const around = (store: OutboxStore): OutboxStore => ({
    ...store,
    hints: {
      ...made.hints,
      async asleep() {
        if (at.push(b.clock.now()) === 1) await b.add('a:1')
      },
    },
  })
  await using b = bench({ around })
  b.publisher.answer = () => {
    at.push(b.clock.now())
    return STORED
  }
  b.start()
  await b.clock.advance(1_000)
  const [asleepAt, sentAt] = at
  assert.ok(asleepAt !== undefined && asleepAt === sentAt)
})

test('what was appended before the relay slept, and is committed a moment after, is found soon: nobody hints at it', async () => {
  const made = handMade()
  const at: number[] = []
  const around = (store: OutboxStore): OutboxStore => ({
    ...store,
    hints: {
      ...made.hints,
      async asleep() {
        if (at.push(b.clock.now()) === 1) void b.clock.sleep(60).then(() => b.add('a:1'))
      },
    },
  })
  await using b = bench({ around })
  b.publisher.answer = () => {
    at.push(b.clock.now())
    return STORED
  }
  b.start()
  await b.clock.advance(1_000)
  const [asleepAt, sentAt] = at
  assert.ok(sentAt! - asleepAt! < 150, `${sentAt! - asleepAt!} ms`)
})

test('a lease that ran out may have made the database forget that the relay sleeps: it says so again', async () => {
  const made = handMade()
  await using b = bench({ around: (store) => ({ ...store, hints: made.hints }), leaseMs: 2_000 })
  b.start()
  await b.clock.advance(5_000)
  assert.deepEqual(made.calls, ['listen', 'asleep'])
  await b.clock.freeze(10_000)
  await b.clock.advance(2_000)
  assert.deepEqual(made.calls, ['listen', 'asleep', 'asleep'])
})

test('a relay that hears nothing never says that it sleeps, polls, and tries to listen again', async () => {
  const made = handMade()
  made.fail = new Error('no session of our own')
  await using b = bench({ around: (store) => ({ ...store, hints: made.hints }) })
  b.start()
  await b.clock.advance(60_000)
  assert.ok(made.calls.length >= 5 && made.calls.every((call) => call === 'listen'), made.calls.join(' '))
  assert.equal(b.observed.filter((event) => event.type === 'relay.hints').length, 1)
  assert.equal(b.relay.stats().listening, false)
  await b.add('a:1')
  await b.clock.advance(501)
  assert.deepEqual(b.publisher.stored, ['a:1'])
  made.fail = undefined
  await b.clock.advance(6_000)
  assert.equal(b.relay.stats().listening, true)
  made.on!.state('deaf', new Error('cut'))
  assert.equal(b.relay.stats().listening, false)
  made.on!.state('listening')
  assert.deepEqual(
    b.observed.flatMap((event) => (event.type === 'relay.hints' ? [event.state] : [])),
    ['deaf', 'listening', 'deaf', 'listening'],
  )
})

test('where listening can not be done at all it is not tried again; asleep that fails is observed, and the relay goes on', async () => {
  const made = handMade()
  made.fail = new WaybillError('UNSUPPORTED', 'no')
  await using b = bench({ around: (store) => ({ ...store, hints: made.hints }) })
  b.start()
  await b.clock.advance(60_000)
  assert.deepEqual(made.calls, ['listen'])

  const other = handMade()
  await using c = bench({ around: (store) => ({ ...store, hints: other.hints }) })
  c.start()
  await settle()
  other.fail = new Error('gone')
  await c.clock.advance(2_000)
  assert.ok(c.observed.some((event) => event.type === 'relay.failed'))
  await c.add('a:1')
  await c.clock.advance(501)
  assert.deepEqual(c.publisher.stored, ['a:1'])
})

test('listening ends with the relay, and is not begun where it is not wanted or only what is pending is published', async () => {
  const made = handMade()
  await using b = bench({ around: (store) => ({ ...store, hints: made.hints }) })
  await b.add('a:1')
  assert.equal(await b.drain(), 1)
  assert.deepEqual(made.calls, [])
  const run = b.start()
  await b.clock.advance(1_000)
  run.stop()
  await driven(b.clock, run.done)
  assert.equal(made.signal!.aborted, true)
  assert.equal(b.relay.stats().listening, false)

  const unwanted = handMade()
  await using c = bench({ around: (store) => ({ ...store, hints: unwanted.hints }), listen: false })
  c.start()
  await c.clock.advance(5_000)
  assert.deepEqual(unwanted.calls, [])
})
