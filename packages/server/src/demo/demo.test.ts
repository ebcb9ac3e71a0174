import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import { pgliteStorage } from 'waybill/postgres'
import type { DemoResult } from './check.ts'
import { checkFound } from './check.ts'
import { readDeliveryLogs } from './delivery-log.ts'
import { expectedOf } from './expected.ts'
import { readInvoices } from './invoices.ts'
import { consumerOf } from './shop.ts'
import { readEffects, readTotals } from './tables.ts'
import { databaseFolder, readLastWords } from './worker.ts'

const COMMAND = fileURLToPath(new URL('../../bin/waybill.js', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'waybill-demo-test-'))
after(() => rmSync(folder, { recursive: true, force: true }))

async function demo(...args: readonly string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [COMMAND, 'demo', ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const [[code], stdout, stderr] = await Promise.all([
    once(child, 'close') as Promise<[number | null]>,
    text(child.stdout),
    text(child.stderr),
  ])
  return { code, stdout, stderr }
}

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
