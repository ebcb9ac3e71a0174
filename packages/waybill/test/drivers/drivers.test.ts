import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import pg from 'pg'
import { defineContext } from '../../src/context.ts'
import type { SqlExecutor } from '../../src/core/database.ts'
import { isWaybillError } from '../../src/core/errors.ts'
import { defineEvent } from '../../src/core/event.ts'
import type { Storage } from '../../src/core/stores.ts'
import { databaseStorage, kyselyDatabase } from '../../src/postgres.ts'
import { until } from '../../src/testing/contract-tools.ts'
import { testPostgres } from '../../src/testing/test-postgres.ts'
import { createWaybill } from '../../src/waybill.ts'
import { type AnyFixture, FIXTURES, ORDERS } from './fixtures.ts'

const OrderPlaced = defineEvent<{ readonly orderId: string }, 'shop.OrderPlaced'>('shop.OrderPlaced', {
  aggregate: { type: 'order', id: ({ orderId }) => orderId },
  topic: 'order',
})
const shop = defineContext('shop', { events: [OrderPlaced], publish: 'INTER_BC_RELIABLE' })
const TWO_RUNS = { attemptsMax: 2 }

// Not of their own making.
const WITHOUT_SAVEPOINTS = ['pg', 'Kysely', 'Prisma', 'PGlite']
// postgres.js goes on with the connection that it has given back, and has no way to tell.
const CANT_TELL_THE_END = ['postgres.js', 'Drizzle over postgres.js']

/** A look at the database from beside the driver under test. */
let beside: pg.Pool
let url: string

before(async () => {
  url = (await testPostgres()).url()
  beside = new pg.Pool({ connectionString: url, max: 2 })
  beside.on('error', () => {})
  await beside.query(ORDERS)
})
after(() => beside.end())

