import { createEventBus, createKeyedPool, createWaybill, defineContext, defineEvent } from 'waybill'

// A million of each leaves the heap where it was: `npm run memory`. Exit code 1 where it does not.

const COUNT = 1_000_000
const WARM_UP = 50_000
const LIMIT_BYTES = 5 * 2 ** 20

const OrderPlaced = defineEvent<{ readonly orderId: string }>('order.OrderPlaced', {
  aggregate: { type: 'order', id: ({ orderId }) => orderId },
})
let handled = 0

async function emits(count: number): Promise<void> {
  const bus = createEventBus()
  bus.subscribe(OrderPlaced, async () => void handled++)
  for (let i = 0; i < count; i++) await bus.emit(OrderPlaced({ orderId: `o-${i}` }))
}

const waybill = await createWaybill({ contexts: [defineContext('sales', { events: [OrderPlaced] })] })
await waybill.start()
waybill.subscribe(OrderPlaced, async () => void handled++)

async function publishes(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await waybill.publish(OrderPlaced({ orderId: `o-${i}` }), { strategy: 'SYNC_ONLY' })
}

const pool = createKeyedPool({ concurrency: 1_000, queueMax: 10_000 })

/** Every key is used once: what a key leaves behind would show. */
async function keyedTasks(count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const room = pool.room()
    if (room !== undefined) await room
    pool.run(`customer-${i}`, async () => void handled++)
  }
  await pool.idle()
}

async function heapBytes(): Promise<number> {
  for (let i = 0; i < 4; i++) {
    globalThis.gc!()
    await new Promise(setImmediate)
  }
  return process.memoryUsage().heapUsed
}

if (globalThis.gc === undefined) throw new Error('run with --expose-gc')
let failed = 0
for (const [name, work] of Object.entries({ 'EventBus.emit': emits, 'publish SYNC_ONLY': publishes, 'keyed tasks': keyedTasks })) {
  await work(WARM_UP)
  const before = await heapBytes()
  const seen = handled
  const started = performance.now()
  await work(COUNT)
  const seconds = (performance.now() - started) / 1000
  const grown = (await heapBytes()) - before
  const good = grown <= LIMIT_BYTES && handled - seen === COUNT
  if (!good) failed++
  console.log(
    `${good ? 'ok  ' : 'FAIL'} ${COUNT} ${name}: heap ${grown >= 0 ? '+' : ''}${(grown / 2 ** 20).toFixed(2)} MiB (limit ${LIMIT_BYTES / 2 ** 20}), ${handled - seen} handled, ${seconds.toFixed(1)} s`,
  )
}
await waybill.stop()
process.exitCode = failed === 0 ? 0 : 1
