import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { type OutboxRecord, createWaybill, defineContext, defineEvent, on } from 'waybill'
import { postgresStorage } from 'waybill/postgres'
import { testPostgres } from '../src/testing/test-postgres.ts'

// Rows that somebody has edited by hand into nonsense: each is delivered all the same, or stopped with a reason; the relay goes on, and so do other keys.

const Placed = defineEvent<{ id: string }>('order.Placed', { aggregate: { type: 'order', id: (order) => order.id } })

/** What is done to a row, and what comes of it: delivered, parked with an error in the outbox, or dead-lettered by its handler. */
const EDITS: Readonly<Record<string, { readonly set: string; readonly all?: true; readonly outcome: 'delivered' | 'dead' | RegExp }>> = {
  'headers that are no JSON': { set: `headers = 'not json'`, outcome: /headers of this row are not a JSON object/ },
  'headers that are a list': { set: `headers = '["x"]'`, outcome: /headers of this row are not a JSON object/ },
  'headers that are no texts': { set: `headers = '{"a":1}'`, outcome: /headers of this row are not a JSON object/ },
  'headers that are empty': { set: `headers = ''`, outcome: /headers of this row are not a JSON object/ },
  'no headers at all': { set: `headers = '{}'`, outcome: 'delivered' },
  'priority 77': { set: 'priority = 77', outcome: 'delivered' },
  'priority -3': { set: 'priority = -3', outcome: 'delivered' },
  'a wrong shard': { set: 'shard = (shard + 7) % 64', outcome: 'delivered' },
  'an empty body': { set: `body = ''`, outcome: 'dead' },
  'a body of noise': { set: `body = '\\x00ff7b22'`, outcome: 'dead' },
  'an unknown destination': { set: `destination = 'mars'`, all: true, outcome: /mars/ },
  'an event id that is empty': { set: `event_id = ''`, outcome: /id of a message is not usable/ },
  'attempts that are spent': { set: 'attempts = 1000', outcome: 'delivered' },
  'attempts below nothing': { set: 'attempts = -1000', outcome: 'delivered' },
  'a creation in the far future': { set: `created_at = 'infinity'`, outcome: 'delivered' },
  'a hold that is past': { set: `hold_until = '-infinity'`, outcome: 'delivered' },
}

test('rows edited by hand: each is delivered or stopped with its reason, and all others go on', async (context) => {
  const server = await testPostgres()
  const schema = server.schema()
  const storage = await postgresStorage(server.url(), { schema })
  await storage.migrate()
  const seen: string[] = []
  const sales = defineContext('sales', {
    events: [Placed],
    publish: { strategy: 'ASYNC_ONLY' },
    handlers: { note: on([Placed], (event) => void seen.push(event.payload.id)) },
  })
  const waybill = await createWaybill({
    database: storage,
    contexts: [sales],
    relay: { retry: { attemptsMax: 2, baseMs: 1, maxMs: 2 }, pollIntervalMs: 5 },
  })
  context.after(() => waybill.stop())
  const table = `${schema}.waybill_outbox`
  for (const [what, { set, all }] of Object.entries(EDITS)) {
    const { eventId } = await waybill.publish(Placed({ id: what }))
    // A follower of its key, and one that has nothing to do with it.
    await waybill.publish(Placed({ id: what }))
    await waybill.publish(Placed({ id: `beside ${what}` }))
    await storage.database.query(`update ${table} set ${set} where event_id = $1 or key = $2`, [eventId, all ? what : null])
  }
  const { eventId: keyless } = await waybill.publish(Placed({ id: 'an empty key' }))
  await storage.database.query(`update ${table} set key = '' where event_id = $1`, [keyless])
  for (const impossible of [`status = 'garbage'`, 'shard = 64', 'shard = -1', 'key = null', `topic = repeat('x', 1025)`])
    await assert.rejects(storage.database.query(`update ${table} set ${impossible}`), { code: /^23(514|502)$/ }, impossible)

  await waybill.start()
  const { database } = waybill
  // Held rows that fail are pending for a while: until nothing is, or each that is left is parked.
  const limit = Date.now() + 180_000
  while ((await database.outbox.stats()).pending > 0) {
    assert.ok(Date.now() < limit, JSON.stringify(await database.outbox.list({ status: 'pending' })))
    await turn()
  }
  await waybill.drained()

  const left = await database.outbox.list({ limit: 1000 })
  const dead = await database.deadLetters.list({ limit: 1000 })
  const rowsOf = (): Map<string, OutboxRecord[]> => Map.groupBy(left, ({ key }) => key)
  for (const [what, { outcome }] of Object.entries(EDITS)) {
    assert.ok(seen.includes(`beside ${what}`), `${what}: another key went on`)
    const times = seen.filter((id) => id === what).length
    const stopped = rowsOf().get(what) ?? []
    if (outcome === 'delivered') assert.equal(times, 2, what)
    if (outcome === 'dead')
      assert.ok(times < 2 && dead.some(({ message, reason }) => message.key === what && reason === 'undecodable'), what)
    if (outcome instanceof RegExp) {
      assert.equal(times, 0, `${what}: neither it nor its follower`)
      assert.deepEqual(
        stopped.map(({ status }) => status),
        ['parked', 'parked'],
        what,
      )
      assert.match(stopped[0]!.lastError ?? '', outcome, what)
      assert.equal(stopped[1]!.behind, stopped[0]!.rowId, what)
    } else assert.deepEqual(stopped, [], what)
  }
  const [emptied] = rowsOf().get('') ?? []
  assert.equal(emptied?.status, 'parked')
  assert.match(emptied.lastError ?? '', /not a usable key/)
  // Mended, they go on in order.
  await storage.database.query(`update ${table} set destination = 'default' where destination = 'mars'`)
  await database.outbox.retry({ key: 'an unknown destination' })
  await waybill.drained()
  assert.equal(seen.filter((id) => id === 'an unknown destination').length, 2)
})

test('a number of attempts that can get no higher stops its own key only', async (context) => {
  const server = await testPostgres()
  const schema = server.schema()
  const storage = await postgresStorage(server.url(), { schema })
  await storage.migrate()
  context.after(() => storage.close())
  const message = (id: string) => ({ eventType: 't', message: { id, topic: 't', key: id, headers: {}, body: new Uint8Array() } })
  await storage.database.transaction((sql) => storage.outbox.append(sql, [message('a'), message('b')]))
  await storage.database.query(`update ${schema}.waybill_outbox set attempts = 2147483647 where key = 'a'`)
  await storage.outbox.acquire('relay', 60_000)
  const rows = await storage.outbox.claim('relay', { limit: 10, busy: [] })
  await storage.outbox.hold(
    'relay',
    rows.map(({ rowId }) => ({ rowId, error: 'failed' })),
    60_000,
  )
  for (const { rowId } of rows) await storage.outbox.charge('relay', rowId)
  assert.deepEqual(
    (await storage.outbox.list({})).map(({ lastError }) => lastError),
    ['failed', 'failed'],
  )
})
