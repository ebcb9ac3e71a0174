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
    return change(input, chosen, { name: 'retried', became: 'due again', statuses, by: ({ outbox }) => outbox.retry })
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
    return change(input, chosen, { name: 'skipped', became: 'skipped', statuses: [undefined], by: ({ outbox }) => outbox.skip })
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
  readonly by: (storage: Storage) => (filter: OutboxFilter) => Promise<number>
}

/** Runs the change and says what was done. */
function change(input: CommandInput, chosen: Chosen, { name, became, statuses, by }: Change): Promise<ExitCode> {
  return withStorage(input, async (storage) => {
    const { flags, output } = input
    const count = await changeChosen(chosen, statuses, by(storage))
    if (flags.on('json')) {
      output.json({ [name]: count })
      return 0
    }
    output.print(`${counted(count, 'row')} ${count === 1 ? 'is' : 'are'} ${became}`)
    if (count === 0 && chosen.isFiltered) output.note('no row fits, or none that this can be done to; see "waybill outbox ls"')
    else if (count === chosen.limit) output.note(`that is the limit: run it again for more, or with --all`)
    return 0
  })
}
