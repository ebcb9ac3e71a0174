import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, test } from 'node:test'
import pg from 'pg'
import { postgresStorage } from 'waybill/postgres'
import { ownServerOrSkip } from 'waybill-services'
import { testPostgres } from '../../../waybill/src/testing/test-postgres.ts'
import { startCommand } from '../testing/command-process.ts'
import { type RelayProcess, createRelayBench, until } from '../testing/relay-process.ts'

const redis = await ownServerOrSkip('redis')
const skip = 'skipped' in redis && redis.skipped
const bench = createRelayBench()
after(async () => {
  await bench.close()
  if (!('skipped' in redis)) await redis.close()
})

const topic = `relay${randomBytes(5).toString('hex')}.Sold`

async function database(): Promise<{ readonly DATABASE_URL: string; append(count: number): Promise<void> }> {
  const server = await testPostgres()
  const name = `relay_${randomBytes(5).toString('hex')}`
  const sql = async (text: string, url: string, params: readonly unknown[] = []): Promise<void> => {
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    try {
      await client.query(text, [...params])
    } finally {
      await client.end()
    }
  }
  await sql(`create database ${name}`, server.url())
  const url = server.url(name)
  const storage = await postgresStorage(url)
  await storage.migrate()
  await storage.close()
  return {
    DATABASE_URL: url,
    append: (count) => sql(`select waybill_append($1, '{}', 'k' || n) from generate_series(1, $2) n`, url, [topic, count]),
  }
}

interface Report {
  readonly status: number
  readonly transport: string
}

async function health(url: string, path: 'health' | 'ready'): Promise<Report> {
  const reply = await fetch(`${url}/${path}`)
  const { checks } = (await reply.json()) as { checks: Readonly<Record<string, string>> }
  return { status: reply.status, transport: checks['transport']! }
}

const said = (relay: RelayProcess, event: string, to?: string): boolean =>
  relay.log().some((line) => line['event'] === event && (to === undefined || line['to'] === to))

test('without --transport the relay publishes to the broker that MESSAGE_BUS_TYPE, or --broker, names', { skip }, async () => {
  if ('skipped' in redis) return
  const { DATABASE_URL, append } = await database()
  const env = { DATABASE_URL, REDIS_URL: redis.url }
  await append(12)
  const once = await bench.run({ ...env, MESSAGE_BUS_TYPE: 'redis' }, '--once').ended
  assert.deepEqual([once.code, once.stdout], [0, '12 published\n'], once.stderr)
  await append(3)
  const overridden = await bench.run({ ...env, MESSAGE_BUS_TYPE: 'nats' }, '--once', '--broker', 'redis').ended
  assert.deepEqual([overridden.code, overridden.stdout], [0, '3 published\n'], overridden.stderr)
  const tail = await startCommand(['tail', topic, '--broker', 'redis', '--from', 'earliest', '--count', '15', '--json'], { env }).ended
  assert.equal(tail.stdout.trimEnd().split('\n').length, 15, tail.stderr)
})

test('a broker that goes away and comes back is seen in log, health and metrics, and nothing is lost', { skip }, async () => {
  if ('skipped' in redis) return
  const { DATABASE_URL, append } = await database()
  const env = { DATABASE_URL, REDIS_URL: redis.url, MESSAGE_BUS_TYPE: 'redis' }
  const relay = bench.run(env, '--port', '0', '--poll-ms', '50')
  const url = await relay.url()
  const metrics = async (): Promise<string> => (await fetch(`${url}/metrics`)).text()
  await until('it to be ready', async () => (await health(url, 'ready')).status === 200)
  assert.deepEqual(await health(url, 'health'), { status: 200, transport: 'ok' })
  assert.match(await metrics(), /^waybill_transport_up\{transport="redis"\} 1$/m)
  await append(5)
  await until('five to be published', async () => (await metrics()).includes('\nwaybill_relay_published_total 5\n'))

  await redis.stop('kill')
  await until('the transport to be down', async () => (await health(url, 'ready')).status === 503)
  assert.notEqual((await health(url, 'ready')).transport, 'ok')
  assert.equal((await health(url, 'ready')).status, 503)
  assert.ok(said(relay, 'transport.changed', 'down'), relay.stderr())
  assert.match(await metrics(), /^waybill_transport_up\{transport="redis"\} 0$/m)
  assert.doesNotMatch(await metrics(), /^waybill_consumer_lag\{/m)
  await append(4)

  await redis.start()
  await until('it to be ready again', async () => (await health(url, 'ready')).status === 200)
  await until('all to be published', async () => (await metrics()).includes('\nwaybill_relay_published_total 9\n'))
  assert.ok(said(relay, 'transport.changed', 'up'), relay.stderr())
  assert.match(await metrics(), /^waybill_transport_up\{transport="redis"\} 1$/m)
  relay.kill('SIGTERM')
  const { code, stdout, stderr } = await relay.ended
  assert.deepEqual([code, stdout], [0, '9 rows published\n'], stderr)
})