for (const [name, open] of Object.entries(FIXTURES)) {
  suite(name, () => {
    let driver: AnyFixture
    let schemas = 0

    before(async () => {
      driver = await open(url)
    })
    after(() => driver.close())

    const schema = () => `join_${name.replaceAll(/\W/g, '_').toLowerCase()}_${++schemas}`
    const make = async (): Promise<Storage> => databaseStorage(driver.database, { schema: schema(), prefix: 'wb_' })
    async function migrated(): Promise<Storage> {
      const storage = await make()
      await storage.migrate()
      return storage
    }
    const orders = async () => (await driver.database.query<{ id: string }>('select id from orders order by id')).rows.map(({ id }) => id)
    const keys = async (storage: Storage) => (await storage.outbox.list({})).map(({ key }) => key)

    test("joins the caller's transaction: a commit leaves business row and event, whichever came first", async () => {
      const storage = await migrated()
      await using waybill = await createWaybill({ contexts: [shop], database: storage })
      for (const [orderId, eventFirst] of [
        [`${name} joined 1`, true],
        [`${name} joined 2`, false],
      ] as const) {
        await driver.begin(async (transaction) => {
          if (!eventFirst) await driver.insertOrder(transaction, orderId)
          await waybill.joinTransaction({ sql: driver.executor(transaction) }, (unit) => unit.publish(OrderPlaced({ orderId })))
          if (eventFirst) await driver.insertOrder(transaction, orderId)
        })
        assert.ok((await orders()).includes(orderId))
      }
      assert.deepEqual(await keys(storage), [`${name} joined 1`, `${name} joined 2`])
    })

    test("joins the caller's transaction: a rollback leaves neither", async () => {
      const storage = await migrated()
      await using waybill = await createWaybill({ contexts: [shop], database: storage })
      const orderId = `${name} rolled back`
      const failure = new Error('rolled back on purpose')
      const begun = driver.begin(async (transaction) => {
        await driver.insertOrder(transaction, orderId)
        await waybill.joinTransaction({ sql: driver.executor(transaction) }, (unit) => unit.publish(OrderPlaced({ orderId })))
        throw failure
      })
      await assert.rejects(begun, failure)
      assert.deepEqual(await keys(storage), [])
      assert.ok(!(await orders()).includes(orderId))
    })

    test("a unit of work hands out the driver's own transaction, and commits or rolls back with it", async () => {
      const storage = await migrated()
      await using waybill = await createWaybill({ contexts: [shop], database: storage })
      const place = (orderId: string, failure?: Error) =>
        waybill.unitOfWork(async (unit) => {
          await driver.insertOrder(driver.database.transactionOf(unit.sql), orderId)
          await unit.publish(OrderPlaced({ orderId }))
          if (failure !== undefined) throw failure
        })
      await place(`${name} unit`)
      const failure = new Error('rolled back on purpose')
      await assert.rejects(place(`${name} no unit`, failure), failure)
      assert.deepEqual(await keys(storage), [`${name} unit`])
      const left = await orders()
      assert.deepEqual([left.includes(`${name} unit`), left.includes(`${name} no unit`)], [true, false])
    })

    test('a unit of work in another, or in a joined transaction, is refused', async () => {
      await using waybill = await createWaybill({ contexts: [shop], database: await migrated() })
      const nested = () => waybill.unitOfWork(async () => undefined)
      await assert.rejects(waybill.unitOfWork(nested), (error) => isWaybillError(error, 'SESSION_BUSY'))
      const joined = driver.begin(async (transaction) => {
        await waybill.joinTransaction({ sql: driver.executor(transaction) }, nested)
      })
      await assert.rejects(joined, (error) => isWaybillError(error, 'SESSION_BUSY'))
    })

    test(
      'joins a savepoint: what is rolled back to it takes its events along, and nothing else',
      { skip: WITHOUT_SAVEPOINTS.includes(name) },
      async () => {
        const nested = driver.nested!
        const storage = await migrated()
        await using waybill = await createWaybill({ contexts: [shop], database: storage })
        const place = async (transaction: unknown, orderId: string) => {
          await driver.insertOrder(transaction, orderId)
          await waybill.joinTransaction({ sql: driver.executor(transaction) }, (unit) => unit.publish(OrderPlaced({ orderId })))
        }
        const failure = new Error('rolled back on purpose')
        await driver.begin(async (transaction) => {
          await place(transaction, `${name} around`)
          await nested(transaction, (inner) => place(inner, `${name} inside`))
          const undone = nested(transaction, async (inner) => {
            await place(inner, `${name} undone`)
            throw failure
          })
          await assert.rejects(undone, failure)
        })
        assert.deepEqual(await keys(storage), [`${name} around`, `${name} inside`])
        assert.ok(!(await orders()).includes(`${name} undone`))
      },
    )

    test('a transaction that is over takes no statement', { skip: CANT_TELL_THE_END.includes(name) }, async () => {
      const kept: SqlExecutor[] = []
      await driver.begin(async (transaction) => {
        kept.push(driver.executor(transaction))
      })
      await assert.rejects(
        driver.begin(async (transaction) => {
          kept.push(driver.executor(transaction))
          throw new Error('rolled back on purpose')
        }),
      )
      for (const sql of kept) {
        await assert.rejects(sql.query(`insert into orders values ('${name} late', -4)`), (error) => isWaybillError(error, 'UNIT_CLOSED'))
      }
      assert.ok(!(await orders()).includes(`${name} late`))
    })

    test('a database over a transaction, or over something else, is refused', async () => {
      const refused = (wrong: unknown) =>
        assert.throws(
          () => driver.databaseOver(wrong),
          (error) => isWaybillError(error, 'INVALID_OPTION'),
        )
      for (const wrong of [{}, null, undefined, 'sql', async () => undefined]) refused(wrong)
      await driver.begin(async (transaction) => refused(transaction))
    })

    test('an executor over something that is in no transaction is refused', () => {
      for (const wrong of [driver.root, {}, null, undefined, 'sql', async () => undefined])
        assert.throws(
          () => driver.executor(wrong),
          (error) => isWaybillError(error, 'INVALID_OPTION'),
        )
    })

    test('a transaction is handed out for executors of its own database only, and until it ends', async () => {
      let kept: SqlExecutor | undefined
      await driver.database.transaction(async (sql) => {
        kept = sql
        assert.equal(driver.database.transactionOf(sql), driver.database.transactionOf(Object.create(sql)))
      })
      assert.throws(
        () => driver.database.transactionOf(kept!),
        (error) => isWaybillError(error, 'UNIT_CLOSED'),
      )
      await assert.rejects(kept!.query('select 1'), (error) => isWaybillError(error, 'UNIT_CLOSED'))
      assert.throws(
        () => driver.database.transactionOf(driver.database),
        (error) => isWaybillError(error, 'INVALID_OPTION'),
      )
    })

    test('a failure that the callback swallows is no commit', async () => {
      const swallowing = (run: (sql: SqlExecutor) => PromiseLike<unknown>) =>
        driver.database.transaction(async (sql) => {
          await driver.insertOrder(driver.database.transactionOf(sql), `${name} swallowed`)
          await run(sql).then(undefined, () => undefined)
        })
      await assert.rejects(
        swallowing((sql) => sql.query('select 1 / 0')),
        (error) => (error as { code?: unknown }).code === '22012',
      )
      await assert.rejects(swallowing((sql) => driver.raw(driver.database.transactionOf(sql), 'select 1 / 0')))
      await assert.rejects(swallowing((sql) => sql.query('rollback')))
      assert.ok(!(await orders()).includes(`${name} swallowed`))
    })

    test('SQLSTATE is seen: missing tables, unique violations at once and at COMMIT, deadlocks and conflicts that the ORM has wrapped', async () => {
      const { outbox } = await make()
      await assert.rejects(outbox.stats(), (error) => isWaybillError(error, 'NOT_MIGRATED'))
      const code = (state: string) => (error: unknown) => (error as { code?: unknown }).code === state
      await assert.rejects(driver.database.query('select * from nowhere'), code('42P01'))
      const twice = driver.database.transaction(async (sql) => {
        await sql.query(`insert into orders values ('${name} twice', -1)`)
        await sql.query(`insert into orders values ('${name} twice', -2)`)
      })
      await assert.rejects(twice, code('23505'))
      const deferred = driver.database.transaction(async (sql) => {
        await sql.query(`insert into orders values ('${name} deferred 1', -3), ('${name} deferred 2', -3)`)
      })
      await assert.rejects(deferred, code('23505'))

      await using waybill = await createWaybill({ contexts: [shop], database: await migrated() })
      for (const state of ['40001', '40P01']) {
        let runs = 0
        await waybill.unitOfWork(async (unit) => {
          if (++runs === 1) await driver.insertOrder(driver.database.transactionOf(unit.sql), `${name} fails with ${state}`)
        }, TWO_RUNS)
        assert.equal(runs, 2, state)
      }
    })

    test('parameters and results are the same as anywhere', async () => {
      const text = `select $2::text as b, $1::text as a, $1::text as again, '$1 ? ?? ''' as quoted, "$1?".x as named, $tag$ $1 ? $tag$ as dollars,
        7::int as int, 9007199254740993::bigint::text as big, true as yes, null::text as nothing, $3::int as three, $4::boolean as no, $5::text as missing,
        $6::float8 as half, '{"a":1}'::jsonb ? 'a' as has, 1 as snake_case, 2 as "camelCase" /* $1 ? */ -- $2 ??
        from (select 1 as x) as "$1?"`
      const params = ['2026-01-01T00:00:00.000Z', '{"json":"ü"}', 3, false, null, 0.5]
      const expected = {
        b: '{"json":"ü"}',
        a: '2026-01-01T00:00:00.000Z',
        again: '2026-01-01T00:00:00.000Z',
        quoted: "$1 ? ?? '",
        named: 1,
        dollars: ' $1 ? ',
        int: 7,
        big: '9007199254740993',
        yes: true,
        nothing: null,
        three: 3,
        no: false,
        missing: null,
        half: 0.5,
        has: true,
        snake_case: 1,
        camelCase: 2,
      }
      const plain = ({ rows }: { readonly rows: readonly unknown[] }) => rows.map((row) => ({ ...(row as object) }))
      assert.deepEqual(plain(await driver.database.query(text, params)), [expected])
      await driver.database.transaction(async (sql) => assert.deepEqual(plain(await sql.query(text, params)), [expected]))
      await driver.begin(async (transaction) => assert.deepEqual(plain(await driver.executor(transaction).query(text, params)), [expected]))
      assert.deepEqual(plain(await driver.database.query("update orders set pence = pence where id = 'nobody' returning id")), [])
    })

    if (name === 'PGlite') return

    test('a session that ends in COMMIT leaves open what became of it', async () => {
      const commit = driver.database.transaction((sql) => sql.query(`insert into fatal values ('x')`))
      await assert.rejects(commit, (error) => isWaybillError(error, 'UNKNOWN_OUTCOME'))
    })

    test('a connection that is cut before COMMIT is answered is never taken for success', async () => {
      const cut = (handOut: boolean) =>
        driver.database.transaction(async (sql) => {
          if (handOut) driver.database.transactionOf(sql)
          const { rows } = await sql.query<{ pid: number }>('select pg_backend_pid() as pid')
          await beside.query('select pg_terminate_backend($1)', [rows[0]!.pid])
          await until('the server process is gone', async () => {
            const { rows: left } = await beside.query('select 1 from pg_stat_activity where pid = $1', [rows[0]!.pid])
            return left.length === 0
          })
        })
      const told = (error: unknown) => isWaybillError(error, 'UNKNOWN_OUTCOME', 'DATABASE_UNREACHABLE')
      await assert.rejects(cut(false), told)
      await assert.rejects(cut(true), told)
      // A pool may hand out once more what it has not yet seen break.
      await until('the driver connects anew', () =>
        driver.database.query('select 1').then(
          () => true,
          (error) => (isWaybillError(error, 'DATABASE_UNREACHABLE') ? false : Promise.reject(error as Error)),
        ),
      )
    })
  })
}

test('what is no client or database is refused, and the error says what would do', () => {
  assert.throws(
    () => kyselyDatabase({} as never),
    (error) => isWaybillError(error, 'INVALID_OPTION') && error.message.includes('a Kysely'),
  )
  assert.throws(
    () => databaseStorage({} as never),
    (error) => isWaybillError(error, 'INVALID_OPTION'),
  )
})
