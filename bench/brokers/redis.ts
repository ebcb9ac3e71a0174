import { Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { redisTransport } from 'waybill/redis'
import { ownServer } from 'waybill-services'
import type { Row } from '../harness.ts'
import { type LatencyRow, latencyBench } from '../latency.ts'
import { type Bench, benchOf } from '../report.ts'
import { consume, messageOf, messagesOf, publishBatches, publishEach, timed, waybillIdle } from './messages.ts'
import { encodeCommand, openRedisSocket } from './redis-socket.ts'

const COUNT = 50_000
const BULL_COUNT = 5_000
const CHUNK = 5_000
const IDS = ['D1', 'D2', 'D3']

/** Rows D on a Redis server that is started for them. */
export async function redisBenches(
  stack: AsyncDisposableStack,
  wanted: (id: string) => boolean,
): Promise<{ readonly benches: readonly Bench[]; readonly about?: string }> {
  if (!IDS.some(wanted)) return { benches: [] }
  const server = await ownServer('redis', { settings: { appendonly: 'no' } })
  stack.defer(() => server.close())
  const connection = { host: server.host, port: server.port, maxRetriesPerRequest: null }
  const socket = await openRedisSocket(server.host, server.port)
  stack.defer(() => socket.close())
  const official = await openOfficial(server.url)
  stack.defer(() => official.close())
  const io = new Redis(connection)
  stack.defer(() => {
    io.disconnect()
  })
  const transport = await redisTransport({ url: server.url })
  stack.defer(() => transport.close())
  const stage: Stage = { socket, official, io, transport, connection }
  return {
    benches: [benchOf(publishRow(stack, stage)), benchOf(await consumeRow(stack, stage)), latencyBench(idleRow(stage))],
    about: `Redis ${server.version} on the same machine, over TCP, appendonly no`,
  }
}

const openOfficial = (url: string) => createClient({ url }).connect()
type Official = Awaited<ReturnType<typeof openOfficial>>

interface Stage {
  readonly socket: Awaited<ReturnType<typeof openRedisSocket>>
  readonly official: Official
  readonly io: Redis
  readonly transport: Awaited<ReturnType<typeof redisTransport>>
  readonly connection: { readonly host: string; readonly port: number; readonly maxRetriesPerRequest: null }
}

const FIELDS = ['h', 'b'] as const
const fieldsOf = (i: number) => {
  const { headers, body } = messageOf('order', i)
  return { h: JSON.stringify(headers), b: body }
}

/** Empties the server before each run, so that none pays for what another has left. */
const cleared = (stage: Stage) => async (): Promise<void> => void (await stage.official.flushDb())

function publishRow(stack: AsyncDisposableStack, stage: Stage): Row {
  const { socket, official, io, transport, connection } = stage
  const messages = messagesOf('order', COUNT)
  const encoded = messages.map(({ headers, body }) => encodeCommand(['XADD', 'floor', '*', 'h', JSON.stringify(headers), 'b', body]))
  const queue = new Queue('bench', { connection })
  stack.defer(() => queue.close())
  const prepare = cleared(stage)
  return {
    id: 'D1',
    title: 'Redis Streams: publish, each awaited by its caller',
    operations: COUNT,
    rounds: 5,
    warmups: 3,
    contenders: [
      { name: 'waybill', role: 'toolkit', prepare, run: (count) => publishEach(transport, count, (i) => messages[i]!) },
      {
        name: 'waybill, JSON encoded per event',
        role: 'toolkit',
        prepare,
        run: (count) => publishEach(transport, count, (i) => messageOf('order', i)),
      },
      {
        name: 'raw socket, pipelined, encoded before',
        role: 'floor',
        prepare,
        async run(count) {
          for (let at = 0; at < count; at += CHUNK)
            await socket.send(Buffer.concat(encoded.slice(at, at + CHUNK)), Math.min(CHUNK, count - at))
        },
      },
      {
        name: 'redis, xAdd',
        role: 'peer',
        prepare,
        async run(count) {
          for (let at = 0; at < count; at += CHUNK)
            await Promise.all(
              Array.from({ length: Math.min(CHUNK, count - at) }, (_, i) => {
                const { h, b } = fieldsOf(at + i)
                return official.xAdd('peer', '*', { h, b: Buffer.from(b) })
              }),
            )
        },
      },
      {
        name: 'ioredis, xadd',
        role: 'peer',
        prepare,
        async run(count) {
          for (let at = 0; at < count; at += CHUNK)
            await Promise.all(
              Array.from({ length: Math.min(CHUNK, count - at) }, (_, i) => {
                const { h, b } = fieldsOf(at + i)
                return io.xadd('peer', '*', FIELDS[0], h, FIELDS[1], Buffer.from(b))
              }),
            )
        },
      },
      {
        name: 'BullMQ, add',
        role: 'peer',
        prepare,
        operations: BULL_COUNT,
        rounds: 3,
        async run(count) {
          await Promise.all(Array.from({ length: count }, (_, i) => queue.add('order', { pence: i, note: 'x'.repeat(200) })))
        },
      },
    ],
    targets: [
      { against: 'raw socket, pipelined, encoded before', atLeast: 0.7 },
      { of: 'waybill, JSON encoded per event', against: 'raw socket, pipelined, encoded before', atLeast: 0.45 },
      { against: 'BullMQ, add', atLeast: 10 },
    ],
    note: 'A message has about 300 bytes. BullMQ keeps a state per job, delays and retries besides.',
  }
}

async function consumeRow(stack: AsyncDisposableStack, stage: Stage): Promise<Row> {
  const { socket, transport, connection, official } = stage
  const messages = messagesOf('order', COUNT)
  let group = 0
  const queue = new Queue('consumed', { connection })
  stack.defer(() => queue.close())
  return {
    id: 'D2',
    title: 'Redis Streams: consume in a group and ack, handler does nothing',
    operations: COUNT,
    rounds: 5,
    warmups: 3,
    contenders: [
      {
        name: 'waybill',
        role: 'toolkit',
        async prepare(count) {
          await official.flushDb()
          await transport.declareGroups([{ topic: 'order', group: `bench/g${++group}` }])
          await publishBatches(transport, messages.slice(0, count), 1_000, 2)
        },
        run: (count) => consume(transport, 'order', `bench/g${group}`, count),
      },
      {
        name: 'raw socket, XRANGE of 1,000',
        role: 'floor',
        async prepare(count) {
          await official.flushDb()
          const commands = messages
            .slice(0, count)
            .map(({ headers, body }) => encodeCommand(['XADD', 'floor', '*', 'h', JSON.stringify(headers), 'b', body]))
          for (let at = 0; at < count; at += CHUNK)
            await socket.send(Buffer.concat(commands.slice(at, at + CHUNK)), Math.min(CHUNK, count - at))
        },
        async run(count) {
          let from = '-'
          for (let done = 0; done < count; done += 1_000) {
            const reply = await socket.ask(encodeCommand(['XRANGE', 'floor', from, '+', 'COUNT', '1000']), rangeReader())
            from = `(${lastId(reply)}`
          }
        },
      },
      {
        name: 'BullMQ, process',
        role: 'peer',
        operations: BULL_COUNT,
        rounds: 3,
        async prepare(count) {
          await official.flushDb()
          await queue.addBulk(Array.from({ length: count }, (_, i) => ({ name: 'order', data: { pence: i, note: 'x'.repeat(200) } })))
        },
        async run(count) {
          let seen = 0
          const done = Promise.withResolvers<void>()
          const worker = new Worker('consumed', async () => void (++seen === count && done.resolve()), { connection, concurrency: 200 })
          await done.promise
          await worker.close()
        },
      },
    ],
    targets: [
      { against: 'raw socket, XRANGE of 1,000', atLeast: 0.5 },
      { against: 'BullMQ, process', atLeast: 15 },
    ],
    note: 'The floor reads without a group and acks nothing.',
  }
}

/**
 * Tells when a reply of N entries is whole: it ends with the last body and CRLF. Asked again when more has come, it goes on where it was, so that the floor
 * pays for each byte once.
 */
function rangeReader(): (reply: Buffer) => boolean {
  let at = 0
  /** Strings that are still to come: of each entry its id and four more. */
  let left: number | undefined
  return (reply) => {
    for (;;) {
      const end = reply.indexOf(13, at)
      if (end === -1) return false
      const size = Number(reply.toString('latin1', at + 1, end))
      if (reply[at] !== 0x24) {
        // The head of all, or of one entry, or of its fields.
        left ??= size * 5
        at = end + 2
        continue
      }
      const next = end + 4 + size
      if (next > reply.length) return false
      at = next
      if (--left! === 0) return true
    }
  }
}

function lastId(reply: Buffer): string {
  const at = reply.lastIndexOf('*4\r\n')
  const end = reply.lastIndexOf('\r\n', at - 1)
  const start = reply.lastIndexOf('\r\n', end - 1) + 2
  return reply.toString('latin1', start, end)
}

function idleRow({ transport, connection, official }: Stage): LatencyRow {
  return {
    id: 'D3',
    title: 'Redis Streams: from publish to the handler, idle',
    rounds: 3,
    contenders: [
      {
        name: 'waybill',
        role: 'toolkit',
        samples: 60,
        open: () => waybillIdle(transport),
      },
      {
        name: 'BullMQ',
        role: 'peer',
        samples: 60,
        async open() {
          const queue = new Queue('idle', { connection })
          let onHandled = (): void => {}
          const worker = new Worker('idle', async () => onHandled(), { connection })
          await worker.waitUntilReady()
          return {
            sample: () => timed((done) => ((onHandled = done), queue.add('order', { pence: 1, note: 'x'.repeat(200) }))),
            close: () => Promise.all([worker.close(), queue.close()]),
          }
        },
      },
      {
        name: 'XADD and a blocking XREAD',
        role: 'floor',
        samples: 60,
        async open() {
          const reader = await official.duplicate().connect()
          let onHandled = (): void => {}
          let stopped = false
          const reading = (async () => {
            let from = '$'
            while (!stopped) {
              const found = (await reader.xRead({ key: 'idle-floor', id: from }, { BLOCK: 1_000, COUNT: 10 })) as
                | { readonly messages: readonly { readonly id: string }[] }[]
                | null
              const last = found?.[0]?.messages.at(-1)
              if (last === undefined) continue
              from = last.id
              onHandled()
            }
          })()
          return {
            sample: () => timed((done) => ((onHandled = done), official.xAdd('idle-floor', '*', { b: 'x'.repeat(300) }))),
            async close() {
              stopped = true
              await reading
              await reader.close()
            },
          }
        },
      },
    ],
    targets: [
      { of: 'waybill', against: 'BullMQ', atMost: 1 },
      { of: 'waybill', against: 'XADD and a blocking XREAD', atMost: 2 },
    ],
    note: 'Gaps of 30 to 330 ms in between, so that all have fallen asleep.',
  }
}
