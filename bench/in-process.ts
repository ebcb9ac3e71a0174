import 'reflect-metadata'
import { randomUUID } from 'node:crypto'
import { EventEmitter } from 'node:events'
import { type Event, getInMemoryMessageBus } from '@event-driven-io/emmett'
import { Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { CqrsModule, EventBus, EventsHandler } from '@nestjs/cqrs'
import Emittery from 'emittery'
import { ServiceBroker } from 'moleculer'
import { createEventBus, defineEvent } from 'waybill'
import type { Contender, Row } from './harness.ts'

interface Order {
  readonly orderId: string
  readonly pence: number
}
const PAYLOAD: Order = { orderId: 'o-1', pence: 1250 }
const OrderPlaced = defineEvent<Order>('order.OrderPlaced', { aggregate: { type: 'order', id: (order) => order.orderId }, topic: 'order' })

// Read at the end, so that no engine may leave the handlers' work out.
let handled = 0
export const handledSoFar = (): number => handled
const asyncHandler = () => async (): Promise<void> => void handled++
const syncHandler = () => (): void => void handled++
const many = <T>(count: number, make: () => T): T[] => Array.from({ length: count }, make)

function waybillBus(name: string, handlers: readonly (() => void | Promise<void>)[], readsId = false): Contender {
  const bus = createEventBus()
  for (const handler of handlers) bus.subscribe(OrderPlaced, handler)
  let characters = 0
  const isAsync = handlers[0]!() instanceof Promise
  return {
    name,
    role: 'toolkit',
    run: !isAsync
      ? (operations) => {
          for (let i = 0; i < operations; i++) void bus.emit(OrderPlaced(PAYLOAD))
        }
      : async (operations) => {
          for (let i = 0; i < operations; i++) {
            const event = OrderPlaced(PAYLOAD)
            if (readsId) characters += event.id.length
            const running = bus.emit(event)
            if (running !== undefined) await running
          }
          if (characters < 0) throw new Error('unreachable: keeps the id alive')
        },
  }
}

/** Calls its listeners and forgets them: with async handlers nothing is awaited, which it can't do. The floor. */
function bareEmitter(name: string, handlers: readonly (() => unknown)[]): Contender {
  const emitter = new EventEmitter()
  for (const handler of handlers) emitter.on(OrderPlaced.type, handler)
  return {
    name,
    role: 'floor',
    run(operations) {
      for (let i = 0; i < operations; i++) emitter.emit(OrderPlaced.type, PAYLOAD)
    },
  }
}

/** The envelope that one writes by hand around a bare emitter. */
function emitterWithEnvelope(name: string, handlers: readonly (() => unknown)[]): Contender {
  const emitter = new EventEmitter()
  for (const handler of handlers) emitter.on(OrderPlaced.type, handler)
  return {
    name,
    role: 'floor',
    run(operations) {
      for (let i = 0; i < operations; i++) {
        const event_id = randomUUID()
        emitter.emit(OrderPlaced.type, {
          event_id,
          event_type: OrderPlaced.type,
          occurred_at: new Date().toISOString(),
          source: 'shop',
          correlation_id: event_id,
          version: 1,
          aggregate_id: PAYLOAD.orderId,
          payload: PAYLOAD,
        })
      }
    },
  }
}

function emmett(handlers: readonly (() => void | Promise<void>)[]): Contender {
  type Placed = Event<'order.OrderPlaced', { orderId: string; pence: number }>
  const bus = getInMemoryMessageBus()
  for (const handler of handlers) bus.subscribe<Placed>(handler, 'order.OrderPlaced')
  const data = { ...PAYLOAD }
  return {
    name: 'emmett',
    role: 'peer',
    async run(operations) {
      for (let i = 0; i < operations; i++) await bus.publish<Placed>({ type: 'order.OrderPlaced', data, kind: 'Event' })
    },
  }
}

function emittery(handlers: readonly (() => void | Promise<void>)[]): Contender {
  const emitter = new Emittery<Record<string, Order>>()
  for (const handler of handlers) emitter.on(OrderPlaced.type, handler)
  return {
    name: 'emittery',
    role: 'peer',
    async run(operations) {
      for (let i = 0; i < operations; i++) await emitter.emit(OrderPlaced.type, PAYLOAD)
    },
  }
}

async function moleculer(handlers: readonly (() => void | Promise<void>)[]): Promise<Contender & AsyncDisposable> {
  const broker = new ServiceBroker({ logger: false, skipProcessEventRegistration: true })
  // One service each: an event reaches one member of a group, and the group is the service's name.
  for (const [index, handler] of handlers.entries())
    broker.createService({ name: `orders${index}`, events: { [OrderPlaced.type]: { handler } } })
  await broker.start()
  return {
    name: 'moleculer',
    role: 'peer',
    async run(operations) {
      for (let i = 0; i < operations; i++) await broker.emit(OrderPlaced.type, PAYLOAD)
    },
    [Symbol.asyncDispose]: () => broker.stop(),
  }
}

async function nest(handlers: readonly (() => void | Promise<void>)[]): Promise<Contender & AsyncDisposable> {
  class Placed {
    readonly order = PAYLOAD
  }
  const providers = handlers.map((handler) => {
    class PlacedHandler {
      handle(): void | Promise<void> {
        return handler()
      }
    }
    EventsHandler(Placed)(PlacedHandler)
    return PlacedHandler
  })
  class BenchModule {}
  Module({ imports: [CqrsModule.forRoot()], providers })(BenchModule)
  const application = await NestFactory.createApplicationContext(BenchModule, { logger: false })
  await application.init()
  const bus = application.get(EventBus)
  return {
    name: 'Nest cqrs',
    role: 'peer',
    // Its publish can't be awaited: the handlers are waited for by what they count, once per thousand, which is in its favour.
    async run(operations) {
      const end = handled + operations * handlers.length
      for (let i = 1; i <= operations; i++) {
        bus.publish(new Placed())
        if (i % 1_000 === 0) await new Promise(setImmediate)
      }
      while (handled < end) await new Promise(setImmediate)
    },
    [Symbol.asyncDispose]: () => application.close(),
  }
}

const EMITTER = 'EventEmitter'
const ENVELOPE = 'EventEmitter + envelope'
const TOOLKIT = 'waybill'

/** Rows A: publish in process. */
export async function inProcessRows(stack: AsyncDisposableStack): Promise<readonly Row[]> {
  const one = many(1, asyncHandler)
  const five = many(5, asyncHandler)
  return [
    {
      id: 'A1',
      title: 'publish, 1 async handler, awaited',
      contenders: [
        waybillBus(TOOLKIT, one),
        bareEmitter(EMITTER, one),
        emmett(one),
        emittery(one),
        stack.use(await moleculer(one)),
        stack.use(await nest(one)),
      ],
      targets: [
        { against: EMITTER, atLeast: 0.25 },
        { against: 'emmett', atLeast: 1.3 },
        { against: 'moleculer', atLeast: 10 },
        { against: 'emittery', atLeast: 13 },
        { against: 'Nest cqrs', atLeast: 30 },
      ],
      note: 'Waybill makes an event with attributes, counts it and awaits its handler. EventEmitter passes the payload on and awaits nothing. Emmett passes on what it is given.',
    },
    {
      id: 'A2',
      title: 'publish, 5 async handlers, awaited',
      contenders: [waybillBus(TOOLKIT, five), bareEmitter(EMITTER, five), emmett(five)],
      targets: [
        { against: EMITTER, atLeast: 0.2 },
        { against: 'emmett', atLeast: 0.8 },
      ],
      note: 'Waybill starts all five and awaits all; emmett runs one after the other.',
    },
    {
      id: 'A3',
      title: 'publish, 1 sync handler, no promise',
      contenders: [waybillBus(TOOLKIT, many(1, syncHandler)), bareEmitter(EMITTER, many(1, syncHandler))],
      targets: [{ against: EMITTER, atLeast: 0.25 }],
    },
    {
      id: 'A4',
      title: 'publish, 1 async handler, awaited, the caller reads the id',
      contenders: [waybillBus(TOOLKIT, one, true), emitterWithEnvelope(ENVELOPE, one)],
      targets: [{ against: ENVELOPE, atLeast: 1 }],
    },
  ]
}
