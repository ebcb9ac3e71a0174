import { type Message, newId, type Transport } from 'waybill'
import { envelopeOf } from '../events.ts'

const text = new TextEncoder()
const never = new AbortController().signal
/** Callers at the same time, each of which asks again when it has its answer. */
const CALLERS = 2_000
/** Arrays whose acks may be on their way. */
const ACKING_MAX = 4

/** `count` messages of about 300 bytes, in turn of 1,000 keys. */
export function messagesOf(topic: string, count: number, keys = 1_000): readonly Message[] {
  return Array.from({ length: count }, (_, i) => messageOf(topic, i, keys))
}

/** One of them, encoded now. */
export function messageOf(topic: string, i: number, keys = 1_000): Message {
  const id = newId()
  return {
    id,
    topic,
    key: `customer-${i % keys}`,
    headers: { event_id: id, event_type: 'order.OrderPlaced', content_type: 'application/json' },
    body: text.encode(JSON.stringify(envelopeOf(id, i))),
  }
}

/** Each message by a call of its own, each awaited; many callers at once. */
export async function publishEach(transport: Transport, count: number, messageAt: (i: number) => Message): Promise<void> {
  let next = 0
  const caller = async (): Promise<void> => {
    while (next < count) await publishOne(transport, messageAt(next++))
  }
  await Promise.all(Array.from({ length: Math.min(count, CALLERS) }, caller))
}

async function publishOne(transport: Transport, message: Message): Promise<void> {
  const [outcome] = await transport.publish([message], never)
  if (outcome?.kind !== 'stored') throw new Error(`not stored: ${outcome?.error.message}`)
}

/** In batches, as a relay does, `inFlight` at a time. */
export async function publishBatches(transport: Transport, messages: readonly Message[], size: number, inFlight: number): Promise<void> {
  let at = 0
  const worker = async (): Promise<void> => {
    while (at < messages.length) {
      const batch = messages.slice(at, (at += size))
      const outcomes = await transport.publish(batch, never)
      for (const outcome of outcomes) if (outcome.kind !== 'stored') throw new Error(`not stored: ${outcome.error.message}`)
    }
  }
  await Promise.all(Array.from({ length: inFlight }, worker))
}

/**
 * Reads `count` messages in a group and acks them, each array's together; looks at a header of each, as routing does. As the keyed workers do, it goes on
 * while acks are on their way, and awaits them all.
 */
export async function consume(transport: Transport, topic: string, group: string, count: number): Promise<void> {
  const stop = new AbortController()
  const acking: Promise<unknown>[] = []
  let seen = 0
  for await (const deliveries of transport.subscribe({ topics: [topic], group, batchMax: 1_000 }, stop.signal)) {
    for (const { message } of deliveries) if (message.headers['event_type'] !== undefined) seen++
    acking.push(Promise.all(deliveries.map((delivery) => delivery.ack())))
    if (acking.length >= ACKING_MAX) await acking.shift()
    if (seen >= count) break
  }
  await Promise.all(acking)
  stop.abort()
}

/** A group that waits for one message after the other, for rows of latency. */
export async function waybillIdle(transport: Transport) {
  const [topic, group] = ['idle', `bench/idle${Date.now()}`]
  await transport.declareGroups([{ topic, group }])
  const stop = new AbortController()
  let onHandled = (): void => {}
  const reading = (async () => {
    for await (const deliveries of transport.subscribe({ topics: [topic], group }, stop.signal)) {
      onHandled()
      for (const delivery of deliveries) await delivery.ack()
    }
  })()
  return {
    sample: () =>
      timed((done) => {
        onHandled = done
        return publishEach(transport, 1, (i) => messageOf(topic, i))
      }),
    async close() {
      stop.abort()
      await reading
    },
  }
}

/** Milliseconds from the call of `send` until what it was given is called. */
export function timed(send: (done: () => void) => Promise<unknown>): Promise<number> {
  return new Promise((resolve, reject) => {
    const started = performance.now()
    send(() => resolve(performance.now() - started)).catch(reject)
  })
}
