import type { OutboxRecord, OutboxStats } from 'waybill'
import type { Command } from '../cli/command.ts'
import { table } from '../cli/output.ts'
import { lengthOfTime, printable } from '../cli/printable.ts'
import { withStorage } from '../cli/storage.ts'
import { FILTER_FLAGS, filterOf } from './filters.ts'

const STATUSES = ['pending', 'scheduled', 'published', 'parked', 'skipped'] as const

/** `waybill outbox ls`: what is on its way, and what is stuck. */
export const outboxLsCommand: Command = {
  name: 'outbox ls',
  summary: 'list rows of the outbox, oldest first',
  description: ['Lists rows of the outbox with their status, attempts and last error.'],
  flags: { ...FILTER_FLAGS, status: { value: 'STATUS', help: `${STATUSES.join(', ')} (default: all)` } },
  positional: 'row',
  run(input) {
    const { flags, output } = input
    const status = flags.oneOf('status', STATUSES)
    const filter = { ...filterOf(flags), ...(status === undefined ? {} : { status }) }
    return withStorage(input, async (storage) => {
      const rows = await storage.outbox.list(filter)
      if (flags.on('json')) {
        output.json(rows)
        return 0
      }
      if (rows.length > 0) {
        const [head = '', ...lines] = table(
          ['row', 'status', 'event type', 'key', 'attempts', 'created', 'due', 'last error'],
          rows.map(cellsOf),
        )
        output.print(output.paint('bold', head))
        for (const line of lines) output.print(line)
      }
      output.note(`${rows.length} shown; in all ${inAll(await storage.outbox.stats())}`)
      return 0
    })
  },
}

function cellsOf(row: OutboxRecord): readonly string[] {
  const error = row.behind === undefined ? (row.lastError ?? '') : `waits behind row ${row.behind}`
  return [
    row.rowId,
    row.status,
    printable(row.eventType),
    printable(row.key),
    String(row.attempts),
    row.createdAt.toISOString(),
    row.dueAt?.toISOString() ?? '',
    printable(error),
  ]
}

/** `3 pending, the oldest for 2.0 s, 1 scheduled, 0 parked`. */
export function inAll({ pending, scheduled, parked, oldestPendingMs }: OutboxStats): string {
  const age = pending === 0 ? '' : `, the oldest for ${lengthOfTime(oldestPendingMs)}`
  return `${pending} pending${age}, ${scheduled > 0 ? `${scheduled} scheduled, ` : ''}${parked} parked`
}
