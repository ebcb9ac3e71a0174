import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { type Environment, WaybillError } from 'waybill'
import { readLastWords } from './kills.ts'
import type { PlannedKill } from './plan.ts'
import type { WorkerReport } from './worker.ts'

/** What the supervisor tells while it works. */
export type SupervisorEvent =
  | {
      readonly type: 'progress'
      readonly invoices: number
      readonly deliveries: number
      readonly kills: number
      /** By consumer: when the newest of the events that it was given was made, in milliseconds since 1970. */
      readonly newest: Readonly<Record<string, number>>
    }
  | { readonly type: 'killed'; readonly kill: PlannedKill; readonly kills: number; readonly invoices: number; readonly slot: number }

export interface SuperviseOptions {
  readonly folder: string
  readonly kills: readonly PlannedKill[]
  /** Workers at a time. @default 1 */
  readonly processes?: number
  /** The workers' environment. @default this process's */
  readonly env?: Environment
  readonly signal: AbortSignal
  readonly onEvent: (event: SupervisorEvent) => void
  /** When no worker reports progress for this long they are given up; long, since a busy machine takes its time to start one. @default 180000 */
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
 * Runs `processes` workers at a time, and in the place of each that was killed another one, until all have come to the end. Workers kill themselves, as
 * the setup in the folder says; where one dies otherwise, the others are ended too.
 * @returns how many workers died by SIGKILL at their crash point; fewer than planned only where all came to their end without reaching it
 * @throws WaybillError `HANDLER_FAILED` where a worker failed by itself, `TIMEOUT` where all stalled, `CLOSED` where `signal` aborted
 */
export async function supervise({
  folder,
  kills,
  processes = 1,
  env = process.env,
  signal,
  onEvent,
  stallMs = 180_000,
  limitMs = 900_000,
  script = COMMAND,
}: SuperviseOptions): Promise<number> {
  const failed = new AbortController()
  let trouble: string | undefined
  const watch = createWatch(stallMs, limitMs, (error) => failed.abort(new WaybillError('TIMEOUT', `${error}${lastly(trouble)}`)))
  const either = AbortSignal.any([signal, failed.signal])
  const newest: Record<string, number> = {}
  let [runs, killed, invoices, deliveriesBefore] = [0, 0, 0, 0]
  const deliveries: number[] = Array.from({ length: processes }, () => 0)

  function progress(slot: number, report: WorkerReport): void {
    invoices = Math.max(invoices, report.invoices)
    deliveries[slot] = report.deliveries
    for (const [consumer, time] of Object.entries(report.newest)) newest[consumer] = Math.max(newest[consumer] ?? 0, time)
    const total = deliveriesBefore + deliveries.reduce((sum, count) => sum + count, 0)
    watch.see(`${invoices} ${total}`)
    onEvent({ type: 'progress', invoices, deliveries: total, kills: killed, newest: { ...newest } })
  }

  async function serve(slot: number): Promise<void> {
    for (;;) {
      const run = runs++
      const args = [script, 'demo-worker', '--folder', folder, '--run', String(run), '--slot', String(slot)]
      const ended = await runOnce(args, env, either, (report) => {
        trouble = report.trouble ?? trouble
        progress(slot, report)
      })
      deliveriesBefore += deliveries[slot]!
      deliveries[slot] = 0
      if (ended.code === 0) return
      // Anybody can send a SIGKILL (the kernel, short of memory, does): one that counts comes from the crash point, by the worker's last words.
      const words = readLastWords(folder).find((one) => one.run === run)
      const kill = words === undefined ? undefined : kills[words.index]
      if (kill === undefined || ended.signal !== 'SIGKILL' || words?.point !== kill.point || words.hit !== kill.hit) {
        const how =
          ended.failure ?? (ended.signal === null ? `exit code ${ended.code}` : `killed by ${ended.signal}, not at its crash point`)
        throw new WaybillError('HANDLER_FAILED', `a process of the demo failed by itself: ${how}${lastly(trouble)}`)
      }
      onEvent({ type: 'killed', kill, kills: ++killed, invoices: Math.max(invoices, kill.afterInvoices), slot })
    }
  }

  try {
    const slots = Array.from({ length: processes }, (_, slot) => serve(slot))
    for (const slot of slots) slot.catch((error: unknown) => failed.abort(error))
    await Promise.allSettled(slots)
    if (signal.aborted) throw stopped()
    if (failed.signal.aborted) throw failed.signal.reason
    return killed
  } finally {
    watch.end()
  }
}

function lastly(trouble: string | undefined): string {
  return trouble === undefined ? '' : `; before that, ${trouble}`
}

function stopped(): WaybillError {
  return new WaybillError('CLOSED', 'the demo was stopped')
}

/** Gives up what makes no progress, or takes too long. */
function createWatch(stallMs: number, limitMs: number, giveUp: (error: string) => void): { see(progress: string): void; end(): void } {
  const deadline = Date.now() + limitMs
  let last = ''
  let changedMs = Date.now()
  const timer = setInterval(() => {
    if (Date.now() - changedMs > stallMs) giveUp(`a process of the demo made no progress for ${stallMs / 1000} s`)
    else if (Date.now() > deadline) giveUp('the demo took longer than its limit')
  }, STALL_CHECK_MS)
  return {
    see(progress) {
      if (progress !== last) changedMs = Date.now()
      last = progress
    },
    end: () => clearInterval(timer),
  }
}

interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** What the worker said went wrong. */
  readonly failure: string | undefined
}

/** Runs a worker; resolves when its process is gone, also where `signal` has ended it. */
async function runOnce(
  args: readonly string[],
  env: Environment,
  signal: AbortSignal,
  onReport: (report: WorkerReport) => void,
): Promise<Ended> {
  if (signal.aborted) throw stopped()
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'], env })
  const gone = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  let failure: string | undefined
  child.on('message', (message: WorkerReport | { readonly failure: string }) => {
    if ('failure' in message) failure = message.failure
    else onReport(message)
  })
  const end = (): void => void child.kill('SIGKILL')
  signal.addEventListener('abort', end, { once: true })
  try {
    const [code, killedBy] = await gone
    if (signal.aborted) throw stopped()
    return { code, signal: killedBy, failure }
  } finally {
    signal.removeEventListener('abort', end)
  }
}
