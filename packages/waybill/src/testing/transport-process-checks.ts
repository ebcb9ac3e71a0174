import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { extname } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Committed } from './compare-ledger.ts'
import { type BrokerCheck, type BrokerUnderTest, needsBroker, needsLastingBroker } from './transport-checks.ts'
import { type Ledger, createLedger, publishAll, untilArrived, verdictOf } from './transport-load.ts'
import type { ProcessOptions } from './transport-process.ts'
import { keysNamed, messages } from './transport-tools.ts'

// Beside this file, in TypeScript or compiled.
const SCRIPT = fileURLToPath(new URL(`transport-process${extname(fileURLToPath(import.meta.url))}`, import.meta.url))
const EXIT_MS = 5_000
const POLL_MS = 20
/** Handled and not acked when a member dies: what it was given at once, and what its next pull may have brought. */
const WINDOW = 1_000
const BACKLOG = 50_000
/** Together they are nearly as much as may be kept. */
const BODY_BYTES = 1_024
const HELD_MAX = 1_100
const RSS_GROWTH_MAX = 64 * 1024 * 1024
const never = new AbortController().signal

interface Process {
  readonly child: ChildProcess
  readonly lines: string[]
  until(what: string, limitMs: number, ask: () => boolean): Promise<void>
  kill(): Promise<void>
}

function start(
  broker: BrokerUnderTest,
  options: Omit<ProcessOptions, 'module' | 'target'>,
  onLine: (line: string) => void = () => {},
): Process {
  const told: ProcessOptions = { ...options, ...broker.process! }
  // A young generation of a fixed size: how far an engine lets it grow says nothing about the adapter.
  const child = spawn(
    process.execPath,
    [...withoutTestFlags(process.execArgv), '--expose-gc', '--max-semi-space-size=8', SCRIPT, JSON.stringify(told)],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  )
  const lines: string[] = []
  let stderr = ''
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (!line.startsWith('handled') && !line.startsWith('stored')) lines.push(line)
    onLine(line)
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr = (stderr + text).slice(-4_000)))
  const gone = once(child, 'exit')
  return {
    child,
    lines,
    async until(what, limitMs, ask) {
      for (const deadline = performance.now() + limitMs; !ask();) {
        assert.ok(
          performance.now() < deadline,
          `waited ${limitMs} ms in vain for ${what} (${options.role}: ${lines.slice(-3).join(' | ')}) ${stderr}`,
        )
        assert.ok(child.exitCode === null || ask(), `the ${options.role} ended by itself with ${child.exitCode}: ${stderr}`)
        await delay(POLL_MS)
      }
    },
    async kill() {
      child.kill('SIGKILL')
      await gone
    },
  }
}

/** What belongs to the test runner, or a debugger, must not make a test of the process: flags, and values that stand behind them. */
const withoutTestFlags = (flags: readonly string[]): readonly string[] =>
  flags.filter((flag, index) => !isTestFlag(flag) && (flag.startsWith('-') || !isTestFlag(flags[index - 1] ?? '')))
const isTestFlag = (flag: string): boolean => /^--(test|inspect|experimental-test)/.test(flag)

/** Notes the lines of consumers. */
const arriving =
  (ledger: Ledger) =>
  (line: string): void => {
    const [what, id] = line.split(' ')
    if (what === 'handled') ledger.arrived.push(id!)
  }

