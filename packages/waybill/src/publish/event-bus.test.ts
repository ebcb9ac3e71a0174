import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type WaybillError, isWaybillError } from '../core/errors.ts'
import { defineEvent } from '../core/event.ts'
import { createEventBus } from './event-bus.ts'

const Placed = defineEvent<{ n: number }>('order.Placed')
const Moved = defineEvent<{ n: number }>('stock.Moved')

const failure = (run: () => unknown): WaybillError => {
  try {
    run()
  } catch (error) {
    assert.ok(isWaybillError(error, 'HANDLER_FAILED'), String(error))
    return error
  }
  assert.fail('nothing was thrown')
}
const rejection = async (promise: unknown): Promise<WaybillError> => {
  const error = await Promise.resolve(promise).then(
    () => assert.fail('it resolved'),
    (reason: unknown) => reason,
  )
  assert.ok(isWaybillError(error, 'HANDLER_FAILED'), String(error))
  return error
}

test('calls every handler of exactly this type, in the order in which they subscribed', () => {
  const bus = createEventBus()
  const seen: string[] = []
  bus.subscribe(Placed, (event) => void seen.push(`a${event.payload.n}`))
  bus.subscribe(Placed, (event) => void seen.push(`b${event.payload.n}`))
  bus.subscribe(Moved, () => void seen.push('other'))
  assert.equal(bus.emit(Placed({ n: 1 })), undefined)
  assert.equal(bus.emit(Placed({ n: 2 })), undefined)
  assert.deepEqual(seen, ['a1', 'b1', 'a2', 'b2'])
})

test('gives back a promise only where a handler did, and it waits for all of them', async () => {
  const bus = createEventBus()
  const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  let started = 0
  for (const gate of gates) {
    bus.subscribe(Placed, () => {
      started++
      return gate.promise
    })
  }
  let ended = false
  const emitted = Promise.resolve(bus.emit(Placed({ n: 1 }))).then(() => (ended = true))
  assert.equal(started, 3)
  gates[2]!.resolve()
  await gates[2]!.promise
  await new Promise(setImmediate)
  gates[0]!.resolve()
  await new Promise(setImmediate)
  assert.equal(ended, false)
  gates[1]!.resolve()
  await emitted
  assert.equal(ended, true)
})

test('a handler that throws, at once or later, stops no other and fails the emit with its error as cause', async () => {
  const bus = createEventBus()
  const cause = new Error('broken')
  const seen: string[] = []
  bus.subscribe(Placed, () => {
    throw cause
  })
  bus.subscribe(Placed, () => void seen.push('after'))
  assert.equal(failure(() => bus.emit(Placed({ n: 1 }))).cause, cause)
  assert.deepEqual(seen, ['after'])
  bus.subscribe(Moved, async () => {
    throw cause
  })
  assert.equal((await rejection(bus.emit(Moved({ n: 1 })))).cause, cause)
  assert.equal(bus.metrics().failures, 2)
})

test("one that only looks like a promise is awaited, and one that can't even be looked at counts as failed", async () => {
  const bus = createEventBus()
  let begun = false
  const builder = {
    // oxlint-disable-next-line unicorn/no-thenable
    then(resolve: () => void) {
      begun = true
      resolve()
    },
  }
  bus.subscribe(Placed, () => builder)
  await bus.emit(Placed({ n: 1 }))
  assert.equal(begun, true)
  bus.subscribe(Moved, () => ({
    // oxlint-disable-next-line unicorn/no-thenable
    get then(): never {
      throw new Error('trap')
    },
  }))
  assert.match(String(failure(() => bus.emit(Moved({ n: 1 }))).cause), /trap/)
})

test('who subscribes or leaves while an event is on its way changes the next one, not this one', () => {
  const bus = createEventBus()
  const seen: string[] = []
  const late = (): void => void seen.push('late')
  const leaving = bus.subscribe(Placed, () => {
    seen.push('first')
    leaving()
    bus.subscribe(Placed, late)
  })
  bus.subscribe(Placed, () => void seen.push('second'))
  void bus.emit(Placed({ n: 1 }))
  void bus.emit(Placed({ n: 2 }))
  assert.deepEqual(seen, ['first', 'second', 'second', 'late'])
})

