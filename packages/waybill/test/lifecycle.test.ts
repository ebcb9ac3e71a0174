import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type Storage,
  WaybillError,
  type WaybillEvent,
  createWaybill,
  defineContext,
  defineEvent,
  isWaybillError,
  memoryStorage,
  on,
} from 'waybill'
import { pgliteStorage, postgresStorage } from 'waybill/postgres'
import { testPostgres } from '../src/testing/test-postgres.ts'

// What holds from the first line of a process to its last, and between two processes.

const Placed = defineEvent<{ key: string }>('order.Placed', { key: (order) => order.key, publish: { strategy: 'ASYNC_ONLY' } })
const closed = (error: unknown): boolean => isWaybillError(error, 'CLOSED')

function shop(database: Storage, handle: (key: string) => void | Promise<void>, observe: (happened: WaybillEvent) => void = () => {}) {
  const retry = { attemptsMax: 2, baseMs: 1, maxMs: 1 }
  const handlers = { ship: on([Placed], ({ payload }) => handle(payload.key), { retry, timeoutMs: 300 }) }
  return createWaybill({ database, contexts: [defineContext('orders', { events: [Placed], handlers })], shutdownMs: 1_000, observe })
}

test('before the start nothing is taken out of the outbox, so nothing is parked for want of a handler', async () => {
  const handled: string[] = []
  await using waybill = await shop(memoryStorage(), (key) => void handled.push(key))
  await waybill.publish(Placed({ key: 'early' }))
  await assert.rejects(waybill.drained(), closed)
  await assert.rejects(waybill.publishAllPending(), closed)
  await waybill.start()
  await waybill.drained()
  assert.deepEqual(handled, ['early'])
  await waybill.stop()
  await assert.rejects(waybill.drained(), closed)
})

test('a stop that comes during the start wins, and a second start is refused', async () => {
  const waybill = await shop(memoryStorage(), () => {})
  const [starting, again] = [waybill.start(), waybill.start()]
  await Promise.all([waybill.stop(), assert.rejects(starting, closed), assert.rejects(again, closed)])
  await assert.rejects(
    waybill.unitOfWork(async () => {}),
    closed,
  )
  await waybill.finished
})

test('whoever asked before the start hears of a relay that died, and nobody waits in vain', async () => {
  const storage = memoryStorage()
  const outbox: Storage['outbox'] = {
    ...storage.outbox,
    acquire: () => Promise.reject(new WaybillError('CLOSED', 'the tables are gone')),
  }
  const seen: WaybillEvent[] = []
  const waybill = await shop(
    { ...storage, outbox },
    () => {},
    (happened) => void seen.push(happened),
  )
  const { finished } = waybill
  await waybill.start()
  await assert.rejects(finished, closed)
  await assert.rejects(waybill.drained(), closed)
  assert.equal(seen.filter(({ type }) => type === 'relay.failed').length, 1)
  await assert.rejects(waybill.stop(), closed)
})

test('a handler that never ends, and ignores its signal, holds up neither the others nor the stop', async () => {
  const handled: string[] = []
  const storage = await pgliteStorage('memory://')
  await using waybill = await shop(storage, (key) => (key === 'endless' ? new Promise<void>(() => {}) : void handled.push(key)))
  await waybill.start()
  await waybill.publish(Placed({ key: 'endless' }))
  await waybill.publish(Placed({ key: 'other' }))
  await waybill.drained()
  assert.deepEqual(handled, ['other'])
  assert.equal(await storage.deadLetters.count(), 1)
  await waybill.stop()
})

test('a key that one process has parked stays parked when its shard goes to another', async () => {
  const server = await testPostgres()
  const schema = server.schema()
  const handled: string[] = []
  let failing = true
  const half = [0, 0].map(() => Promise.withResolvers<void>())
  const shops = await Promise.all(
    half.map(async ({ resolve }) => {
      const storage = await postgresStorage(server.url(), { schema })
      await storage.migrate()
      const handle = (key: string): void => {
        if (failing) throw new Error('not now')
        handled.push(key)
      }
      return shop(storage, handle, (happened) => void (happened.type === 'relay.acquired' && happened.shards === 32 && resolve()))
    }),
  )
  const [first, second] = shops as [(typeof shops)[0], (typeof shops)[0]]
  for (const one of shops) await one.start()
  await Promise.all(half.map(({ promise }) => promise))
  const keys = Array.from({ length: 20 }, (_, index) => `key-${index}`)
  for (const key of keys) await second.publish(Placed({ key }))
  await second.drained()
  failing = false
  await first.stop()
  for (const key of keys) await second.publish(Placed({ key }))
  await second.drained()
  assert.deepEqual(handled, [])
  assert.equal(await second.database.deadLetters.count(), 40)
  await second.stop()
})

test('two processes of one database: other handlers are refused, a mere publisher leaves its rows to who has the handlers', async () => {
  const server = await testPostgres()
  const schema = server.schema()
  const open = async (): Promise<Storage> => {
    const storage = await postgresStorage(server.url(), { schema, poolMax: 4 })
    await storage.migrate()
    return storage
  }
  const orders = defineContext('orders', { events: [Placed] })
  const handled: string[] = []
  const billing = defineContext('billing', { handlers: { bill: on([Placed], ({ payload }) => void handled.push(payload.key)) } })
  const mail = defineContext('mail', { handlers: { send: on([Placed], () => {}) } })
  const relay = { leaseMs: 500 }

  await using biller = await createWaybill({ database: await open(), contexts: [orders, billing], relay })
  await biller.start()
  await until(async () => (await biller.database.outbox.relays()).length === 1)

  const mailer = await createWaybill({ database: await open(), contexts: [orders, mail], relay })
  await assert.rejects(mailer.start(), (error) => isWaybillError(error, 'UNSUPPORTED'))
  await mailer.stop()

  await using publisher = await createWaybill({ database: await open(), contexts: [orders], relay })
  await publisher.start()
  for (let count = 0; count < 20; count++) await publisher.publish(Placed({ key: `k-${count}` }))
  assert.equal(await publisher.publishAllPending(), 0)
  await publisher.drained()
  assert.equal(handled.length, 20)

  await using twin = await createWaybill({ database: await open(), contexts: [orders, billing], relay })
  await twin.start()
  await publisher.publish(Placed({ key: 'k-20' }))
  await publisher.drained()
  assert.equal(handled.length, 21)
})

async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((resolve) => setImmediate(resolve))
}
