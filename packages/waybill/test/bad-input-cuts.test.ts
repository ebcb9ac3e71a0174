import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { type Waybill, WaybillError, createWaybill, defineContext, defineEvent, isWaybillError, on } from 'waybill'
import { type PostgresStorageOptions, postgresStorage } from 'waybill/postgres'
import { startFaultProxy } from '../src/testing/fault-proxy.ts'
import { testPostgres } from '../src/testing/test-postgres.ts'

// A connection that is cut, at every step of a unit of work: the caller knows what happened, or that nobody knows; nothing is half done.

const Placed = defineEvent<{ id: string }>('order.Placed', { aggregate: { type: 'order', id: (order) => order.id } })
const QUERY_TIMEOUT_MS = 500

/** A schema, a storage that reaches it through a proxy, and one that reaches it directly. */
async function setup(context: TestContext, options: PostgresStorageOptions = {}) {
  const server = await testPostgres()
  const schema = server.schema()
  const proxy = await startFaultProxy({ target: server })
  const through = server.url().replace(`:${server.port}/`, `:${proxy.port}/`)
  const storage = await postgresStorage(through, { schema, poolMax: 3, ...options })
  const direct = await postgresStorage(server.url(), { schema, poolMax: 4 })
  await direct.migrate()
  await direct.database.query(`create table ${schema}.orders (id text primary key)`)
  const seen: string[] = []
  const sales = defineContext('sales', {
    events: [Placed],
    publish: { strategy: 'ASYNC_ONLY' },
    handlers: { note: on([Placed], (event) => void seen.push(event.payload.id)) },
  })
  const waybill = await createWaybill({ database: storage, contexts: [sales] })
  /** What is in the database now: orders, and rows that tell of them. */
  const state = async (): Promise<readonly [number, number]> => {
    const { rows } = await direct.database.query<{ n: string }>(`select count(*) as n from ${schema}.orders`)
    return [Number(rows[0]!.n), (await direct.outbox.list({ limit: 1000 })).length]
  }
  const place = (id: string, inside: () => unknown = () => {}) =>
    waybill.unitOfWork(async (unit) => {
      await unit.sql.query(`insert into ${schema}.orders values ($1)`, [id])
      await unit.publish(Placed({ id }))
      await inside()
    })
  context.after(async () => {
    proxy.heal()
    await waybill.stop()
    await direct.close()
    await proxy.close()
  })
  return { schema, proxy, storage, direct, waybill, state, place, seen }
}

const unreachable = (says: RegExp) => (error: unknown) => {
  assert.ok(isWaybillError(error, 'DATABASE_UNREACHABLE'), String(error))
  assert.ok(error.retryable)
  assert.match(error.message, says)
  return true
}

/** Waits for what the database itself says, since what is cut is finished there in its own time. */
async function until(holds: () => Promise<boolean>): Promise<void> {
  const limit = Date.now() + 120_000
  while (!(await holds())) {
    if (Date.now() > limit) throw new WaybillError('TIMEOUT', 'this never came true', { where: holds.toString() })
    await turn()
  }
}

/** Delivers all that is in the outbox, once each. */
async function delivered(waybill: Waybill<'order.Placed'>, seen: readonly string[], expected: readonly string[]): Promise<void> {
  await waybill.start()
  await waybill.drained()
  assert.deepEqual(seen.toSorted(), expected)
}

