import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { RelayProcessOptions, RelayReport } from './relay-process.ts'

/** One relay process. */
export interface RelayProcess {
  readonly relayId: string
  readonly report: RelayReport
  readonly isRunning: boolean
  /** Freezes it (SIGSTOP). */
  freeze(): void
  /** Lets it go on (SIGCONT). */
  thaw(): void
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>
  /** SIGTERM; resolves when it has stopped in good order. */
  stop(): Promise<void>
  /** Whether it has killed itself at its crash point. */
  readonly hasCrashed: boolean
}

/** The relay processes of one run. */
export interface Fleet {
  start(more?: Partial<Pick<RelayProcessOptions, 'url' | 'crash' | 'queryTimeoutMs'>>): RelayProcess
  readonly all: readonly RelayProcess[]
  readonly running: readonly RelayProcess[]
  /** Failures of the database that relays have met. */
  readonly failures: number
  /** What went wrong with a relay that nobody had meant to hurt. */
  readonly trouble: string[]
  stopAll(): Promise<void>
  killAll(): Promise<void>
}

const SCRIPT = fileURLToPath(new URL('relay-process.ts', import.meta.url))
const STOP_MS = 60_000
const STDERR_MAX = 4_000
const NOTHING: RelayReport = { published: 0, held: 0, parked: 0, failures: 0, shards: 0 }

export type FleetOptions = Omit<RelayProcessOptions, 'relayId' | 'lastWords' | 'crash'> & { readonly folder: string }

export function createFleet({ folder, seed, ...common }: FleetOptions): Fleet {
  const all: RelayProcess[] = []
  const trouble: string[] = []

  function start(more: Parameters<Fleet['start']>[0] = {}): RelayProcess {
    const relayId = `relay-${all.length}`
    const lastWords = join(folder, `${relayId}.crashed`)
    const told: RelayProcessOptions = { ...common, relayId, seed: seed * 100 + all.length, lastWords, ...more }
    const one = launch(told, () => existsSync(lastWords), trouble)
    all.push(one)
    return one
  }

  return {
    start,
    all,
    get running() {
      return all.filter(({ isRunning }) => isRunning)
    },
    get failures() {
      return all.reduce((sum, { report }) => sum + report.failures, 0)
    },
    trouble,
    stopAll: async () => void (await Promise.all(all.map((relay) => relay.stop()))),
    killAll: async () => void (await Promise.all(all.map((relay) => relay.kill()))),
  }
}

function launch(told: RelayProcessOptions, hasLastWords: () => boolean, trouble: string[]): RelayProcess {
  const child: ChildProcess = spawn(process.execPath, ['--conditions=waybill:source', SCRIPT, JSON.stringify(told)], {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  })
  let report = NOTHING
  let said = ''
  let isMeant = false
  let isRunning = true
  child.on('message', (message: RelayReport) => (report = message))
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-STDERR_MAX)))
  const gone = once(child, 'close').then(([code, signal]) => {
    isRunning = false
    if (isMeant && code !== 1) return
    if (signal === 'SIGKILL' && hasLastWords()) return
    trouble.push(`${told.relayId} ended with ${code ?? signal}: ${report.fatal ?? ''} ${said}`.trim())
  })

  async function end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    if (!isRunning) return
    isMeant = true
    child.kill('SIGCONT')
    child.kill(signal)
    const late = setTimeout(() => {
      trouble.push(`${told.relayId} did not stop within ${STOP_MS} ms`)
      child.kill('SIGKILL')
    }, STOP_MS)
    await gone
    clearTimeout(late)
  }

  return {
    relayId: told.relayId,
    get report() {
      return report
    },
    get isRunning() {
      return isRunning
    },
    freeze: () => void child.kill('SIGSTOP'),
    thaw: () => void child.kill('SIGCONT'),
    kill: () => end('SIGKILL'),
    stop: () => end('SIGTERM'),
    get hasCrashed() {
      return !isRunning && hasLastWords()
    },
  }
}
