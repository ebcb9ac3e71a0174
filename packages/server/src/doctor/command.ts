import { type Storage, isWaybillError } from 'waybill'
import { BROKER_FLAGS, brokerChoice } from '../cli/broker.ts'
import type { Command, CommandInput } from '../cli/command.ts'
import type { Output, Style } from '../cli/output.ts'
import { counted } from '../cli/printable.ts'
import { DATABASE_FLAGS, openNamed, tablesOf } from '../cli/storage.ts'
import { brokerFindings } from './broker-checks.ts'
import { type CheckInput, type Finding, type Level, runChecks } from './finding.ts'
import { OUTBOX_CHECKS } from './outbox-checks.ts'
import { SERVER_CHECKS, isUsable, serverCheck } from './server-checks.ts'
import { unreachable } from './unreachable.ts'
import { TABLE_CHECKS, migrationsCheck, rightsCheck } from './table-checks.ts'

const SCREEN_WIDTH = 110
const COLOURS: Readonly<Record<Level, Style>> = { ok: 'green', info: 'cyan', warn: 'yellow', error: 'red' }

/** `waybill doctor`: looks at everything, and says what to do. */
export const doctorCommand: Command = {
  name: 'doctor',
  summary: 'look at database, tables, relays, keys and broker, and say what to do',
  description: [
    'Looks at the server, its settings and clock, at the tables and the rights on them, at what waits, who relays, which',
    'keys stand still, and at the dead letters; and at the broker, where MESSAGE_BUS_TYPE or an option names one: whether',
    'it answers and lets us in, its version, and settings that lose messages. With a broker the database may be left',
    'out, and is not looked at then. Changes nothing. Each finding says what to do. Exit code 1 where something is an',
    'error: events stand still, or may be lost. Warnings alone: 0.',
  ],
  flags: { ...DATABASE_FLAGS, ...BROKER_FLAGS },
  async run(input) {
    const findings = await examineAll(input)
    const count = (level: Level): number => findings.filter((finding) => finding.level === level).length
    const [errors, warnings] = [count('error'), count('warn')]
    if (input.flags.on('json')) input.output.json({ healthy: errors === 0, errors, warnings, findings })
    else print(input.output, findings, errors, warnings)
    return errors === 0 ? 0 : 1
  },
}

async function examineAll(input: CommandInput): Promise<readonly Finding[]> {
  const choice = brokerChoice(input)
  const database = input.flags.text('database') ?? input.env.DATABASE_URL
  // Without a broker it must be there: then the error says how to name it.
  if (choice === undefined) return examine(input)
  const left = 'DATABASE_URL is not set: outbox, inbox and dead letters are not looked at'
  const own: readonly Finding[] =
    database === undefined || database.trim() === ''
      ? [
          {
            check: 'database',
            level: 'info',
            found: left,
            advice: 'name the database in DATABASE_URL, or with --database, if there is one',
          },
        ]
      : await examine(input)
  return [...own, ...(await brokerFindings(input, choice))]
}

async function examine(input: CommandInput): Promise<readonly Finding[]> {
  let storage: Storage
  const given = input.flags.text('database') === undefined ? 'DATABASE_URL' : '--database'
  try {
    storage = await openNamed(input)
  } catch (error) {
    if (!isWaybillError(error, 'DATABASE_UNREACHABLE', 'DATABASE_IN_USE')) throw error
    return [unreachable(error, given)]
  }
  try {
    // The connection is made by the first statement.
    await storage.database.query('select 1')
    return await look(input, storage)
  } catch (error) {
    return [unreachable(error, given)]
  } finally {
    await storage.close()
  }
}

/** Step by step: what a step needs, the one before must have found to be there. */
async function look({ flags }: CommandInput, storage: Storage): Promise<readonly Finding[]> {
  const { schema = 'public', prefix = 'waybill_' } = tablesOf(flags)
  const input: CheckInput = { storage, server: storage.name !== 'pglite', schema, prefix, now: Date.now }
  const findings = [...(await runChecks([serverCheck], input))]
  if (!isUsable(findings)) return findings
  findings.push(...(await runChecks(SERVER_CHECKS, input)))
  const tables = await runChecks([migrationsCheck], input)
  findings.push(...tables)
  if (isUsable(tables)) findings.push(...(await runChecks([...TABLE_CHECKS, ...OUTBOX_CHECKS], input)))
  // Without advice: they could not be looked at, most often for want of a right.
  else if (tables.some(({ level, advice }) => level === 'error' && advice === undefined))
    findings.push(...(await runChecks([rightsCheck], input)))
  return findings
}

function print(output: Output, findings: readonly Finding[], errors: number, warnings: number): void {
  const width = Math.max(...findings.map(({ check }) => check.length))
  const indent = ' '.repeat(width + 9)
  for (const { check, level, found, advice } of findings) {
    const [first = '', ...rest] = wrapped(found, SCREEN_WIDTH - indent.length)
    output.print(`${output.paint(COLOURS[level], level.padEnd(5))}  ${check.padEnd(width)}  ${first}`)
    for (const line of rest) output.print(indent + line)
    // Each in a line of its own, however long: commands are there to be copied.
    if (advice !== undefined && level !== 'ok') for (const step of advice.split('; ')) output.print(`${indent}-> ${step}`)
  }
  const verdict = errors > 0 ? 'not healthy' : 'healthy'
  output.print()
  output.print(output.paint('bold', `${verdict}: ${counted(errors, 'error')}, ${counted(warnings, 'warning')}`))
}

/** Lines of at most `width` characters, where its words allow that. */
function wrapped(text: string, width: number): readonly string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line]
}
