import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { WaybillError } from 'waybill'
import type { PlannedKill } from './plan.ts'
import { type WorkerReport, readLastWords } from './worker.ts'

/** What the supervisor tells while it works. */
export type SupervisorEvent =
  | { readonly type: 'progress'; readonly invoices: number; readonly deliveries: number; readonly kills: number }
  | { readonly type: 'killed'; readonly kill: PlannedKill; readonly kills: number; readonly invoices: number }

export interface SuperviseOptions {
  readonly folder: string
  readonly kills: readonly PlannedKill[]
  readonly signal: AbortSignal
  readonly onEvent: (event: SupervisorEvent) => void
  /** A worker that reports no progress for this long is given up; long, since a busy machine takes its time to start one. @default 180000 */
  readonly stallMs?: number
  /** For all workers together. @default 900000 */
  readonly limitMs?: number
  /** Script that is the worker. @default the `waybill` command */
  readonly script?: string
}

const STALL_CHECK_MS = 500
// This file is src/demo/supervisor.ts or dist/demo/supervisor.js: the command is at the same place from both.
const COMMAND = fileURLToPath(new URL('../../bin/waybill.js', import.meta.url))

/**
 * Runs one worker after another, each only when the one before is gone, until one of them comes to the end. Every worker but the last has a crash
 * point at which it kills itself.
 * @returns how many workers died by SIGKILL at their crash point; fewer than planned only where one came to its end without reaching it
 * @throws WaybillError `HANDLER_FAILED` where a worker failed by itself, `TIMEOUT` where it stalled, `CLOSED` where `signal` aborted
 */
export async function supervise({
  folder,
  kills,
  signal,
  onEvent,
  stallMs = 180_000,
  limitMs = 900_000,
  script = COMMAND,
}: SuperviseOptions): Promise<number> {
  const deadline = Date.now() + limitMs
  let deliveriesBefore = 0
  for (let run = 0; run <= kills.length; run++) {
    const kill = kills[run]
    let last: WorkerReport = { invoices: 0, deliveries: 0, trouble: undefined }
    const ended = await runOnce({ folder, run, kill, signal, stallMs, deadline, script }, (report) => {
      last = report
      onEvent({ type: 'progress', invoices: report.invoices, deliveries: deliveriesBefore + report.deliveries, kills: run })
    })
    deliveriesBefore += last.deliveries
    if (ended.code === 0) return run
    // Anybody can send a SIGKILL (the kernel, short of memory, does): one that counts comes from the crash point, by the worker's last words.
    const words = readLastWords(folder)
    if (kill === undefined || ended.signal !== 'SIGKILL' || words.length !== run + 1 || words[run] !== `${run} ${kill.point} ${kill.hit}`) {
      const how = ended.failure ?? (ended.signal === null ? `exit code ${ended.code}` : `killed by ${ended.signal}, not at its crash point`)
      throw new WaybillError(
        'HANDLER_FAILED',
        `a process of the demo failed by itself: ${how}${last.trouble === undefined ? '' : `; before that, ${last.trouble}`}`,
      )
    }
    onEvent({ type: 'killed', kill, kills: run + 1, invoices: Math.max(last.invoices, kill.afterInvoices) })
  }
  return kills.length
}

function stopped(): WaybillError {
  return new WaybillError('CLOSED', 'the demo was stopped')
}

interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** What the worker said went wrong. */
  readonly failure: string | undefined
}

interface RunOptions {
  readonly folder: string
  readonly run: number
  readonly kill: PlannedKill | undefined
  readonly signal: AbortSignal
  readonly stallMs: number
  readonly deadline: number
  readonly script: string
}

/** Runs a worker; resolves when its process is gone. */
async function runOnce(
  { folder, run, kill, signal, stallMs, deadline, script }: RunOptions,
  onReport: (report: WorkerReport) => void,
): Promise<Ended> {
  if (signal.aborted) throw stopped()
  const crash = kill === undefined ? [] : ['--crash', kill.point, '--hit', String(kill.hit), '--after', String(kill.afterInvoices)]
  const args = [script, 'demo-worker', '--folder', folder, '--run', String(run), ...crash]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  const gone = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  let failure: string | undefined
  let stalled: string | undefined
  let lastProgress = Date.now()
  let lastSeen = ''
  child.on('message', (message: WorkerReport | { readonly failure: string }) => {
    if ('failure' in message) {
      failure = message.failure
      return
    }
    const seen = `${message.invoices} ${message.deliveries}`
    if (seen !== lastSeen) lastProgress = Date.now()
    lastSeen = seen
    onReport(message)
  })
  const end = (): void => void child.kill('SIGKILL')
  signal.addEventListener('abort', end, { once: true })
  const watch = setInterval(() => {
    const now = Date.now()
    if (now - lastProgress > stallMs) stalled = `a process of the demo made no progress for ${stallMs / 1000} s`
    else if (now > deadline) stalled = 'the demo took longer than its limit'
    if (stalled !== undefined) end()
  }, STALL_CHECK_MS)
  try {
    const [code, killedBy] = await gone
    if (signal.aborted) throw stopped()
    if (stalled !== undefined) throw new WaybillError('TIMEOUT', stalled)
    return { code, signal: killedBy, failure }
  } finally {
    clearInterval(watch)
    signal.removeEventListener('abort', end)
  }
}
