import { type WriteStream, createWriteStream, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WaybillError } from 'waybill'
import { CRASHPOINTS } from 'waybill/testing'
import type { Flags } from '../cli/arguments.ts'
import type { Command, CommandInput, ExitCode } from '../cli/command.ts'
import type { Output } from '../cli/output.ts'
import { runDemo } from './demo.ts'
import { type RejectedRow, readInvoices } from './invoices.ts'
import { planKills } from './plan.ts'
import { number, printSummary } from './summary.ts'
import type { SupervisorEvent } from './supervisor.ts'
import { runWorker } from './worker.ts'

const DATA = fileURLToPath(new URL('../../data/online-retail-2010-12.csv.gz', import.meta.url))
const KILLS_DEFAULT = 5
const KILLS_MAX = 100
const REJECTED_SHOWN = 10

/** `waybill demo`: real orders over the whole road, killed on the way. */
export const demoCommand: Command = {
  name: 'demo',
  summary: 'carry a month of real orders over the whole road, killed again and again, and check the outcome',
  description: [
    'Each invoice is one business transaction that publishes its events through the outbox; stock, revenue and',
    'a ledger consume them. The process is killed (SIGKILL) at crash points on the way and resumes from disk. At',
    'the end everything the consumers did is compared with the file. Exit code 0 only where nothing was lost,',
    'doubled or put out of order, and every kill took place.',
    '',
    'The data: Daqing Chen, "Online Retail", UCI Machine Learning Repository, 2015, doi 10.24432/C5BW33, CC BY 4.0.',
  ],
  flags: {
    data: { value: 'FILE', help: 'another file of this shape, CSV, plain or gzip (default: the month that comes along)' },
    kills: { value: 'N', help: `how often the process is killed, 0 to ${KILLS_MAX} (default ${KILLS_DEFAULT})` },
    seed: { value: 'S', help: 'decides where it is killed, 0 to 4294967295 (default 1)' },
    keep: { value: 'DIR', help: 'keep database and logs in this new or empty folder (default: removed at the end)' },
    report: { value: 'FILE', help: 'write broken rows of the data to this file, one JSON object a line' },
  },
  stoppable: true,
  run: demo,
}

async function demo({ flags, output, signal }: CommandInput): Promise<ExitCode> {
  const startedMs = performance.now()
  const json = flags.on('json')
  const seed = flags.integer('seed', 0, 2 ** 32 - 1) ?? 1
  const killsAsked = flags.integer('kills', 0, KILLS_MAX)
  const path = flags.text('data') ?? DATA
  const keep = flags.text('keep')
  if (keep !== undefined) checkKeep(keep)
  const rejects = rejectReport(flags, output)
  const { invoices, lines, rejected } = await readInvoices(path, rejects.add)
  await rejects.close()
  const killsMax = invoices.length - 1
  if (killsAsked !== undefined && killsAsked > killsMax) {
    throw new WaybillError('INVALID_SETTING', `--kills is more than the data has room for: it holds ${invoices.length} invoices`, {
      got: killsAsked,
      allowed: `0 to ${killsMax}`,
    })
  }
  const kills = planKills(seed, killsAsked ?? Math.min(KILLS_DEFAULT, killsMax), invoices.length)
  if (!json)
    output.note(
      `${number(invoices.length)} invoices, ${number(lines)} lines${rejected === 0 ? '' : `, ${number(rejected)} rows rejected`}; ${kills.length} kills to come, seed ${seed}`,
    )

  const folder = keep === undefined ? mkdtempSync(join(tmpdir(), 'waybill-demo-')) : resolve(keep)
  mkdirSync(folder, { recursive: true })
  try {
    const { result, expected, problems } = await runDemo({
      folder,
      invoices,
      kills,
      signal,
      startedMs,
      onEvent: json ? () => {} : live(output, invoices.length, kills.length),
    })
    if (json) output.json(result)
    else printSummary(output, { result, expected, kills: kills.slice(0, result.kills), seed })
    for (const problem of problems) output.fail(problem)
    if (problems.length > 0)
      output.note(
        `to see it again: waybill demo --kills ${kills.length} --seed ${seed}${flags.text('data') === undefined ? '' : ` --data ${path}`} --keep DIR`,
      )
    return problems.length === 0 ? 0 : 1
  } finally {
    if (keep === undefined) rmSync(folder, { recursive: true, force: true })
  }
}

