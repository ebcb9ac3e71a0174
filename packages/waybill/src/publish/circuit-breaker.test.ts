import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Clock } from '../core/clock.ts'
import { isWaybillError } from '../core/errors.ts'
import type { WaybillEvent } from '../core/observe.ts'
import { createCircuitBreaker, type Permit } from './circuit-breaker.ts'

function clockAt(startMs = 1_000_000): Clock & { advance(ms: number): void } {
  let now = startMs
  return { now: () => now, sleep: async () => {}, advance: (ms) => void (now += ms) }
}

function fail(breaker: { tryAcquire(): Permit | undefined }, times: number): void {
  for (let i = 0; i < times; i++) breaker.tryAcquire()!.failed()
}

test('opens at the fifth consecutive failure, and not at the fifth failure with a success in between', () => {
  const breaker = createCircuitBreaker({ name: 'a', clock: clockAt() })
  fail(breaker, 4)
  breaker.tryAcquire()!.succeeded()
  fail(breaker, 4)
  assert.equal(breaker.state, 'closed')
  fail(breaker, 1)
  assert.equal(breaker.state, 'open')
  assert.equal(breaker.trips, 1)
  assert.equal(breaker.tryAcquire(), undefined)
})

test('lets three probes through after 60 s, and closes after two of them succeed', () => {
  const clock = clockAt()
  const heard: WaybillEvent[] = []
  const breaker = createCircuitBreaker({ name: 'outbox', clock, observe: (event) => void heard.push(event) })
  fail(breaker, 5)
  clock.advance(59_999)
  assert.equal(breaker.tryAcquire(), undefined)
  clock.advance(1)
  const probes = [breaker.tryAcquire(), breaker.tryAcquire(), breaker.tryAcquire()]
  assert.ok(probes.every((probe) => probe !== undefined))
  assert.equal(breaker.tryAcquire(), undefined)
  probes[0]!.succeeded()
  assert.equal(breaker.state, 'half-open')
  probes[1]!.succeeded()
  assert.equal(breaker.state, 'closed')
  assert.deepEqual(
    heard.map((event) => (event.type === 'breaker.changed' ? `${event.path} ${event.from} ${event.to}` : event.type)),
    ['outbox closed open', 'outbox open half-open', 'outbox half-open closed'],
  )
})

test('one failed probe opens it again for the whole recovery time', () => {
  const clock = clockAt()
  const breaker = createCircuitBreaker({ name: 'a', clock })
  fail(breaker, 5)
  clock.advance(60_000)
  breaker.tryAcquire()!.failed()
  assert.equal(breaker.state, 'open')
  assert.equal(breaker.trips, 2)
  clock.advance(59_999)
  assert.equal(breaker.tryAcquire(), undefined)
})

test('a permit counts once, and has no say in a state that began after it', () => {
  const clock = clockAt()
  const breaker = createCircuitBreaker({ name: 'a', clock, failureThreshold: 2, successThreshold: 1 })
  const late = breaker.tryAcquire()!
  const once = breaker.tryAcquire()!
  once.failed()
  once.failed()
  assert.equal(breaker.state, 'closed')
  fail(breaker, 1)
  clock.advance(60_000)
  const probe = breaker.tryAcquire()!
  late.failed()
  assert.equal(breaker.state, 'half-open')
  probe.succeeded()
  assert.equal(breaker.state, 'closed')
})

test('a cancelled probe makes room for another; probes that never end are replaced after the recovery time', () => {
  const clock = clockAt()
  const breaker = createCircuitBreaker({ name: 'a', clock, failureThreshold: 1, halfOpenMax: 1, successThreshold: 1 })
  fail(breaker, 1)
  clock.advance(60_000)
  breaker.tryAcquire()!.cancelled()
  const silent = breaker.tryAcquire()!
  assert.equal(breaker.tryAcquire(), undefined)
  clock.advance(60_000)
  const next = breaker.tryAcquire()!
  silent.failed()
  assert.equal(breaker.state, 'half-open')
  next.succeeded()
  assert.equal(breaker.state, 'closed')
})

