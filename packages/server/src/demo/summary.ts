import type { Output, Style } from '../cli/output.ts'
import type { DemoResult } from './check.ts'
import type { Expected } from './expected.ts'
import type { PlannedKill } from './plan.ts'
import type { Setup } from './setup.ts'

export interface SummaryOptions {
  readonly result: DemoResult
  readonly expected: Expected
  readonly kills: readonly PlannedKill[]
  /** The command line that does the same. */
  readonly again: string
}

const WIDTH = 66
const COUNTRIES_SHOWN = 5

/** What the demo has shown, for people. */
export function printSummary({ print, paint }: Pick<Output, 'print' | 'paint'>, { result, expected, kills, again }: SummaryOptions): void {
  const row = (left: string, right: string, remark = '', style?: Style): void => {
    const shown = style === undefined ? right.padStart(12) : paint(style, right.padStart(12))
    print(`  ${left.padEnd(30)}${shown}  ${paint('dim', remark)}`.trimEnd())
  }
  const head = (text: string): void => print(`\n  ${paint('bold', text)}`)

  print()
  print(
    `  ${paint('bold', 'waybill demo')}  ${number(result.invoices)} invoices, ${number(result.lines)} lines, ${result.kills} kills, ${result.seconds.toFixed(1)} s`,
  )
  if (result.broker !== 'inprocess' || result.database !== 'pglite') print(`  ${paint('dim', `over ${settingOf(result)}`)}`)
  print(`  ${paint('dim', '─'.repeat(WIDTH))}`)
  if (kills.length > 0) {
    head('Killed (SIGKILL) and resumed from disk')
    for (const kill of kills.slice(0, KILLS_SHOWN))
      row(kill.point, number(kill.afterInvoices), `invoices published, then at its hit ${kill.hit}`)
    if (kills.length > KILLS_SHOWN) print(`  ... and ${kills.length - KILLS_SHOWN} more`)
  }
  if (result.recoverySeconds.length > 0) {
    head('The broker was taken away, and the road flowed again')
    for (const [index, seconds] of result.recoverySeconds.entries())
      row(index === 0 ? 'killed (SIGKILL)' : 'stopped in good order', `${seconds.toFixed(1)} s`, 'after it answered again')
  }
  head('Events, as the ledger saw them')
  for (const [type, count] of Object.entries(result.published)) row(type, number(count))
  head('Consumers')
  for (const [consumer, count] of Object.entries(result.handled)) {
    const called = expected.handled[consumer as keyof typeof expected.handled] ?? 0
    row(consumer, number(count), `of ${number(called)} that the file calls for`)
  }
  row('delivered again', number(result.redelivered), 'absorbed by the inbox')
  head('Revenue')
  const countries = Object.entries(result.revenuePence).toSorted(([, a], [, b]) => b - a)
  for (const [country, pence] of countries.slice(0, COUNTRIES_SHOWN)) row(country, pounds(pence))
  if (countries.length > COUNTRIES_SHOWN)
    row(
      `${countries.length - COUNTRIES_SHOWN} more countries`,
      pounds(countries.slice(COUNTRIES_SHOWN).reduce((sum, [, pence]) => sum + pence, 0)),
    )
  head('What must not happen')
  const zero = (left: string, count: number, remark: string): void => row(left, number(count), remark, count === 0 ? 'green' : 'red')
  zero('lost', result.lost, `of ${number(expected.effects.length)} effects`)
  zero('duplicate effects', result.duplicateEffects, 'counted in a table without a unique constraint')
  zero('order violations', result.orderViolations, `over ${number(keysOf(expected))} keys`)
  print(`  ${paint('dim', '─'.repeat(WIDTH))}`)
  print(`  ${paint('dim', `again: npx ${again}`)}`)
}

const KILLS_SHOWN = 12

const NAMES = {
  inprocess: 'no broker',
  kafka: 'Kafka',
  nats: 'NATS JetStream',
  redis: 'Redis Streams',
  pulsar: 'Pulsar',
  pglite: 'PGlite',
  postgres: 'PostgreSQL',
}

/** What the events travel over, for people. */
export function settingOf({ broker, database, processes }: Pick<Setup, 'broker' | 'database' | 'processes'>, brokerVersion = ''): string {
  const version = brokerVersion === '' ? '' : ` ${brokerVersion}`
  return `${NAMES[broker]}${version} and ${NAMES[database]}, ${processes === 1 ? 'one process' : `${processes} processes`}`
}

function keysOf({ effects }: Expected): number {
  return new Set(effects.filter(({ consumer }) => consumer === 'ledger').map(({ topic, key }) => JSON.stringify([topic, key]))).size
}

/** 42481 as 42,481. */
export function number(value: number): string {
  return value.toLocaleString('en-GB')
}

function pounds(pence: number): string {
  return `£${(pence / 100).toLocaleString('en-GB', { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`
}
