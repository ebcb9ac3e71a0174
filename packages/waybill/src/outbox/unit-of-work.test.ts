import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { memoryStorage } from '../adapters/memory/storage.ts'
import { setCrashpointHook } from '../core/crashpoint.ts'
import type { Database } from '../core/database.ts'
import { WaybillError } from '../core/errors.ts'
import { defineEvent, type DomainEvent } from '../core/event.ts'
import type { WaybillEvent } from '../core/observe.ts'
import type { PublishConfig, PublishPreset, PublishStrategy } from '../core/publish-config.ts'
import { currentScope, withScope } from '../core/scope.ts'
import type { OutboxEntry, OutboxStore, Storage } from '../core/stores.ts'
import type { Receipt, UnitScope } from '../core/unit.ts'
import { Aggregate } from './aggregate.ts'
import { createJoinTransaction, createUnitOfWork, createUnitRunner, unitOfWorkOf } from './unit-of-work.ts'

const Placed = defineEvent<{ id: string }>('order.Placed', { key: (order) => order.id })

function receiptOf(event: DomainEvent, strategy: PublishStrategy, state: Receipt['state'], confirmed: boolean): Receipt {
  return { eventId: event.id, eventType: event.type, strategy, scope: 'INTRA_BC', decidedBy: 'call', state, confirmed, durationMs: 0 }
}

const entryOf = (event: DomainEvent): OutboxEntry => ({
  message: { id: event.id, topic: event.eventType.topic, key: event.key, headers: {}, body: new Uint8Array() },
  eventType: event.type,
})

interface Bench {
  readonly storage: Storage
  readonly dispatched: string[]
  readonly observed: WaybillEvent[]
  readonly appends: number[]
  wakes: number
  readonly publish: (event: DomainEvent, config?: PublishConfig | PublishPreset) => Promise<Receipt>
  readonly run: ReturnType<typeof createUnitRunner>
  readonly unitOfWork: ReturnType<typeof createUnitOfWork>
  readonly rows: () => Promise<string[]>
}

/** A small bus: two strategies, joining whatever unit is running. */
function bench(options: { handler?: (event: DomainEvent) => Promise<void>; database?: Database } = {}): Bench {
  const storage = memoryStorage()
  const dispatched: string[] = []
  const observed: WaybillEvent[] = []
  const appends: number[] = []
  const handle = async (event: DomainEvent): Promise<Receipt> => {
    dispatched.push(event.id)
    await options.handler?.(event)
    return receiptOf(event, 'SYNC_ONLY', 'delivered', true)
  }
  const publish: Bench['publish'] = async (event, config) => {
    const strategy = (config as PublishConfig | undefined)?.strategy ?? 'ASYNC_ONLY'
    const { unit } = currentScope()
    const pending = receiptOf(event, strategy, 'pending', false)
    if (unit === undefined) throw new Error('this bus publishes in units only')
    if (strategy === 'SYNC_ONLY') unit.afterCommit(() => handle(event))
    else if (unit.write !== undefined) await unit.write(entryOf(event))
    else unit.enqueue(entryOf(event), async () => pending)
    return pending
  }
  const outbox: OutboxStore = {
    ...storage.outbox,
    append: async (sql, entries) => {
      appends.push(entries.length)
      return storage.outbox.append(sql, entries)
    },
  }
  const wake = (): void => void made.wakes++
  const run = createUnitRunner({
    database: options.database ?? storage.database,
    outbox,
    publish,
    wake,
    observe: (event) => observed.push(event),
    random: () => 0,
  })
  const rows = async (): Promise<string[]> => (await storage.outbox.list({ limit: 10_000 })).map((row) => row.eventId)
  const made: Bench = { storage, dispatched, observed, appends, wakes: 0, publish, run, unitOfWork: createUnitOfWork(run, publish), rows }
  return made
}