function live(output: Output, invoices: number, kills: number): (event: SupervisorEvent) => void {
  return (event) => {
    if (event.type === 'progress') {
      const share = Math.floor((20 * event.invoices) / invoices)
      const bar = `${output.paintNote('cyan', '━'.repeat(share))}${output.paintNote('dim', '─'.repeat(20 - share))}`
      output.progress(
        `${bar} ${number(event.invoices)}/${number(invoices)} invoices  ${number(event.deliveries)} deliveries  ${event.kills}/${kills} kills`,
      )
    } else {
      output.note(
        `${output.paintNote('red', '✗')} killed at ${output.paintNote('yellow', event.kill.point)} after ${number(event.invoices)} invoices (${event.kills} of ${kills}); resuming from disk`,
      )
    }
  }
}

function checkKeep(keep: string): void {
  if (!existsSync(keep)) return
  if (!statSync(keep).isDirectory() || readdirSync(keep).length > 0)
    throw new WaybillError('INVALID_SETTING', '--keep is not usable', { got: keep, allowed: 'a new or empty folder' })
}

/** Where broken rows go: to the file asked for, else the first ones to stderr. */
function rejectReport(flags: Flags, output: Output): { add(row: RejectedRow): void; close(): Promise<void> } {
  const path = flags.text('report')
  let count = 0
  let file: WriteStream | undefined
  let failed: Error | undefined
  if (path !== undefined) file = createWriteStream(path).on('error', (error) => (failed = error))
  return {
    add(row) {
      count++
      if (file !== undefined) file.write(`${JSON.stringify(row)}\n`)
      else if (count <= REJECTED_SHOWN) output.note(`line ${row.line} rejected: ${row.reason}`)
    },
    async close() {
      if (file !== undefined) {
        file.end()
        if (failed === undefined) await once(file, 'close')
        if (failed !== undefined)
          throw new WaybillError('INVALID_SETTING', `--report can't be written: ${failed.message}`, {
            got: path,
            allowed: 'a file in an existing folder',
          })
      }
      if (count > 0 && (file !== undefined || count > REJECTED_SHOWN))
        output.note(`${number(count)} rows rejected${path === undefined ? '; all of them with --report FILE' : `; see ${path}`}`)
    },
  }
}

/** The process that the demo starts, kills and starts again. */
export const demoWorkerCommand: Command = {
  name: 'demo-worker',
  summary: 'one process of the demo',
  description: ['Started by "waybill demo".'],
  hidden: true,
  flags: {
    folder: { value: 'DIR', help: "the demo's folder" },
    run: { value: 'N', help: 'counts the processes' },
    crash: { value: 'POINT', help: 'where to die' },
    hit: { value: 'N', help: 'at which time' },
    after: { value: 'N', help: 'after how many invoices' },
  },
  async run({ flags }) {
    const folder = flags.text('folder')
    const run = flags.integer('run', 0, KILLS_MAX)
    if (folder === undefined || run === undefined || process.send === undefined)
      throw new WaybillError('INVALID_SETTING', 'demo-worker is started by "waybill demo" only')
    // An orphan must not go on writing to a folder that nobody looks after.
    process.on('disconnect', () => process.exit(1))
    const point = flags.oneOf('crash', CRASHPOINTS)
    const kill =
      point === undefined
        ? undefined
        : { point, hit: flags.integer('hit', 1, 1_000) ?? 1, afterInvoices: flags.integer('after', 0, 1_000_000_000) ?? 0 }
    const tell = (message: object): void => void process.send?.(message, undefined, undefined, () => {})
    try {
      await runWorker({ folder, run, kill }, tell)
      return 0
    } catch (error) {
      tell({ failure: error instanceof Error ? error.message : String(error) })
      return 1
    } finally {
      process.removeAllListeners('disconnect')
      if (process.connected) process.disconnect()
    }
  },
}
