import { jetstream } from '@nats-io/jetstream'
import { connect, headers as natsHeaders } from '@nats-io/transport-node'
import { Producer } from '@platformatic/kafka'
import { createClient } from 'redis'
import { createRelay, type OutboxEntry, type Storage, type Transport } from 'waybill'
import { kafkaTransport } from 'waybill/kafka'
import { natsTransport } from 'waybill/nats'
import { postgresStorage } from 'waybill/postgres'
import { pulsarTransport } from 'waybill/pulsar'
import { redisTransport } from 'waybill/redis'
import { ownServer } from 'waybill-services'
import { entriesOf, inBatches } from '../events.ts'
import type { Row } from '../harness.ts'
import { claimFrom, DELETE, insertMany, makeFloorTables } from '../postgres/floor.ts'
import { type Server, startServer } from '../postgres/server.ts'
import { type Bench, benchOf } from '../report.ts'

const COUNT = 20_000
const BATCH = 200
const FILL = 1_000
const TOPIC = 'order'
const BROKERS = ['nats', 'redis', 'kafka', 'pulsar'] as const
type BrokerName = (typeof BROKERS)[number]

interface ClaimedRow {
  readonly id: string
  readonly key: string
  readonly headers: string
  readonly body: Buffer
}

/** One broker, by our transport and by its client's own batch API. */
interface Destination {
  readonly transport: Transport
  readonly byHand: (rows: readonly ClaimedRow[]) => Promise<unknown>
}

/** Rows R: from PostgreSQL to each broker, the whole relay. */
export async function relayBenches(
  stack: AsyncDisposableStack,
  wanted: (id: string) => boolean,
): Promise<{ readonly benches: readonly Bench[]; readonly about?: string }> {
  const names = BROKERS.filter((name) => wanted(`R-${name}`))
  if (names.length === 0) return { benches: [] }
  const server = await startServer()
  stack.defer(() => server.stop())
  await makeFloorTables(server.pool)
  const storage = await postgresStorage(server.url, { poolMax: 30 })
  stack.defer(() => storage.close())
  await storage.migrate()
  const benches: Bench[] = []
  for (const name of names) {
    const destination = await OPEN[name](stack)
    stack.defer(() => destination.transport.close())
    await destination.transport.declareGroups([{ topic: TOPIC, group: 'bench/none' }])
    benches.push(benchOf(relayRow(name, server, storage, destination)))
  }
  return { benches, about: server.description }
}

const OPEN: Readonly<Record<BrokerName, (stack: AsyncDisposableStack) => Promise<Destination>>> = {
  async nats(stack) {
    const server = await ownServer('nats')
    stack.defer(() => server.close())
    const client = await connect({ servers: server.url })
    stack.defer(() => client.close())
    const js = jetstream(client)
    return {
      transport: await natsTransport({ servers: server.url }),
      byHand: (rows) =>
        Promise.all(
          rows.map(({ id, headers, body }) => {
            const sent = natsHeaders()
            for (const [name, value] of Object.entries(JSON.parse(headers) as Record<string, string>)) sent.set(name, value)
            return js.publish(`waybill.${TOPIC}`, body, { msgID: `hand-${id}-${Math.random()}`, headers: sent })
          }),
        ),
    }
  },
  async redis(stack) {
    const server = await ownServer('redis', { settings: { appendonly: 'no' } })
    stack.defer(() => server.close())
    const client = await createClient({ url: server.url }).connect()
    stack.defer(() => client.close())
    return {
      transport: await redisTransport({ url: server.url }),
      byHand(rows) {
        const multi = client.multi()
        for (const { id, key, headers, body } of rows) multi.xAdd('by-hand', '*', { id, key, headers, body })
        return multi.execAsPipeline()
      },
    }
  },
  async kafka(stack) {
    const server = await ownServer('kafka')
    stack.defer(() => server.close())
    const transport = await kafkaTransport({ bootstrapServers: [server.url], partitions: 4 })
    const producer = new Producer<Buffer, Buffer, Buffer, Buffer>({ clientId: 'bench', bootstrapBrokers: [server.url], idempotent: true })
    stack.defer(() => producer.close())
    return {
      transport,
      byHand: (rows) =>
        producer.send({
          acks: -1,
          messages: rows.map(({ key, headers, body }) => ({
            topic: TOPIC,
            key: Buffer.from(key),
            value: body,
            headers: new Map(
              Object.entries(JSON.parse(headers) as Record<string, string>).map(([name, value]) => [Buffer.from(name), Buffer.from(value)]),
            ),
          })),
        }),
    }
  },
  async pulsar(stack) {
    const server = await ownServer('pulsar')
    stack.defer(() => server.close())
    const open = () =>
      pulsarTransport({
        provider: 'websocket',
        serviceUrl: server.url,
        webSocketUrl: server.extra['webSocketUrl']!,
        adminUrl: server.extra['adminUrl']!,
      })
    const other = await open()
    stack.defer(() => other.close())
    const never = new AbortController().signal
    return {
      transport: await open(),
      // There is no other client here: what is compared is the relay's loop alone.
      byHand: (rows) =>
        other.publish(
          rows.map(({ id, key, headers, body }) => ({
            id,
            topic: TOPIC,
            key,
            headers: JSON.parse(headers) as Record<string, string>,
            body,
          })),
          never,
        ),
    }
  },
}

function relayRow(name: BrokerName, server: Server, storage: Storage, { transport, byHand }: Destination): Row {
  const clear = (): Promise<unknown> => server.pool.query('truncate waybill_outbox, floor_outbox')
  const entries = (count: number): readonly OutboxEntry[] => entriesOf(count)
  return {
    id: `R-${name}`,
    title: `the whole relay, PostgreSQL to ${name}`,
    operations: COUNT,
    rounds: 5,
    warmups: 3,
    contenders: [
      {
        name: 'waybill',
        role: 'toolkit',
        async prepare(count) {
          await clear()
          await inBatches(entries(count), FILL, (batch) => storage.database.transaction((sql) => storage.outbox.append(sql, batch)))
          await server.pool.query('analyze waybill_outbox')
        },
        async run(total) {
          const relay = createRelay({ store: storage.outbox, publishers: new Map([['default', transport]]) })
          const published = await relay.publishAllPending()
          if (published !== total) throw new Error(`${published} of ${total} rows were published`)
        },
      },
      {
        name: 'claim, publish, delete by hand',
        role: 'floor',
        async prepare(count) {
          await clear()
          await inBatches(entries(count), FILL, (batch) => insertMany(server.pool, batch))
          await server.pool.query('analyze floor_outbox')
        },
        async run(total) {
          const statement = claimFrom('floor_outbox')
          for (let done = 0; done < total;) {
            const { rows } = await server.pool.query<ClaimedRow>(statement, [BATCH])
            await byHand(rows)
            await server.pool.query(DELETE, [rows.map(({ id }) => id)])
            done += rows.length
          }
        },
      },
    ],
    targets: [{ against: 'claim, publish, delete by hand', atLeast: 0.85 }],
    note: 'By hand with the client’s own batch, one batch after the other; it loses order and rows as soon as there are two of it, or it dies.',
  }
}