test('what a unit publishes is there after its commit: rows appended once and last, handlers run, receipts in the order of publishing', async () => {
  const { unitOfWork, dispatched, rows, appends } = bench()
  const events = [1, 2, 3, 4].map((id) => Placed({ id: `${id}` }))
  const { result, receipts } = await unitOfWork(async (unit) => {
    await unit.publish(events[0]!)
    await unit.publish(events[1]!, { strategy: 'SYNC_ONLY' })
    assert.equal((await unit.publish(events[2]!)).state, 'pending')
    await unit.publish(events[3]!, { strategy: 'SYNC_ONLY' })
    assert.deepEqual([dispatched, await rows(), appends], [[], [], []])
    return 'done'
  })
  assert.equal(result, 'done')
  assert.deepEqual(await rows(), [events[0]!.id, events[2]!.id])
  assert.deepEqual(dispatched, [events[1]!.id, events[3]!.id])
  assert.deepEqual(appends, [2])
  assert.deepEqual(
    receipts.map(({ eventId, state }) => [eventId, state]),
    events.map(({ id }, index) => [id, index % 2 === 0 ? 'pending' : 'delivered']),
  )
})

test('a commit with rows wakes the relay once; one without rows does not, and appends nothing', async () => {
  const b = bench()
  await b.unitOfWork(async (unit) => void (await unit.publish(Placed({ id: '1' }), { strategy: 'SYNC_ONLY' })))
  assert.deepEqual([b.wakes, b.appends], [0, []])
  await b.unitOfWork(async (unit) => void (await Promise.all([unit.publish(Placed({ id: '1' })), unit.publish(Placed({ id: '2' }))])))
  assert.deepEqual([b.wakes, b.appends], [1, [2]])
})

test('nothing of a rolled-back unit is ever seen, and its error comes back as it was', async () => {
  const b = bench()
  const mine = new RangeError('mine')
  await assert.rejects(
    b.unitOfWork(async (unit) => {
      await unit.publish(Placed({ id: '1' }))
      await unit.publish(Placed({ id: '2' }), { strategy: 'SYNC_ONLY' })
      throw mine
    }),
    (error) => error === mine,
  )
  assert.deepEqual([await b.rows(), b.dispatched, b.appends, b.wakes], [[], [], [], 0])
})

test('an append that fails rolls the unit back', async () => {
  const full = bench()
  full.storage.outbox.append = async () => {
    throw new WaybillError('NOT_MIGRATED', 'no tables')
  }
  await assert.rejects(
    full.unitOfWork(async (unit) => void (await unit.publish(Placed({ id: '1' })))),
    { code: 'NOT_MIGRATED' },
  )
  assert.equal(full.wakes, 0)
})

test('a handler that fails after the commit fails nothing: the others ran, and it is observed', async () => {
  const b = bench({
    handler: async (event) => {
      if (event.payload.id === 'bad') throw new Error('handler')
    },
  })
  const { result, receipts } = await b.unitOfWork(async (unit) => {
    for (const id of ['bad', 'good']) await unit.publish(Placed({ id }), { strategy: 'SYNC_ONLY' })
    return 7
  })
  assert.equal(result, 7)
  assert.equal(receipts.length, 1)
  assert.equal(b.dispatched.length, 2)
  assert.deepEqual(
    b.observed.map((event) => event.type),
    ['unit.failed'],
  )
})

test('a wake or an observer that throws fails nothing either', async () => {
  const storage = memoryStorage()
  const explode = (): never => {
    throw new Error('boom')
  }
  const run = createUnitRunner({
    database: storage.database,
    outbox: storage.outbox,
    publish: bench().publish,
    wake: explode,
    observe: explode,
  })
  const { result } = await run(async (unit) => {
    unit.enqueue(entryOf(Placed({ id: '1' })), explode)
    return 'committed'
  })
  assert.equal(result, 'committed')
})

test("after-commit work runs outside the unit, keeps the caller's scope, and may run a unit of its own", async () => {
  const b: Bench = bench({
    handler: async (event) => {
      assert.equal(currentScope().unit, undefined)
      assert.equal(currentScope().correlationId, 'conversation')
      await b.unitOfWork(async (unit) => void (await unit.publish(Placed({ id: `after-${event.payload.id}` }))))
    },
  })
  await withScope({ correlationId: 'conversation' }, () =>
    b.unitOfWork(async (unit) => void (await unit.publish(Placed({ id: '1' }), { strategy: 'SYNC_ONLY' }))),
  )
  assert.equal((await b.storage.outbox.list({ key: 'after-1' })).length, 1)
  assert.deepEqual(b.observed, [])
})

