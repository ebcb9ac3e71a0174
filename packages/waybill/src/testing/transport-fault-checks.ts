import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { isWaybillError } from '../core/errors.ts'
import type { WaybillEvent } from '../core/observe.ts'
import type { Delivery, Transport } from '../core/transport.ts'
import { type BrokerCheck, type BrokerCheckTools, type BrokerUnderTest, needsBroker, needsLastingBroker } from './transport-checks.ts'
import { type Ledger, type Worker, createLedger, publishAll, startWorker, untilArrived, verdictOf } from './transport-load.ts'
import { keysNamed, message, messages } from './transport-tools.ts'

/** No answer of a transport may take longer than its own limits; this is beyond what any of them is set to. */
const ANSWER_MS = 20_000
const BLACK_HOLE_MS = 30_000
const SIGNAL_MS = 5_000
const POLL_MS = 20
const PACE_MS = 10
const AHEAD_MAX = 2_000
const SLOWER_MS = 500
const STORM_MS = 1_000
const never = new AbortController().signal

async function within<T>(what: string, ms: number, promise: Promise<T>): Promise<T> {
  const timer = new AbortController()
  const late = delay(ms, undefined, { signal: timer.signal }).then(
    () => assert.fail(`waited ${ms} ms in vain for ${what}`),
    () => undefined as never,
  )
  return Promise.race([promise, late]).finally(() => timer.abort())
}

