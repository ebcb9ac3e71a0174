import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { cacheFolder } from './cache.ts'
import { composeDown, composeUp, hasCompose, newProject } from './compose.ts'
import type { ServiceName } from './names.ts'
import type { ServerAddress } from './server.ts'

/** A server that `up` has started, until `down`. What is written of it in the cache folder. */
export type Running = ServerAddress &
  (
    | { readonly provider: 'installed'; readonly pid: number; readonly keeper: number }
    | { readonly provider: 'compose'; readonly project: string }
  )

const POLL_MS = 100
/** Installing included. */
const UP_LIMIT_MS = 15 * 60_000
const DOWN_LIMIT_MS = 60_000

const stateFile = (name: ServiceName): string => join(cacheFolder(), 'running', `${name}.json`)

/** What `up` has started and is still there; undefined where there is nothing, or its keeper is gone. */
export async function runningServer(name: ServiceName): Promise<Running | undefined> {
  const state = await readState(name)
  if (state === undefined || 'error' in state) return undefined
  if (state.provider === 'installed' && !isAlive(state.keeper)) {
    // It was killed, and its server with it.
    await rm(stateFile(name), { force: true })
    return undefined
  }
  return state
}

/** Whether the server itself has died, though its keeper has not. */
export const isProcessGone = (running: Running): boolean => running.provider === 'installed' && !isAlive(running.pid)

async function readState(name: ServiceName): Promise<Running | { readonly error: string } | undefined> {
  try {
    return JSON.parse(await readFile(stateFile(name), 'utf8')) as Running | { readonly error: string }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/** Starts a server that outlives this process. Throws an `Error` where it can't be had. */
export async function startRunning(name: ServiceName): Promise<Running> {
  await mkdir(join(cacheFolder(), 'running'), { recursive: true })
  await rm(stateFile(name), { force: true })
  return (await hasCompose()) ? startComposed(name) : startKept(name)
}

async function startComposed(name: ServiceName): Promise<Running> {
  const project = newProject(name)
  try {
    const running: Running = { ...(await composeUp(name, project)), provider: 'compose', project }
    await writeFile(stateFile(name), `${JSON.stringify(running)}\n`, { mode: 0o600 })
    return running
  } catch (error) {
    await composeDown(project)
    throw error
  }
}

/** By a process of its own that holds the server, and ends it when the file is gone. */
async function startKept(name: ServiceName): Promise<Running> {
  const keeper = fileURLToPath(new URL('keeper.ts', import.meta.url))
  const child = spawn(process.execPath, [keeper, name, '--state', stateFile(name)], { stdio: 'ignore', detached: true })
  await once(child, 'spawn')
  child.unref()
  const deadline = Date.now() + UP_LIMIT_MS
  for (;;) {
    const state = await readState(name)
    if (state !== undefined && 'error' in state) {
      await rm(stateFile(name), { force: true })
      throw new Error(state.error)
    }
    if (state !== undefined) return state
    if (child.exitCode !== null || child.signalCode !== null) throw new Error(`${name}: the process that holds it has ended`)
    if (Date.now() > deadline) {
      child.kill()
      throw new Error(`${name} is not up after ${UP_LIMIT_MS / 60_000} minutes`)
    }
    await pause(POLL_MS)
  }
}

/** Stops what `up` has started. False where there was nothing. */
export async function stopRunning(name: ServiceName): Promise<boolean> {
  const running = await runningServer(name)
  if (running === undefined) return false
  if (running.provider === 'compose') await composeDown(running.project)
  await rm(stateFile(name), { force: true })
  if (running.provider === 'compose') return true
  const deadline = Date.now() + DOWN_LIMIT_MS
  while (isAlive(running.keeper)) {
    if (Date.now() > deadline) throw new Error(`${name} is not down after ${DOWN_LIMIT_MS / 1_000} s; process ${running.keeper} holds it`)
    await pause(POLL_MS)
  }
  return true
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