test('after-commit work runs concurrently, and outside the transaction', async () => {
  const bothRun = Promise.withResolvers<void>()
  const b = bench({
    handler: async () => {
      if (b.dispatched.length === 2) bothRun.resolve()
      await bothRun.promise
    },
  })
  await b.unitOfWork(async (unit) => {
    await unit.publish(Placed({ id: 'row' }))
    for (const id of ['1', '2']) await unit.publish(Placed({ id }), { strategy: 'SYNC_ONLY' })
  })
  assert.equal(b.dispatched.length, 2)
})

test('a closed unit takes nothing: publish, enqueue, afterCommit, track and sql.query each say so', async () => {
  const b = bench()
  let scope!: UnitScope
  let late!: () => Promise<unknown>
  await b.run(async (unit) => {
    scope = unit
    assert.equal(unit.closed, false)
    late = () => b.publish(Placed({ id: 'late' }))
  })
  assert.equal(scope.closed, true)
  const receipt = async (): Promise<Receipt> => receiptOf(Placed({ id: '1' }), 'SYNC_ONLY', 'delivered', true)
  assert.throws(() => scope.enqueue(entryOf(Placed({ id: '1' })), undefined), { code: 'UNIT_CLOSED' })
  assert.throws(() => scope.afterCommit(receipt), { code: 'UNIT_CLOSED' })
  assert.throws(() => scope.track({ pullEvents: () => [] }), { code: 'UNIT_CLOSED' })
  await assert.rejects(scope.sql.query('select 1'), { code: 'UNIT_CLOSED' })
  await assert.rejects(unitOfWorkOf(scope, b.publish).publish(Placed({ id: '1' })), { code: 'UNIT_CLOSED' })
  await assert.rejects(late(), /units only/)
  assert.deepEqual(await b.rows(), [])
})

test('a publish that was not awaited is refused when it comes too late, and the unit stays whole', async () => {
  const b = bench()
  const gate = Promise.withResolvers<void>()
  let forgotten!: Promise<unknown>
  await b.unitOfWork(async (unit) => {
    await unit.publish(Placed({ id: 'in time' }))
    forgotten = gate.promise.then(() => b.publish(Placed({ id: 'late' })))
    forgotten.catch(() => {})
  })
  gate.resolve()
  await assert.rejects(forgotten, { code: 'UNIT_CLOSED' })
  assert.equal((await b.rows()).length, 1)
  assert.deepEqual(b.appends, [1])
})

class Order extends Aggregate {
  place(id: string): void {
    this.raise(Placed({ id }))
  }

  raiseEvent(event: DomainEvent): void {
    this.raise(event)
  }
}

test('what tracked aggregates raise is published at the end, in order, each once', async () => {
  const b = bench()
  const [first, second] = [new Order(), new Order()]
  await b.unitOfWork(async (unit) => {
    unit.track(first, second, first)
    second.place('b1')
    first.place('a1')
    await unit.publish(Placed({ id: 'direct' }))
    first.place('a2')
  })
  assert.deepEqual(
    (await b.storage.outbox.list({})).map((row) => row.key),
    ['direct', 'a1', 'a2', 'b1'],
  )
  assert.deepEqual([first.pullEvents(), second.pullEvents()], [[], []])
})

test('what aggregates raise while their events are published is published too; without end it is refused', async () => {
  const b = bench()
  let left = 3
  const chain = { pullEvents: () => (left-- > 0 ? [Placed({ id: `${left}` })] : []) }
  await b.run(async (unit) => unit.track(chain))
  assert.equal((await b.rows()).length, 3)
  await assert.rejects(
    b.run(async (unit) => unit.track({ pullEvents: () => [Placed({ id: 'again' })] })),
    { code: 'QUEUE_FULL' },
  )
  assert.equal((await b.rows()).length, 3)
  await assert.rejects(
    b.run(async (unit) => unit.track({} as never)),
    { code: 'INVALID_OPTION' },
  )
})

