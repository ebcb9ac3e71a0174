import { once } from 'node:events'
import { type Message, newId } from 'waybill'
import { pulsarTransport } from 'waybill/pulsar'
import { ownServer } from 'waybill-services'
import { WebSocket } from 'ws'
import type { Row } from '../harness.ts'
import { type Bench, benchOf } from '../report.ts'
import { consume, messagesOf, publishBatches } from './messages.ts'

const COUNT = 20_000
const BATCH = 1_000
const CALLERS = 4
/** As many as the callers have on their way together. */
const WINDOW = CALLERS * BATCH
const RECEIVE_QUEUE = 1_000
const IDS = ['P1', 'P2']

/** Rows P on a Pulsar broker that is started for them, over its WebSocket API. */
export async function pulsarBenches(
  stack: AsyncDisposableStack,
  wanted: (id: string) => boolean,
): Promise<{ readonly benches: readonly Bench[]; readonly about?: string }> {
  if (!IDS.some(wanted)) return { benches: [] }
  const server = await ownServer('pulsar')
  stack.defer(() => server.close())
  const webSocketUrl = server.extra['webSocketUrl']!
  const transport = await pulsarTransport({
    provider: 'websocket',
    serviceUrl: server.url,
    webSocketUrl,
    adminUrl: server.extra['adminUrl']!,
  })
  stack.defer(() => transport.close())
  const stage: Stage = { webSocketUrl, transport }
  return {
    benches: [benchOf(publishRow(stage)), benchOf(consumeRow(stage))],
    about: `Pulsar ${server.version} standalone on the same machine, over its WebSocket API`,
  }
}

interface Stage {
  readonly webSocketUrl: string
  readonly transport: Awaited<ReturnType<typeof pulsarTransport>>
}

let topics = 0
const newTopic = (): string => `bench.t${++topics}`

/** The API by hand: JSON with the body in base64, up to `WINDOW` without an answer. */
async function sendByHand({ webSocketUrl }: Stage, topic: string, messages: readonly Message[]): Promise<void> {
  const count = messages.length
  const socket = new WebSocket(
    `${webSocketUrl}/ws/v2/producer/persistent/public/default/${topic}?batchingEnabled=false&maxPendingMessages=${2 * WINDOW}`,
  )
  await once(socket, 'open')
  await new Promise<void>((resolve, reject) => {
    let sent = 0
    let answered = 0
    const fill = (): void => {
      while (sent < count && sent - answered < WINDOW) {
        const { key, headers, body } = messages[sent]!
        socket.send(JSON.stringify({ payload: Buffer.from(body).toString('base64'), key, properties: headers, context: String(sent) }))
        sent++
      }
    }
    socket.on('message', (data: Buffer) => {
      if (!data.includes('"ok"')) return reject(new Error(data.toString()))
      if (++answered === count) return resolve()
      fill()
    })
    fill()
  })
  socket.close()
  await once(socket, 'close')
}

function publishRow(stage: Stage): Row {
  let topic = ''
  let messages: ReturnType<typeof messagesOf> = []
  return {
    id: 'P1',
    title: 'Pulsar: publish, each ack checked',
    operations: COUNT,
    rounds: 5,
    warmups: 3,
    contenders: [
      {
        name: 'waybill',
        role: 'toolkit',
        prepare: async (count) => void (messages = messagesOf(newTopic(), count)),
        run: () => publishBatches(stage.transport, messages, BATCH, CALLERS),
      },
      {
        name: `WebSocket API by hand, ${WINDOW} in flight`,
        role: 'floor',
        prepare(count) {
          topic = newTopic()
          messages = messagesOf(topic, count)
        },
        run: () => sendByHand(stage, topic, messages),
      },
    ],
    targets: [{ against: `WebSocket API by hand, ${WINDOW} in flight`, atLeast: 0.9 }],
  }
}

function consumeRow(stage: Stage): Row {
  let topic = ''
  const fill = async (count: number): Promise<void> => {
    topic = newTopic()
    await stage.transport.declareGroups([{ topic, group: 'bench/consume' }])
    await publishBatches(stage.transport, messagesOf(topic, count), BATCH, CALLERS)
  }
  return {
    id: 'P2',
    title: 'Pulsar: consume in a Key_Shared subscription and ack, handler does nothing',
    operations: COUNT,
    rounds: 5,
    warmups: 3,
    contenders: [
      { name: 'waybill', role: 'toolkit', prepare: fill, run: (count) => consume(stage.transport, topic, 'bench/consume', count) },
      {
        name: 'WebSocket API by hand',
        role: 'floor',
        prepare: fill,
        async run(count) {
          const options = `subscriptionType=Key_Shared&subscriptionInitialPosition=Earliest&receiverQueueSize=${RECEIVE_QUEUE}`
          const socket = new WebSocket(`${stage.webSocketUrl}/ws/v2/consumer/persistent/public/default/${topic}/${newId()}?${options}`)
          let seen = 0
          await new Promise<void>((resolve) => {
            socket.on('message', (data: Buffer) => {
              const { messageId } = JSON.parse(data.toString()) as { messageId: string }
              socket.send(JSON.stringify({ messageId }))
              if (++seen === count) resolve()
            })
          })
          socket.close()
          await once(socket, 'close')
        },
      },
    ],
    targets: [{ against: 'WebSocket API by hand', atLeast: 0.9 }],
  }
}
