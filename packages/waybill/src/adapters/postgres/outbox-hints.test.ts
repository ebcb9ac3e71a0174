import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import pg from 'pg'
import { type Clock, systemClock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { newId } from '../../core/ids.ts'
import type { OutboxHints, Storage } from '../../core/stores.ts'
import { until } from '../../testing/contract-tools.ts'
import { testPostgres } from '../../testing/test-postgres.ts'
import { hintChannel } from './hint-sql.ts'
import { createOutboxHints } from './outbox-hints.ts'
import { postgresStorage } from './pg.ts'
import { resolveTables } from './tables.ts'

const LEASE_MS = 600_000
const PROBE_MAX_MS = 2_000
const PROBE_EVERY_MS = 60_000

/** Real time, but for two waits of listening: the one for an answer, and the one until the next question. */
function steeredClock(): Clock & { impatient: boolean; readonly slept: number[]; endMinute(): void } {
  let wake = (): void => {}
  return {
    impatient: false,
    slept: [],
    now: systemClock.now,
    async sleep(ms, signal) {
      this.slept.push(ms)
      if (ms === PROBE_MAX_MS && this.impatient) return
      if (ms !== PROBE_EVERY_MS) return systemClock.sleep(ms, signal)
      await new Promise<void>((resolve) => {
        wake = resolve
        signal?.addEventListener('abort', () => resolve(), { once: true })
      })
    },
    endMinute: () => wake(),
  }
}

/** Listens in the background, and remembers what it is told. */
function listenWith(hints: OutboxHints, relayId = 'relay') {
  const abort = new AbortController()
  const states: string[] = []
  let heard = 0
  const done = hints.listen(
    relayId,
    {
      hint: () => heard++,
      state: (state, error) => states.push(error === undefined ? state : `${state}: ${messageOf(error)}`),
    },
    abort.signal,
  )
  return {
    states,
    get heard() {
      return heard
    },
    is: (state: string) => until(state, async () => states.at(-1)?.startsWith(state)),
    async [Symbol.asyncDispose]() {
      abort.abort()
      await done
    },
  }
}

describe('hints of commits', () => {
  let storage: Storage
  let schema: string
  let url: string
  let producer: pg.Client
  before(async () => {
    const server = await testPostgres()
    schema = server.schema()
    url = server.url()
    storage = await postgresStorage(url, { schema, listen: true, poolMax: 4 })
    await storage.migrate()
    await storage.outbox.acquire('relay', LEASE_MS)
    producer = new pg.Client({ connectionString: url })
    await producer.connect()
    await producer.query('create database elsewhere')
  })
  after(async () => {
    await producer.end()
    await storage.close()
  })

  const tables = () => resolveTables({ schema })
  const append = () => producer.query(`select ${schema}.waybill_append('a.B', '1')`)
  const backends = async () =>
    (await producer.query<{ pid: number }>(`select pid from pg_stat_activity where application_name = 'waybill listen'`)).rows.map(
      ({ pid }) => pid,
    )
  const awake = () => producer.query(`update ${schema}.waybill_relay set asleep = false`)
  /** What is said on the channel while `run` runs. */
  async function said(run: () => Promise<unknown>): Promise<number> {
    const listener = new pg.Client({ connectionString: url })
    await listener.connect()
    let hints = 0
    const end = Promise.withResolvers<void>()
    listener.on('notification', ({ payload }) => (payload === 'end' ? end.resolve() : payload === '' && hints++))
    await listener.query(`listen "${hintChannel(tables())}"`)
    await run()
    await producer.query('select pg_notify($1, $2)', [hintChannel(tables()), 'end'])
    await end.promise
    await listener.end()
    return hints
  }

  test('a commit of another connection wakes a relay that sleeps', async () => {
    await using relay = listenWith(storage.outbox.hints!)
    await relay.is('listening')
    await storage.outbox.hints!.asleep('relay')
    await append()
    await until('the hint', async () => relay.heard > 0)
  })

  test('a rollback wakes nobody, and while the relay is awake no commit does', async () => {
    await awake()
    assert.equal(
      await said(async () => {
        for (let commits = 0; commits < 200; commits++) await append()
      }),
      0,
    )
    await storage.outbox.hints!.asleep('relay')
    assert.equal(
      await said(async () => {
        await producer.query('begin')
        await append()
        await producer.query('rollback')
      }),
      0,
    )
  })

  test('of those that commit at once one notifies, in SQL and in the library', async () => {
    await storage.outbox.hints!.asleep('relay')
    const hints = await said(async () => {
      await producer.query('begin')
      await append()
      await append()
      await storage.database.transaction(async (sql) => {
        await sql.query(`select ${schema}.waybill_append('a.B', '1')`)
        await storage.outbox.append(sql, [
          { eventType: 'a.B', message: { id: newId(), topic: 'a.B', key: newId(), headers: {}, body: Buffer.from('1') } },
        ])
      })
      await producer.query('commit')
    })
    assert.equal(hints, 1)
  })

  test('the library notifies a relay that sleeps, with one row and with many', async () => {
    const rows = (count: number) =>
      Array.from({ length: count }, () => ({
        eventType: 'a.B',
        message: { id: newId(), topic: 'a.B', key: newId(), headers: {}, body: Buffer.from('1') },
      }))
    await storage.outbox.hints!.asleep('relay')
    for (const count of [1, 3])
      assert.equal(await said(() => storage.database.transaction((sql) => storage.outbox.append(sql, rows(count)))), 1, `${count} rows`)
  })

  test('a claim that finds rows ends the sleep: what is committed after it wakes nobody', async () => {
    await append()
    await storage.outbox.hints!.asleep('relay')
    await storage.outbox.acquire('relay', LEASE_MS)
    assert.ok((await storage.outbox.claim('relay', { limit: 10, busy: [] })).length > 0)
    assert.equal(await said(append), 0)
  })

  test('a relay that died in its sleep costs nobody anything', async () => {
    await storage.outbox.acquire('dead', LEASE_MS)
    await storage.outbox.hints!.asleep('dead')
    await awake()
    await producer.query(
      `update ${schema}.waybill_relay set asleep = true, expires_at = clock_timestamp() - interval '1 second' where id = 'dead'`,
    )
    assert.equal(await said(append), 0)
    await storage.outbox.relinquish('dead')
  })

  test('a connection that is terminated comes back by itself', async () => {
    const hints = createOutboxHints({
      database: storage.database,
      tables: tables(),
      client: async () => new pg.Client({ connectionString: url, application_name: 'waybill listen' }),
      random: () => 0,
    })
    await using relay = listenWith(hints)
    await relay.is('listening')
    for (let times = 0; times < 3; times++) {
      const [pid] = await backends()
      await producer.query('select pg_terminate_backend($1)', [pid])
      await until('another connection', async () => (await backends()).some((other) => other !== pid))
      await relay.is('listening')
    }
    assert.equal(relay.states.filter((state) => state === 'listening').length, 4)
    assert.ok(
      relay.states.some((state) => /^deaf: .*terminat/.test(state)),
      relay.states.join('\n'),
    )
    await hints.asleep('relay')
    await append()
    await until('the hint', async () => relay.heard > 0)
  })

  test('where LISTEN is taken and nothing is delivered it says so, and tries again a minute later', async () => {
    const clock = steeredClock()
    clock.impatient = true
    const database = { name: 'elsewhere' }
    const hints = createOutboxHints({
      database: storage.database,
      tables: tables(),
      clock,
      client: async () => new pg.Client({ connectionString: url.replace(/[^/]*$/, database.name), application_name: 'waybill listen' }),
    })
    await using relay = listenWith(hints)
    await relay.is('deaf')
    assert.match(
      relay.states[0]!,
      /no notification came within 2000 ms .*allowed: a URL that leads straight to the same database: a pooler/,
    )
    await until('the wait', async () => clock.slept.includes(PROBE_EVERY_MS))
    assert.deepEqual(await backends(), [], 'what hears nothing is closed')
    clock.impatient = false
    database.name = 'postgres'
    clock.endMinute()
    await relay.is('listening')
    assert.equal(relay.states.length, 2)
  })

  test('a connection that has gone silent without a word is found out by the question of the next minute', async () => {
    const clock = steeredClock()
    const clients: pg.Client[] = []
    const hints = createOutboxHints({
      database: storage.database,
      tables: tables(),
      clock,
      random: () => 0,
      client: async () => {
        const client = new pg.Client({ connectionString: url })
        clients.push(client)
        return client
      },
    })
    await using relay = listenWith(hints)
    await relay.is('listening')
    await until('the wait', async () => clock.slept.includes(PROBE_EVERY_MS))
    clock.endMinute()
    await until('the second question', async () => clock.slept.filter((ms) => ms === PROBE_EVERY_MS).length === 2)
    assert.deepEqual(relay.states, ['listening'], 'answered: nothing to tell')
    await clients[0]!.query('unlisten *')
    clock.impatient = true
    clock.endMinute()
    await relay.is('deaf')
    clock.impatient = false
    await until('the wait', async () => clock.slept.filter((ms) => ms === PROBE_EVERY_MS).length === 3)
    clock.endMinute()
    await relay.is('listening')
    assert.equal(clients.length, 2)
  })

  test('what another relay asks itself is no hint', async () => {
    await using first = listenWith(storage.outbox.hints!, 'first')
    await first.is('listening')
    await using second = listenWith(storage.outbox.hints!, 'second')
    await second.is('listening')
    assert.equal(await said(async () => {}), 0)
    assert.deepEqual([first.heard, second.heard], [0, 0])
  })

  test('a server that is not there is told once, without the password, and asked again', async () => {
    const hidden = new URL(url)
    hidden.port = '1'
    const other = await postgresStorage(url, { schema, listen: { url: hidden.href } })
    try {
      await using relay = listenWith(other.outbox.hints!)
      await relay.is('deaf')
      assert.match(relay.states[0]!, /can't reach PostgreSQL: .*port 1, database postgres/)
      assert.doesNotMatch(relay.states.join(), new RegExp(hidden.password))
    } finally {
      await other.close()
    }
  })

  test('an end leaves no connection behind', async () => {
    await listenWith(storage.outbox.hints!)[Symbol.asyncDispose]()
    const relay = listenWith(storage.outbox.hints!)
    await relay.is('listening')
    await relay[Symbol.asyncDispose]()
    await until('it is gone', async () => (await backends()).length === 0)
  })

  test('a pool has no session to listen on: it needs a URL', async () => {
    const pool = new pg.Pool({ connectionString: url })
    try {
      await assert.rejects(postgresStorage(pool, { listen: true }), (error: Error & { code?: string }) => {
        assert.equal(error.code, 'INVALID_OPTION')
        assert.match(error.message, /listen/)
        return true
      })
      const other = await postgresStorage(pool, { schema, listen: { url } })
      await using relay = listenWith(other.outbox.hints!)
      await relay.is('listening')
    } finally {
      await pool.end()
    }
  })
})

test('a channel has a name that PostgreSQL takes, and another for other tables', () => {
  const longest = resolveTables({ schema: 's'.repeat(63), prefix: 'p'.repeat(30) })
  assert.ok(hintChannel(longest).length <= 63)
  assert.notEqual(hintChannel(longest), hintChannel(resolveTables({ schema: 's'.repeat(63), prefix: `${'p'.repeat(29)}q` })))
  assert.equal(hintChannel(resolveTables()), 'public.waybill_hint')
})
