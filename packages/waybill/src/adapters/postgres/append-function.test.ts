import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { after, before, describe, test } from 'node:test'
import { jsonCodec } from '../../codecs/json.ts'
import { defineContext, on } from '../../context.ts'
import { defineEvent } from '../../core/event.ts'
import type { SqlExecutor } from '../../core/database.ts'
import { newId } from '../../core/ids.ts'
import type { ClaimedRow, Storage } from '../../core/stores.ts'
import { seededRandom } from '../../testing/contract-tools.ts'
import { testPostgres } from '../../testing/test-postgres.ts'
import { createWaybill } from '../../waybill.ts'
import { pgliteStorage } from './pglite.ts'
import { postgresStorage } from './pg.ts'

const LEASE_MS = 60_000
const DEADLINE_MS = 60_000
const codec = jsonCodec()

const OPENERS: Readonly<Record<string, (schema: string) => Promise<Storage>>> = {
  PGlite: () => pgliteStorage('memory://'),
  PostgreSQL: async (schema) => postgresStorage((await testPostgres()).url(), { schema, poolMax: 12 }),
}

let schemas = 0

for (const [name, open] of Object.entries(OPENERS)) {
  describe(`waybill_append on ${name}`, () => {
    const schema = name === 'PGlite' ? 'public' : `append_${++schemas}`
    const call = `${schema}.waybill_append`
    let storage: Storage
    before(async () => {
      storage = await open(schema)
      await storage.migrate()
    })
    after(() => storage.close())

    async function written(args: string, params: readonly unknown[] = []): Promise<{ id: string; row: ClaimedRow }> {
      await storage.database.query(`delete from ${schema}.waybill_outbox`)
      const { rows } = await storage.database.query<{ id: string }>(`select ${call}(${args}) as id`, params)
      await storage.outbox.acquire('reader', LEASE_MS)
      const claimed = await storage.outbox.claim('reader', { limit: 10, busy: [] })
      assert.equal(claimed.length, 1)
      return { id: rows[0]!.id, row: claimed[0]! }
    }

    test('says everything that an event can say, in the bytes and headers of the JSON codec', async () => {
      const payload = { orderId: 'o-1', total: 12.5, lines: [1, null, { text: 'Käse “🧀”' }], big: 1e21, none: null }
      const options = {
        event_id: 'bill-🎉-1',
        occurred_at: '2024-05-17T11:30:00.123456+02:00',
        source: 'billing',
        correlation_id: 'c-1',
        causation_id: 'd-1',
        version: 'v2',
        aggregate_version: 3,
        bounded_context: 'sales',
        metadata: { tenant: 'ünï' },
        trace_id: '4bf92f3577b34da6a3ce929d0e0e4736',
        priority: 9,
        destination: 'other',
      }
      const { id, row } = await written(`'order.OrderPlaced', $1::text::jsonb, 'o-1', 'Order', 'orders', 'k-1', $2::text::jsonb`, [
        JSON.stringify(payload),
        JSON.stringify(options),
      ])
      assert.equal(id, 'bill-🎉-1')
      assert.deepEqual(
        { destination: row.destination, id: row.message.id, topic: row.message.topic, key: row.message.key },
        { destination: 'other', id, topic: 'orders', key: 'k-1' },
      )
      const envelope = codec.decode(row.message)
      const { priority: _p, destination: _d, ...attributes } = options
      assert.deepEqual(envelope, {
        ...attributes,
        event_type: 'order.OrderPlaced',
        occurred_at: '2024-05-17T09:30:00.123456Z',
        aggregate_id: 'o-1',
        aggregate_type: 'Order',
        payload,
      })
      assert.deepEqual(row.message.headers, codec.encode(envelope).headers)
      const [listed] = await storage.outbox.list({})
      assert.equal(listed!.priority, 9)
    })

    test('fills in what is not said as the library does', async () => {
      const { id, row } = await written(`'order.OrderPlaced', '{"a": 1}', 'o-7'`)
      assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
      const age = Date.now() - Number.parseInt(id.replaceAll('-', '').slice(0, 12), 16)
      assert.ok(Math.abs(age) < 3_600_000, `the id is of ${age} ms ago`)
      assert.deepEqual([row.message.topic, row.message.key, row.destination], ['order.OrderPlaced', 'o-7', 'default'])
      const { occurred_at, ...envelope } = codec.decode(row.message)
      assert.ok(!Number.isNaN(Date.parse(occurred_at)))
      assert.deepEqual(envelope, {
        event_id: id,
        event_type: 'order.OrderPlaced',
        source: 'sql',
        version: 1,
        correlation_id: id,
        aggregate_id: 'o-7',
        payload: { a: 1 },
      })
      assert.deepEqual(row.message.headers, codec.encode(codec.decode(row.message)).headers)
      const keyless = await written(`'a.B', '1'`)
      assert.equal(keyless.row.message.key, keyless.id, 'without a key there is no order')
    })

    test('a trace goes on in the same traceparent that the library would write', async () => {
      for (const [trace, eventId] of [
        ['4BF92F3577B34DA6A3CE929D0E0E4736', newId()],
        ['4bf92f3577b34da6a3ce929d0e0e4736', 'no-uuid'],
        ['00000000000000000000000000000000', newId()],
        ['not-of-w3c', newId()],
      ]) {
        const { row } = await written(`'a.B', '1', options => $1::text::jsonb`, [JSON.stringify({ trace_id: trace, event_id: eventId })])
        assert.deepEqual(row.message.headers, codec.encode(codec.decode(row.message)).headers)
      }
    })

    test('an option that is null counts as absent, and a time may come from PostgreSQL itself', async () => {
      const { row } = await written(
        `'a.B', 'null', options => jsonb_build_object('trace_id', null, 'metadata', '{}'::jsonb, 'occurred_at', '2024-02-29 23:00:00.5+00'::timestamptz, 'event_id', gen_random_uuid())`,
      )
      const envelope = codec.decode(row.message)
      assert.equal(Date.parse(envelope.occurred_at), Date.UTC(2024, 1, 29, 23, 0, 0, 500))
      assert.deepEqual([envelope.payload, envelope.metadata, envelope.trace_id], [null, undefined, undefined])
    })

    test('a row for later waits as a scheduled one', async () => {
      await storage.database.query(`delete from ${schema}.waybill_outbox`)
      await storage.database.query(`select ${call}('a.B', '1', options => '{"available_at": "2999-01-01T00:00:00Z"}')`)
      const [row] = await storage.outbox.list({})
      assert.deepEqual([row!.status, row!.dueAt?.toISOString()], ['scheduled', '2999-01-01T00:00:00.000Z'])
    })

    const nested = (levels: number) => `('${'['.repeat(levels)}${']'.repeat(levels)}')::jsonb`
    const refused: readonly (readonly [string, RegExp])[] = [
      [`null, '1'`, /event_type is not a usable name \(got null; allowed: 1 to 200/],
      [`'no spaces', '1'`, /event_type .*got "no spaces"/],
      [`'a..b', '1'`, /event_type/],
      [`'${'a'.repeat(201)}', '1'`, /event_type/],
      [`'a.B', null`, /payload is missing/],
      [`'a.B', '12345678901234567890'`, /would lose digits \(got 12345678901234567890; allowed: /],
      [`'a.B', '{"a": [0.12345678901234567890]}'`, /would lose digits/],
      [`'a.B', '{"a": [1e400]}'`, /out of range/],
      [`'a.B', '{"a": [1e-400]}'`, /out of range/],
      [`'a.B', '{"a": [{"__proto__": 1}]}'`, /__proto__/],
      [`'a.B', ${nested(65)}`, /nested too deeply .*at most 64/],
      [`'a.B', to_jsonb(repeat('x', 1048576))`, /too large .*at most 1048576 bytes/],
      [`'a.B', '1', ''`, /key is not usable|aggregate_id is not usable/],
      [`'a.B', '1', E'a\\u200bb', key => 'k'`, /aggregate_id is not usable/],
      [`'a.B', '1', key => repeat('k', 513)`, /key is not usable .*1 to 512 bytes/],
      [`'a.B', '1', topic => 'a/b'`, /topic is not a usable name/],
      [`'a.B', '1', aggregate_type => 'a b'`, /aggregate_type is not a usable name/],
      [`'a.B', '1', options => '[]'`, /options is no object/],
      [`'a.B', '1', options => '{"prioritty": 1}'`, /unknown option \(got "prioritty"; allowed: .*priority/],
      [`'a.B', '1', options => '{"priority": 10}'`, /priority is out of range \(got 10; allowed: a whole number from 0 to 9\)/],
      [`'a.B', '1', options => '{"priority": "5"}'`, /priority is out of range \(got "5"/],
      [`'a.B', '1', options => '{"priority": 2.5}'`, /priority is out of range/],
      [`'a.B', '1', options => '{"aggregate_version": 9007199254740992}'`, /aggregate_version is out of range/],
      [`'a.B', '1', options => '{"version": ""}'`, /version is not usable/],
      [`'a.B', '1', options => '{"version": true}'`, /version is not usable/],
      [`'a.B', '1', options => '{"metadata": {"a": 1}}'`, /metadata is not usable/],
      [`'a.B', '1', options => '{"metadata": {"a": null}}'`, /metadata is not usable/],
      [`'a.B', '1', options => '{"source": 1}'`, /option source is no text \(got 1;/],
      [`'a.B', '1', options => '{"source": "a b"}'`, /source is not a usable name/],
      [`'a.B', '1', options => '{"destination": ""}'`, /destination is not a usable name/],
      [`'a.B', '1', options => '{"event_id": ""}'`, /event_id is not usable/],
      [`'a.B', '1', options => jsonb_build_object('event_id', repeat('x', 129))`, /event_id is not usable .*1 to 128/],
      [`'a.B', '1', options => '{"correlation_id": "a\\nb"}'`, /correlation_id is not usable/],
      [
        `'a.B', '1', options => '{"occurred_at": "2024-02-30T00:00:00Z"}'`,
        /occurred_at is no time \(got "2024-02-30T00:00:00Z"; allowed: .*RFC 3339/,
      ],
      [`'a.B', '1', options => '{"occurred_at": "2024-02-28T00:00:00"}'`, /occurred_at is no time/],
      [`'a.B', '1', options => '{"available_at": "tomorrow"}'`, /available_at is no time/],
      [`'a.B', '1', options => '{"available_at": "infinity"}'`, /available_at is no time/],
    ]
    test('refuses what no reader could read, or would be altered, with what was got and what is allowed', async () => {
      await storage.database.query(`delete from ${schema}.waybill_outbox`)
      for (const [args, expected] of refused) {
        await assert.rejects(
          storage.database.query(`select ${call}(${args})`),
          (error: Error & { code?: string }) => {
            assert.equal(error.code, '22023')
            assert.match(error.message, /^waybill_append: /)
            assert.match(error.message, expected)
            assert.doesNotMatch(error.message, /[\n\u200b]/)
            return true
          },
          args,
        )
      }
      assert.deepEqual(await storage.outbox.list({}), [])
    })

    test('what is just within the limits is read by the library', async () => {
      for (const args of [
        `'a.B', ${nested(64)}`,
        `'a.B', '9007199254740991'`,
        `'a.B', '-0.1e-300'`,
        `'${'a'.repeat(200)}', '""', repeat('k', 512)`,
      ]) {
        const { row } = await written(args)
        codec.decode(row.message)
      }
    })

    test('a trigger writes events with the change that it watches, and a rollback takes them along', async () => {
      const { database } = storage
      await database.query(`delete from ${schema}.waybill_outbox`)
      await database.query(`create table ${schema}.customer (id bigint primary key, name text not null)`)
      await database.query(`
        create function ${schema}.customer_renamed() returns trigger language plpgsql as $$
        begin
          perform ${call}('customer.Renamed', jsonb_build_object('id', new.id, 'from', old.name, 'to', new.name), new.id::text, 'Customer');
          return null;
        end $$`)
      await database.query(`
        create trigger customer_renamed after update of name on ${schema}.customer
        for each row when (old.name is distinct from new.name) execute function ${schema}.customer_renamed()`)
      await database.query(`insert into ${schema}.customer values (1, 'Ada'), (2, 'Bob')`)
      await database.query(`update ${schema}.customer set name = upper(name)`)
      await assert.rejects(
        database.transaction(async (sql) => {
          await sql.query(`update ${schema}.customer set name = 'nobody'`)
          throw new Error('rolled back')
        }),
        /rolled back/,
      )
      await storage.outbox.acquire('reader', LEASE_MS)
      const rows = await storage.outbox.claim('reader', { limit: 10, busy: [] })
      assert.deepEqual(
        rows.map(({ message }) => codec.decode(message).payload),
        [
          { id: 1, from: 'Ada', to: 'ADA' },
          { id: 2, from: 'Bob', to: 'BOB' },
        ],
      )
    })

    test('works whatever the search path of the session is, and takes no other operators', async () => {
      await storage.database.query(`delete from ${schema}.waybill_outbox`)
      await storage.database.transaction(async (sql) => {
        await sql.query(`set local search_path = ''`)
        await sql.query(`set local extra_float_digits = -15`)
        await sql.query(`select ${call}('a.B', '{"a": 0.1234567890123}', 'k')`)
      })
      assert.equal((await storage.outbox.list({})).length, 1)
    })
  })
}

test('a handler in TypeScript gets what SQL has written, typed', async () => {
  const OrderPlaced = defineEvent<{ orderId: string; total: number }>('order.OrderPlaced', {
    aggregate: { type: 'Order', id: (payload) => payload.orderId },
  })
  const seen: { readonly orderId: string; readonly total: number; readonly id: string; readonly aggregateId: string | undefined }[] = []
  const arrived = Promise.withResolvers<void>()
  const sales = defineContext('sales', {
    events: [OrderPlaced],
    handlers: {
      note: on([OrderPlaced], async (event) => {
        seen.push({ ...event.payload, id: event.id, aggregateId: event.aggregateId })
        arrived.resolve()
      }),
    },
  })
  const storage = await pgliteStorage('memory://')
  await storage.migrate()
  await using waybill = await createWaybill({ contexts: [sales], database: storage })
  await waybill.start()
  const { rows } = await waybill.sql.query<{ id: string }>(
    `select waybill_append('order.OrderPlaced', '{"orderId": "o-1", "total": 12.5}', 'o-1', 'Order') as id`,
  )
  await arrived.promise
  await waybill.drained(AbortSignal.timeout(DEADLINE_MS))
  assert.deepEqual(seen, [{ orderId: 'o-1', total: 12.5, id: rows[0]!.id, aggregateId: 'o-1' }])
})

const KEYS = 4
const WRITERS = 8
const WRITES = 40

test('SQL and the library keep one order per key together, whichever writes', async () => {
  const schema = `append_${++schemas}`
  const storage = await OPENERS['PostgreSQL']!(schema)
  const seed = Date.now() % 1_000_000
  try {
    await storage.migrate()
    await storage.database.query(`create table ${schema}.counter (key text primary key, n int not null default 0)`)
    await storage.database.query(`insert into ${schema}.counter select 'k' || i from generate_series(0, ${KEYS - 1}) i`)
    const written: string[] = []
    const write = async (random: () => number, sql: SqlExecutor, id: string): Promise<void> => {
      const key = `k${Math.floor(random() * KEYS)}`
      const bump = async (): Promise<void> => {
        const { rows } = await sql.query<{ n: number }>(`update ${schema}.counter set n = n + 1 where key = $1 returning n`, [key])
        await sql.query(`insert into ${schema}.truth values ($1, $2, $3)`, [id, key, rows[0]!.n])
      }
      const append = async (): Promise<void> => {
        if (random() < 0.5) {
          await sql.query(
            `select ${schema}.waybill_append('ledger.Raised', '{}', key => $1, options => jsonb_build_object('event_id', $2::text))`,
            [key, id],
          )
        } else {
          const message = { id, topic: 'ledger.Raised', key, headers: {}, body: Buffer.from('{}') }
          await storage.outbox.append(sql, [{ eventType: 'ledger.Raised', message }])
        }
      }
      // Whichever lock comes first: the row's or the key's.
      if (random() < 0.5) await bump().then(append)
      else await append().then(bump)
      if (random() < 0.1) throw new Error('rolled back')
      written.push(id)
    }
    await storage.database.query(`create table ${schema}.truth (id text, key text, n int)`)
    await Promise.all(
      Array.from({ length: WRITERS }, async (_, writer) => {
        const random = seededRandom(seed + writer)
        for (let at = 0; at < WRITES; at++) {
          const id = `${writer}-${at}`
          try {
            await storage.database.transaction(async (sql) => {
              // Two that take the locks the other way round are to be found out soon.
              await sql.query("set local deadlock_timeout = '10ms'")
              await write(random, sql, id)
            })
          } catch (error) {
            if (!(error instanceof Error && /rolled back|deadlock detected/.test(error.message))) throw error
          }
        }
      }),
    )
    const { rows } = await storage.database.query<{ id: string; key: string; n: number }>(
      `select t.id, t.key, t.n from ${schema}.waybill_outbox o join ${schema}.truth t on t.id = o.event_id order by o.id`,
    )
    assert.deepEqual(rows.map(({ id }) => id).toSorted(), written.toSorted(), `seed ${seed}: lost or unexpected rows`)
    for (let key = 0; key < KEYS; key++) {
      const order = rows.filter((row) => row.key === `k${key}`).map(({ n }) => n)
      assert.ok(order.length > 0)
      assert.deepEqual(
        order,
        order.toSorted((left, right) => left - right),
        `seed ${seed}: out of order`,
      )
    }
  } finally {
    await storage.close()
  }
})

test('works with the rights that the documentation names, and with none of others', async () => {
  const schema = `append_${++schemas}`
  const storage = await OPENERS['PostgreSQL']!(schema)
  try {
    await storage.migrate()
    await storage.database.query(`create role ${schema}_app`)
    await storage.database.query(`grant usage on schema ${schema} to ${schema}_app`)
    const write = () =>
      storage.database.transaction(async (sql) => {
        await sql.query(`set local role ${schema}_app`)
        await sql.query(`select ${schema}.waybill_append('a.B', '1')`)
      })
    await assert.rejects(write(), { code: '42501' })
    await storage.database.query(`grant insert on ${schema}.waybill_outbox to ${schema}_app`)
    await storage.database.query(`grant usage on sequence ${schema}.waybill_outbox_ids to ${schema}_app`)
    await storage.database.query(`grant select on ${schema}.waybill_relay to ${schema}_app`)
    await write()
    assert.equal((await storage.outbox.list({})).length, 1)
  } finally {
    await storage.close()
  }
})

function psqlMissing(): string | false {
  try {
    execFileSync('psql', ['--version'])
    return false
  } catch {
    return 'psql is not installed here'
  }
}

test('psql writes an event in a transaction of its own', { skip: psqlMissing() }, async () => {
  const schema = `append_${++schemas}`
  const storage = await OPENERS['PostgreSQL']!(schema)
  try {
    await storage.migrate()
    const server = await testPostgres()
    const script = `
      begin;
      select ${schema}.waybill_append('order.OrderPlaced', '{"orderId": "o-1"}', 'o-1');
      commit;
      begin;
      select ${schema}.waybill_append('order.OrderPlaced', '{"orderId": "o-2"}', 'o-2');
      rollback;`
    execFileSync('psql', [server.url(), '--quiet', '--no-psqlrc', '--set', 'ON_ERROR_STOP=1'], { input: script })
    assert.deepEqual(
      (await storage.outbox.list({})).map(({ eventType, key }) => [eventType, key]),
      [['order.OrderPlaced', 'o-1']],
    )
  } finally {
    await storage.close()
  }
})
