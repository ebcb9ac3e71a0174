import { type ChildProcess, execFileSync, fork } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import type { ChildJob, ChildReport } from './child-process.ts'

/** Another process, at work on the same database. */
export interface Child {
  /** The next report of this kind, as from now. */
  next<Kind extends ChildReport['kind']>(kind: Kind): Promise<Extract<ChildReport, { kind: Kind }>>
  stop(): Promise<void>
}

/** Starts it from the sources, and waits until it works. */
export const startChild = (job: ChildJob): Promise<Child> =>
  follow('./child-process.ts', [JSON.stringify(job)], ['--conditions=waybill:source', '--disable-warning=DeprecationWarning'])

/** Starts a relay of the compiled library, as it is shipped, that drains what is there; `flags` are Node's. */
export const startDrain = (url: string, flags: readonly string[]): Promise<Child> => follow('./drain-process.js', [compiled(), url], flags)

let library: string | undefined

/** The folder of the library, compiled; among the packages, so that it finds its own. */
function compiled(): string {
  if (library !== undefined) return library
  const folder = fileURLToPath(new URL('../node_modules/.waybill-compiled', import.meta.url))
  rmSync(folder, { recursive: true, force: true })
  const project = fileURLToPath(new URL('../../packages/waybill/tsconfig.build.json', import.meta.url))
  const compiler = createRequire(import.meta.url)
    .resolve('typescript/package.json')
    .replace('package.json', 'bin/tsc')
  execFileSync(process.execPath, [compiler, '-p', project, '--outDir', folder], { stdio: 'inherit' })
  return (library = folder)
}

async function follow(file: string, args: readonly string[], execArgv: readonly string[]): Promise<Child> {
  const child = fork(new URL(file, import.meta.url), args, { execArgv: [...execArgv], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const waiting = new Set<(report: ChildReport) => void>()
  const failing = new Set<(error: Error) => void>()
  child.on('message', (report) => {
    for (const tell of waiting) tell(report as ChildReport)
  })
  let stopping = false
  child.on('exit', (code) => {
    if (stopping) return
    for (const fail of failing) fail(new Error(`the child process ended with code ${code}`))
  })

  function next<Kind extends ChildReport['kind']>(kind: Kind): Promise<Extract<ChildReport, { kind: Kind }>> {
    return new Promise((resolve, reject) => {
      failing.add(reject)
      const tell = (report: ChildReport): void => {
        if (report.kind !== kind) return
        waiting.delete(tell)
        failing.delete(reject)
        resolve(report as Extract<ChildReport, { kind: Kind }>)
      }
      waiting.add(tell)
    })
  }

  await next('ready')
  return {
    next,
    async stop() {
      stopping = true
      await ended(child)
    },
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exit = once(child, 'exit')
  child.disconnect()
  await exit
}
