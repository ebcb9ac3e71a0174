import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { startCommand } from './command-process.ts'

const WAIT_MAX_MS = 90_000

/** What a relay has handed to the transport. */
export interface SentMessage {
  readonly id: string
  readonly topic: string
  readonly key: string
  readonly body: string
}

/** `waybill relay` as a process of its own. */
export interface RelayProcess {
  readonly stderr: () => string
  /** The log, line by line. */
  readonly log: () => readonly Readonly<Record<string, unknown>>[]
  /** Where it serves HTTP, once it does. */
  url(): Promise<string>
  kill(signal: NodeJS.Signals): void
  /** What became of it. */
  readonly ended: Promise<{
    readonly code: number | null
    readonly signal: NodeJS.Signals | null
    readonly stdout: string
    readonly stderr: string
  }>
}

/** A folder with a transport that writes what it takes to a file, and with switches that files in that folder are. */
export interface RelayBench {
  readonly transport: string
  run(env: Readonly<Record<string, string>>, ...args: readonly string[]): RelayProcess
  /** `hold`: what is sent waits. `down`: nothing is taken. */
  switch(name: 'hold' | 'down', on: boolean): void
  /** Whether the transport has been called while it held. */
  isHolding(): boolean
  sent(): readonly SentMessage[]
  close(): Promise<void>
}

/** The module that `--transport` names. What has the topic `shop.Refused` it refuses. */
function transportModule(folder: string): string {
  return `import { appendFileSync, existsSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { WaybillError } from ${JSON.stringify(import.meta.resolve('waybill'))}

const folder = ${JSON.stringify(folder)}

export function createTransport() {
  return {
    name: 'file',
    capabilities: { ordering: 'key', stopsKeyAtFailure: false, acknowledges: 'stored', delay: false },
    async publish(messages, signal) {
      while (existsSync(folder + '/hold')) {
        writeFileSync(folder + '/holding', '')
        if (signal.aborted) return messages.map(() => ({ kind: 'rejected', error: new WaybillError('TIMEOUT', 'it was cut off') }))
        await sleep(5)
      }
      return messages.map(({ id, topic, key, body }) => {
        if (existsSync(folder + '/down')) return { kind: 'rejected', error: new WaybillError('TRANSPORT_UNAVAILABLE', 'the broker is away') }
        if (topic === 'shop.Refused') return { kind: 'rejected', error: new WaybillError('MESSAGE_REJECTED', 'no such topic') }
        appendFileSync(folder + '/sent', JSON.stringify({ id, topic, key, body: Buffer.from(body).toString() }) + '\\n')
        return { kind: 'stored' }
      })
    },
    async *subscribe() {},
    async declareGroups() {},
    async close() {},
  }
}
`
}

/** Waits for `holds`, with a generous limit. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const limit = performance.now() + WAIT_MAX_MS
  while (!(await holds())) {
    if (performance.now() > limit) throw new Error(`waited in vain for: ${what}`)
    await sleep(20)
  }
}

export function createRelayBench(): RelayBench {
  const folder = mkdtempSync(join(tmpdir(), 'waybill-relay-test-'))
  const transport = join(folder, 'transport.mjs')
  writeFileSync(transport, transportModule(folder))
  const running = new Set<RelayProcess>()
  return {
    transport,
    run(env, ...args) {
      const started = runCommand(env, args)
      running.add(started)
      void started.ended.then(() => running.delete(started))
      return started
    },
    switch(name, on) {
      if (on) writeFileSync(join(folder, name), '')
      else rmSync(join(folder, name), { force: true })
      rmSync(join(folder, 'holding'), { force: true })
    },
    isHolding: () => existsSync(join(folder, 'holding')),
    sent() {
      const path = join(folder, 'sent')
      if (!existsSync(path)) return []
      const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1)
      return lines.map((line) => JSON.parse(line) as SentMessage)
    },
    async close() {
      for (const process of running) process.kill('SIGKILL')
      await Promise.all([...running].map(({ ended }) => ended))
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

function runCommand(env: Readonly<Record<string, string>>, args: readonly string[]): RelayProcess {
  const { stderr, isRunning, kill, ended } = startCommand(['relay', ...args], { env })
  const log = (): readonly Readonly<Record<string, unknown>>[] =>
    stderr()
      .split('\n')
      .slice(0, -1)
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Record<string, unknown>)
  const urlIn = (): string | undefined => log().find(({ url }) => typeof url === 'string')?.url as string | undefined
  return {
    stderr,
    log,
    async url() {
      await until('an address in the log', () => {
        if (!isRunning()) throw new Error(`it has ended: ${stderr()}`)
        return urlIn() !== undefined
      })
      return urlIn()!
    },
    kill,
    ended,
  }
}