test('leaving twice does not end a later subscription of the same function', () => {
  const bus = createEventBus()
  const handler = (): void => {}
  const leave = bus.subscribe(Placed, handler)
  bus.unsubscribe(Placed, handler)
  bus.subscribe(Placed, handler)
  leave()
  assert.equal(bus.handlerCount('order.Placed'), 1)
  bus.unsubscribe(Placed, handler)
  assert.equal(bus.handlerCount('order.Placed'), 0)
})

test('no function, the same function twice and too many functions are refused', () => {
  const bus = createEventBus({ handlersMax: 2 })
  const handler = (): void => {}
  assert.throws(
    () => bus.subscribe(Placed, 'log' as never),
    (error) => isWaybillError(error, 'INVALID_OPTION'),
  )
  bus.subscribe(Placed, handler)
  assert.throws(
    () => bus.subscribe(Placed, handler),
    (error) => isWaybillError(error, 'DUPLICATE'),
  )
  bus.subscribe(Placed, () => {})
  assert.throws(
    () => bus.subscribe(Placed, () => {}),
    (error) => isWaybillError(error, 'QUEUE_FULL'),
  )
  assert.throws(
    () => createEventBus({ handlersMax: 0 }),
    (error) => isWaybillError(error, 'INVALID_OPTION'),
  )
})

test('counts what was emitted, by type, and what nobody heard', () => {
  const bus = createEventBus()
  bus.subscribe(Placed, () => {})
  void bus.emit(Placed({ n: 1 }))
  void bus.emit(Placed({ n: 1 }))
  void bus.emit(Moved({ n: 1 }))
  assert.deepEqual(bus.metrics(), { emitted: 3, failures: 0, unheard: 1, byEventType: { 'order.Placed': 2 } })
})

test('whatever the handlers do and in whatever order they end: all run, each failure is reported once, none goes unheard', async () => {
  const unheard: unknown[] = []
  const note = (reason: unknown): void => void unheard.push(reason)
  process.on('unhandledRejection', note)
  try {
    const behaviour = fc.record({ how: fc.constantFrom('returns', 'throws', 'resolves', 'rejects'), turns: fc.nat(4) })
    await fc.assert(
      fc.asyncProperty(fc.array(behaviour, { maxLength: 7 }), async (behaviours) => {
        const bus = createEventBus()
        let ran = 0
        let ended = 0
        behaviours.forEach(({ how, turns }, index) => {
          const end = (): void => {
            if (how === 'rejects') throw new Error(String(index))
          }
          bus.subscribe(Placed, () => {
            ran++
            if (how === 'throws') throw new Error(String(index))
            if (how === 'returns') return undefined
            return (async () => {
              for (let i = 0; i < turns; i++) await Promise.resolve()
              ended++
              end()
            })()
          })
        })
        const isAsync = behaviours.some(({ how }) => how === 'resolves' || how === 'rejects')
        const expected = behaviours.flatMap(({ how }, index) => (how === 'throws' || how === 'rejects' ? [String(index)] : []))
        let error: unknown
        try {
          const returned = bus.emit(Placed({ n: 1 }))
          assert.equal(returned instanceof Promise, isAsync)
          await returned
        } catch (caught) {
          error = caught
        }
        assert.equal(ran, behaviours.length)
        assert.equal(ended, behaviours.filter(({ how }) => how === 'resolves' || how === 'rejects').length)
        assert.equal(isWaybillError(error, 'HANDLER_FAILED'), expected.length > 0, String(error))
        const { cause } = (error ?? {}) as { cause?: unknown }
        const causes = cause instanceof AggregateError ? cause.errors : cause === undefined ? [] : [cause]
        assert.deepEqual(causes.map((reason: Error) => reason.message).toSorted(), expected.toSorted())
        assert.equal(bus.metrics().failures, expected.length)
      }),
      { numRuns: 300 },
    )
    await new Promise(setImmediate)
    assert.deepEqual(unheard, [])
  } finally {
    process.off('unhandledRejection', note)
  }
})
