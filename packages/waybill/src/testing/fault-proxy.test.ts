import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, type Server, type Socket, connect, createServer } from 'node:net'
import { afterEach, beforeEach, test } from 'node:test'
import { until } from './contract-tools.ts'
import { type FaultProxy, startFaultProxy } from './fault-proxy.ts'

// A server that says everything back, and what it has seen of its clients.
let server: Server
let served: { readonly socket: Socket; ended: boolean; error: NodeJS.ErrnoException | undefined }[]
let proxy: FaultProxy
const clients: Socket[] = []

beforeEach(async () => {
  served = []
  server = createServer({ allowHalfOpen: true }, (socket) => {
    const one: (typeof served)[number] = { socket, ended: false, error: undefined }
    served.push(one)
    socket.on('data', (bytes) => socket.write(bytes))
    socket.on('end', () => {
      one.ended = true
      socket.end()
    })
    socket.on('error', (error) => (one.error = error))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  proxy = await startFaultProxy({ target: { host: '127.0.0.1', port: (server.address() as AddressInfo).port } })
})

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  await proxy.close()
  for (const { socket } of served) socket.destroy()
  server.close()
})

interface Caller {
  readonly socket: Socket
  heard: string
  ended: boolean
  error: NodeJS.ErrnoException | undefined
}

async function call(): Promise<Caller> {
  const socket = connect({ host: '127.0.0.1', port: proxy.port, allowHalfOpen: true })
  clients.push(socket)
  const caller: Caller = { socket, heard: '', ended: false, error: undefined }
  socket.setEncoding('utf8').on('data', (text: string) => (caller.heard += text))
  socket.on('end', () => (caller.ended = true))
  socket.on('error', (error) => (caller.error = error))
  await once(socket, 'connect')
  return caller
}

const hears = (caller: Caller, text: string): Promise<true> => until(`${text} is heard`, async () => caller.heard === text)

async function ask(caller: Caller, text: string): Promise<void> {
  caller.socket.write(text)
  await hears(caller, text)
}

test('without a fault everything gets through, ends included', async () => {
  const caller = await call()
  const long = 'abcdefgh'.repeat(1_000_000)
  await ask(caller, long)
  assert.equal(proxy.bytes, 2 * long.length)
  assert.equal(proxy.connections, 1)
  caller.socket.end()
  await until('both ends are there', async () => caller.ended && served[0]?.ended)
  await until('the line is forgotten', async () => proxy.connections === 0)
  assert.deepEqual(proxy.seen, { cut: 0, blackHole: 0, latency: 0, halfClose: 0, limitBytes: 0 })
})

test('a cut resets both sides, and the next connection is welcome', async () => {
  const caller = await call()
  await ask(caller, 'before')
  assert.equal(proxy.cut(), 1)
  await until('both sides know', async () => caller.error !== undefined && served[0]?.error !== undefined)
  assert.deepEqual([caller.error?.code, served[0]?.error?.code], ['ECONNRESET', 'ECONNRESET'])
  assert.equal(proxy.seen.cut, 1)
  await ask(await call(), 'after')
})

test('in a black hole nothing gets through and nobody is told; afterwards all of it does', async () => {
  const caller = await call()
  await ask(caller, 'before ')
  proxy.blackHole(true)
  caller.socket.write('within')
  const late = await call()
  late.socket.write('late')
  await until('the fault has struck twice', async () => proxy.seen.blackHole >= 2)
  // A line that is not faulty, set up later, answers: by then this one would have, too.
  const other = await startFaultProxy({ target: { host: '127.0.0.1', port: (server.address() as AddressInfo).port } })
  const probe = connect(other.port, '127.0.0.1')
  probe.write('probe')
  await once(probe, 'data')
  probe.destroy()
  await other.close()
  assert.deepEqual([caller.heard, late.heard, caller.error, caller.ended], ['before ', '', undefined, false])
  proxy.blackHole(false)
  await hears(caller, 'before within')
  await hears(late, 'late')
})

test('a black hole keeps ends and resets to itself until it is gone', async () => {
  const caller = await call()
  await ask(caller, 'before')
  proxy.blackHole(true)
  caller.socket.resetAndDestroy()
  await until('the reset is held', async () => proxy.seen.blackHole === 1)
  assert.equal(served[0]?.error, undefined)
  proxy.blackHole(false)
  await until('the reset has arrived', async () => served[0]?.error?.code === 'ECONNRESET')
})

test('latency delays question and answer by half of it each, and keeps their order', async () => {
  const caller = await call()
  proxy.latency(200)
  const askedAt = performance.now()
  for (const piece of ['a', 'b', 'c', 'd']) {
    caller.socket.write(piece)
    await new Promise((resolve) => setImmediate(resolve))
  }
  await hears(caller, 'abcd')
  // A lower bound: no slow machine can fail it. Timers may be a millisecond early.
  assert.ok(performance.now() - askedAt >= 195)
  assert.ok(proxy.seen.latency >= 2)
  const { latency } = proxy.seen
  proxy.heal()
  await ask(await call(), 'at once')
  assert.equal(proxy.seen.latency, latency)
})

test('a line half closed towards the target ends there, and leaves the client waiting', async () => {
  const caller = await call()
  await ask(caller, 'before')
  assert.equal(proxy.halfClose(), 1)
  await until('the target has seen the end', async () => served[0]?.ended)
  caller.socket.write('into the void')
  await until('the target is gone', async () => served[0]?.socket.destroyed)
  assert.deepEqual([caller.heard, caller.ended, caller.error], ['before', false, undefined])
  assert.equal(proxy.seen.halfClose, 1)
  caller.socket.end()
  await until('the line is forgotten', async () => proxy.connections === 0)
})

test('a line half closed towards the client ends there, while the target still hears', async () => {
  const caller = await call()
  await ask(caller, 'before')
  assert.equal(proxy.halfClose('client'), 1)
  await until('the client has seen the end', async () => caller.ended)
  assert.equal(served[0]?.ended, false)
  const heardBytes = served[0].socket.bytesRead
  caller.socket.write('still there')
  await until('the target hears', async () => served[0]!.socket.bytesRead > heardBytes)
  assert.throws(() => proxy.halfClose('sideways' as 'client'), { code: 'INVALID_OPTION' })
})

test('after the allowed bytes the line is reset, once', async () => {
  const caller = await call()
  proxy.limitBytes(10)
  caller.socket.write('0123456789abcdef')
  await until('the line is reset', async () => caller.error?.code === 'ECONNRESET')
  assert.equal(served[0]!.socket.bytesRead <= 10, true)
  assert.deepEqual([proxy.bytes, proxy.seen.limitBytes], [10, 1])
  await ask(await call(), 'more than ten bytes again')
  for (const wrong of [-1, 0.5, Number.NaN]) assert.throws(() => proxy.limitBytes(wrong), { code: 'INVALID_OPTION' })
})

test('a target that is not there resets its clients', async () => {
  const gone = createServer()
  gone.listen(0, '127.0.0.1')
  await once(gone, 'listening')
  const { port } = gone.address() as AddressInfo
  await new Promise((resolve) => gone.close(resolve))
  const nowhere = await startFaultProxy({ target: { host: '127.0.0.1', port } })
  const client = connect(nowhere.port, '127.0.0.1')
  const [error] = (await once(client, 'error')) as [NodeJS.ErrnoException]
  assert.equal(error.code, 'ECONNRESET')
  await Promise.all([nowhere.close(), nowhere.close()])
})
