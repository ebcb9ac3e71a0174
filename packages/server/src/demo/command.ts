import { type WriteStream, createWriteStream, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WaybillError } from 'waybill'
import type { Flags } from '../cli/arguments.ts'
import type { Command, CommandInput, ExitCode } from '../cli/command.ts'
import type { Output } from '../cli/output.ts'
import { type DemoEvent, runDemo } from './demo.ts'
import { type Invoice, type RejectedRow, readInvoices } from './invoices.ts'
import { planKills, planOutages } from './plan.ts'
import { type DemoServers, openServers } from './servers.ts'
import { BROKERS, DATABASES, type Setup } from './setup.ts'
import { number, printSummary, settingOf } from './summary.ts'
import { runWorker } from './worker.ts'

const DATA = fileURLToPath(new URL('../../data/online-retail-2010-12.csv.gz', import.meta.url))
const KILLS_DEFAULT = 5
const KILLS_MAX = 100
const REJECTED_SHOWN = 10
/** Workers at a time, where the database can have several. */
const PROCESSES = 2
const PROCESSES_MAX = 16

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
    'Over a broker or PostgreSQL it takes the server that KAFKA_BOOTSTRAP_SERVERS, NATS_URL, REDIS_URL, PULSAR_URL',
    'or DATABASE_URL names, with tables, topics and groups of its own; in a checkout of the project it starts one',
    'where none is named. On PostgreSQL two processes share the work, and kills strike either.',
    '',
    'The data: Daqing Chen, "Online Retail", UCI Machine Learning Repository, 2015, doi 10.24432/C5BW33, CC BY 4.0.',
  ],
  flags: {
    data: { value: 'FILE', help: 'another file of this shape, CSV, plain or gzip (default: the month that comes along)' },
    kills: { value: 'N', help: `how often the process is killed, 0 to ${KILLS_MAX} (default ${KILLS_DEFAULT})` },
    seed: { value: 'S', help: 'decides where it is killed, 0 to 4294967295 (default 1)' },
    invoices: { value: 'N', help: 'take only the first N invoices of the data' },
    broker: { value: 'NAME', help: `what carries the events: ${BROKERS.join(', ')} (default inprocess)` },
    database: { value: 'NAME', help: 'pglite, embedded, or postgres (default pglite)' },
    'restart-broker': {
      help: 'kill the broker (SIGKILL) in the middle of the load, and later stop it in good order; each time it comes back',
    },
    keep: { value: 'DIR', help: 'keep database and logs in this new or empty folder (default: removed at the end)' },
    report: { value: 'FILE', help: 'write broken rows of the data to this file, one JSON object a line' },
  },
  stoppable: true,
  run: demo,
}

async function demo({ flags, output, env, signal }: CommandInput): Promise<ExitCode> {
  const startedMs = performance.now()
  const seed = flags.integer('seed', 0, 2 ** 32 - 1) ?? 1
  const killsAsked = flags.integer('kills', 0, KILLS_MAX)
  const broker = flags.oneOf('broker', BROKERS) ?? 'inprocess'
  const database = flags.oneOf('database', DATABASES) ?? 'pglite'
  const restartBroker = flags.on('restart-broker')
  const keep = flags.text('keep')
  if (keep !== undefined) checkKeep(keep)
  const invoices = await chooseInvoices(flags, output)
  const processes = database === 'postgres' ? PROCESSES : 1
  const killsMax = invoices.length - 1
  if (killsAsked !== undefined && killsAsked > killsMax) {
    throw new WaybillError('INVALID_SETTING', `--kills is more than the data has room for: it holds ${invoices.length} invoices`, {
      got: killsAsked,
      allowed: `0 to ${killsMax}`,
    })
  }
  const kills = planKills(seed, killsAsked ?? Math.min(KILLS_DEFAULT, killsMax), invoices.length, processes)
  const outages = restartBroker ? planOutages(invoices.length) : []
  const servers = await openServers({ broker, database, restartBroker, env, signal, onNote: flags.on('json') ? () => {} : output.note })
  try {
    // Names of the demo's own everywhere but in an embedded database, which has nobody else in it.
    const names = { schema: `waybill_demo_${servers.id}`, suffix: broker === 'inprocess' ? '' : `-demo-${servers.id}` }
    return await carry({
      flags,
      output,
      signal,
      startedMs,
      seed,
      invoices,
      servers,
      setup: { broker, database, ...names, processes, kills, outages },
    })
  } finally {
    await servers.close()
  }
}

