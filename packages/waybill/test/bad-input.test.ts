import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import {
  type Storage,
  type Waybill,
  type WaybillErrorCode,
  createWaybill,
  defineContext,
  defineEvent,
  isWaybillError,
  jsonCodec,
  memoryStorage,
  memoryTransport,
  on,
} from 'waybill'
import { pgliteStorage } from 'waybill/postgres'
import { z } from 'zod'

// Each bad input: one clear error with a code that says what was got, nothing half done, nothing lost.

const Placed = defineEvent('order.OrderPlaced', {
  schema: z.object({ orderId: z.string(), pence: z.int(), note: z.unknown() }),
  aggregate: { type: 'order', id: (order) => order.orderId },
})
const Local = defineEvent<{ id: string }>('sales.Noted')
const handled: unknown[] = []
const sales = defineContext('sales', {
  events: [Placed, Local],
  publish: { strategy: 'ASYNC_ONLY' },
  handlers: {
    note: on([Placed, Local], (event) => {
      handled.push(event.payload)
    }),
  },
})

let storage: Storage
let waybill: Waybill

before(async () => {
  storage = await pgliteStorage('memory://')
  waybill = await createWaybill({ database: storage, contexts: [sales] })
  await waybill.start()
})
after(() => waybill.stop())

const order = (orderId: string, note: unknown = 'n'): ReturnType<typeof Placed> => Placed({ orderId, pence: 1, note })

async function refused(run: () => unknown, code: WaybillErrorCode, ...says: readonly RegExp[]): Promise<void> {
  const before = await storage.outbox.stats()
  const seen = handled.length
  await assert.rejects(
    async () => run(),
    (error: unknown) => {
      assert.ok(isWaybillError(error), String(error))
      assert.equal(error.code, code, error.message)
      for (const pattern of says) assert.match(error.message, pattern)
      assert.ok(error.message.length < 1_000, 'a short message')
      assert.doesNotMatch(error.message, /[\u0000-\u001f]/, 'no control byte reaches a log')
      return true
    },
  )
  assert.deepEqual({ ...(await storage.outbox.stats()), oldestPendingMs: 0 }, { ...before, oldestPendingMs: 0 }, 'no row was written')
  assert.equal(handled.length, seen, 'no handler was called')
}

for (const [what, name] of [
  ['empty', ''],
  ['control bytes', 'order.\u0000Placed\n'],
  ['10 kB', 'a'.repeat(10_240)],
  ['a wildcard', 'order.>'],
  ['a path', '../order'],
] as const) {
  test(`an event name: ${what}`, () => refused(() => defineEvent(name), 'INVALID_NAME', /got /, /allowed: /))
}

test('a payload that fails its schema says path and reason', () =>
  refused(() => waybill.publish(Placed({ orderId: 'o', pence: 1.5, note: '' })), 'INVALID_PAYLOAD', /payload\.pence: .*int/i))

test('an unknown strategy', () =>
  refused(() => waybill.publish(order('o'), { strategy: 'FASTER' as never }), 'UNKNOWN_STRATEGY', /"FASTER"/, /HYBRID_RELIABLE/))
test('an unknown preset', () =>
  refused(() => waybill.publish(order('o'), 'BEST' as never), 'UNKNOWN_STRATEGY', /"BEST"/, /CRITICAL_HYBRID/))
test('an unknown event', () =>
  refused(() => waybill.publish(defineEvent('a.Stranger')({})), 'UNKNOWN_EVENT', /"a\.Stranger"/, /order\.OrderPlaced/))
test('configuring an unknown event', () => refused(() => waybill.configureEvent('a.Stranger', {}), 'UNKNOWN_EVENT', /"a\.Stranger"/))
test('priority 11', () => refused(() => waybill.publish(order('o'), { priority: 11 }), 'INVALID_OPTION', /got 11/, /0 to 9/))
test('timeout -1', () => refused(() => waybill.publish(order('o'), { timeoutMs: -1 }), 'INVALID_OPTION', /got -1/))
test('timeout NaN', () => refused(() => waybill.publish(order('o'), { timeoutMs: Number.NaN }), 'INVALID_OPTION', /got NaN/))
test('a handler that is no function', () => refused(() => on([Placed], 'do it' as never), 'INVALID_OPTION', /"do it"/))
test('two contexts, and so two handlers, of one name', () =>
  refused(
    () => createWaybill({ contexts: [sales, defineContext('sales', { handlers: { note: on([Local], () => {}) } })] }),
    'DUPLICATE',
    /"sales"/,
  ))
