import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TransportCheckResult } from '../../src/testing/transport-checks.ts'

/** What the contract suite found for one broker, as `docs/brokers.md` is made of it. */
export interface BrokerFindings {
  readonly name: string
  readonly versions: readonly string[]
  readonly results: readonly TransportCheckResult[]
}

/** Leaves the findings where the run of all tests gathers them, if this is part of one: each suite is a process of its own. */
export function writeFindings(findings: BrokerFindings): void {
  const folder = process.env['WAYBILL_FINDINGS']
  if (folder === undefined) return
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, `${findings.name}.json`), JSON.stringify(findings))
}
