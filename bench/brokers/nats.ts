import { AckPolicy, jetstream, jetstreamManager } from '@nats-io/jetstream'
import { type NatsConnection, connect, headers as natsHeaders } from '@nats-io/transport-node'
import type { Message } from 'waybill'
import { natsTransport } from 'waybill/nats'
import { ownServer } from 'waybill-services'
import type { Row } from '../harness.ts'
import { type LatencyRow, latencyBench } from '../latency.ts'
import { type Bench, benchOf } from '../report.ts'
import { consume, messageOf, messagesOf, publishBatches, publishEach, timed, waybillIdle } from './messages.ts'
import { type NatsSocket, openNatsSocket } from './nats-socket.ts'

const COUNT = 50_000
const CLIENT_COUNT = 20_000
const CHUNK = 5_000
const WINDOW = 256
const IDS = ['E1', 'E2', 'E3']

/** Rows E on a NATS server that is started for them. */
export async function natsBenches(
  stack: AsyncDisposableStack,
  wanted: (id: string) => boolean,
): Promise<{ readonly benches: readonly Bench[]; readonly about?: string }> {
  if (!IDS.some(wanted)) return { benches: [] }
  const server = await ownServer('nats')
  stack.defer(() => server.close())
  const client = await connect({ servers: server.url })
  stack.defer(() => client.close())
  const socket = await openNatsSocket(server.host, server.port, 'FLOOR')
  stack.defer(() => socket.close())
  const transport = await natsTransport({ servers: server.url })
  stack.defer(() => transport.close())
  const stage: Stage = { client, socket, transport, clear: () => clear(client) }
  return {
    benches: [benchOf(publishRow(stage)), benchOf(consumeRow(stage)), latencyBench(idleRow(stage))],
    about: `nats-server ${server.version} on the same machine, over TCP, file storage, one replica`,
  }
}

interface Stage {
  readonly client: NatsConnection
  readonly socket: NatsSocket
  readonly transport: Awaited<ReturnType<typeof natsTransport>>
  clear(): Promise<void>
}

/** The floor's own stream, empty; Waybill's topics are new ones each time. */
async function clear(client: NatsConnection): Promise<void> {
  const manager = await jetstreamManager(client)
  await manager.streams.delete('floor').catch(() => undefined)
  await manager.streams.add({ name: 'floor', subjects: ['floor.>'], storage: 'file' })
}

let topics = 0

/** HPUB with a reply subject, as a client would write it. */
function encodePublish(i: number, deduplicated: boolean): Buffer {
  const { id, headers, body } = messageOf('order', i)
  const lines = Object.entries({ ...(deduplicated ? { 'Nats-Msg-Id': id } : {}), ...headers }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  )
  const head = Buffer.from(`NATS/1.0\r\n${lines.join('')}\r\n`)
  return Buffer.concat([
    Buffer.from(`HPUB floor.a FLOOR.${i} ${head.length} ${head.length + body.byteLength}\r\n`),
    head,
    body,
    Buffer.from('\r\n'),
  ])
}

function publishRow({ client, socket, transport, clear: cleared }: Stage): Row {
  const floor = Array.from({ length: COUNT }, (_, i) => encodePublish(i, true))
  // Made anew before each run: the server would store nothing whose id it knows.
  let messages: readonly Message[] = []
  const own = async (count: number): Promise<void> => {
    const topic = `bench.t${++topics}`
    messages = messagesOf(topic, count)
    await transport.declareGroups([{ topic, group: 'bench/none' }])
  }
  let repeats = 0
  return {
    id: 'E1',
    title: 'JetStream: publish, each ack checked, each awaited by its caller',
    operations: COUNT,
    rounds: 5,
    warmups: 3,
    contenders: [
      { name: 'waybill', role: 'toolkit', prepare: own, run: (count) => publishEach(transport, count, (i) => messages[i]!) },
      {
        name: 'raw socket, acks counted, encoded before',
        role: 'floor',
        async prepare() {
          await cleared()
          // Ids of the run before are known: they must be new, or the server stores nothing.
          if (repeats++ > 0) for (let i = 0; i < COUNT; i++) floor[i] = encodePublish(i, true)
        },
        async run(count) {
          for (let at = 0; at < count; at += CHUNK)
            await socket.send(Buffer.concat(floor.slice(at, at + CHUNK)), Math.min(CHUNK, count - at))
        },
      },
      {
        name: `js.publish, ${WINDOW} in flight`,
        role: 'peer',
        operations: CLIENT_COUNT,
        async prepare(count) {
          await cleared()
          messages = messagesOf('order', count)
        },
        async run(count) {
          const js = jetstream(client)
          let at = 0
          const worker = async (): Promise<void> => {
            while (at < count) {
              const { id, headers, body } = messages[at++]!
              const sent = natsHeaders()
              for (const [name, value] of Object.entries(headers)) sent.set(name, value)
              await js.publish('floor.a', body, { msgID: id, headers: sent })
            }
          }
          await Promise.all(Array.from({ length: WINDOW }, worker))
        },
      },
    ],
    targets: [
      { against: 'raw socket, acks counted, encoded before', atLeast: 0.65 },
      { against: `js.publish, ${WINDOW} in flight`, atLeast: 4.5 },
    ],
    note: 'Each message carries an id that the server compares with those of two minutes. Events are made before.',
  }
}