test('a unit inside a unit is refused, and so is no function', async () => {
  const b = bench()
  await b.unitOfWork(async () => {
    await assert.rejects(
      b.unitOfWork(async () => {}),
      { code: 'SESSION_BUSY' },
    )
  })
  await assert.rejects(b.run('no function' as never), { code: 'INVALID_OPTION' })
  await assert.rejects(
    b.run(async () => {}, { attemptsMax: 0 }),
    { code: 'INVALID_OPTION' },
  )
})

test('a deadlock is rerun only where the unit allows it, each time as a fresh unit', async () => {
  for (const code of ['40001', '40P01', '23505']) {
    for (const attemptsMax of [1, 3]) {
      const b = bench()
      let runs = 0
      const aborted = Object.assign(new Error('aborted'), { code })
      const done = b.unitOfWork(
        async (unit) => {
          runs++
          await unit.publish(Placed({ id: `run-${runs}` }))
          if (runs < 3) throw new Error('wrapped', { cause: aborted })
        },
        { attemptsMax },
      )
      const isRerun = attemptsMax === 3 && code !== '23505'
      if (isRerun) await done
      else await assert.rejects(done, { message: 'wrapped' })
      assert.equal(runs, isRerun ? 3 : 1)
      assert.deepEqual(
        (await b.storage.outbox.list({})).map((row) => row.key),
        isRerun ? ['run-3'] : [],
      )
    }
  }
})

test('a commit that was cut is passed on as unknown: nothing runs after it, nothing is run again', async () => {
  const cut = new WaybillError('UNKNOWN_OUTCOME', 'cut')
  const { database } = memoryStorage()
  const b = bench({
    database: {
      query: database.query,
      async transaction(fn) {
        await database.transaction(fn)
        throw cut
      },
    },
  })
  b.storage.outbox.append = async () => ['1']
  let runs = 0
  const done = b.unitOfWork(
    async (unit) => {
      runs++
      await unit.publish(Placed({ id: '1' }), { strategy: 'SYNC_ONLY' })
    },
    { attemptsMax: 5 },
  )
  await assert.rejects(done, (error) => error === cut)
  assert.deepEqual([runs, b.dispatched, b.wakes], [1, [], 0])
})

test('crash points stand before the append, before the commit and after it', async (t) => {
  t.after(() => setCrashpointHook(undefined))
  for (const [point, committed] of [
    ['unit.beforeAppend', false],
    ['unit.beforeCommit', false],
    ['unit.afterCommit', true],
  ] as const) {
    const b = bench()
    setCrashpointHook((reached) => {
      if (reached === point) throw new Error(`crash at ${point}`)
    })
    await assert.rejects(
      b.unitOfWork(async (unit) => void (await unit.publish(Placed({ id: '1' })))),
      { message: `crash at ${point}` },
    )
    setCrashpointHook(undefined)
    assert.equal((await b.rows()).length, committed ? 1 : 0)
    assert.equal(b.wakes, 0)
  }
})

test('in a transaction of the caller, a durable publish is a row of it at once, with no grace; what needs a commit hook is refused', async () => {
  const b = bench()
  const joinTransaction = createJoinTransaction(b.storage.outbox, b.publish)
  let kept!: UnitScope
  const order = new Order()
  await b.storage.database.transaction(async (sql) => {
    const result = await joinTransaction({ sql }, async (unit) => {
      kept = currentScope().unit!
      await unit.publish(Placed({ id: '1' }))
      await assert.rejects(unit.publish(Placed({ id: '2' }), { strategy: 'SYNC_ONLY' }), { code: 'UNSUPPORTED' })
      assert.throws(() => kept.enqueue(entryOf(Placed({ id: '3' })), undefined), { code: 'UNSUPPORTED' })
      await kept.write!({ ...entryOf(Placed({ id: '4' })), holdMs: 60_000 })
      await assert.rejects(
        b.unitOfWork(async () => {}),
        { code: 'SESSION_BUSY' },
      )
      unit.track(order)
      order.place('5')
      return 'joined'
    })
    assert.equal(result, 'joined')
    await assert.rejects(kept.write!(entryOf(Placed({ id: '6' }))), { code: 'UNIT_CLOSED' })
    assert.deepEqual(await b.rows(), [])
  })
  const rows = await b.storage.outbox.list({})
  assert.deepEqual(
    rows.map((row) => [row.key, row.dueAt]),
    [
      ['1', undefined],
      ['4', undefined],
      ['5', undefined],
    ],
  )

  await assert.rejects(
    b.storage.database.transaction(async (sql) => {
      await joinTransaction({ sql }, async (unit) => unit.publish(Placed({ id: 'rolled back' })))
      throw new Error('roll back')
    }),
  )
  assert.equal((await b.rows()).length, 3)
})

