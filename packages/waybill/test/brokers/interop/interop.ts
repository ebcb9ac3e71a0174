import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { suite, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { ClientProgram } from '../../../../../services/clients.ts'
import { pgliteStorage } from '../../../src/adapters/postgres/pglite.ts'
import { defineContext, on } from '../../../src/context.ts'
import type { MessageEnvelope } from '../../../src/core/envelope.ts'
import { type DomainEvent, defineEvent } from '../../../src/core/event.ts'
import { newId } from '../../../src/core/ids.ts'
import { until } from '../../../src/testing/contract-tools.ts'
import { type Waybill, createWaybill } from '../../../src/waybill.ts'
import type { BrokerFixture, Target } from '../fixture.ts'

/** What a client of another language has read. */
export interface Seen {
  /** Undefined where the broker knows no keys; it stands in a header then. */
  readonly key: string | null
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** A client that is not ours, used as its users use it. */
export interface ForeignClient {
  readonly name: string
  /** The first message of the topic. `who`: a group that nobody has used. */
  consume(target: Target, topic: string, who: string): Promise<Seen>
  publish(target: Target, topic: string, key: string, body: string): Promise<void>
}

const SCRIPT = fileURLToPath(new URL('clients.py', import.meta.url))
const CLIENT_MS = 60_000

/** Runs a client's program to its end; what it prints. Rejects with what it said where it failed. */
export async function runClient({ program, env }: ClientProgram, args: readonly string[], input = ''): Promise<string> {
  const child = spawn(program, [...args], { env: { ...process.env, ...env }, stdio: ['pipe', 'pipe', 'pipe'], timeout: CLIENT_MS })
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  const [[code, signal], stdout, stderr] = await Promise.all([once(child, 'close'), text(child.stdout), text(child.stderr)])
  assert.equal(code, 0, `${program} ${args.slice(0, 4).join(' ')} ended with ${String(code ?? signal)}: ${stderr.slice(-2_000)}`)
  return stdout
}

/** One of the clients in clients.py. `address` and `place` say where it finds a topic in a target. */
export function pythonClient(
  name: string,
  broker: 'kafka' | 'nats' | 'pulsar',
  python: ClientProgram,
  where: (target: Target, topic: string, what: 'consume' | 'publish') => readonly [address: string, place: string],
): ForeignClient {
  return {
    name,
    async consume(target, topic, who) {
      return JSON.parse(await runClient(python, [SCRIPT, broker, 'consume', ...where(target, topic, 'consume'), who])) as Seen
    },
    async publish(target, topic, key, body) {
      await runClient(python, [SCRIPT, broker, 'publish', ...where(target, topic, 'publish'), key], body)
    },
  }
}

interface Paid {
  readonly orderId: string
  readonly pence: number
}

/** What others read of ours, and we of theirs. */
export function interopTests(broker: BrokerFixture, clients: () => Promise<readonly ForeignClient[]>, names: readonly string[]): void {
  suite(`${broker.name}, other languages`, () => {
    for (const name of names) {
      test(`${name} reads an event that we published, and our handler gets one that it published`, async (t) => {
        const target = await broker.shared()
        if ('skipped' in target && typeof target.skipped === 'string') return t.skip(target.skipped)
        const client = (await clients()).find((each) => each.name === name)
        assert.ok(client !== undefined, `there is no client ${name}`)
        const topic = `interop.t${newId().slice(-12)}`
        const seen: DomainEvent<Paid>[] = []
        await using waybill = await startRoad(broker, target, topic, (event) => seen.push(event))

        await waybill.unitOfWork((unit) => unit.publish(OrderPaid(topic)({ orderId: 'o-1', pence: 1250 })))
        await until('our own handler has it', async () => seen.length === 1)
        const read = await client.consume(target, topic, `reader-${newId().slice(-12)}`)
        const envelope = JSON.parse(read.body) as MessageEnvelope
        assert.equal(envelope.event_type, 'billing.OrderPaid')
        assert.equal(envelope.aggregate_id, 'o-1')
        assert.deepEqual(envelope.payload, { orderId: 'o-1', pence: 1250 })
        assert.equal(envelope.event_id, seen[0]!.id)
        if (read.key !== null) assert.equal(read.key, 'o-1')
        assert.equal(read.headers['event_type'], 'billing.OrderPaid')
        assert.equal(read.headers['event_id'], envelope.event_id)

        const theirs = { ...envelope, event_id: newId(), aggregate_id: 'o-2', source: client.name, payload: { orderId: 'o-2', pence: 7 } }
        await client.publish(target, topic, 'o-2', JSON.stringify(theirs))
        await until('their event is handled', async () => seen.length === 2)
        assert.equal(seen[1]!.id, theirs.event_id)
        assert.deepEqual(seen[1]!.payload, { orderId: 'o-2', pence: 7 })
      })
    }
  })
}

const OrderPaid = (topic: string) =>
  defineEvent<Paid, 'billing.OrderPaid'>('billing.OrderPaid', { aggregate: { type: 'order', id: ({ orderId }) => orderId }, topic })

async function startRoad(
  broker: BrokerFixture,
  target: Target,
  topic: string,
  onPaid: (event: DomainEvent<Paid>) => void,
): Promise<Waybill<'billing.OrderPaid'>> {
  const event = OrderPaid(topic)
  const billing = defineContext('billing', {
    events: [event],
    publish: 'INTER_BC_RELIABLE',
    handlers: { [`read-${topic.slice(-12)}`]: on([event], async (paid) => onPaid(paid)) },
  })
  const waybill = await createWaybill({
    database: await pgliteStorage('memory://'),
    transport: await broker.connect(target),
    contexts: [billing],
    source: 'interop',
  })
  await waybill.start()
  return waybill
}
