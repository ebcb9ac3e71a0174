import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { type RejectedRow, readInvoices } from './invoices.ts'

const HEADER = 'InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country'
const DATE = '2010-12-01 08:26:00'
const GOOD = `536365,85123A,HOLDER,6,${DATE},2.55,17850.0,United Kingdom`

const folder = mkdtempSync(join(tmpdir(), 'waybill-invoices-'))
after(() => rmSync(folder, { recursive: true }))

let files = 0
function fileOf(content: string | Uint8Array): string {
  const path = join(folder, `${files++}.csv`)
  writeFileSync(path, content)
  return path
}

async function read(
  ...rows: readonly string[]
): Promise<{ invoices: Awaited<ReturnType<typeof readInvoices>>['invoices']; lines: number; rejected: readonly RejectedRow[] }> {
  const rejected: RejectedRow[] = []
  const { invoices, lines } = await readInvoices(fileOf([HEADER, ...rows, ''].join('\n')), (row) => rejected.push(row))
  return { invoices, lines, rejected }
}

test('rows of one invoice make one invoice, in the order of the file', async () => {
  const { invoices, lines } = await read(
    GOOD,
    `536366,22633,WARMER,-2,${DATE},1.85,,France`,
    `536365,71053,LANTERN,6,${DATE},3.39,17850.0,United Kingdom`,
  )
  assert.equal(lines, 3)
  assert.deepEqual(invoices, [
    {
      number: '536365',
      cancelled: false,
      customer: '17850',
      country: 'United Kingdom',
      date: '2010-12-01T08:26:00.000Z',
      lines: [
        { code: '85123A', quantity: 6, pence: 255 },
        { code: '71053', quantity: 6, pence: 339 },
      ],
    },
    {
      number: '536366',
      cancelled: false,
      customer: undefined,
      country: 'France',
      date: '2010-12-01T08:26:00.000Z',
      lines: [{ code: '22633', quantity: -2, pence: 185 }],
    },
  ])
})

test('a number beginning with C is a cancellation', async () => {
  const { invoices } = await read(`C536379,D,Discount,-1,${DATE},27.50,14527.0,United Kingdom`)
  assert.deepEqual(
    invoices.map(({ cancelled }) => cancelled),
    [true],
  )
})

test('quotes, commas, doubled quotes and a line end within quotes belong to the cell', async () => {
  const { invoices, lines, rejected } = await read(
    `1,A,"ROUND, ""SMALL"" BOX",1,${DATE},1,1,UK`,
    `2,B,"TWO\nLINES",1,${DATE},1,1,UK`,
    `3,C,,1,${DATE},1,1,"Channel Islands, the"`,
  )
  assert.deepEqual(rejected, [])
  assert.equal(lines, 3)
  assert.deepEqual(
    invoices.map(({ number, country }) => [number, country]),
    [
      ['1', 'UK'],
      ['2', 'UK'],
      ['3', 'Channel Islands, the'],
    ],
  )
})

test('each broken row is reported with its line and reason, and the others go on', async () => {
  const broken: readonly (readonly [string, RegExp])[] = [
    [`536365,85123A,HOLDER,6,${DATE},2.55,17850.0`, /7 columns instead of 8/],
    [`${GOOD},extra`, /9 columns instead of 8/],
    [`,85123A,HOLDER,6,${DATE},2.55,17850.0,United Kingdom`, /InvoiceNo is missing/],
    [`536365,,HOLDER,6,${DATE},2.55,17850.0,United Kingdom`, /StockCode is missing/],
    [`536365,85123A,HOLDER,six,${DATE},2.55,17850.0,United Kingdom`, /Quantity is not a whole number: "six"/],
    [`536365,85123A,HOLDER,1.5,${DATE},2.55,17850.0,United Kingdom`, /Quantity is not a whole number/],
    [`536365,85123A,HOLDER,6,${DATE},free,17850.0,United Kingdom`, /UnitPrice is not a number: "free"/],
    [`536365,85123A,HOLDER,6,${DATE},,17850.0,United Kingdom`, /UnitPrice is not a number/],
    [`536365,85123A,HOLDER,999999999,${DATE},999999999,17850.0,United Kingdom`, /too large/],
    ['536365,85123A,HOLDER,6,2010-02-30 08:26:00,2.55,17850.0,United Kingdom', /InvoiceDate is not a date/],
    ['536365,85123A,HOLDER,6,yesterday,2.55,17850.0,United Kingdom', /InvoiceDate is not a date/],
    [`536365,85123A,HOLDER,6,${DATE},2.55,17850.0,`, /Country is missing/],
    [`536365,85123A,HOLDER,6,${DATE},2.55,17850.0,France`, /differ from the first row of invoice 536365/],
    [`536365,85123A,HOLDER,6,${DATE},2.55,guest:France,United Kingdom`, /CustomerID is not usable/],
    [`536365,85\u0000123A,HOLDER,6,${DATE},2.55,17850.0,United Kingdom`, /StockCode is not usable/],
    [`536365,85123A,HOL"DER,6,"${DATE},2.55,17850.0,United Kingdom`, /quote/i],
  ]
  const { lines, rejected } = await read(GOOD, ...broken.flatMap(([row]) => [row, GOOD]))
  assert.equal(lines, broken.length + 1)
  assert.deepEqual(
    rejected.map(({ line }) => line),
    broken.map((_, index) => 3 + 2 * index),
  )
  for (const [index, [row, reason]] of broken.entries()) {
    assert.match(rejected[index]!.reason, reason)
    assert.equal(rejected[index]!.row, row)
  }
})