test('one event declared by two contexts', () =>
  refused(() => createWaybill({ contexts: [sales, defineContext('b', { events: [Local] })] }), 'DUPLICATE', /"sales\.Noted"/))

test('publish after stop', async () => {
  const stopped = await createWaybill({ database: memoryStorage(), contexts: [sales] })
  await stopped.start()
  await stopped.stop()
  await refused(() => stopped.publish(order('o')), 'CLOSED')
  await refused(() => stopped.unitOfWork(async () => {}), 'CLOSED')
})

test('a publish in a closed unit of work', async () => {
  const { result: unit } = await waybill.unitOfWork(async (open) => open)
  await refused(() => unit.publish(order('o')), 'UNIT_CLOSED', /awaited/)
  await refused(() => unit.sql.query('select 1'), 'UNIT_CLOSED')
})

test('a hybrid event without consumer', async () => {
  const lonely = await createWaybill({
    database: memoryStorage(),
    contexts: [defineContext('a', { events: [defineEvent('a.Lonely', { publish: 'CRITICAL_HYBRID' })] })],
  })
  await refused(() => lonely.start(), 'HYBRID_WITHOUT_CONSUMER', /a\.Lonely/)
  await lonely.stop()
})

test('HYBRID_FAST across contexts', async () => {
  const far = defineEvent('a.Far', { publish: { strategy: 'HYBRID_FAST' } })
  const two = await createWaybill({
    database: memoryStorage(),
    contexts: [defineContext('a', { events: [far] }), defineContext('b', { handlers: { h: on([far], () => {}) } })],
  })
  await refused(() => two.start(), 'HYBRID_FAST_ACROSS_CONTEXTS', /a\.Far/)
  await two.stop()
  await refused(() => waybill.publish(order('o'), { strategy: 'HYBRID_FAST', scope: 'INTER_BC' }), 'HYBRID_FAST_ACROSS_CONTEXTS')
})

test('a PGlite folder that is open already', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'waybill-'))
  const first = await pgliteStorage(folder)
  try {
    await refused(() => pgliteStorage(folder), 'DATABASE_IN_USE', /waybill-/)
  } finally {
    await first.close()
    rmSync(folder, { recursive: true })
  }
})

test('a full queue', async () => {
  const transport = memoryTransport({ queueMax: 1 })
  await transport.declareGroups([{ topic: 't', group: 'g' }])
  const message = (id: string): Parameters<typeof transport.publish>[0][number] => ({
    id,
    topic: 't',
    key: id,
    headers: {},
    body: new Uint8Array(),
  })
  const outcomes = await transport.publish([message('1'), message('2')], new AbortController().signal)
  assert.deepEqual(
    outcomes.map((outcome) => (outcome.kind === 'stored' ? 'stored' : outcome.error.code)),
    ['stored', 'QUEUE_FULL'],
  )
  await transport.close()
})

for (const name of ['event_id', 'content_type', 'traceparent']) {
  test(`the reserved header name ${name}`, () => refused(() => jsonCodec({ headers: { [name]: 'x' } }), 'INVALID_HEADER', new RegExp(name)))
}

test('a payload of 2 MiB', () =>
  refused(() => waybill.publish(order('o', 'x'.repeat(2 * 1024 * 1024))), 'PAYLOAD_TOO_LARGE', /1048576|1 MiB/))
test('a circular payload', () => {
  const loop: Record<string, unknown> = {}
  loop['self'] = loop
  return refused(() => waybill.publish(order('o', loop)), 'NOT_SERIALIZABLE', /note\.self/)
})
for (const [what, value] of [
  ['BigInt', 1n],
  ['NaN', Number.NaN],
  ['an invalid date', new Date(Number.NaN)],
  ['a lone surrogate', '\ud800'],
] as const) {
  test(`a payload with ${what}`, () => refused(() => waybill.publish(order('o', value)), 'NOT_SERIALIZABLE', /note/))
}
test('an aggregate id of 10 kB', () => refused(() => waybill.publish(order('o'.repeat(10_240))), 'INVALID_KEY', /10240 characters/))
test('an aggregate id with NUL', () => refused(() => waybill.publish(order('o\u0000')), 'INVALID_KEY'))

test('a database call from inside its own transaction is an error, not a hang', () =>
  refused(() => waybill.unitOfWork(() => storage.database.query('select 1')), 'SESSION_BUSY'))

test('after all of these the road still works', async () => {
  await waybill.publish(order('good'))
  await waybill.drained()
  assert.deepEqual(handled, [{ orderId: 'good', pence: 1, note: 'n' }])
})