/** What happens to the processes on both sides of a broker. */
export const processChecks: readonly BrokerCheck[] = [
  {
    check: 'kill9-consumer',
    name: 'three members die by SIGKILL in the middle of their work: none lost, order holds, repeats stay within what was in flight',
    requires: needsLastingBroker,
    processes: true,
    async run(broker, tools) {
      const options = { topic: tools.topic(), group: tools.group(), keys: keysNamed(20), count: 300 }
      const transport = await broker.connect()
      const ledger = createLedger()
      const consumers: Process[] = []
      const join = (): Process => {
        const consumer = start(broker, { role: 'consumer', ...options }, arriving(ledger))
        consumers.push(consumer)
        return consumer
      }
      try {
        await transport.declareGroups([options])
        const publishing = publishAll(transport, messages(options.topic, options.keys, options.count), ledger, never)
        publishing.catch(() => undefined)
        const recoveries: string[] = []
        for (let kills = 0; kills < 3; kills++) {
          const consumer = join()
          const before = new Set(ledger.arrived).size
          const started = performance.now()
          await consumer.until('a member to work', tools.recoveryMs, () => new Set(ledger.arrived).size > before)
          if (kills > 0) recoveries.push(((performance.now() - started) / 1000).toFixed(1))
          await consumer.until('a member to be in the middle', tools.recoveryMs, () => new Set(ledger.arrived).size > before + 500)
          await consumer.kill()
        }
        join()
        await publishing
        await untilArrived(ledger, tools.recoveryMs)
        const repeats = ledger.arrived.length - new Set(ledger.arrived).size
        assert.ok(repeats <= 3 * WINDOW, `${repeats} repeats after 3 kills`)
        return `recovery ${recoveries.join(' s, ')} s with start; ${verdictOf(ledger, transport.capabilities.ordering === 'key')}`
      } finally {
        await Promise.all(consumers.map((consumer) => consumer.kill()))
        await transport.close()
      }
    },
  },
  {
    check: 'kill9-producer',
    name: 'a producer dies by SIGKILL in the middle of its work: all that it had reported stored arrives, in order',
    requires: needsLastingBroker,
    processes: true,
    async run(broker, tools) {
      const options = { topic: tools.topic(), group: tools.group(), keys: keysNamed(20), count: 2_000 }
      const transport = await broker.connect()
      const ledger = createLedger()
      const consumer = start(broker, { role: 'consumer', ...options }, arriving(ledger))
      try {
        await transport.declareGroups([options])
        for (let kills = 0; kills < 2; kills++) {
          // Each producer has keys of its own: a new one begins anew.
          const keys = options.keys.map((key) => `${key}-${kills}`)
          const stored = new Map<string, Committed>()
          const producer = start(broker, { role: 'producer', ...options, keys }, (line) => {
            const [what, id, key, number] = line.split(' ')
            if (what === 'stored') stored.set(id!, { key: key!, version: Number(number) + 1 })
          })
          await producer.until('the producer to be in the middle', tools.recoveryMs, () => stored.size > 2_000)
          await producer.kill()
          // Read to its end: what it had said before it died counts.
          await delay(POLL_MS)
          for (const [id, committed] of stored) ledger.stored.set(id, committed)
        }
        await untilArrived(ledger, tools.recoveryMs)
        return verdictOf(ledger, transport.capabilities.ordering === 'key')
      } finally {
        await consumer.kill()
        await transport.close()
      }
    },
  },
  {
    check: 'back-pressure',
    name: '50,000 messages of backlog and a handler of 10 ms: in flight bounded, RSS grows by 64 MiB at most',
    requires: needsLastingBroker,
    processes: true,
    async run(broker, tools) {
      const options = { topic: tools.topic(), group: tools.group(), keys: keysNamed(1_000), count: BACKLOG / 1_000 }
      const transport = await broker.connect()
      try {
        await transport.declareGroups([options])
        const backlog = messages(options.topic, options.keys, options.count)
        await publishAll(
          transport,
          backlog.map((each) => ({ ...each, body: new Uint8Array(BODY_BYTES) })),
          createLedger(),
          never,
        )
      } finally {
        await transport.close()
      }
      const consumer = start(broker, { role: 'slow-consumer', ...options })
      try {
        await consumer.until('the backlog to be handled', tools.recoveryMs, () => consumer.lines.some((line) => line.startsWith('done')))
        const [, growth, held, base] = consumer.lines
          .find((line) => line.startsWith('done'))!
          .split(' ')
          .map(Number)
        assert.ok(held! <= HELD_MAX, `${held} were held at once`)
        assert.ok(growth! <= RSS_GROWTH_MAX, `RSS grew by ${Math.round(growth! / 1024 / 1024)} MiB`)
        return `at most ${held} in flight, RSS grew by ${Math.round(growth! / 1024 / 1024)} MiB from ${base} MiB`
      } finally {
        await consumer.kill()
      }
    },
  },
  {
    check: 'close-bounded-idempotent',
    name: 'after the close nothing keeps the process alive',
    requires: needsBroker,
    processes: true,
    async run(broker, tools) {
      const options = { topic: tools.topic(), group: tools.group(), keys: ['a'], count: 10 }
      const transport = await broker.connect()
      const { keeps = true } = transport.capabilities
      await transport.declareGroups([options])
      await transport.close()
      const closer = start(broker, { role: keeps ? 'closer' : 'producer', ...options })
      try {
        await closer.until('it to close', tools.recoveryMs, () => closer.lines.includes('closed'))
        await closer.until('the process to end by itself', EXIT_MS, () => closer.child.exitCode !== null)
        assert.equal(closer.child.exitCode, 0)
      } finally {
        await closer.kill()
      }
    },
  },
]