test('a clock that is set back does not keep it open longer than the recovery time', () => {
  const clock = clockAt()
  const breaker = createCircuitBreaker({ name: 'a', clock, failureThreshold: 1 })
  fail(breaker, 1)
  clock.advance(-3_600_000)
  assert.equal(breaker.tryAcquire(), undefined)
  clock.advance(60_000)
  assert.ok(breaker.tryAcquire())
})

test('an observer that throws does not disturb it', () => {
  const breaker = createCircuitBreaker({
    name: 'a',
    failureThreshold: 1,
    observe: () => {
      throw new Error('observer')
    },
  })
  fail(breaker, 1)
  assert.equal(breaker.state, 'open')
})

test('limits out of range are refused by name', () => {
  for (const bad of [{ failureThreshold: 0 }, { recoveryMs: Number.NaN }, { halfOpenMax: -1 }, { successThreshold: 1.5 }]) {
    assert.throws(
      () => createCircuitBreaker({ name: 'a', ...bad }),
      (error) => isWaybillError(error, 'INVALID_OPTION') && error.message.includes(Object.keys(bad)[0]!),
    )
  }
})

test('behaves like the model under any calls, verdicts and times', () => {
  const action = fc.oneof(
    fc.constant({ do: 'acquire' as const }),
    fc.record({ do: fc.constantFrom('succeeded' as const, 'failed' as const, 'cancelled' as const), at: fc.nat(5) }),
    fc.record({ do: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 80 }) }),
  )
  const limits = fc.record({
    failureThreshold: fc.integer({ min: 1, max: 3 }),
    recoveryMs: fc.constant(100),
    halfOpenMax: fc.integer({ min: 1, max: 3 }),
    successThreshold: fc.integer({ min: 1, max: 3 }),
  })
  fc.assert(
    fc.property(limits, fc.array(action, { maxLength: 80 }), (given, actions) => {
      const clock = clockAt(0)
      const breaker = createCircuitBreaker({ name: 'a', clock, ...given })
      // The model keeps the whole history of the present state: verdicts in order, and what is still out.
      let kind = 'closed'
      let began = 0
      let round = 0
      let verdicts: string[] = []
      let trips = 0
      const permits: { permit: Permit; round: number; open: boolean }[] = []
      const start = (next: string): void => {
        kind = next
        began = clock.now()
        round++
        verdicts = []
        if (next === 'open') trips++
      }
      for (const step of actions) {
        if (step.do === 'wait') clock.advance(step.ms)
        else if (step.do === 'acquire') {
          const out = permits.filter((entry) => entry.open && entry.round === round).length
          const waited = clock.now() - began >= given.recoveryMs
          const full = out >= given.halfOpenMax
          const restart = waited && (kind === 'open' || (kind === 'half-open' && full))
          const expected = kind === 'closed' || restart || (kind === 'half-open' && !full)
          const permit = breaker.tryAcquire()
          assert.equal(permit !== undefined, expected)
          if (restart) start('half-open')
          if (permit !== undefined) permits.push({ permit, round, open: true })
        } else {
          const entry = permits.at(-1 - step.at)
          if (entry === undefined) continue
          entry.permit[step.do]()
          if (entry.open && entry.round === round) {
            if (step.do !== 'cancelled') verdicts.push(step.do)
            const trailing = verdicts.length - 1 - verdicts.lastIndexOf('succeeded')
            if (kind === 'closed' && trailing >= given.failureThreshold) start('open')
            else if (kind === 'half-open' && step.do === 'failed') start('open')
            else if (kind === 'half-open' && verdicts.filter((verdict) => verdict === 'succeeded').length >= given.successThreshold)
              start('closed')
          }
          entry.open = false
        }
        assert.equal(breaker.state, kind)
        assert.equal(breaker.trips, trips)
      }
    }),
    { numRuns: 500 },
  )
})
