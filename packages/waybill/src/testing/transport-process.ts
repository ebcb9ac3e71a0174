import { writeSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { Delivery, Transport } from '../core/transport.ts'
import { createLedger, publishAll } from './transport-load.ts'
import { messages, numberOf } from './transport-tools.ts'

// One process of the checks that kill processes: node transport-process.ts '{"role": ...}'. Says what it does in lines on stdout, each by one
// synchronous write, so that what was said before a SIGKILL is there.

/** What a process is told. */
export interface ProcessOptions {
  readonly role: 'consumer' | 'slow-consumer' | 'producer' | 'closer'
  /** Exports `connect(target): Promise<Transport>`. */
  readonly module: string
  readonly target: unknown
  readonly topic: string
  readonly group: string
  readonly keys: readonly string[]
  /** Messages of each key. */
  readonly count: number
}

const BATCH = 100
const HANDLER_MS = 10
const CONCURRENCY = 200
const HELD_MAX = 1000
/** Handled until the base is taken. What grows with the backlog grows on. */
const WARM = 2_000
const SAMPLE_MS = 250
const MIB = 1024 * 1024

const options = JSON.parse(process.argv[2] ?? '{}') as ProcessOptions
const say = (line: string): void => void writeSync(1, `${line}\n`)
const forever = new AbortController()

async function connect(): Promise<Transport> {
  const { connect: open } = (await import(options.module)) as { readonly connect: (target: unknown) => Promise<Transport> }
  return open(options.target)
}

/** `handled ID KEY NUMBER` once it has had its effect, before it is acked. */
async function consume(transport: Transport): Promise<void> {
  const { topic, group } = options
  for await (const deliveries of transport.subscribe({ topics: [topic], group, batchMax: BATCH }, forever.signal)) {
    for (const { message, assignment } of deliveries)
      if (!assignment.signal.aborted) say(`handled ${message.id} ${message.key} ${numberOf(message)}`)
    await Promise.all(deliveries.map((delivery) => delivery.ack().catch((error: unknown) => say(`trouble ${String(error)}`))))
  }
}

/** `stored ID KEY NUMBER` once that is known. */
async function produce(transport: Transport): Promise<void> {
  const { topic, keys, count } = options
  const all = messages(topic, keys, count)
  for (let at = 0; at < all.length; at += BATCH) {
    const ledger = createLedger()
    const batch = all.slice(at, at + BATCH)
    await publishAll(transport, batch, ledger, forever.signal)
    for (const message of batch) say(`stored ${message.id} ${message.key} ${numberOf(message)}`)
  }
}

/**
 * Works through a backlog with a handler that takes its time; `done RSS_GROWTH_BYTES HELD_MAX BASE_MIB` at the end. Memory is looked at after a
 * collection: what is asked is what is kept, not when an engine gets round to its garbage.
 */
async function consumeSlowly(transport: Transport): Promise<void> {
  const { topic, group, keys, count } = options
  const total = keys.length * count
  const seen = new Set<string>()
  let held = 0
  let heldMost = 0
  let base = 0
  let most = 0
  let working = 0
  /** Those that wait for one of the others to end. */
  const waiting: (() => void)[] = []
  const done = Promise.withResolvers<void>()
  const kept = (): number => {
    globalThis.gc?.()
    return process.memoryUsage.rss()
  }
  const watch = setInterval(() => (most = Math.max(most, kept())), SAMPLE_MS)
  async function handle(delivery: Delivery): Promise<void> {
    // Whoever ends hands its place on.
    if (working >= CONCURRENCY) await new Promise<void>((resolve) => waiting.push(resolve))
    else working++
    await delay(HANDLER_MS)
    const next = waiting.shift()
    if (next === undefined) working--
    else next()
    await delivery.ack()
    held--
    seen.add(delivery.message.id)
    if (seen.size === WARM) base = kept()
    if (seen.size >= total) done.resolve()
  }
  const reading = (async () => {
    for await (const deliveries of transport.subscribe({ topics: [topic], group, batchMax: BATCH }, forever.signal)) {
      held += deliveries.length
      heldMost = Math.max(heldMost, held)
      for (const delivery of deliveries) void handle(delivery)
      while (held >= HELD_MAX) await delay(1)
    }
  })()
  await Promise.race([done.promise, reading])
  clearInterval(watch)
  say(`done ${Math.max(0, most - base)} ${heldMost} ${Math.round(base / MIB)}`)
}

const transport = await connect()
say('ready')
if (options.role === 'consumer') await consume(transport)
else if (options.role === 'producer') {
  await produce(transport)
  say('done')
} else if (options.role === 'slow-consumer') {
  await consumeSlowly(transport)
  forever.abort()
} else {
  // Publishes, reads, closes, and has nothing left that would keep it alive.
  await publishAll(transport, messages(options.topic, options.keys, options.count), createLedger(), forever.signal)
  const deliveries = transport.subscribe({ topics: [options.topic], group: options.group }, forever.signal)[Symbol.asyncIterator]()
  await deliveries.next()
}
if (options.role !== 'consumer') await transport.close()
say('closed')
