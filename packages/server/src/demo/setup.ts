import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Environment, type MessageBusType, type Storage, WaybillError } from 'waybill'
import { pgliteStorage, postgresStorage } from 'waybill/postgres'
import type { Invoice } from './invoices.ts'
import type { Outage, PlannedKill } from './plan.ts'

/** What `--broker` takes. */
export const BROKERS = ['inprocess', 'kafka', 'nats', 'redis', 'pulsar'] as const satisfies readonly MessageBusType[]
export type DemoBroker = (typeof BROKERS)[number]

/** What `--database` takes. */
export const DATABASES = ['pglite', 'postgres'] as const
export type DemoDatabase = (typeof DATABASES)[number]

/** What all processes of one demo know. */
export interface Setup {
  readonly broker: DemoBroker
  readonly database: DemoDatabase
  /** Of PostgreSQL. */
  readonly schema: string
  /** End of the names of topics and groups, so that runs at one broker have nothing to do with each other. */
  readonly suffix: string
  /** At work at the same time. */
  readonly processes: number
  readonly kills: readonly PlannedKill[]
  readonly outages: readonly Outage[]
}

/** Leaves the setup and the invoices for the workers; addresses and passwords come by their environment. */
export function storeSetup(folder: string, setup: Setup, invoices: readonly Invoice[]): void {
  writeFileSync(join(folder, 'setup.json'), JSON.stringify(setup))
  writeFileSync(join(folder, 'invoices.ndjson'), invoices.map((invoice) => `${JSON.stringify(invoice)}\n`).join(''))
}

/** What {@link storeSetup} has left. */
export function readSetup(folder: string): { readonly setup: Setup; readonly invoices: readonly Invoice[] } {
  const setup = JSON.parse(readFileSync(join(folder, 'setup.json'), 'utf8')) as Setup
  const lines = readFileSync(join(folder, 'invoices.ndjson'), 'utf8').trimEnd().split('\n')
  return { setup, invoices: lines.map((line) => JSON.parse(line) as Invoice) }
}

/** The folder of an embedded database within the demo's. */
export function databaseFolder(folder: string): string {
  return join(folder, 'database')
}

/** Opens the demo's database. @throws WaybillError `INVALID_SETTING` where it is PostgreSQL and `DATABASE_URL` is not set */
export async function openDatabase(
  folder: string,
  { database, schema }: Pick<Setup, 'database' | 'schema'>,
  env: Environment,
): Promise<Storage> {
  if (database === 'pglite') return pgliteStorage(databaseFolder(folder))
  if (env['DATABASE_URL'] === undefined)
    throw new WaybillError('INVALID_SETTING', 'DATABASE_URL is not set', { allowed: 'postgres://user@host:5432/name' })
  const url = new URL(env['DATABASE_URL'])
  // The shop's own tables carry no schema in their names, as those of any application.
  url.searchParams.set('options', `${url.searchParams.get('options') ?? ''} -c search_path=${schema}`.trim())
  return postgresStorage(url.href, { schema, listen: true })
}

const MARKS = { gone: 'broker-gone-', back: 'broker-back-' } as const

/** Tells the workers that outage `index` has begun, or is over. */
export function markOutage(folder: string, what: keyof typeof MARKS, index: number): void {
  writeFileSync(join(folder, `${MARKS[what]}${index}`), '')
}

/** Whether {@link markOutage} was called. */
export function isMarked(folder: string, what: keyof typeof MARKS, index: number): boolean {
  return existsSync(join(folder, `${MARKS[what]}${index}`))
}
