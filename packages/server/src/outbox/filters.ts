import { type OutboxFilter, type OutboxRecord, WaybillError } from 'waybill'
import type { FlagSpec, Flags } from '../cli/arguments.ts'
import { DATABASE_FLAGS } from '../cli/storage.ts'

const ROW_NUMBER = /^\d{1,19}$/
const LIMIT_DEFAULT = 100
const LIMIT_MAX = 10_000
const ALL_STEPS_MAX = 10_000

/** Which rows: what is given must all fit. */
export const FILTER_FLAGS: Readonly<Record<string, FlagSpec>> = {
  ...DATABASE_FLAGS,
  type: { value: 'NAME', help: 'rows of this event type only' },
  topic: { value: 'NAME', help: 'rows of this topic only' },
  key: { value: 'KEY', help: 'rows of this key only' },
  row: { value: 'ROW', help: 'this row; may be repeated, and given without --row', multiple: true },
  id: { value: 'ROW', help: 'the same as --row', multiple: true },
  'older-than': { value: 'TIME', help: 'rows written at least so long ago: 90s, 10m, 2h, 1d' },
  error: { value: 'TEXT', help: 'rows with this text in their last error, in whatever case' },
  limit: { value: 'N', help: `at most this many rows, 1 to ${LIMIT_MAX} (default ${LIMIT_DEFAULT})` },
}

export const ALL_FLAG: Readonly<Record<string, FlagSpec>> = {
  all: { help: 'every row that fits, without a limit' },
}

/** Reads the filter. @throws WaybillError `INVALID_SETTING` */
export function filterOf(flags: Flags): OutboxFilter {
  const rowIds = [...flags.texts('row'), ...flags.texts('id')]
  for (const id of rowIds) {
    if (!ROW_NUMBER.test(id))
      throw new WaybillError('INVALID_SETTING', `${flags.texts('id').includes(id) ? '--id' : '--row'} is not a row number`, {
        got: id,
        allowed: 'a number of the column "row" of "waybill outbox ls"',
      })
  }
  const given = {
    eventType: flags.text('type'),
    topic: flags.text('topic'),
    key: flags.text('key'),
    rowIds: rowIds.length === 0 ? undefined : rowIds,
    olderThanMs: flags.duration('older-than'),
    error: flags.text('error'),
    limit: flags.integer('limit', 1, LIMIT_MAX),
  }
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
}

/** The rows that a command is to change. */
export interface Chosen {
  readonly filter: OutboxFilter
  /** Whether anything but the limit was said. */
  readonly isFiltered: boolean
  /** Most rows; undefined with `--all`. */
  readonly limit: number | undefined
}

/** Reads which rows a command is to change. @throws WaybillError `INVALID_SETTING` */
export function chosenRows(flags: Flags): Chosen {
  const filter = filterOf(flags)
  const all = flags.on('all')
  if (all && filter.limit !== undefined)
    throw new WaybillError('INVALID_SETTING', '--all and --limit exclude each other', { allowed: 'one of them' })
  const isFiltered = Object.keys(filter).some((name) => name !== 'limit')
  return { filter, isFiltered, limit: all ? undefined : (filter.limit ?? LIMIT_DEFAULT) }
}

/** Refuses to touch rows that nobody has named. @throws WaybillError `INVALID_SETTING` */
export function needFilter({ isFiltered, limit }: Chosen, what: string): void {
  if (isFiltered || limit === undefined) return
  throw new WaybillError('INVALID_SETTING', `which rows to ${what} was not said; nothing was done`, {
    allowed: '--row, --type, --topic, --key, --error or --older-than; or --all',
  })
}

/** Changes what fits, of each status: without a limit step by step until nothing fits any more, so that no statement is a long one. */
export async function changeChosen(
  { filter, limit }: Chosen,
  statuses: readonly (OutboxRecord['status'] | undefined)[],
  change: (filter: OutboxFilter) => Promise<number>,
): Promise<number> {
  let changed = 0
  for (const status of statuses) {
    for (let step = 0; step < ALL_STEPS_MAX; step++) {
      const most = limit === undefined ? LIMIT_MAX : limit - changed
      if (most === 0) break
      const count = await change({ ...filter, ...(status === undefined ? {} : { status }), limit: most })
      changed += count
      if (limit !== undefined || count < most) break
    }
  }
  return changed
}
