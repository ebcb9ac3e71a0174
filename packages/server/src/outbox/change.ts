import { type OutboxFilter, type OutboxRecord, type Storage, WaybillError } from 'waybill'
import type { Command, CommandInput, ExitCode } from '../cli/command.ts'
import { counted } from '../cli/printable.ts'
import { withStorage } from '../cli/storage.ts'
import { ALL_FLAG, type Chosen, FILTER_FLAGS, changeChosen, chosenRows, needFilter } from './filters.ts'

const REASON_MAX = 500

/** `waybill outbox retry`: what was parked or held becomes due. */
export const outboxRetryCommand: Command = {
  name: 'outbox retry',
  summary: 'make parked and held rows due again',
  description: [
    'Makes parked and held rows that fit due again, with their attempts forgotten; what is parked behind them goes on',
    'with them. The relay takes them from there. Without a filter: all of them, up to the limit. Skipped rows are',
    'taken back only where they are named by --row, or with --status skipped.',
  ],
  flags: { ...FILTER_FLAGS, ...ALL_FLAG, status: { value: 'STATUS', help: 'pending (held), parked or skipped (default: the first two)' } },
  positional: 'row',
  run(input) {
    const status = input.flags.oneOf('status', ['pending', 'parked', 'skipped'])
    const chosen = chosenRows(input.flags)
    const statuses = status === undefined && chosen.filter.rowIds === undefined ? (['pending', 'parked'] as const) : [status]
    return change(input, chosen, {
      name: 'retried',
      became: 'due again',
      statuses,
      isFor: (row) => row.status === 'parked' || row.status === 'skipped' || (row.status === 'pending' && row.dueAt !== undefined),
      by: ({ outbox }) => outbox.retry,
    })
  },
}

/** `waybill outbox resume`: what was parked goes on. */
export const outboxResumeCommand: Command = {
  name: 'outbox resume',
  summary: 'let parked rows go on',
  description: ['Makes parked rows that fit due again, and what is parked behind them. Rows that are only held after a failure wait on.'],
  flags: { ...FILTER_FLAGS, ...ALL_FLAG },
  positional: 'row',
  run: (input) =>
    change(input, chosenRows(input.flags), {
      name: 'resumed',
      became: 'due again',
      statuses: ['parked'],
      isFor: isParked,
      by: ({ outbox }) => outbox.retry,
    }),
}

/** `waybill outbox skip`: what is parked is given up, and its key goes on. */
export const outboxSkipCommand: Command = {
  name: 'outbox skip',
  summary: 'give up parked rows, so that their keys go on',
  description: [
    'Gives up parked rows that fit: they are not published, and their keys go on with what comes after them. They stay for',
    'a week as "skipped", and "waybill outbox retry --row ROW" takes one back. A row that is parked only because it',
    'stands behind another goes on with that one. Needs a filter, or --all.',
  ],
  flags: { ...FILTER_FLAGS, ...ALL_FLAG },
  positional: 'row',
  run(input) {
    const chosen = chosenRows(input.flags)
    needFilter(chosen, 'skip')
    return change(input, chosen, {
      name: 'skipped',
      became: 'skipped',
      statuses: [undefined],
      isFor: isParked,
      by: ({ outbox }) => outbox.skip,
    })
  },
}

/** `waybill outbox park`: what waits is stopped. */
export const outboxParkCommand: Command = {
  name: 'outbox park',
  summary: 'stop rows that wait, and their keys with them',
  description: [
    'Parks rows that fit and wait: they, and what comes after them in their keys, are not published until somebody resumes',
    'or skips them. What a relay has sent already may still arrive. Needs a filter, or --all.',
  ],
  flags: { ...FILTER_FLAGS, ...ALL_FLAG, reason: { value: 'TEXT', help: 'why; shown as their last error (default: parked by hand)' } },
  positional: 'row',
  run(input) {
    const chosen = chosenRows(input.flags)
    needFilter(chosen, 'park')
    const reason = input.flags.text('reason') ?? 'parked by hand'
    if (reason.length > REASON_MAX)
      throw new WaybillError('INVALID_SETTING', '--reason is too long', { got: reason, allowed: `at most ${REASON_MAX} characters` })
    return change(input, chosen, {
      name: 'parked',
      became: 'parked',
      statuses: [undefined],
      isFor: ({ status }) => status === 'pending' || status === 'scheduled',
      by:
        ({ outbox }) =>
        (filter) =>
          outbox.suspend(filter, reason),
    })
  },
}

interface Change {
  /** Under this name the count stands in what `--json` prints. */
  readonly name: string
  readonly became: string
  /** One after the other; undefined: of any status that the change is for. */
  readonly statuses: readonly (OutboxRecord['status'] | undefined)[]
  /** Whether the change can be made to such a row, which stands behind no other. */
  readonly isFor: (row: OutboxRecord) => boolean
  readonly by: (storage: Storage) => (filter: OutboxFilter) => Promise<number>
}

const isParked = ({ status }: OutboxRecord): boolean => status === 'parked'

/** Runs the change and says what was done; of rows that were named by number, also what was not. */
function change(input: CommandInput, chosen: Chosen, { name, became, statuses, isFor, by }: Change): Promise<ExitCode> {
  return withStorage(input, async (storage) => {
    const { flags, output } = input
    // Before the change: after it there is nothing to be seen any more of what was in its way.
    const unfit = await unfitRows(storage, chosen, statuses, isFor)
    const count = await changeChosen(chosen, statuses, by(storage))
    const code = unfit.length === 0 ? 0 : 1
    if (flags.on('json')) {
      output.json({ [name]: count, ...(unfit.length === 0 ? {} : { unchanged: unfit }) })
      return code
    }
    output.print(`${counted(count, 'row')} ${count === 1 ? 'is' : 'are'} ${became}`)
    for (const { rowId, why } of unfit) output.note(`row ${rowId} ${why}`)
    if (unfit.length > 0) return code
    if (count === 0 && chosen.isFiltered) output.note('no row fits, or none that this can be done to; see "waybill outbox ls"')
    else if (count === chosen.limit) output.note(`that is the limit: run it again for more, or with --all`)
    return 0
  })
}

interface UnfitRow {
  readonly rowId: string
  readonly why: string
}

/** The rows that were named by number and that the change can't be made to, and why; none where no row was named. */
async function unfitRows(
  storage: Storage,
  { filter }: Chosen,
  statuses: Change['statuses'],
  isFor: Change['isFor'],
): Promise<readonly UnfitRow[]> {
  if (filter.rowIds === undefined) return []
  const named = [...new Set(filter.rowIds.map((rowId) => String(BigInt(rowId))))]
  const listed = async (more: OutboxFilter): Promise<ReadonlyMap<string, OutboxRecord>> =>
    new Map((await storage.outbox.list({ ...more, limit: named.length })).map((row) => [row.rowId, row]))
  const there = await listed({ rowIds: named })
  const fitting = await listed({ ...filter, rowIds: named })
  return named.flatMap((rowId) => {
    const row = there.get(rowId)
    const why =
      row === undefined
        ? 'is not there'
        : row.behind !== undefined
          ? `stands behind row ${row.behind}, and goes on with that one`
          : !isFor(row) || !statuses.some((status) => status === undefined || status === row.status)
            ? `is ${row.status === 'pending' && row.dueAt !== undefined ? 'held' : row.status}`
            : fitting.has(rowId)
              ? undefined
              : 'does not fit the other options'
    return why === undefined ? [] : [{ rowId, why }]
  })
}
