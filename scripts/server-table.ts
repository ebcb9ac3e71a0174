import { basename } from 'node:path'

// Test files that need a server say so by their name: `<suite>.<server>.test.ts`. What became of them is one table, suite × server.

/** Columns of the table, in their order, and the server that each one needs. */
const COLUMNS = { postgres: 'postgres', redis: 'redis', 'redis-pubsub': 'redis', nats: 'nats', kafka: 'kafka', pulsar: 'pulsar' } as const

type Column = keyof typeof COLUMNS
/** A server that a test file asks for. */
export type NeededServer = (typeof COLUMNS)[Column]

/** Of PostgreSQL's tests that are named after what they test, and start a server themselves. */
const OTHER_POSTGRES = 'others'

interface Cell {
  passed: number
  failed: number
  readonly skipped: string[]
}

/** Where a test file belongs in the table, undefined where it needs no server. */
export function placeOf(
  path: string,
): { readonly suite: string; readonly column: Column; readonly needs: NeededServer | undefined } | undefined {
  const match = /^(?<suite>.+)\.(?<column>[a-z-]+)\.test\.ts$/.exec(basename(path))
  const column = match?.groups?.['column']
  if (column !== undefined && Object.hasOwn(COLUMNS, column))
    return { suite: match!.groups!['suite']!, column: column as Column, needs: COLUMNS[column as Column] }
  return path.includes('postgres') ? { suite: OTHER_POSTGRES, column: 'postgres', needs: undefined } : undefined
}

/** The servers that `paths` need, each once. */
export function serversFor(paths: readonly string[]): readonly NeededServer[] {
  return [...new Set(paths.flatMap((path) => placeOf(path)?.needs ?? []))].toSorted()
}

/** Counts what became of each test, and shows it. */
export class ServerTable {
  readonly #rows = new Map<string, Map<Column, Cell>>()

  /** A test of `path` has ended: skipped where there is a reason. Nothing where the file needs no server. */
  note(path: string, outcome: 'passed' | 'failed' | { readonly skipped: string }): void {
    const place = placeOf(path)
    if (place === undefined) return
    const row = this.#rows.get(place.suite) ?? new Map<Column, Cell>()
    this.#rows.set(place.suite, row)
    const cell = row.get(place.column) ?? { passed: 0, failed: 0, skipped: [] }
    row.set(place.column, cell)
    if (typeof outcome === 'object') cell.skipped.push(outcome.skipped)
    else cell[outcome]++
  }

  /** The lines of the table, with the reasons of what was skipped below; none where no test needed a server. */
  lines(): readonly string[] {
    if (this.#rows.size === 0) return []
    const columns = (Object.keys(COLUMNS) as Column[]).filter((column) => [...this.#rows.values()].some((row) => row.has(column)))
    const reasons: string[] = []
    const body = [...this.#rows.entries()]
      .toSorted(([a], [b]) => a.localeCompare(b))
      .map(([suite, row]) => [suite, ...columns.map((column) => cellText(row.get(column), reasons))])
    const table = [['suite', ...columns], ...body]
    const widths = table[0]!.map((_, index) => Math.max(...table.map((line) => line[index]!.length)))
    const aligned = table.map((line) =>
      line
        .map((text, index) => text.padEnd(widths[index]!))
        .join('  ')
        .trimEnd(),
    )
    return [...aligned, ...reasons.map((reason, index) => `[${index + 1}] ${reason.replaceAll('\n', '; ')}`)]
  }
}

/** `reasons` get what is new; a cell names them by their number. */
function cellText(cell: Cell | undefined, reasons: string[]): string {
  if (cell === undefined) return '-'
  if (cell.failed > 0) return 'FAILED'
  const numbers = [...new Set(cell.skipped)].map((reason) => {
    if (!reasons.includes(reason)) reasons.push(reason)
    return `[${reasons.indexOf(reason) + 1}]`
  })
  if (cell.passed === 0) return `skipped ${numbers.join('')}`
  return `passed ${cell.passed}${numbers.length === 0 ? '' : `, skipped ${cell.skipped.length} ${numbers.join('')}`}`
}
