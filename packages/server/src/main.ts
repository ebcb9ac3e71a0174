import { readFileSync } from 'node:fs'
import { WaybillError, isWaybillError } from 'waybill'
import { parseFlags } from './cli/arguments.ts'
import { COMMON_FLAGS, type Command, type ExitCode } from './cli/command.ts'
import { commandHelp, globalHelp } from './cli/help.ts'
import { type Output, type StreamLike, createOutput } from './cli/output.ts'
import { readEnvFile } from './cli/env-file.ts'
import { environmentSecrets, secretsOf } from './cli/secrets.ts'
import type { Environment } from './cli/settings.ts'
import { suggestion } from './cli/suggest.ts'
import { demoCommand, demoWorkerCommand } from './demo/command.ts'
import { doctorCommand } from './doctor/command.ts'
import { migrateCommand } from './migrate.ts'
import { outboxParkCommand, outboxResumeCommand, outboxRetryCommand, outboxSkipCommand } from './outbox/change.ts'
import { outboxLsCommand } from './outbox/ls.ts'
import { outboxPublishCommand } from './outbox/publish.ts'
import { outboxShowCommand } from './outbox/show.ts'
import { relayCommand } from './relay/command.ts'
import { tailCommand } from './tail/command.ts'
import { topicsCommand } from './topics/command.ts'

/** The world outside, as far as the command needs it. */
export interface Io {
  readonly stdout: StreamLike
  readonly stderr: StreamLike
  readonly env: Environment
}

const COMMANDS: readonly Command[] = [
  demoCommand,
  migrateCommand,
  relayCommand,
  doctorCommand,
  topicsCommand,
  tailCommand,
  outboxLsCommand,
  outboxShowCommand,
  outboxPublishCommand,
  outboxRetryCommand,
  outboxResumeCommand,
  outboxSkipCommand,
  outboxParkCommand,
  demoWorkerCommand,
]

/** Options whose value may hold a password. */
const URL_FLAGS = ['--database', '--listen-url'] as const

/** Runs `waybill` with these arguments; resolves with its exit code, and never rejects. */
export async function main(argv: readonly string[], io: Io = process): Promise<ExitCode> {
  const given = URL_FLAGS.map((flag) => argument(argv, flag))
  let { env } = io
  let secrets = secretsOf(...given).concat(environmentSecrets(env))
  const output = createOutput(io, () => secrets)
  process.stdout.on('error', ignoreClosedPipe)
  try {
    return await dispatch(argv, output, (file) => {
      const added = readEnvFile(file)
      // The environment wins, also where a setting is empty there: that is how to switch one off.
      env = { ...added, ...io.env }
      secrets = secrets.concat(environmentSecrets(added))
      // A module that --app or --transport names reads its settings where every program does.
      if (io.env === process.env) Object.assign(process.env, env)
      return env
    })
  } catch (error) {
    return report(error, argv, env, output)
  } finally {
    // An error that is on its way already is heard of later.
    if (process.stdout.errored === null) process.stdout.off('error', ignoreClosedPipe)
  }
}

async function dispatch(argv: readonly string[], output: Output, readEnv: (file: string | undefined) => Environment): Promise<ExitCode> {
  const [first, second] = argv
  const shown = COMMANDS.filter((command) => command.hidden !== true)
  if (first === undefined || first === '--help' || first === '-h' || first === 'help') {
    for (const line of globalHelp(shown)) output.print(line)
    return 0
  }
  if (first === '--version' || first === '-v') {
    output.print(version())
    return 0
  }
  const group = COMMANDS.filter(({ name }) => name.startsWith(`${first} `))
  const command = COMMANDS.find(({ name }) => name === (group.length > 0 ? `${first} ${second}` : first))
  if (command === undefined) {
    if (group.length > 0 && (second === undefined || second === '--help' || second === '-h')) {
      for (const line of globalHelp(group)) output.print(line)
      return second === undefined ? 2 : 0
    }
    throw unknownCommand(group.length > 0 ? `${first} ${second}` : first, shown)
  }
  const flags = parseFlags(argv.slice(group.length > 0 ? 2 : 1), { ...command.flags, ...COMMON_FLAGS }, command.positional)
  if (flags.on('help')) {
    for (const line of commandHelp(command)) output.print(line)
    return 0
  }
  const env = readEnv(flags.text('env-file'))
  const abort = new AbortController()
  const stop = (): void => {
    process.off('SIGINT', stop).off('SIGTERM', stop)
    abort.abort()
  }
  // Once: a second signal, of either kind, ends the process as it would without us. A command that can't stop halfway leaves it at that from the start.
  if (command.stoppable === true) process.once('SIGINT', stop).once('SIGTERM', stop)
  try {
    return await command.run({ flags, output, env, signal: abort.signal })
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop)
  }
}

function unknownCommand(got: string, commands: readonly Command[]): WaybillError {
  const names = commands.map(({ name }) => name)
  const what = got.startsWith('-') ? 'unknown option' : 'unknown command'
  const known = got.startsWith('-') ? ['--help', '--version'] : names
  return new WaybillError('INVALID_SETTING', `${what}${suggestion(got, known)}`, {
    got,
    allowed: [...names, '--help', '--version'].join(', '),
  })
}

function report(error: unknown, argv: readonly string[], env: Environment, output: Output): ExitCode {
  if (!isWaybillError(error)) {
    output.fail(
      `unexpected error, please report it: ${error instanceof Error ? (env.LOG_LEVEL === 'debug' ? error.stack : error.message) : String(error)}`,
    )
    return 1
  }
  const hint = error.code === 'NOT_MIGRATED' && !error.message.includes('migrate') ? '; run "waybill migrate"' : ''
  // The library does not know by what name it was given the URL. Where an application brings its own, neither does this command.
  const given =
    argument(argv, '--database') !== undefined ? '--database' : argument(argv, '--app') === undefined ? 'DATABASE_URL' : undefined
  const message = given === undefined ? error.message : error.message.replace(/ at the database URL\)$/, ` at ${given})`)
  output.fail(`${message}${hint} [${error.code}]`)
  const wrongUse = isWaybillError(error, 'INVALID_SETTING', 'INVALID_OPTION', 'INVALID_NAME', 'INVALID_FILE', 'UNSUPPORTED')
  return wrongUse ? 2 : 1
}

function version(): string {
  const { version: text } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
  return text
}

// What follows a closed pipe ("waybill outbox ls | head") is wanted by nobody; any other error is one.
function ignoreClosedPipe(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error
}

function argument(argv: readonly string[], flag: string): string | undefined {
  const at = argv.findIndex((given) => given === flag || given.startsWith(`${flag}=`))
  return at === -1 ? undefined : argv[at] === flag ? argv[at + 1] : argv[at]?.slice(flag.length + 1)
}
