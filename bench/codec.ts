import { randomUUID } from 'node:crypto'
import { CloudEvent, HTTP } from 'cloudevents'
import { v7 } from 'uuid-14'
import { defineEvent, envelopeOf, jsonCodec, type MessageEnvelope, newId } from 'waybill'
import type { Contender, Row } from './harness.ts'

const OrderPlaced = defineEvent<Order>('order.OrderPlaced', { aggregate: { type: 'order', id: (order) => order.orderId }, topic: 'order' })
interface Order {
  readonly orderId: string
  readonly customer: string
  readonly country: string
  readonly lines: readonly { readonly code: string; readonly quantity: number; readonly pence: number }[]
}
const PAYLOAD: Order = {
  orderId: '536365',
  customer: '17850',
  country: 'United Kingdom',
  lines: [
    { code: '85123A', quantity: 6, pence: 255 },
    { code: '71053', quantity: 6, pence: 339 },
    { code: '84406B', quantity: 8, pence: 275 },
  ],
}

let seen = 0
const each =
  (work: () => number): Contender['run'] =>
  (operations) => {
    let sum = 0
    for (let i = 0; i < operations; i++) sum += work()
    seen += sum
  }

const REQUIRED = ['event_id', 'event_type', 'occurred_at', 'source'] as const
function parseAndCheck(body: Uint8Array): MessageEnvelope {
  const value = JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8')) as Record<string, unknown>
  for (const name of REQUIRED) if (typeof value[name] !== 'string') throw new Error(`${name} is missing`)
  if (!('payload' in value)) throw new Error('payload is missing')
  return value as unknown as MessageEnvelope
}

/** Rows C: envelope codec and ids. */
export function codecRows(): readonly Row[] {
  const codec = jsonCodec()
  const envelope = envelopeOf(OrderPlaced(PAYLOAD), 'shop', 'sales')
  const encoded = codec.encode(envelope)
  const event = new CloudEvent({
    id: envelope.event_id,
    type: envelope.event_type,
    source: envelope.source,
    time: envelope.occurred_at,
    subject: PAYLOAD.orderId,
    correlationid: envelope.event_id,
    data: PAYLOAD,
  })
  const structured = HTTP.structured(event)
  const wire = { headers: structured.headers, body: structured.body as string }
  const routes = new Map<string | undefined, number>([[OrderPlaced.type, 1]])
  return [
    {
      id: 'C1',
      title: 'encode an envelope to bytes',
      contenders: [
        { name: 'waybill', role: 'toolkit', run: each(() => codec.encode(envelope).body.length) },
        { name: 'JSON.stringify', role: 'floor', run: each(() => Buffer.from(JSON.stringify(envelope)).length) },
        {
          name: 'cloudevents',
          role: 'peer',
          run: each(() => {
            const built = new CloudEvent({
              id: envelope.event_id,
              type: envelope.event_type,
              source: envelope.source,
              time: envelope.occurred_at,
              subject: PAYLOAD.orderId,
              correlationid: envelope.event_id,
              data: PAYLOAD,
            })
            return Buffer.from(HTTP.structured(built).body as string).length
          }),
        },
      ],
      targets: [
        { against: 'JSON.stringify', atLeast: 1.4 },
        { against: 'cloudevents', atLeast: 3.5 },
      ],
      note: 'Waybill also makes the headers, and looks through the whole payload for what would not come back equal (NaN, BigInt, cycles, lone surrogates ...); plain JSON.stringify alters or drops these silently.',
    },
    {
      id: 'C2',
      title: 'decode an envelope from bytes',
      contenders: [
        { name: 'waybill', role: 'toolkit', run: each(() => codec.decode(encoded).event_id.length) },
        { name: 'JSON.parse + check', role: 'floor', run: each(() => parseAndCheck(encoded.body).event_id.length) },
        { name: 'cloudevents', role: 'peer', run: each(() => (HTTP.toEvent(wire) as CloudEvent<unknown>).id.length) },
      ],
      targets: [
        { against: 'JSON.parse + check', atLeast: 0.9 },
        { against: 'cloudevents', atLeast: 10 },
      ],
    },
    {
      id: 'C3',
      title: 'route a message by its headers, the body left alone',
      contenders: [
        {
          name: 'waybill headers',
          role: 'toolkit',
          run: each(() => routes.get(encoded.headers['event_type']) ?? 0),
        },
        {
          name: 'JSON.parse + check',
          role: 'floor',
          run: each(() => routes.get(parseAndCheck(encoded.body).event_type) ?? 0),
        },
      ],
      targets: [{ against: 'JSON.parse + check', atLeast: 50 }],
      note: 'The wire carries event_type in a header for this. The aim is 50 million a second on the machine of the first measurement.',
    },
    {
      id: 'C4',
      title: 'ids',
      contenders: [
        { name: 'waybill newId (v7)', role: 'toolkit', run: each(() => newId().length) },
        { name: 'crypto.randomUUID (v4)', role: 'floor', run: each(() => randomUUID().length) },
        { name: 'uuid v7', role: 'peer', run: each(() => v7().length) },
      ],
      targets: [
        { against: 'crypto.randomUUID (v4)', atLeast: 1.2 },
        { against: 'uuid v7', atLeast: 20 },
      ],
    },
  ]
}

export const seenSoFar = (): number => seen
