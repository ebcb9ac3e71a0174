import { WaybillError } from 'waybill'
import { type Row, readRows } from './rows.ts'

/** A line of an invoice. */
export interface InvoiceLine {
  readonly code: string
  /** Negative on a cancellation. */
  readonly quantity: number
  /** Price of one, in pence. */
  readonly pence: number
}

/** An invoice or, where its number begins with C, a cancellation. */
export interface Invoice {
  readonly number: string
  readonly cancelled: boolean
  readonly customer: string | undefined
  readonly country: string
  /** RFC 3339, UTC. */
  readonly date: string
  readonly lines: readonly InvoiceLine[]
}

/** A row that could not be used. */
export interface RejectedRow {
  /** 1 is the header. */
  readonly line: number
  readonly reason: string
  /** As it stands in the file, cut to 200 characters. */
  readonly row: string
}

/** What a file holds. */
export interface InvoiceFile {
  /** In the order of their first lines. */
  readonly invoices: readonly Invoice[]
  readonly lines: number
  readonly rejected: number
}

const COLUMNS = ['InvoiceNo', 'StockCode', 'Quantity', 'InvoiceDate', 'UnitPrice', 'CustomerID', 'Country'] as const
type Column = (typeof COLUMNS)[number]
type Cells = Readonly<Record<Column, string>>

const LINES_MAX = 5_000_000
const ROW_SHOWN = 200

/**
 * Reads a file of the Online Retail shape. A broken row goes to `onRejected` with its line number and the reason, and the others go on.
 * @throws WaybillError `INVALID_FILE` where the file is missing, empty, of another shape, or holds no usable row
 */
export async function readInvoices(path: string, onRejected: (row: RejectedRow) => void = () => {}): Promise<InvoiceFile> {
  const wrong = (message: string): WaybillError =>
    new WaybillError('INVALID_FILE', message, { got: path, allowed: `a CSV file, plain or gzip, with the columns ${COLUMNS.join(', ')}` })
  const invoices = new Map<string, Invoice & { readonly lines: InvoiceLine[] }>()
  let pick: ((row: Row) => Cells | string) | undefined
  let lines = 0
  let rejected = 0
  for await (const rows of readRows(path)) {
    for (const row of rows) {
      if (row.text.trim() === '') continue
      if (pick === undefined) {
        pick = columnPicker(row)
        if (pick === undefined) throw wrong('the data file does not begin with a header of the right columns')
        continue
      }
      const reason = take(invoices, pick(row))
      if (reason === undefined) lines++
      else {
        rejected++
        onRejected({ line: row.line, reason, row: row.text.slice(0, ROW_SHOWN) })
      }
    }
    if (lines > LINES_MAX) throw wrong(`the data file holds more than ${LINES_MAX} rows`)
  }
  if (pick === undefined) throw wrong('the data file is empty')
  if (lines === 0)
    throw wrong(rejected === 0 ? 'the data file holds a header and no rows' : `none of the ${rejected} rows of the data file is usable`)
  return { invoices: [...invoices.values()], lines, rejected }
}

function columnPicker(header: Row): ((row: Row) => Cells | string) | undefined {
  if (typeof header.cells === 'string') return undefined
  const names = header.cells.map((name) => name.trim())
  if (!COLUMNS.every((column) => names.includes(column))) return undefined
  const places = COLUMNS.map((column) => [column, names.indexOf(column)] as const)
  return ({ cells }) => {
    if (typeof cells === 'string') return cells
    if (cells.length !== names.length) return `${cells.length} columns instead of ${names.length}`
    return Object.fromEntries(places.map(([column, place]) => [column, cells[place]!.trim()])) as Cells
  }
}

/** Adds a row to its invoice; gives back why not, where it can't. */
function take(invoices: Map<string, Invoice & { readonly lines: InvoiceLine[] }>, cells: Cells | string): string | undefined {
  if (typeof cells === 'string') return cells
  const { InvoiceNo: number, StockCode: code, Country: country } = cells
  if (number === '') return 'InvoiceNo is missing'
  if (!/^[A-Za-z0-9-]{1,32}$/.test(number)) return `InvoiceNo is not usable: ${shown(number)}`
  if (!PLAIN.test(code)) return code === '' ? 'StockCode is missing' : `StockCode is not usable: ${shown(code)}`
  if (!PLAIN.test(country)) return country === '' ? 'Country is missing' : `Country is not usable: ${shown(country)}`
  // Spreadsheets write a customer's number as 17850.0.
  const customer = cells.CustomerID.replace(/^(\d+)\.0$/, '$1')
  if (!/^[A-Za-z0-9._-]{0,64}$/.test(customer)) return `CustomerID is not usable: ${shown(customer)}`
  if (!/^[+-]?\d{1,9}$/.test(cells.Quantity)) return `Quantity is not a whole number: ${shown(cells.Quantity)}`
  if (!/^[+-]?\d{1,9}(\.\d{1,9})?$/.test(cells.UnitPrice)) return `UnitPrice is not a number: ${shown(cells.UnitPrice)}`
  const quantity = Number(cells.Quantity)
  const pence = Math.round(Number(cells.UnitPrice) * 100)
  if (!Number.isSafeInteger(quantity * pence)) return 'Quantity times UnitPrice is too large'
  const date = isoDate(cells.InvoiceDate)
  if (date === undefined) return `InvoiceDate is not a date: ${shown(cells.InvoiceDate)}`

  const line = { code, quantity, pence }
  const known = invoices.get(number)
  if (known === undefined) {
    invoices.set(number, {
      number,
      cancelled: number.startsWith('C'),
      customer: customer === '' ? undefined : customer,
      country,
      date,
      lines: [line],
    })
    return undefined
  }
  if (known.country !== country || (known.customer ?? '') !== customer)
    return `customer or country differ from the first row of invoice ${number}`
  known.lines.push(line)
  return undefined
}

// What can be part of a key, and be printed: no control, format or invisible characters.
const PLAIN = /^[^\p{C}\p{Zl}\p{Zp}]{1,64}$/u

function shown(text: string): string {
  return JSON.stringify(text.slice(0, 40))
}

const YEAR_FIRST = /^(?<year>\d{4})-(?<month>\d\d)-(?<day>\d\d)[ T](?<hour>\d\d):(?<minute>\d\d)(?::(?<second>\d\d))?$/
// As the same data set is written elsewhere.
const MONTH_FIRST = /^(?<month>\d{1,2})\/(?<day>\d{1,2})\/(?<year>\d{4}) (?<hour>\d{1,2}):(?<minute>\d\d)(?::(?<second>\d\d))?$/

function isoDate(text: string): string | undefined {
  const parts = (YEAR_FIRST.exec(text) ?? MONTH_FIRST.exec(text))?.groups
  if (parts === undefined) return undefined
  const [year, month, day, hour, minute, second] = ['year', 'month', 'day', 'hour', 'minute', 'second'].map((part) =>
    Number(parts[part] ?? 0),
  ) as [number, number, number, number, number, number]
  const date = new Date(Date.UTC(year, month - 1, day, hour, minute, second))
  // 30 February and 25 o'clock would silently become another day.
  const same =
    date.getUTCMonth() === month - 1 &&
    date.getUTCDate() === day &&
    date.getUTCHours() === hour &&
    date.getUTCMinutes() === minute &&
    date.getUTCSeconds() === second
  return same ? date.toISOString() : undefined
}
