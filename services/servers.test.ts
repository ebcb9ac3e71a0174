import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { Consumer, Producer, stringDeserializers, stringSerializers } from '@platformatic/kafka'
import { answers } from './environment.ts'
import { type OwnServer, ownServerOrSkip, type ServiceName } from './index.ts'
import { redisCommand } from './redis.ts'

const WAIT_LIMIT_MS = 20_000

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + WAIT_LIMIT_MS
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, `${what}: not within ${WAIT_LIMIT_MS / 1_000} s`)
    await pause(50)
  }
}

/** Writes one message in a server, and says later what it finds there. */
interface Visitor {
  leave(server: OwnServer, text: string): Promise<void>
  find(server: OwnServer): Promise<readonly string[]>
}

const VISITORS: Readonly<Record<Exclude<ServiceName, 'postgres'>, Visitor>> = {
  redis: {
    async leave({ host, port }, text) {
      assert.equal(await redisCommand(host, port, `SET kept ${text}`), '+OK\r\n')
    },
    find: async ({ host, port }) => [((await redisCommand(host, port, 'GET kept')) ?? '').split('\r\n')[1] ?? ''],
  },
  nats: {
    async leave({ url }, text) {
      const connection = await connectNats({ servers: url })
      await (await jetstreamManager(connection)).streams.add({ name: 'KEPT', subjects: ['kept'] })
      await jetstream(connection).publish('kept', text)
      await connection.close()
    },
    async find({ url }) {
      const connection = await connectNats({ servers: url })
      const found = await (await jetstreamManager(connection)).streams.getMessage('KEPT', { last_by_subj: 'kept' })
      await connection.close()
      return found === null ? [] : [found.string()]
    },
  },
  kafka: {
    async leave({ url }, text) {
      const producer = new Producer({
        clientId: 'visitor',
        bootstrapBrokers: [url],
        serializers: stringSerializers,
        autocreateTopics: true,
      })
      await producer.send({ messages: [{ topic: 'kept', key: 'k', value: text }] })
      await producer.close()
    },
    async find({ url }) {
      const consumer = new Consumer({
        clientId: 'visitor',
        groupId: 'visitor',
        bootstrapBrokers: [url],
        deserializers: stringDeserializers,
      })
      const stream = await consumer.consume({ topics: ['kept'], mode: 'earliest', autocommit: false })
      const [message] = (await once(stream, 'data')) as [{ readonly value: string }]
      await consumer.close(true)
      return [message.value]
    },
  },
  pulsar: {
    async leave({ extra }, text) {
      // A subscription first, or nobody keeps it.
      const admin = `${extra['adminUrl']}/admin/v2/persistent/public/default/kept`
      assert.ok((await fetch(admin, { method: 'PUT' })).ok)
      assert.ok((await fetch(`${admin}/subscription/visitor`, { method: 'PUT' })).ok)
      const socket = new WebSocket(`${extra['webSocketUrl']}/ws/v2/producer/persistent/public/default/kept`)
      await once(socket, 'open')
      socket.send(JSON.stringify({ payload: Buffer.from(text).toString('base64') }))
      const [answer] = (await once(socket, 'message')) as [{ readonly data: string }]
      assert.match(answer.data, /"result":"ok"/)
      socket.close()
    },
    async find({ extra }) {
      const socket = new WebSocket(`${extra['webSocketUrl']}/ws/v2/consumer/persistent/public/default/kept/visitor`)
      const [message] = (await once(socket, 'message')) as [{ readonly data: string }]
      socket.close()
      return [Buffer.from((JSON.parse(message.data) as { payload: string }).payload, 'base64').toString()]
    },
  },
}

for (const [name, visitor] of Object.entries(VISITORS) as [ServiceName, Visitor][]) {
  test(`${name}: what was written is there after a kill, a stop and a start on the same port`, async (t) => {
    const server = await ownServerOrSkip(name)
    if ('skipped' in server) return t.skip(server.skipped)
    t.after(() => server.close())
    await visitor.leave(server, 'here')
    // Redis writes down what it has every second.
    if (name === 'redis')
      await until('it is on disk', async () =>
        /aof_pending_bio_fsync:0/.test((await redisCommand(server.host, server.port, 'INFO persistence')) ?? ''),
      )
    for (const mode of ['kill', 'graceful'] as const) {
      const { pid } = server
      await server.stop(mode)
      await server.stop(mode)
      assert.equal(server.pid, undefined)
      assert.equal(await answers(server.host, server.port), false, mode)
      await server.start()
      await server.start()
      assert.notEqual(server.pid, pid)
      assert.deepEqual(await visitor.find(server), ['here'], mode)
    }
    await server.close()
    await server.close()
    assert.equal(await answers(server.host, server.port), false)
  })
}

test(
  'servers and their data do not outlive their process, even one that is killed with SIGKILL',
  { skip: process.platform === 'win32' },
  async (t) => {
    const there = await ownServerOrSkip('redis')
    if ('skipped' in there) return t.skip(there.skipped)
    await there.close()
    const script = `
    import { ownServer, service } from ${JSON.stringify(new URL('index.ts', import.meta.url).href)}
    const own = await ownServer('redis')
    const shared = await service('redis')
    const folder = '/proc/' + own.pid + '/cwd'
    const { realpathSync } = await import('node:fs')
    process.send({ ports: [own.port, shared.port], folder: process.platform === 'linux' ? realpathSync(folder) : '' })
    setInterval(() => {}, 1_000)`
    const env = { ...process.env }
    delete env['WAYBILL_SERVICES']
    delete env['REDIS_URL']
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'], env })
    const [{ ports, folder }] = (await once(child, 'message')) as [{ readonly ports: readonly number[]; readonly folder: string }]
    for (const port of ports) assert.equal(await answers('127.0.0.1', port), true)
    child.kill('SIGKILL')
    await once(child, 'exit')
    for (const port of ports) await until('the server is gone', async () => !(await answers('127.0.0.1', port)))
    await until('its data is gone', () => !existsSync(folder))
  },
)

test('a process ends by itself while it has a server', async (t) => {
  const there = await ownServerOrSkip('nats')
  if ('skipped' in there) return t.skip(there.skipped)
  await there.close()
  const script = `
    import { ownServer, service } from ${JSON.stringify(new URL('index.ts', import.meta.url).href)}
    await ownServer('nats')
    await service('nats')`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'ignore', 'inherit'] })
  const limit = setTimeout(() => child.kill('SIGKILL'), WAIT_LIMIT_MS)
  assert.deepEqual(await once(child, 'exit'), [0, null])
  clearTimeout(limit)
})