type Step = { readonly kind: 'async' | 'sync' | 'raise' | 'forget'; readonly key: number } | { readonly kind: 'yield' }

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constantFrom('async' as const, 'sync' as const, 'raise' as const, 'forget' as const), key: fc.nat(3) }),
  fc.constant({ kind: 'yield' as const }),
)
const plan = fc.record({
  steps: fc.array(step, { maxLength: 8 }),
  ends: fc.constantFrom('commit', 'commit', 'throw', 'crash'),
  failing: fc.boolean(),
})

test('units under random commits, rollbacks, crashes and failing handlers: exactly what committed is there, in order', async (t) => {
  t.after(() => setCrashpointHook(undefined))
  await fc.assert(
    fc.asyncProperty(fc.array(plan, { maxLength: 8 }), async (plans) => {
      const failing = new Set<string>()
      const b = bench({
        handler: async (event) => {
          if (failing.has(event.id)) throw new Error('handler')
        },
      })
      const rows: string[] = []
      const dispatches: string[] = []
      let crash = false
      setCrashpointHook((point) => {
        if (crash && point === 'unit.beforeCommit') throw new Error('crash')
      })
      const units = plans.map(async ({ steps, ends, failing: fails }) => {
        const order = new Order()
        const [durable, raised, direct]: string[][] = [[], [], []]
        const gate = Promise.withResolvers<void>()
        const forgotten: Promise<unknown>[] = []
        const outcome = await b
          .unitOfWork(async (unit) => {
            unit.track(order)
            for (const current of steps) {
              if (current.kind === 'yield') {
                await new Promise((resolve) => setImmediate(resolve))
                continue
              }
              const event = Placed({ id: `${current.key}` })
              if (current.kind === 'async') durable!.push((await unit.publish(event)).eventId)
              if (current.kind === 'sync') direct!.push((await unit.publish(event, { strategy: 'SYNC_ONLY' })).eventId)
              if (current.kind === 'sync' && fails) failing.add(event.id)
              if (current.kind === 'raise') {
                raised!.push(event.id)
                order.raiseEvent(event)
              }
              if (current.kind === 'forget') forgotten.push(gate.promise.then(() => unit.publish(event)))
            }
            if (ends === 'throw') throw new Error('rollback')
            if (ends === 'crash') crash = true
          })
          .then(
            () => 'committed',
            () => 'rolled back',
          )
        gate.resolve()
        for (const late of await Promise.allSettled(forgotten)) assert.equal(late.status, 'rejected')
        return { outcome, ends, durable: [...durable!, ...raised!], direct: direct! }
      })
      for (const { outcome, ends, durable, direct } of await Promise.all(units)) {
        if (ends === 'throw' || ends === 'crash') assert.equal(outcome, 'rolled back')
        if (outcome === 'rolled back') continue
        rows.push(...durable)
        dispatches.push(...direct)
        // Rows of one unit keep their order.
        const there = await b.rows()
        assert.deepEqual(
          there.filter((id) => durable.includes(id)),
          durable,
        )
      }
      assert.deepEqual((await b.rows()).toSorted(), rows.toSorted())
      assert.deepEqual(b.dispatched.toSorted(), dispatches.toSorted())
    }),
    { numRuns: 150 },
  )
})