function consumeRow({ client, socket, transport, clear: cleared }: Stage): Row {
  let topic = ''
  const fillFloor = async (count: number): Promise<void> => {
    await cleared()
    const commands = Array.from({ length: count }, (_, i) => encodePublish(i, false))
    for (let at = 0; at < count; at += CHUNK) await socket.send(Buffer.concat(commands.slice(at, at + CHUNK)), Math.min(CHUNK, count - at))
    const manager = await jetstreamManager(client)
    await manager.consumers.add('floor', { durable_name: 'bench', ack_policy: AckPolicy.Explicit, max_ack_pending: -1 })
  }
  return {
    id: 'E2',
    title: 'JetStream: consume and ack, handler does nothing',
    operations: COUNT,
    rounds: 5,
    warmups: 3,
    contenders: [
      {
        name: 'waybill',
        role: 'toolkit',
        async prepare(count) {
          topic = `bench.t${++topics}`
          await transport.declareGroups([{ topic, group: 'bench/consume' }])
          await publishBatches(transport, messagesOf(topic, count), 1_000, 4)
        },
        run: (count) => consume(transport, topic, 'bench/consume', count),
      },
      {
        name: 'raw socket, pull and an ack per message',
        role: 'floor',
        prepare: fillFloor,
        async run(count) {
          let acks: string[] = []
          socket.onMessage = (_, reply) => {
            if (reply === undefined) return
            acks.push(`PUB ${reply} 4\r\n+ACK\r\n`)
            if (acks.length === 100) {
              socket.write(acks.join(''))
              acks = []
            }
          }
          for (let at = 0; at < count; at += 1_000) {
            const next = JSON.stringify({ batch: 1_000, expires: 5_000_000_000 })
            await socket.send(Buffer.from(`PUB $JS.API.CONSUMER.MSG.NEXT.floor.bench FLOOR.next ${next.length}\r\n${next}\r\n`), 1_000)
          }
          socket.write(acks.join(''))
          socket.onMessage = undefined
        },
      },
      {
        name: 'consume(), iterator, ack',
        role: 'peer',
        operations: CLIENT_COUNT,
        prepare: fillFloor,
        async run(count) {
          const consumer = await jetstream(client).consumers.get('floor', 'bench')
          const messages = await consumer.consume({ max_messages: 1_000 })
          let seen = 0
          for await (const message of messages) {
            const isTyped = message.headers?.has('event_type') === true
            message.ack()
            if (isTyped && ++seen === count) break
          }
        },
      },
    ],
    targets: [
      { against: 'raw socket, pull and an ack per message', atLeast: 0.5 },
      { against: 'consume(), iterator, ack', atLeast: 2 },
    ],
    note: 'Waybill and the client look at the type of each message, which is in a header, as routing does; the socket reads no header.',
  }
}

function idleRow({ client, transport, clear: cleared }: Stage): LatencyRow {
  return {
    id: 'E3',
    title: 'JetStream: from publish to the handler, idle',
    rounds: 3,
    contenders: [
      { name: 'waybill', role: 'toolkit', samples: 60, open: () => waybillIdle(transport) },
      {
        name: 'js.publish and consume()',
        role: 'floor',
        samples: 60,
        async open() {
          await cleared()
          const manager = await jetstreamManager(client)
          await manager.consumers.add('floor', { durable_name: 'idle', ack_policy: AckPolicy.Explicit })
          const consumer = await jetstream(client).consumers.get('floor', 'idle')
          let onHandled = (): void => {}
          const messages = await consumer.consume({
            callback(message) {
              onHandled()
              message.ack()
            },
          })
          return {
            sample: () =>
              timed((done) => {
                onHandled = done
                return jetstream(client).publish('floor.a', messageOf('order', 1).body)
              }),
            close: () => messages.close(),
          }
        },
      },
    ],
    targets: [{ of: 'waybill', against: 'js.publish and consume()', atMost: 1.15 }],
    note: 'Gaps of 30 to 330 ms in between.',
  }
}
