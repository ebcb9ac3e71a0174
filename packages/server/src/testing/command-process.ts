import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

const COMMAND = fileURLToPath(new URL('../../bin/waybill.js', import.meta.url))

/** `waybill` as a process of its own. */
export interface CommandProcess {
  readonly pid: number
  /** What it has written so far. */
  readonly stdout: () => string
  readonly stderr: () => string
  readonly isRunning: () => boolean
  kill(signal: NodeJS.Signals): void
  /** What became of it. */
  readonly ended: Promise<{
    readonly code: number | null
    readonly signal: NodeJS.Signals | null
    readonly stdout: string
    readonly stderr: string
  }>
  /** Stops and resumes reading its stdout. */
  readonly output: { pause(): unknown; resume(): unknown; destroy(): unknown }
}

export interface CommandProcessOptions {
  /** Beside PATH and HOME, all that it sees. */
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** Whether its stdout is not read until it is resumed. */
  readonly paused?: boolean
}

/** Starts `waybill` with these arguments. */
export function startCommand(args: readonly string[], { env = {}, cwd, paused = false }: CommandProcessOptions = {}): CommandProcess {
  const child = spawn(process.execPath, [COMMAND, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env },
    ...(cwd === undefined ? {} : { cwd }),
  })
  const written = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => void (written[name] += text))
  }
  if (paused) child.stdout.pause()
  const ended = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>
  return {
    pid: child.pid!,
    stdout: () => written.stdout,
    stderr: () => written.stderr,
    isRunning: () => child.exitCode === null && child.signalCode === null,
    kill: (signal) => void child.kill(signal),
    ended: ended.then(([code, signal]) => ({ code, signal, ...written })),
    output: child.stdout,
  }
}
