import type { Storage } from 'waybill'
import { messageOf } from '../cli/printable.ts'

/** `ok`: looked at, and right. `info`: worth knowing. `warn`: will hurt. `error`: events stand still, or may be lost. */
export type Level = 'ok' | 'info' | 'warn' | 'error'

/** What the doctor found. */
export interface Finding {
  /** What was looked at. */
  readonly check: string
  readonly level: Level
  readonly found: string
  /** What to do; what stands after a `; ` is another step, or another way. */
  readonly advice?: string
}

/** What a check works with. */
export interface CheckInput {
  readonly storage: Storage
  /** Whether there is a server with other sessions: PGlite is one session within this process. */
  readonly server: boolean
  readonly schema: string
  readonly prefix: string
  /** This machine's clock, in milliseconds since 1970. */
  readonly now: () => number
}

/** One thing that is looked at. */
export interface Check {
  readonly name: string
  /** Left out on an embedded database. */
  readonly serverOnly?: boolean
  run(input: CheckInput): Promise<readonly Omit<Finding, 'check'>[]>
}

/** Runs checks one after the other. One that fails is a finding, and the others are run all the same. */
export async function runChecks(checks: readonly Check[], input: CheckInput): Promise<readonly Finding[]> {
  const findings: Finding[] = []
  for (const { name, serverOnly, run } of checks) {
    if (serverOnly === true && !input.server) continue
    try {
      for (const finding of await run(input)) findings.push({ check: name, ...finding })
    } catch (error) {
      findings.push({ check: name, level: 'error', found: `could not be looked at: ${messageOf(error)}` })
    }
  }
  return findings
}

/** The first row of a question that has one. */
export async function oneRow<Row>({ storage }: CheckInput, text: string, params: readonly unknown[] = []): Promise<Row> {
  const { rows } = await storage.database.query<Row>(text, params)
  const row = rows[0]
  if (row === undefined) throw new Error('the database gave no answer')
  return row
}

/** The table's name as it stands in SQL. Schema and prefix were checked when the storage was opened. */
export function tableName({ schema, prefix }: CheckInput, table: string): string {
  return `"${schema}"."${prefix}${table}"`
}
