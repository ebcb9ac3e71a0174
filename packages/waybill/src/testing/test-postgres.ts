import { after } from 'node:test'
import { type PostgresServer, startPostgresServer } from './postgres-server.ts'

/** A PostgreSQL server for the tests of one process. */
export interface TestPostgres extends PostgresServer {
  /** A schema name that no test has used yet. */
  schema(): string
}

let running: Promise<TestPostgres> | undefined

after(async () => {
  await (await running)?.close()
})

/** A real PostgreSQL server; one per process, stopped when its tests have ended, or the process is gone. */
export function testPostgres(): Promise<TestPostgres> {
  return (running ??= start())
}

async function start(): Promise<TestPostgres> {
  const server = await startPostgresServer()
  let schemas = 0
  return Object.defineProperties({ schema: () => `test_${++schemas}` }, Object.getOwnPropertyDescriptors(server)) as TestPostgres
}
