import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pgliteStorage } from '../adapters/postgres/pglite.ts'
import { memoryStorage } from '../adapters/memory/storage.ts'
import { defineContext, on } from '../context.ts'
import { type WaybillErrorCode, isWaybillError } from '../core/errors.ts'
import { defineEvent } from '../core/event.ts'
import type { PublishConfig } from '../core/publish-config.ts'
import type { Storage } from '../core/stores.ts'
import { createFakeClock } from '../testing/fake-clock.ts'
import { createWaybill } from '../waybill.ts'

const Reminded = defineEvent<{ id: string }>('sales.Reminded', { aggregate: { type: 'order', id: (order) => order.id } })
const HOUR_MS = 3_600_000
const TEN_YEARS_MS = 3_653 * 24 * HOUR_MS

async function withWaybill(
  database: Storage,
  run: (waybill: Awaited<ReturnType<typeof open>>, seen: string[]) => Promise<void>,
): Promise<void> {
  const seen: string[] = []
  const waybill = await open(database, seen)
  try {
    await waybill.start()
    await run(waybill, seen)
  } finally {
    await waybill.stop()
  }
}

function open(database: Storage, seen: string[]) {
  const handlers = { remind: on([Reminded], (event) => void seen.push(event.payload.id)) }
  return createWaybill({
    database,
    contexts: [defineContext('sales', { events: [Reminded], publish: { strategy: 'ASYNC_ONLY' }, handlers })],
  })
}

const ahead = (ms: number): PublishConfig => ({ availableAt: new Date(Date.now() + ms) })
const waiting = async ({ outbox }: Storage): Promise<readonly [string, number][]> =>
  (await outbox.list({ limit: 100 })).map(({ status, dueAt }) => [status, dueAt?.getTime() ?? 0])

test('a publish with availableAt waits for its time: outside a unit, in one, and in a transaction of the caller', async () => {
  const database = await pgliteStorage('memory://')
  await withWaybill(database, async (waybill, seen) => {
    const at = ahead(HOUR_MS)
    const outside = await waybill.publish(Reminded({ id: 'outside' }), at)
    assert.deepEqual([outside.state, outside.confirmed, outside.strategy], ['pending', false, 'ASYNC_ONLY'])
    const { receipts } = await waybill.unitOfWork((unit) => unit.publish(Reminded({ id: 'unit' }), at))
    assert.deepEqual(
      receipts.map(({ state }) => state),
      ['pending'],
    )
    await database.database.transaction((sql) =>
      waybill.joinTransaction({ sql }, (unit) => unit.publish(Reminded({ id: 'joined' }), { ...at, strategy: 'ASYNC_ONLY' })),
    )
    // Of the same keys, and due now: nothing waits behind what is scheduled.
    for (const id of ['outside', 'unit', 'joined']) await waybill.publish(Reminded({ id }))
    await waybill.publish(Reminded({ id: 'past' }), ahead(-HOUR_MS))
    await waybill.publish(Reminded({ id: 'long ago' }), { availableAt: new Date(-8.64e15) })
    await waybill.drained()
    assert.deepEqual(seen.toSorted(), ['joined', 'long ago', 'outside', 'past', 'unit'])
    assert.deepEqual(await waiting(database), Array(3).fill(['scheduled', at.availableAt!.getTime()]))
    assert.equal((await database.outbox.stats()).scheduled, 3)
    await database.database.query(`update waybill_outbox set available_at = clock_timestamp() - interval '1 second'`)
    await waybill.publishAllPending()
    await waybill.drained()
    assert.deepEqual(seen.length, 8, 'each of them once more, when its time has come')
  })
})

test('what is scheduled is delivered when its time has come, by the clock of the database', async () => {
  const clock = createFakeClock()
  const storage = memoryStorage({ clock })
  const { outbox, database } = storage
  const message = { id: '1', topic: 't', key: 'k', headers: {}, body: new Uint8Array() }
  await database.transaction((sql) => outbox.append(sql, [{ message, eventType: 't', availableAt: new Date(clock.now() + HOUR_MS) }]))
  await outbox.acquire('r', 10 * HOUR_MS)
  const claimed = async (): Promise<number> => (await outbox.claim('r', { limit: 10, busy: [] })).length
  assert.equal(await claimed(), 0)
  await clock.advance(HOUR_MS)
  assert.equal(await claimed(), 1)
})

test('a date is refused where it makes no sense, and nothing is written', async () => {
  const database = memoryStorage()
  await withWaybill(database, async (waybill) => {
    const refused = (config: unknown, says: RegExp, code: WaybillErrorCode = 'INVALID_OPTION'): Promise<void> =>
      assert.rejects(waybill.publish(Reminded({ id: 'x' }), config as PublishConfig), (error: unknown) => {
        assert.ok(isWaybillError(error, code), String(error))
        assert.match(error.message, says)
        return true
      })
    for (const strategy of ['SYNC_ONLY', 'HYBRID_FAST', 'HYBRID_RELIABLE'] as const)
      await refused({ ...ahead(HOUR_MS), strategy }, new RegExp(`availableAt with ${strategy}.*ASYNC_ONLY`))
    await refused({ availableAt: new Date(Number.NaN) }, /availableAt is no date/)
    await refused({ availableAt: Date.now() + HOUR_MS }, /availableAt is no date/)
    await refused({ availableAt: '2030-01-01' }, /availableAt is no date/)
    await refused({ availableAt: null }, /availableAt is no date/)
    await refused(ahead(TEN_YEARS_MS + HOUR_MS), /10 years/)
    await refused({ availableAt: new Date(8.64e15) }, /10 years/)
    await refused({ ...ahead(HOUR_MS), priority: 10 }, /0 to 9/)
    const standing = /publish\(event, \{ availableAt \}\)/
    assert.throws(() => waybill.configureEvent(Reminded, ahead(HOUR_MS)), standing)
    assert.throws(() => waybill.configureBoundedContext('sales', ahead(HOUR_MS)), standing)
    assert.throws(() => defineContext('other', { publish: ahead(HOUR_MS) }), standing)
    assert.throws(() => defineEvent('other.Defined', { publish: ahead(HOUR_MS) }), standing)
    assert.deepEqual(await waiting(database), [])
    await waybill.publish(Reminded({ id: 'x' }), ahead(TEN_YEARS_MS - HOUR_MS))
    assert.deepEqual((await waiting(database)).length, 1)
  })
})

test('a date that its caller changes afterwards changes nothing', async () => {
  const database = memoryStorage()
  await withWaybill(database, async (waybill) => {
    const availableAt = new Date(Date.now() + HOUR_MS)
    const at = availableAt.getTime()
    await waybill.unitOfWork(async (unit) => {
      await unit.publish(Reminded({ id: 'x' }), { availableAt })
      availableAt.setTime(0)
    })
    assert.deepEqual((await waiting(database))[0]?.[1], at)
  })
})
