import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Message, type MessageEnvelope, jsonCodec } from 'waybill'

const codec = jsonCodec()

/** A message with an event, as a bus publishes it. */
export function eventMessage(topic: string, key: string, payload: unknown, more: Partial<MessageEnvelope> = {}): Message {
  const id = more.event_id ?? `${topic}-${key}-${JSON.stringify(payload).length}`
  const envelope: MessageEnvelope = {
    event_id: id,
    event_type: topic,
    occurred_at: '2026-11-21T15:40:41.666Z',
    source: 'test',
    version: 1,
    aggregate_id: key,
    payload,
    ...more,
  }
  return { id, topic, key, ...codec.encode(envelope) }
}

/**
 * A module for `--transport`: the memory transport, holding `messages`, with `extra` (JavaScript) over it, where `memory` is the transport, `publish(list)`
 * publishes, and `message(n)` is the nth of `messages`. Its deliveries can't be settled: whoever tries fails.
 */
export function memoryModule(folder: string, name: string, messages: readonly Message[], extra = ''): string {
  const path = join(folder, `${name}.mjs`)
  const list = messages.map(({ body, ...rest }) => ({ ...rest, body: Buffer.from(body).toString('base64') }))
  writeFileSync(
    path,
    `import { existsSync, writeFileSync } from 'node:fs'
import { memoryTransport, WaybillError } from ${JSON.stringify(import.meta.resolve('waybill'))}

const messages = ${JSON.stringify(list)}.map((one) => ({ ...one, body: Buffer.from(one.body, 'base64') }))
const message = (n) => messages[n]

export async function createTransport() {
  const memory = memoryTransport({ acknowledge: 'stored' })
  const publish = async (list) => {
    const outcomes = await memory.publish(list, new AbortController().signal)
    if (outcomes.some(({ kind }) => kind !== 'stored')) throw new Error('not stored: ' + JSON.stringify(outcomes))
  }
  const never = () => { throw new Error('a tail settles nothing') }
  const transport = {
    ...memory,
    async *subscribe(source, signal) {
      if (source.group !== undefined) throw new Error('a tail joins no group')
      for await (const deliveries of memory.subscribe(source, signal))
        yield deliveries.map((delivery) => ({ ...delivery, ack: never, release: never, retry: never }))
    },
  }
  ${extra.includes('await publish(') ? '' : 'await publish(messages)'}
  ${extra}
  return transport
}
`,
  )
  return path
}
