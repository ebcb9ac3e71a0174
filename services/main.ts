import { setTimeout as pause } from 'node:timers/promises'
import { messageOf } from './command.ts'
import { exportsOf, isHealthy, namedByEnvironment, versionAt } from './environment.ts'
import { parseNames, type ServiceName } from './names.ts'
import { type Running, isProcessGone, runningServer, startRunning, stopRunning } from './running.ts'
import type { ServerAddress } from './server.ts'

// npm run services -- up|down|status [name ...]

const USAGE = `usage: npm run services -- up|down|status [postgres|redis|nats|kafka|pulsar ...]

  up      starts what is not there or does not answer, and prints the variables to export; it stays until down
  down    stops what up has started, and removes its data
  status  tells which run`

/** How often a server whose process is there is asked before it counts as lost, and how long is waited in between. */
const ANSWER_TRIES = 5
const ANSWER_PAUSE_MS = 1_000

const COMMANDS = { up, down, status } as const

/** A line of the table. Of a server that the environment names the address without its user and password. */
interface Row {
  readonly name: string
  readonly version?: string
  readonly url?: string
  readonly provider?: string
  readonly pid?: string
  readonly health: string
}

async function main([command = '', ...rest]: readonly string[]): Promise<number> {
  if (command === '--help' || command === 'help') {
    console.log(USAGE)
    return 0
  }
  if (!Object.hasOwn(COMMANDS, command)) {
    console.error(`${command === '' ? 'a command is missing' : `unknown command ${JSON.stringify(command)}`}\n${USAGE}`)
    return 2
  }
  let names: readonly ServiceName[]
  try {
    names = parseNames(rest)
  } catch (error) {
    console.error(messageOf(error))
    return 2
  }
  return COMMANDS[command as keyof typeof COMMANDS](names)
}

async function up(names: readonly ServiceName[]): Promise<number> {
  console.error(`starting ${names.join(', ')}; what isn't installed yet may take some minutes`)
  const found = await Promise.all(names.map(upOne))
  // The variables alone are the output, for `eval "$(npm run -s services -- up)"`.
  printTable(
    found.map(({ row }) => row),
    console.error,
  )
  const lines = found.flatMap(({ server }) => (server === undefined ? [] : Object.entries(exportsOf(server))))
  if (lines.length > 0) console.log(`${lines.map(([name, value]) => `export ${name}='${value}'`).join('\n')}`)
  const problems = found.flatMap(({ row, problem }) => (problem === undefined ? [] : [`${row.name}: ${problem}`]))
  if (problems.length > 0) console.error(`\n${problems.join('\n')}`)
  return problems.length === 0 ? 0 : 1
}

async function upOne(name: ServiceName): Promise<{ readonly row: Row; readonly server?: ServerAddress; readonly problem?: string }> {
  try {
    const external = namedByEnvironment(name)
    if (external !== undefined) return { row: externalRow({ ...external, version: await versionAt(external) }, 'up') }
    const server = (await answeringServer(name)) ?? (await startRunning(name))
    return { row: runningRow(server, 'up'), server }
  } catch (error) {
    return { row: { name, health: 'not started' }, problem: messageOf(error) }
  }
}

/** What runs and answers. What is dead, or hangs, is stopped, so that it can be started again. */
async function answeringServer(name: ServiceName): Promise<Running | undefined> {
  const running = await runningServer(name)
  if (running === undefined) return undefined
  // With its process its data would go: one that is only busy gets time.
  const tries = isProcessGone(running) ? 0 : ANSWER_TRIES
  for (let each = 1; each <= tries; each++) {
    if (await isHealthy(running)) return running
    if (each < tries) await pause(ANSWER_PAUSE_MS)
  }
  console.error(`${name} does not answer any more: starting it again`)
  await stopRunning(name)
  return undefined
}

async function down(names: readonly ServiceName[]): Promise<number> {
  const problems = await Promise.all(
    names.map(async (name) => {
      try {
        console.log(`${name}: ${(await stopRunning(name)) ? 'stopped' : 'nothing to stop'}`)
        return 0
      } catch (error) {
        console.error(`${name}: ${messageOf(error)}`)
        return 1
      }
    }),
  )
  return Math.max(...problems)
}

async function status(names: readonly ServiceName[]): Promise<number> {
  const rows = await Promise.all(names.map(statusOf))
  printTable(rows)
  return rows.some((row) => row.health === 'no answer') ? 1 : 0
}

async function statusOf(name: ServiceName): Promise<Row> {
  try {
    const running = await runningServer(name)
    if (running !== undefined) return runningRow(running, (await isHealthy(running)) ? 'up' : 'no answer')
    const external = namedByEnvironment(name)
    if (external === undefined) return { name, health: 'down' }
    return (await isHealthy(external))
      ? externalRow({ ...external, version: await versionAt(external) }, 'up')
      : externalRow({ ...external, version: 'unknown' }, 'no answer')
  } catch (error) {
    return { name, health: messageOf(error) }
  }
}

const runningRow = (server: Running, health: string): Row => ({
  name: server.name,
  version: server.version,
  // The password is in the line to export only.
  url: server.url.replace(/:[^:@/]+@/, ':***@'),
  provider: server.provider,
  pid: server.provider === 'installed' ? String(server.pid) : server.project,
  health,
})

const externalRow = ({ name, version, host, port }: ServerAddress, health: string): Row => ({
  name,
  version,
  url: `${host}:${port}`,
  provider: 'environment',
  health,
})

function printTable(rows: readonly Row[], print: (line: string) => void = console.log): void {
  const columns = ['name', 'version', 'url', 'provider', 'pid', 'health'] as const
  const lines = [columns, ...rows.map((row) => columns.map((column) => row[column] ?? '-'))]
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => line[index]!.length)))
  for (const line of lines)
    print(
      line
        .map((text, index) => text.padEnd(widths[index]!))
        .join('  ')
        .trimEnd(),
    )
}

process.exitCode = await main(process.argv.slice(2))
