import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { guard } from './guard.ts'
import type { OwnServer, Prepare, PreparedServer, ServerOptions, StopMode } from './server.ts'

const STARTS_MAX = 3
const POLL_MS = 50
/** How long a server may take to write down what it has; then it is killed. */
const STOP_LIMIT_MS = 30_000
const LOG_KEPT = 3_000

/** Starts what `prepare` makes, in a temporary folder. Neither the server nor its folder outlives this process, whatever that one dies of. */
export async function runServer(name: string, prepare: Prepare, options: ServerOptions = {}): Promise<OwnServer> {
  for (let attempt = 1; ; attempt++) {
    const folder = await mkdtemp(join(tmpdir(), `waybill-${name}-`))
    const watch = guard(SERVER_GUARD, [folder])
    const remove = async () => {
      await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
      watch.end()
    }
    try {
      const server = serverIn(folder, await prepare(folder, options), remove)
      await server.start()
      return server
    } catch (error) {
      await remove()
      // Somebody else may have taken the port in between; whatever else is wrong will not go away.
      if (attempt === STARTS_MAX || !/address already in use|bind/i.test(String(error))) throw error
    }
  }
}

// The file holds the process id while there is a process.
const SERVER_GUARD = `
pid=$(cat "$1/pid" 2> /dev/null) && kill -KILL "$pid"
tries=0
while [ -e "$1" ] && [ $tries -lt 50 ]; do rm -rf "$1" 2> /dev/null; tries=$((tries + 1)); sleep 0.1; done`

function serverIn(folder: string, prepared: PreparedServer, remove: () => Promise<void>): OwnServer {
  const { name, url, host, port, version, extra } = prepared
  const log = join(folder, 'server.log')
  const pidFile = join(folder, 'pid')
  let child: ChildProcess | undefined

  async function start(): Promise<void> {
    if (child !== undefined) return
    const started = launch(prepared, folder, log)
    child = started
    if (started.pid !== undefined) writeFileSync(pidFile, String(started.pid))
    started.once('exit', () => {
      rmSync(pidFile, { force: true })
      if (child === started) child = undefined
    })
    const failure = new Promise<string>((resolve) => started.once('error', (error) => resolve(error.message)))
    const problem = await Promise.race([failure, untilReady(started, prepared)])
    if (problem === undefined) return
    await stop('kill')
    throw new Error(`${name} did not start: ${problem}\n${await tail(log)}`)
  }

  async function stop(mode: StopMode = 'graceful'): Promise<void> {
    const stopped = child
    if (stopped === undefined) return
    child = undefined
    if (!isAlive(stopped)) return
    const exit = once(stopped, 'exit')
    stopped.ref()
    stopped.kill(mode === 'graceful' ? 'SIGTERM' : 'SIGKILL')
    const limit = setTimeout(() => stopped.kill('SIGKILL'), STOP_LIMIT_MS)
    await exit
    clearTimeout(limit)
  }

  let closing: Promise<void> | undefined
  return {
    name,
    url,
    host,
    port,
    version,
    extra,
    get pid() {
      return child?.pid
    },
    stop,
    start,
    close: () => (closing ??= stop('kill').then(remove)),
  }
}

const isAlive = (child: ChildProcess): boolean => child.pid !== undefined && child.exitCode === null && child.signalCode === null

function launch({ program, args, env }: PreparedServer, folder: string, log: string): ChildProcess {
  const output = openSync(log, 'a')
  // Of a group of its own, so that Ctrl-C in a terminal reaches its owner, who decides.
  const child = spawn(program, [...args], {
    cwd: folder,
    env: { ...process.env, ...env },
    stdio: ['ignore', output, output],
    detached: true,
  })
  closeSync(output)
  // It stops with its owner, and doesn't keep it.
  child.unref()
  return child
}

/** Undefined when the server answers, else what is wrong. */
async function untilReady(child: ChildProcess, { isReady, startLimitMs }: PreparedServer): Promise<string | undefined> {
  const deadline = Date.now() + startLimitMs
  while (isAlive(child)) {
    if (await isReady()) return isAlive(child) ? undefined : 'another server answers on its port'
    if (Date.now() > deadline) return `no answer within ${startLimitMs / 1_000} s`
    await pause(POLL_MS)
  }
  return `it ended with ${child.exitCode ?? child.signalCode ?? 'an error'}`
}

async function tail(log: string): Promise<string> {
  try {
    return (await readFile(log, 'utf8')).slice(-LOG_KEPT)
  } catch {
    return '(no log)'
  }
}