/** The data, as much of it as was asked for. */
async function chooseInvoices(flags: Flags, output: Output): Promise<readonly Invoice[]> {
  const most = flags.integer('invoices', 1, 10_000_000)
  const rejects = rejectReport(flags, output)
  const { invoices, lines, rejected } = await readInvoices(flags.text('data') ?? DATA, rejects.add)
  await rejects.close()
  const chosen = most === undefined ? invoices : invoices.slice(0, most)
  const linesChosen = chosen.length === invoices.length ? lines : chosen.reduce((sum, invoice) => sum + invoice.lines.length, 0)
  if (!flags.on('json'))
    output.note(
      `${number(chosen.length)} invoices, ${number(linesChosen)} lines${rejected === 0 ? '' : `, ${number(rejected)} rows rejected`}`,
    )
  return chosen
}

interface Carried {
  readonly flags: Flags
  readonly output: Output
  readonly signal: AbortSignal
  readonly startedMs: number
  readonly seed: number
  readonly invoices: readonly Invoice[]
  readonly servers: DemoServers
  readonly setup: Setup
}

async function carry({ flags, output, signal, startedMs, seed, invoices, servers, setup }: Carried): Promise<ExitCode> {
  const json = flags.on('json')
  const keep = flags.text('keep')
  const { kills } = setup
  if (!json) output.note(`over ${settingOf(setup, servers.brokerVersion)}; ${kills.length} kills to come, seed ${seed}`)
  const again = againOf(flags, setup, seed)
  const folder = keep === undefined ? mkdtempSync(join(tmpdir(), 'waybill-demo-')) : resolve(keep)
  mkdirSync(folder, { recursive: true })
  const keepTables = keep !== undefined && servers.keepsDatabase
  try {
    const { result, expected, problems } = await runDemo({
      folder,
      setup,
      env: servers.env,
      broker: servers.broker,
      keepTables,
      invoices,
      signal,
      startedMs,
      onEvent: json ? () => {} : live(output, invoices.length, kills.length),
    })
    if (json) output.json(result)
    else printSummary(output, { result, expected, kills: kills.slice(0, result.kills), again })
    if (keepTables) output.note(`the tables are in the schema ${setup.schema}`)
    for (const problem of problems) output.fail(problem)
    if (problems.length > 0) output.note(`to see it again: ${again} --keep DIR`)
    return problems.length === 0 ? 0 : 1
  } finally {
    if (keep === undefined) rmSync(folder, { recursive: true, force: true })
  }
}

/** The command line that does the same. */
function againOf(flags: Flags, { broker, database, kills, outages }: Setup, seed: number): string {
  const options = [
    ...(broker === 'inprocess' ? [] : ['--broker', broker]),
    ...(database === 'pglite' ? [] : ['--database', database]),
    ...(['invoices', 'data'] as const).flatMap((name) => (flags.text(name) === undefined ? [] : [`--${name}`, flags.text(name)!])),
    '--kills',
    String(kills.length),
    ...(outages.length === 0 ? [] : ['--restart-broker']),
    '--seed',
    String(seed),
  ]
  return `waybill demo ${options.join(' ')}`
}

function live(output: Output, invoices: number, kills: number): (event: DemoEvent) => void {
  return (event) => {
    if (event.type === 'progress') {
      const share = Math.floor((20 * event.invoices) / invoices)
      const bar = `${output.paintNote('cyan', '━'.repeat(share))}${output.paintNote('dim', '─'.repeat(20 - share))}`
      output.progress(
        `${bar} ${number(event.invoices)}/${number(invoices)} invoices  ${number(event.deliveries)} deliveries  ${event.kills}/${kills} kills`,
      )
    } else if (event.type === 'killed') {
      output.note(
        `${output.paintNote('red', '✗')} killed at ${output.paintNote('yellow', event.kill.point)} after ${number(event.invoices)} invoices (${event.kills} of ${kills}); resuming from disk`,
      )
    } else if (event.type === 'broker.gone') {
      const how = event.mode === 'kill' ? 'killed (SIGKILL)' : 'stopped in good order'
      output.note(`${output.paintNote('red', '✗')} the broker was ${how} after ${number(event.invoices)} invoices`)
    } else if (event.type === 'broker.back') {
      output.note(`${output.paintNote('green', '✓')} the broker answers again after ${(event.awayMs / 1000).toFixed(1)} s`)
    } else {
      output.note(`${output.paintNote('green', '✓')} the road flows again ${(event.recoveryMs / 1000).toFixed(1)} s after that`)
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
    slot: { value: 'N', help: 'counts those at work at the same time' },
  },
  async run({ flags, env }) {
    const folder = flags.text('folder')
    const run = flags.integer('run', 0, KILLS_MAX + PROCESSES_MAX)
    const slot = flags.integer('slot', 0, PROCESSES_MAX)
    if (folder === undefined || run === undefined || slot === undefined || process.send === undefined)
      throw new WaybillError('INVALID_SETTING', 'demo-worker is started by "waybill demo" only')
    // An orphan must not go on writing to a folder that nobody looks after.
    process.on('disconnect', () => process.exit(1))
    const tell = (message: object): void => void process.send?.(message, undefined, undefined, () => {})
    try {
      await runWorker({ folder, run, slot, env }, tell)
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