test('cut before BEGIN: nothing happened, and the next unit works', async (context) => {
  const { proxy, place, state, waybill, seen } = await setup(context)
  await place('a')
  // The pool still holds a connection that it takes for a good one.
  assert.ok(proxy.cut() > 0)
  await assert.rejects(place('b'), unreachable(/can't reach PostgreSQL/))
  assert.deepEqual(await state(), [1, 1])
  await place('b')
  await delivered(waybill, seen, ['a', 'b'])
})

test('cut within the transaction: all of it is rolled back, and the pool goes on', async (context) => {
  const { proxy, place, state, waybill, seen } = await setup(context)
  await assert.rejects(
    place('a', () => proxy.cut()),
    unreachable(/can't reach PostgreSQL|was lost/),
  )
  assert.ok(proxy.seen.cut > 0)
  assert.deepEqual(await state(), [0, 0])
  await place('a')
  await delivered(waybill, seen, ['a'])
})

test('lost before COMMIT was sent is known to be rolled back, also where the callback did not notice', async (context) => {
  const { direct, place, state } = await setup(context)
  const pids = `select pid from pg_stat_activity where application_name = 'waybill' and state = 'idle in transaction'`
  const terminated = place('a', async () => {
    await direct.database.query(`select pg_terminate_backend(pid) from (${pids}) p`)
    await until(async () => (await direct.database.query(pids)).rows.length === 0)
  })
  await assert.rejects(terminated, unreachable(/terminat|lost/))
  assert.deepEqual(await state(), [0, 0])
})

/** COMMIT, once sent, waits until `let go`. */
async function slowCommit({ direct, schema }: Awaited<ReturnType<typeof setup>>) {
  const { database } = direct
  await database.query(
    `create function ${schema}.wait() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock(4711, 1); return null; end $$`,
  )
  await database.query(
    `create constraint trigger wait after insert on ${schema}.orders deferrable initially deferred for each row execute function ${schema}.wait()`,
  )
  const held = Promise.withResolvers<void>()
  const free = Promise.withResolvers<void>()
  const holding = database.transaction(async (sql) => {
    await sql.query('select pg_advisory_xact_lock(4711, 1)')
    held.resolve()
    await free.promise
  })
  await held.promise
  const committing = `select 1 from pg_stat_activity where query = 'commit' and wait_event_type = 'Lock'`
  return {
    reached: () => until(async () => (await database.query(committing)).rows.length > 0),
    letGo: async () => {
      free.resolve()
      await holding
    },
  }
}

for (const fault of ['cut', 'blackHole'] as const) {
  test(`${fault} after COMMIT was sent: the outcome is unknown, and said to be; what was committed is delivered, and doing it again is told apart`, async (context) => {
    const parts = await setup(context, { queryTimeoutMs: fault === 'cut' ? 60_000 : QUERY_TIMEOUT_MS })
    const { proxy, place, state, direct, waybill, seen } = parts
    await place('before')
    const slow = await slowCommit(parts)
    const failing = assert.rejects(place('a'), (error: unknown) => isWaybillError(error, 'UNKNOWN_OUTCOME') && error.retryable)
    await slow.reached()
    if (fault === 'cut') proxy.cut()
    else proxy.blackHole(true)
    await failing
    await slow.letGo()
    proxy.heal()
    // It has happened, as nobody could know. The caller finds out by a constraint of its own.
    await until(async () => (await state())[0] === 2)
    await assert.rejects(place('a'), { code: '23505' })
    assert.deepEqual(await state(), [2, 2])
    await direct.check()
    await delivered(waybill, seen, ['a', 'before'])
  })
}

test('a connection that has died without a word is given up after queryTimeoutMs, and destroyed', async (context) => {
  const { proxy, storage, state, place } = await setup(context, { queryTimeoutMs: QUERY_TIMEOUT_MS, connectTimeoutMs: QUERY_TIMEOUT_MS })
  await storage.database.query('select 1')
  proxy.blackHole(true)
  await assert.rejects(storage.outbox.stats(), unreachable(/queryTimeoutMs/))
  await assert.rejects(place('a'), unreachable(/./))
  assert.ok(proxy.seen.blackHole > 0)
  proxy.heal()
  assert.equal((await storage.outbox.stats()).pending, 0)
  await place('a')
  assert.deepEqual(await state(), [1, 1])
})

test('a statement of a transaction has no limit, unless one is asked for', async (context) => {
  const unlimited = await setup(context, { queryTimeoutMs: 100 })
  await unlimited.storage.database.transaction((sql) => sql.query('select pg_sleep(0.5)'))
  const limited = await setup(context, { transactionQueryTimeoutMs: 100 })
  await assert.rejects(
    limited.storage.database.transaction((sql) => sql.query('select pg_sleep(60)')),
    unreachable(/did not answer/),
  )
  await limited.storage.check()
})

test('a half-closed connection is an error, not a hang', async (context) => {
  const { proxy, storage, state, place } = await setup(context, { queryTimeoutMs: QUERY_TIMEOUT_MS })
  for (const towards of ['target', 'client'] as const) {
    await storage.database.query('select 1')
    assert.ok(proxy.halfClose(towards) > 0)
    await assert.rejects(
      (async () => {
        // The pool may have noticed already, and open another.
        await storage.database.query('select 1')
        throw new WaybillError('DATABASE_UNREACHABLE', 'noticed')
      })(),
      unreachable(/./),
    )
    await place(towards)
  }
  assert.deepEqual(await state(), [2, 2])
})

for (const [setting, code, does, limit] of [
  ['idle_in_transaction_session_timeout', '25P03', 'idle in transaction', '100ms'],
  // Long enough for a slow machine between two statements that follow each other.
  ['idle_session_timeout', '57P05', 'idle', '2s'],
] as const) {
  test(`a session that the server ends by ${setting} is said to be ended by it; nothing is half done`, async (context) => {
    const server = await testPostgres()
    const { schema, direct, state, place } = await setup(context)
    const role = `${does.replaceAll(' ', '_')}_${schema}`
    await direct.database.query(`create role ${role} superuser login password 'x'`)
    await direct.database.query(`alter role ${role} set ${setting} = '${limit}'`)
    const storage = await postgresStorage(`postgres://${role}:x@${server.host}:${server.port}/postgres`, { schema, poolMax: 2 })
    const gone = () =>
      until(async () => (await direct.database.query('select 1 from pg_stat_activity where usename = $1', [role])).rows.length === 0)
    if (code === '57P05') {
      // Between two statements of nobody: the pool has replaced it.
      await storage.check()
      await gone()
      // Whoever asks before the pool has heard of it is told so.
      await until(async () => {
        try {
          await storage.check()
          return true
        } catch (error) {
          assert.ok(unreachable(/ended the session.*idle_session_timeout/)(error), String(error))
          return false
        }
      })
    } else {
      await assert.rejects(
        storage.database.transaction(async (sql) => {
          await sql.query(`insert into ${schema}.orders values ('a')`)
          await gone()
          await sql.query('select 1')
        }),
        (error: unknown) => unreachable(/ended the session.*idle_in_transaction_session_timeout/)(error) && causeCode(error) === code,
      )
      assert.deepEqual(await state(), [0, 0])
    }
    await place('b')
    await storage.close()
  })
}

const causeCode = (error: unknown): unknown => ((error as Error).cause as { code?: unknown } | undefined)?.code

test("a connection of somebody else's that fails within a transaction is the caller's error, as it was thrown", async (context) => {
  const { storage, state, schema } = await setup(context)
  const foreign = Object.assign(new Error('connect ECONNREFUSED 10.0.0.1:6379'), { code: 'ECONNREFUSED' })
  await assert.rejects(
    storage.database.transaction(async (sql) => {
      await sql.query(`insert into ${schema}.orders values ('a')`)
      throw foreign
    }),
    (error) => error === foreign,
  )
  assert.deepEqual(await state(), [0, 0])
})

test('inbox and dead letters under cuts: each of them whole or not there, and done again it is done once', async (context) => {
  const { proxy, storage, direct, schema } = await setup(context, { poolMax: 8 })
  const handler = 'sales/note'
  const letter = (id: string) =>
    ({
      handler,
      message: { id, topic: 't', key: id, headers: {}, body: new Uint8Array(2_000) },
      eventType: 't',
      reason: 'failed',
      error: 'e',
      attempts: 5,
      partition: '0',
      sequence: 1n,
    }) as const
  const ids = Array.from({ length: 40 }, (_, index) => `event-${index}`)
  const handle = (eventIds: readonly string[]) =>
    storage.database.transaction(async (sql) => {
      const fresh = await storage.inbox.record(sql, handler, eventIds)
      for (const id of fresh) await sql.query(`insert into ${schema}.orders values ($1)`, [id])
    })
  let failures = 0
  const insist = async (run: () => Promise<unknown>): Promise<void> => {
    for (let attempt = 0; attempt < 200; attempt++) {
      try {
        await run()
        return
      } catch (error) {
        assert.ok(isWaybillError(error, 'DATABASE_UNREACHABLE', 'UNKNOWN_OUTCOME'), String(error))
        failures++
      }
    }
    assert.fail('never done')
  }
  const cutting = setInterval(() => proxy.cut(), 5)
  context.after(() => clearInterval(cutting))
  // Each event comes to two handlers' processes at once, alone and in a batch.
  const runs = ids.flatMap((id, index) => [
    insist(() => handle([id])),
    insist(() => handle([id, ids[(index + 1) % ids.length]!])),
    insist(() => storage.deadLetters.park(ids.slice(index, index + 5).map(letter))),
  ])
  let left = runs.length
  for (const run of runs) void run.finally(() => left--).catch(() => undefined)
  // For ever it would never end: what connects is cut too.
  await until(async () => failures >= 100 || left === 0)
  clearInterval(cutting)
  await Promise.all(runs)
  assert.ok(proxy.seen.cut > 0 && failures > 0, 'it saw the fault')
  const { rows } = await direct.database.query<{ id: string }>(`select id from ${schema}.orders order by id`)
  assert.deepEqual(
    rows.map(({ id }) => id),
    ids.toSorted(),
  )
  assert.equal(await direct.deadLetters.count(), ids.length)
  const parked = await direct.deadLetters.list({ limit: 100 })
  assert.deepEqual(parked.map(({ message }) => message.id).toSorted(), ids.toSorted())
})