async function until(what: string, ms: number, ask: () => boolean | Promise<boolean>): Promise<number> {
  const started = performance.now()
  while (!(await ask())) {
    assert.ok(performance.now() - started < ms, `waited ${ms} ms in vain for ${what}`)
    await delay(POLL_MS)
  }
  return performance.now() - started
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`

/** A load under way: one publisher, members that come and go, one ledger. */
interface Load {
  readonly ledger: Ledger
  join(transport?: Transport): Worker
  /** How long until something new arrives. */
  progress(): Promise<number>
}

/** Runs `run` while messages are published without end, and at least `countMin` of them. */
async function underLoad(
  broker: BrokerUnderTest,
  tools: BrokerCheckTools,
  countMin: number,
  run: (load: Load) => Promise<string>,
): Promise<string> {
  const [topic, group] = [tools.topic(), tools.group()]
  const stop = new AbortController()
  const transport = await broker.connect()
  const workers: Worker[] = []
  const transports = new Set([transport])
  const ledger = createLedger()
  const handle = ({ message: { id } }: Delivery): void => void ledger.arrived.push(id)
  let enough = false

  async function publishLoad(): Promise<void> {
    const keys = keysNamed(50)
    for (let number = 0; !enough || number * keys.length < countMin; number += 4) {
      // Slower where much has not arrived yet, or a slow machine would take longer for the rest than anybody waits; but never still.
      if (ledger.stored.size - new Set(ledger.arrived).size > AHEAD_MAX) await delay(SLOWER_MS)
      const chunk = Array.from({ length: 4 }, (_, index) => keys.map((key) => message(topic, key, number + index))).flat()
      await publishAll(transport, chunk, ledger, stop.signal)
      await delay(PACE_MS)
    }
  }

  try {
    await transport.declareGroups([{ topic, group }])
    const publishing = publishLoad()
    publishing.catch(() => undefined)
    const verdict = await run({
      ledger,
      join(own = transport) {
        const worker = startWorker(own, topic, group, handle)
        workers.push(worker)
        transports.add(own)
        return worker
      },
      progress() {
        const before = new Set(ledger.arrived).size
        return until('something new to arrive', tools.recoveryMs, () => new Set(ledger.arrived).size > before)
      },
    })
    enough = true
    await within('the publisher', tools.recoveryMs, publishing)
    await untilArrived(ledger, tools.recoveryMs)
    const compared = verdictOf(ledger, transport.capabilities.ordering === 'key')
    return verdict === '' ? compared : `${verdict}; ${compared}`
  } finally {
    stop.abort()
    await within('the members to leave', ANSWER_MS, Promise.allSettled(workers.map((worker) => worker.leave())))
    await within('the transports to close', ANSWER_MS, Promise.all([...transports].map((each) => each.close())))
  }
}

/** What happens to a broker, and to the line to it. Each waits for what must come of it, and heals what it has hurt. */
export const faultChecks: readonly BrokerCheck[] = [
  {
    check: 'publish-ack-is-broker-ack',
    name: 'while the broker is away, publish ends within its limit and says nothing is stored; what is stored before and after it arrives',
    requires: needsBroker,
    async run(broker, tools) {
      const [topic, group] = [tools.topic(), tools.group()]
      const transport = await broker.connect()
      const { keeps = true } = transport.capabilities
      const ledger = createLedger()
      try {
        await transport.declareGroups([{ topic, group }])
        if (keeps) await publishAll(transport, messages(topic, ['a'], 5), ledger, never)
        await broker.stop('kill')
        const outcomes = await within('an answer', ANSWER_MS, transport.publish([message(topic, 'a', 5)], never))
        assert.notEqual(outcomes[0]?.kind, 'stored')
        if (keeps) {
          // Whoever starts now hears why it can't, and does not wait for ever.
          const declared = within('an answer', ANSWER_MS, transport.declareGroups([{ topic: tools.topic(), group }]))
          await assert.rejects(declared, (error) => isWaybillError(error) && error.retryable)
        }
        await broker.start()
        const worker = keeps ? startWorker(transport, topic, group, ({ message: { id } }) => void ledger.arrived.push(id)) : undefined
        await within(
          'the publisher',
          tools.recoveryMs,
          publishAll(transport, [message(topic, 'a', 6), message(topic, 'a', 7)], ledger, never),
        )
        if (worker === undefined) return
        await untilArrived(ledger, tools.recoveryMs)
        await worker.leave()
        return verdictOf(ledger, true)
      } finally {
        await broker.start()
        await transport.close()
      }
    },
  },
  {
    check: 'publish-unknown-outcome-typed',
    name: 'what was sent into a line that died is unknown, or rejected and then never arrives',
    requires: needsLastingBroker,
    async run(broker, tools) {
      const [topic, group] = [tools.topic(), tools.group()]
      const transport = await broker.connect()
      const ledger = createLedger()
      try {
        await transport.declareGroups([{ topic, group }])
        await publishAll(transport, messages(topic, ['a'], 1), ledger, never)
        const bytes = broker.proxy.bytes
        broker.proxy.blackHole(true)
        const cut = message(topic, 'b', 0)
        const [outcome] = await within('an answer', ANSWER_MS, transport.publish([cut], never))
        assert.ok(outcome !== undefined && outcome.kind !== 'stored', 'nothing got through, and it says stored')
        assert.ok(outcome.error.retryable)
        assert.equal(outcome.error.code === 'UNKNOWN_OUTCOME', outcome.kind === 'unknown')
        assert.ok(broker.proxy.bytes - bytes < 1, 'the line was not dead')
        broker.proxy.cut()
        broker.proxy.blackHole(false)
        await within('the publisher', tools.recoveryMs, publishAll(transport, [message(topic, 'a', 1)], ledger, never))
        const worker = startWorker(transport, topic, group, ({ message: { id } }) => void ledger.arrived.push(id))
        await untilArrived(ledger, tools.recoveryMs)
        await worker.leave()
        if (outcome.kind === 'rejected') assert.ok(!ledger.arrived.includes(cut.id), 'it was rejected, and arrived')
        return outcome.kind
      } finally {
        broker.proxy.heal()
        await transport.close()
      }
    },
  },
  {
    check: 'rebalance-storm',
    name: 'members 1, 3, 2, 5, 1 under load: none lost, order holds after an inbox',
    requires: needsLastingBroker,
    run: (broker, tools) =>
      underLoad(broker, tools, 10_000, async ({ join, progress }) => {
        const members: { readonly transport: Transport; readonly worker: Worker }[] = []
        for (const count of [1, 3, 2, 5, 1]) {
          while (members.length < count) {
            const transport = await broker.connect()
            members.push({ transport, worker: join(transport) })
          }
          while (members.length > count) {
            const { transport, worker } = members.shift()!
            await within('a member to leave', ANSWER_MS, worker.leave())
            await transport.close()
          }
          await progress()
          await delay(STORM_MS)
        }
        return ''
      }),
  },
  {
    check: 'broker-restart',
    name: 'a restart and a kill of the broker during 10,000 messages: none lost, order holds after an inbox',
    requires: needsLastingBroker,
    run: (broker, tools) =>
      underLoad(broker, tools, 10_000, async ({ join, progress, ledger }) => {
        join()
        const recoveries: string[] = []
        try {
          for (const mode of ['graceful', 'kill'] as const) {
            const before = ledger.arrived.length
            await until('the load to be under way', tools.recoveryMs, () => ledger.arrived.length > before + 1000)
            await broker.stop(mode)
            await until(
              'a publish to miss the broker',
              tools.recoveryMs,
              () => ledger.repeated.rejected + ledger.repeated.unknown > recoveries.length,
            )
            await broker.start()
            recoveries.push(`${mode} ${seconds(await progress())}`)
          }
        } finally {
          await broker.start()
        }
        return `recovery ${recoveries.join(', ')}`
      }),
  },
  {
    check: 'tcp-cut-blackhole',
    name: 'a reset line, 30 s of black hole and a half-open line: none lost, nobody is stuck',
    requires: needsLastingBroker,
    run: (broker, tools) =>
      underLoad(broker, tools, 10_000, async ({ join, progress, ledger }) => {
        const { proxy } = broker
        join()
        const recoveries: string[] = []
        const strike = async (fault: string, hurt: () => Promise<void> | void): Promise<void> => {
          const before = ledger.arrived.length
          await until('the load to be under way', tools.recoveryMs, () => ledger.arrived.length > before + 200)
          await hurt()
          recoveries.push(`${fault} ${seconds(await progress())}`)
        }
        try {
          await strike('cut', () => assert.ok(proxy.cut() > 0, 'no connection was cut'))
          await strike('black hole', async () => {
            proxy.blackHole(true)
            await delay(BLACK_HOLE_MS)
            proxy.blackHole(false)
          })
          await strike('half-open', () => assert.ok(proxy.halfClose() > 0, 'no connection was half-closed'))
        } finally {
          proxy.heal()
        }
        return `recovery ${recoveries.join(', ')}`
      }),
  },
  {
    check: 'signals-match-ledger',
    name: 'lag is what was published and not settled; a broker that is gone is said within 5 s, and that it is back',
    requires: needsBroker,
    async run(broker, tools) {
      const [topic, group] = [tools.topic(), tools.group()]
      const states: string[] = []
      const transport = await broker.connect((event: WaybillEvent) => {
        if (event.type === 'transport.changed') states.push(event.to)
      })
      const stop = new AbortController()
      try {
        await transport.declareGroups([{ topic, group }])
        const deliveries = transport.subscribe({ topics: [topic], group, batchMax: 10 }, stop.signal)[Symbol.asyncIterator]()
        const { keeps = true } = transport.capabilities
        const first = deliveries.next()
        first.catch(() => undefined)
        if (keeps) await lagMatches(transport, topic, group, deliveries, first)
        const down = until('the broker to be missed', SIGNAL_MS, () => states.at(-1) === 'down')
        await broker.stop('kill')
        const downMs = await down
        await broker.start()
        const upMs = await until('the broker to be found again', tools.recoveryMs, () => states.at(-1) === 'up')
        return `down after ${seconds(downMs)}, up after ${seconds(upMs)}`
      } finally {
        await broker.start()
        stop.abort()
        await transport.close()
      }
    },
  },
]

async function lagMatches(
  transport: Transport,
  topic: string,
  group: string,
  deliveries: AsyncIterator<readonly Delivery[]>,
  first: Promise<IteratorResult<readonly Delivery[]>>,
): Promise<void> {
  const { admin } = transport
  if (admin === undefined) return
  await publishAll(transport, messages(topic, keysNamed(5), 20), createLedger(), never)
  const lag = async (): Promise<number | undefined> => {
    const [report] = await admin.topics([topic], never)
    return report?.groups.find((each) => each.group === group)?.lag
  }
  await until('a lag of 100', ANSWER_MS, async () => (await lag()) === 100)
  let left = 100
  for (let pulled = await first; ; pulled = await deliveries.next()) {
    assert.ok(pulled.done !== true)
    for (const delivery of pulled.value) await delivery.ack()
    left -= pulled.value.length
    if (left <= 60) break
  }
  await until(`a lag of ${left}`, ANSWER_MS, async () => (await lag()) === left)
}
