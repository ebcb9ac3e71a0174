import { createReadStream } from 'node:fs'
import { pipeline } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { parse } from 'csv-parse/sync'
import { WaybillError } from 'waybill'

/** A row of the file, split into cells, with the number of the line it begins at. */
export interface Row {
  readonly line: number
  /** As it stands in the file. */
  readonly text: string
  /** Its cells, or why it can't be split. */
  readonly cells: readonly string[] | string
}

interface PhysicalLine {
  readonly line: number
  readonly text: string
}

const LINE_MAX = 64 * 1024
/** Lines that one quoted cell may span. */
const JOINED_MAX = 8

/**
 * The rows of a CSV file, as they come in, plain or gzip (told by its first bytes, not by its name). A quote that is never closed spoils its own row only: the
 * lines behind it are read again, each for itself.
 * @throws WaybillError `INVALID_FILE` where the file is missing, unreadable or damaged gzip
 */
export async function* readRows(path: string): AsyncGenerator<readonly Row[]> {
  let waiting: readonly PhysicalLine[] = []
  for await (const lines of readLines(path)) {
    const { rows, rest } = takeRows([...waiting, ...lines], false)
    waiting = rest
    yield rows
  }
  yield takeRows(waiting, true).rows
}

/** The rows that are complete, and the lines that are left; at the end of the file nothing is left. */
function takeRows(
  lines: readonly PhysicalLine[],
  ended: boolean,
): { readonly rows: readonly Row[]; readonly rest: readonly PhysicalLine[] } {
  const rows: Row[] = []
  let at = 0
  while (at < lines.length) {
    const linesMax = Math.min(lines.length - at, JOINED_MAX)
    let row: Row | undefined
    let used = 0
    while (row === undefined && used < linesMax) row = rowOf(lines.slice(at, at + ++used))
    if (row === undefined) {
      if (!ended && linesMax < JOINED_MAX) break
      row = { ...lines[at]!, cells: 'a quote is not closed' }
      used = 1
    }
    rows.push(row)
    at += used
  }
  return { rows, rest: lines.slice(at) }
}

/** The row that these lines make up; nothing where a quote is still open. */
function rowOf(lines: readonly PhysicalLine[]): Row | undefined {
  const text = lines.map((line) => line.text).join('\n')
  const { line } = lines[0]!
  if (text.length > LINE_MAX) return { line, text: text.slice(0, 200), cells: `longer than ${LINE_MAX} characters` }
  if (!text.includes('"')) return { line, text, cells: text.split(',') }
  if ((text.split('"').length - 1) % 2 === 1) return undefined
  try {
    const [cells = []] = parse(text, { relax_column_count: true })
    return { line, text, cells }
  } catch (error) {
    return { line, text, cells: error instanceof Error ? error.message : String(error) }
  }
}

async function* readLines(path: string): AsyncGenerator<readonly PhysicalLine[]> {
  const decoder = new TextDecoder()
  let line = 0
  let rest = ''
  for await (const chunk of readBytes(path)) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n')
    rest = parts.pop()!
    yield parts.map((text) => ({ line: ++line, text: text.endsWith('\r') ? text.slice(0, -1) : text }))
    // Too long already: what follows up to the line's end would be cut off anyway.
    if (rest.length > 2 * LINE_MAX) rest = rest.slice(0, LINE_MAX + 1)
  }
  rest += decoder.decode()
  if (rest !== '') yield [{ line: line + 1, text: rest }]
}

async function* readBytes(path: string): AsyncGenerator<Uint8Array> {
  const wrong = (message: string, cause: unknown): WaybillError =>
    new WaybillError('INVALID_FILE', message, { got: path, allowed: 'an Online Retail CSV file, plain or gzip', cause })
  const file = createReadStream(path)[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>
  let first: IteratorResult<Uint8Array>
  try {
    first = await file.next()
  } catch (cause) {
    throw wrong(`the data file can't be read: ${reasonOf(cause)}`, cause)
  }
  async function* all(): AsyncGenerator<Uint8Array> {
    for (let next = first; next.done !== true; next = await file.next()) yield next.value
  }
  if (first.done === true || first.value[0] !== 0x1f || first.value[1] !== 0x8b) {
    yield* all()
    return
  }
  try {
    // The callback is required; what it is told also comes out of the iteration.
    yield* pipeline(all(), createGunzip(), () => {})
  } catch (cause) {
    throw wrong(`the data file is damaged gzip: ${reasonOf(cause)}`, cause)
  }
}

function reasonOf(cause: unknown): string {
  const code = (cause as NodeJS.ErrnoException).code
  if (code === 'ENOENT') return 'there is no such file'
  if (code === 'EISDIR') return 'it is a folder'
  if (code === 'EACCES') return 'permission denied'
  return cause instanceof Error ? cause.message : String(cause)
}