test('a quote that is never closed spoils its own row only', async () => {
  const many = Array.from({ length: 20 }, () => GOOD)
  const { lines, rejected } = await read(GOOD, `536365,85123A,"HOLDER,6,${DATE},2.55,17850.0,United Kingdom`, ...many, '"', GOOD)
  assert.equal(lines, 22)
  assert.deepEqual(
    rejected.map(({ line }) => line),
    [3, 24],
  )
  assert.match(rejected[0]!.reason, /quote is not closed/)
})

test('a row longer than the limit is rejected without being kept in memory', async () => {
  const { lines, rejected } = await read(GOOD, `1,A,${'x'.repeat(300_000)},1,${DATE},1,1,UK`, GOOD)
  assert.equal(lines, 2)
  assert.match(rejected[0]!.reason, /longer than/)
  assert.ok(rejected[0]!.row.length <= 200)
})

test('dates as other copies of the data set write them are read alike', async () => {
  const { invoices } = await read('1,A,,1,12/1/2010 8:26,1,1,UK', '2,A,,1,2010-12-01T08:26,1,1,UK')
  assert.deepEqual(
    invoices.map(({ date }) => date),
    ['2010-12-01T08:26:00.000Z', '2010-12-01T08:26:00.000Z'],
  )
})

test('gzip, CRLF, a byte order mark and a missing last line end change nothing', async () => {
  const plain = await readInvoices(fileOf(`${HEADER}\n${GOOD}\n`))
  for (const content of [gzipSync(`${HEADER}\n${GOOD}\n`), `${HEADER}\r\n${GOOD}\r\n`, `\ufeff${HEADER}\n${GOOD}`]) {
    assert.deepEqual(await readInvoices(fileOf(content)), plain)
  }
})

test('a file that is no data at all is one clear error', async () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    [join(folder, 'missing.csv'), /there is no such file/],
    [folder, /it is a folder/],
    [fileOf(''), /is empty/],
    [fileOf('\n\n'), /is empty/],
    [fileOf(`${HEADER}\n`), /a header and no rows/],
    [fileOf(`${HEADER}\na,b\n`), /none of the 1 rows/],
    [fileOf('name,age\nx,1\n'), /header/],
    [fileOf(gzipSync(`${HEADER}\n${GOOD}\n`).subarray(0, 40)), /damaged gzip/],
    [fileOf(Uint8Array.of(0x1f, 0x8b, 1, 2, 3)), /damaged gzip/],
  ]
  for (const [path, message] of cases) {
    await assert.rejects(readInvoices(path), (error: Error & { code?: string }) => {
      assert.equal(error.code, 'INVALID_FILE')
      assert.match(error.message, message)
      return true
    })
  }
})

test('the month that comes along is whole', async () => {
  const { invoices, lines, rejected } = await readInvoices(
    fileURLToPath(new URL('../../data/online-retail-2010-12.csv.gz', import.meta.url)),
  )
  assert.deepEqual([invoices.length, lines, rejected], [2025, 42_481, 0])
})
