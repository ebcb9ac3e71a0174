import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { pgliteStorage } from 'waybill/postgres'
import { startCommand } from '../testing/command-process.ts'
import type { DemoResult } from './check.ts'
import { checkFound } from './check.ts'
import { readDeliveryLogs } from './delivery-log.ts'
import { expectedOf } from './expected.ts'
import { readInvoices } from './invoices.ts'
import { readLastWords } from './kills.ts'
import { databaseFolder } from './setup.ts'
import { consumerOf } from './shop.ts'
import { readEffects, readTotals } from './tables.ts'

const folder = mkdtempSync(join(tmpdir(), 'waybill-demo-test-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const demo = (...args: readonly string[]) => startCommand(['demo', ...args]).ended

/** The first invoices of the month, as a file of its own. */
function excerpt(name: string, invoices: number): string {
  const [header, ...rows] = gunzipSync(readFileSync(new URL('../../data/online-retail-2010-12.csv.gz', import.meta.url)))
    .toString()
    .split('\n')
  const numbers = new Set<string>()
  const end = rows.findIndex((row) => numbers.add(row.split(',', 1)[0]!).size > invoices)
  const path = join(folder, name)
  writeFileSync(path, [header, ...rows.slice(0, end), ''].join('\n'))
  return path
}

test('killed three times, real orders come out complete, once, in order', async () => {
  const data = excerpt('sixty.csv', 60)
  const { code, stdout, stderr } = await demo('--data', data, '--kills', '3', '--seed', '7', '--json')
  assert.equal(code, 0, stderr)
  assert.match(stdout, /^\{[^\n]*\}\n$/)
  const result = JSON.parse(stdout) as DemoResult
  const { invoices, lines } = await readInvoices(data)
  const expected = expectedOf(invoices)
  assert.deepEqual([result.invoices, result.lines, result.kills], [60, lines, 3])
  assert.deepEqual([result.lost, result.duplicateEffects, result.orderViolations], [0, 0, 0])
  assert.deepEqual(result.handled, expected.handled)
  assert.deepEqual(result.revenuePence, Object.fromEntries(expected.revenuePence))
  assert.deepEqual(result.stock, Object.fromEntries(expected.stock))
  assert.deepEqual([result.broker, result.database, result.processes, result.brokerRestarts], ['inprocess', 'pglite', 1, 0])
  assert.ok(result.redelivered > 0, 'three kills without a single redelivery did not test anything')
  assert.deepEqual(Object.keys(result), [
    'invoices',
    'lines',
    'published',
    'handled',
    'redelivered',
    'kills',
    'lost',
    'duplicateEffects',
    'orderViolations',
    'revenuePence',
    'stock',
    'broker',
    'database',
    'processes',
    'brokerRestarts',
    'recoverySeconds',
    'seconds',
  ])
})

test('a broken row is reported and the rest carried; what was kept shows faults that are put into it', async () => {
  const data = excerpt('twelve.csv', 12)
  writeFileSync(
    data,
    readFileSync(data, 'utf8').replace('\n', '\n536365,85123A,BROKEN,six,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n'),
  )
  const keep = join(folder, 'kept')
  const { code, stdout, stderr } = await demo('--data', data, '--kills', '1', '--keep', keep)
  assert.equal(code, 0, stderr)
  assert.match(stderr, /line 2 rejected: Quantity is not a whole number: "six"/)
  assert.match(stderr, /killed at [a-zA-Z.]+ after \d+ invoices \(1 of 1\)/)
  assert.match(stdout, /lost +0 .*\n +duplicate effects +0 .*\n +order violations +0 /)
  assert.equal(readLastWords(keep).length, 1)
  assert.ok(readdirSync(keep).includes('deliveries-1.log'))

  const { invoices } = await readInvoices(data)
  const storage = await pgliteStorage(databaseFolder(keep))
  try {
    const look = async () => {
      const found = {
        effects: await readEffects(storage.database),
        ...(await readTotals(storage.database)),
        deliveries: readDeliveryLogs(keep, consumerOf),
        kills: 1,
        killsPlanned: 1,
        deadLetters: 0,
        outboxPending: 0,
      }
      return checkFound(expectedOf(invoices), found)
    }
    assert.deepEqual((await look()).problems, [])
    await storage.database.query("delete from demo_effect where id = (select min(id) from demo_effect where consumer = 'stock')")
    await storage.database.query(
      "insert into demo_effect (consumer, event_id, event_type, topic, key, seq) select consumer, event_id, event_type, topic, key, seq from demo_effect where consumer = 'revenue' order by id limit 1",
    )
    await storage.database.query(
      "update demo_effect set id = id + 1000000 where id = (select min(id) from demo_effect where consumer = 'ledger' and event_type = 'stock.StockMoved' and seq = 1 and key = (select key from demo_effect where event_type = 'stock.StockMoved' group by key having count(*) > 1 limit 1))",
    )
    const { result } = await look()
    assert.deepEqual([result.lost, result.duplicateEffects], [1, 1])
    assert.ok(result.orderViolations > 0)
  } finally {
    await storage.close()
  }
})

test('more kills than the data has room for are refused before anything starts', async () => {
  const { code, stderr } = await demo('--data', excerpt('three.csv', 3), '--kills', '3')
  assert.equal(code, 2)
  assert.match(stderr, /--kills is more than the data has room for: it holds 3 invoices \(got 3; allowed: 0 to 2\)/)
})

test('of the data only the first invoices are taken where so many are asked for', async () => {
  const { code, stdout, stderr } = await demo('--invoices', '2', '--kills', '0', '--json')
  assert.equal(code, 0, stderr)
  const { invoices, kills, handled } = JSON.parse(stdout) as DemoResult
  assert.deepEqual([invoices, kills, handled['stock']], [2, 0, 2])
})

test('what can not be is refused in one sentence, before anything starts', async () => {
  const cases: readonly (readonly [readonly string[], Readonly<Record<string, string>>, RegExp])[] = [
    [
      ['--broker', 'kafak'],
      {},
      /--broker is not usable; did you mean "kafka"\? \(got "kafak"; allowed: inprocess, kafka, nats, redis, pulsar\)/,
    ],
    [['--broker', 'rabbitmq'], {}, /--broker is not usable \(got "rabbitmq"; allowed: inprocess, kafka, nats, redis, pulsar\)/],
    [['--database', 'postgresql'], {}, /--database is not usable; did you mean "postgres"\? .*allowed: pglite, postgres/],
    [['--restart-broker'], {}, /--restart-broker needs a broker .*allowed: --broker kafka, nats, redis or pulsar/],
    [['--restart-broker', '--broker', 'inprocess'], {}, /--restart-broker needs a broker/],
    [
      ['--restart-broker', '--broker', 'nats'],
      { NATS_URL: 'nats://user:hidden-secret@127.0.0.1:1' },
      /--restart-broker is for a broker that the demo starts itself, and NATS_URL names one that is there already \(allowed: NATS_URL not set\)/,
    ],
    [
      ['--restart-broker', '--broker', 'redis', '--invoices', '15'],
      {},
      /--restart-broker needs more invoices.*got 15; allowed: at least 16/,
    ],
    [['--database', 'postgres'], { DATABASE_URL: './folder' }, /DATABASE_URL names no PostgreSQL server \(got ".\/folder"/],
    [['--invoices', '0'], {}, /--invoices is not usable \(got "0"/],
    [['--kills', '3', '--invoices', '3', '--broker', 'redis'], {}, /--kills is more than the data has room for: it holds 3 invoices/],
  ]
  for (const [args, env, message] of cases) {
    const { code, stdout, stderr } = await startCommand(['demo', ...args], { env }).ended
    assert.deepEqual([code, stdout], [2, ''], stderr)
    assert.match(stderr, message)
    assert.match(stderr, /\[INVALID_SETTING\]\n$/)
    assert.ok(!stderr.includes('hidden-secret'))
  }
})

test('a server that is named and not there is one sentence', async () => {
  const env = { DATABASE_URL: 'postgres://shop:hidden-secret@127.0.0.1:1/shop' }
  const { code, stdout, stderr } = await startCommand(['demo', '--invoices', '3', '--database', 'postgres', '--json'], { env }).ended
  assert.deepEqual([code, stdout], [1, ''])
  assert.match(stderr, /^waybill: can't reach PostgreSQL: .* \[DATABASE_UNREACHABLE\]\n$/)
  assert.ok(!stderr.includes('hidden-secret'))
})

test('where there is no server and none can be started, the variable that names one is said', async () => {
  const { code, stdout, stderr } = await startCommand(['demo', '--broker', 'kafka', '--invoices', '3'], { env: { PATH: '/nonexistent' } })
    .ended
  assert.deepEqual([code, stdout], [2, ''])
  assert.match(
    stderr,
    /there is no kafka server for the demo: .*allowed: KAFKA_BOOTSTRAP_SERVERS with the address of one\) \[INVALID_SETTING\]\n$/,
  )
})
