import { type OutboxDetail, type OutboxRecord, type Storage, WaybillError } from 'waybill'
import type { Command, CommandInput, ExitCode } from '../cli/command.ts'
import type { Output } from '../cli/output.ts'
import { counted, lengthOfTime, printable } from '../cli/printable.ts'
import { DATABASE_FLAGS, withStorage } from '../cli/storage.ts'
import { filterOf } from './filters.ts'

const KEY_ROWS_MAX = 1_000
const BODY_SHOWN_MAX = 64 * 1024

/** `waybill outbox show`: one row, with what it carries. */
export const outboxShowCommand: Command = {
  name: 'outbox show',
  summary: 'show one row with its headers and body',
  description: [
    'Shows a row with what it carries, and where it stands in its key. A body that is no text is shown in base64.',
    'What is not printable is escaped.',
  ],
  flags: { ...DATABASE_FLAGS, row: { value: 'ROW', help: 'its number, as "waybill outbox ls" shows it' } },
  positional: 'row',
  run(input) {
    const [rowId] = filterOf(input.flags).rowIds ?? []
    if (rowId === undefined) throw new WaybillError('INVALID_SETTING', 'which row was not said', { allowed: 'waybill outbox show ROW' })
    return withStorage(input, (storage) => show(input, storage, rowId))
  },
}

async function show({ flags, output }: CommandInput, storage: Storage, rowId: string): Promise<ExitCode> {
  const row = await storage.outbox.show(rowId)
  if (row === undefined) {
    output.fail(`there is no row ${rowId}: it was published and removed, rolled back, or never written`)
    return 1
  }
  const ofKey = await storage.outbox.list({ topic: row.topic, key: row.key, limit: KEY_ROWS_MAX })
  const place = placeIn(row, ofKey)
  const body = bodyOf(row.body)
  if (flags.on('json')) {
    const { body: _, ...record } = row
    output.json({ ...record, ...place, body: body.text, bodyBase64: body.text === undefined ? body.base64 : undefined })
    return 0
  }
  printAttributes(output, row, place)
  printHeaders(output, row)
  output.print()
  output.print(output.paint('bold', `body, ${counted(row.body.length, 'byte')}${body.text === undefined ? ', no text: base64' : ''}`))
  const text = body.text === undefined ? body.base64 : indented(body.text)
  output.print(printable(text.slice(0, BODY_SHOWN_MAX), { lines: true }))
  if (text.length > BODY_SHOWN_MAX) output.note(`cut after ${BODY_SHOWN_MAX} characters; --json shows all`)
  return 0
}

interface Place {
  /** Rows of its key that must go before it; undefined where its key has too many rows to say. */
  readonly before: number | undefined
  readonly after: number | undefined
}

function placeIn(row: OutboxRecord, ofKey: readonly OutboxRecord[]): Place {
  const at = ofKey.findIndex(({ rowId }) => rowId === row.rowId)
  if (at === -1 || ofKey.length === KEY_ROWS_MAX) return { before: undefined, after: undefined }
  const waits = ({ status }: OutboxRecord): boolean => status === 'pending' || status === 'parked'
  return { before: ofKey.slice(0, at).filter(waits).length, after: ofKey.slice(at + 1).filter(waits).length }
}

function printAttributes(output: Output, row: OutboxDetail, { before, after }: Place): void {
  const place = before === undefined ? `more than ${KEY_ROWS_MAX} rows in its key` : `${before} before it, ${after} after it`
  const lines: readonly (readonly [string, string | undefined])[] = [
    ['row', row.rowId],
    ['status', row.behind === undefined ? row.status : `${row.status}, behind row ${row.behind} of its key`],
    ['event', `${row.eventType}  ${row.eventId}`],
    ['topic', row.topic],
    ['key', row.key],
    ['in its key', place],
    ['destination', row.destination],
    ['priority', String(row.priority)],
    ['attempts', String(row.attempts)],
    ['created', `${row.createdAt.toISOString()}  (${lengthOfTime(Math.max(0, Date.now() - row.createdAt.getTime()))} ago)`],
    ['due', row.dueAt?.toISOString()],
    ['last error', row.lastError],
  ]
  for (const [name, value] of lines) if (value !== undefined) output.print(`${name.padEnd(12)} ${printable(value)}`)
  const advice = adviceFor(row)
  if (advice !== undefined) output.note(advice)
}

function adviceFor({ status, behind, rowId, attempts }: OutboxRecord): string | undefined {
  const head = behind ?? rowId
  if (status === 'parked') return `to go on: waybill outbox retry ${head}; to give it up: waybill outbox skip ${head}`
  if (status === 'skipped') return `to take it back: waybill outbox retry ${rowId}`
  if (status === 'pending' && attempts > 0) return `to try it now: waybill outbox retry ${rowId}`
  return undefined
}

function printHeaders(output: Output, { headers }: OutboxDetail): void {
  output.print()
  output.print(output.paint('bold', 'headers'))
  if (headers === undefined) return output.print('  not readable: they are no JSON object of strings; somebody has edited this row')
  for (const [name, value] of Object.entries(headers)) output.print(`  ${printable(name)}: ${printable(value)}`)
}

function bodyOf(body: Uint8Array): { readonly text: string | undefined; readonly base64: string } {
  const base64 = Buffer.from(body).toString('base64')
  try {
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(body), base64 }
  } catch {
    return { text: undefined, base64 } // No text: shown as base64.
  }
}

/** JSON over several lines; any other text as it is. */
function indented(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), undefined, 2)
  } catch {
    return text // Not JSON.
  }
}
