import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, beforeEach, test } from 'node:test'
import pg from 'pg'
import type { Storage } from 'waybill'
import { postgresStorage } from 'waybill/postgres'
import { type TestPostgres, testPostgres } from '../../../waybill/src/testing/test-postgres.ts'
import { main } from '../main.ts'
import { type RelayBench, createRelayBench, until } from '../testing/relay-process.ts'

let server: TestPostgres
let bench: RelayBench
let env: { DATABASE_URL: string }
let databases = 0
const clients = new Set<pg.Client>()

async function sql<Row extends pg.QueryResultRow>(text: string, params: readonly unknown[] = [], url = env.DATABASE_URL): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url })
  clients.add(client)
  await client.connect()
  try {
    return (await client.query<Row>(text, [...params])).rows
  } finally {
    await client.end()
    clients.delete(client)
  }
}

/** As any program of any language does it. */
const append = (key: string, more: { readonly type?: string; readonly options?: object; readonly n?: number } = {}): Promise<unknown> =>
  sql('select waybill_append($1, $2::jsonb, $3, options => $4::jsonb)', [
    more.type ?? 'shop.Sold',
    JSON.stringify({ n: more.n ?? 0 }),
    key,
    JSON.stringify(more.options ?? {}),
  ])

/** Published rows are gone. */
const rowsLeft = async (): Promise<number> => (await sql<{ n: number }>('select count(*)::int as n from waybill_outbox'))[0]!.n

async function withStorage<T>(use: (storage: Storage) => Promise<T>): Promise<T> {
  const storage = await postgresStorage(env.DATABASE_URL)
  try {
    return await use(storage)
  } finally {
    await storage.close()
  }
}

beforeEach(async () => {
  server = await testPostgres()
  const name = `relay_${++databases}`
  await sql(`create database ${name}`, [], server.url())
  env = { DATABASE_URL: server.url(name) }
  await withStorage((storage) => storage.migrate())
  bench = createRelayBench()
})
afterEach(() => bench.close())
after(() => Promise.all([...clients].map((client) => client.end())))

test('--once publishes what SQL has written, each key in its order, and prints the count', async () => {
  for (let n = 0; n < 30; n++) await append(`k${n % 3}`, { n })
  const { code, stdout, stderr } = await bench.run(env, '--transport', bench.transport, '--once').ended
  assert.deepEqual([code, stdout], [0, '30 published\n'], stderr)
  const byKey = Map.groupBy(bench.sent(), ({ key }) => key)
  assert.equal(byKey.size, 3)
  for (const [key, messages] of byKey) {
    const numbers = messages.map(({ body }) => (JSON.parse(body) as { payload: { n: number } }).payload.n)
    assert.deepEqual(
      numbers,
      Array.from({ length: 10 }, (_, index) => index * 3 + Number(key.slice(1))),
    )
  }
  assert.equal(await rowsLeft(), 0)
  assert.deepEqual(await sql('select * from waybill_relay'), [], 'its shards are given back')
})

test('--once says what is left, and why: parked, scheduled, or a transport that does not answer', async () => {
  await append('bad', { type: 'shop.Refused' })
  await append('later', { options: { available_at: '2100-01-01T00:00:00Z' } })
  await append('good')
  const first = await bench.run(env, '--transport', bench.transport, '--once').ended
  assert.deepEqual([first.code, first.stdout], [0, '1 published\n'], first.stderr)
  assert.match(first.stderr, /^left in the outbox: 1 pending, the oldest for \S+ \w+, 1 scheduled, 0 parked$/m)
  assert.match(first.stderr, /^they are held for a while, after a failure or for their grace: see "waybill outbox ls"$/m)
  await withStorage((storage) => storage.outbox.suspend({ key: 'bad' }, 'no such topic'))

  for (let n = 0; n < 20; n++) await append(`k${n}`)
  bench.switch('down', true)
  const second = await bench.run(env, '--transport', bench.transport, '--once', '--json').ended
  assert.deepEqual([second.code, JSON.parse(second.stdout)], [0, { published: 0, pending: 20, scheduled: 1, parked: 1 }], second.stderr)
  assert.match(second.stderr, /^parked rows wait for somebody: see "waybill doctor"$/m)
  assert.match(second.stderr, /^the transport of destination "default" does not answer: its rows stay until it does$/m)
  assert.equal(bench.sent().length, 1)
})

test('a relay that serves publishes, tells its figures, and is healthy and ready until the database is away', async () => {
  await append('bad', { type: 'shop.Refused' })
  await append('later', { options: { available_at: '2100-01-01T00:00:00Z' } })
  const relay = bench.run(env, '--transport', bench.transport, '--port', '0', '--poll-ms', '50')
  const url = await relay.url()
  const status = async (path: string): Promise<number> => (await fetch(url + path)).status
  for (let n = 0; n < 12; n++) await append(`k${n}`)
  await until('all rows to be sent', () => bench.sent().length === 12)
  await until('it to be ready', async () => (await status('/ready')) === 200)
  assert.equal(await status('/health'), 200)
  assert.equal(await status('/nothing'), 404)
  await until('the metrics to be those of what happened', async () => {
    const text = await (await fetch(`${url}/metrics`)).text()
    return [
      'waybill_relay_published_total 12',
      'waybill_relay_parked_total 1',
      'waybill_relay_shards 64',
      'waybill_outbox_pending 0',
      'waybill_outbox_oldest_pending_seconds 0',
      'waybill_outbox_parked 1',
      'waybill_outbox_scheduled 1',
      'waybill_dead_letters 0',
      'waybill_scrape_errors_total 0',
    ].every((line) => text.includes(`\n${line}\n`))
  })
  const reply = await fetch(`${url}/metrics`)
  assert.match(reply.headers.get('content-type')!, /^text\/plain; version=0\.0\.4/)
  const text = await reply.text()
  const names = [
    'publish_total',
    'publish_duration_seconds',
    'hybrid_fast_fallbacks_total',
    'circuit_breaker_state',
    'circuit_breaker_trips_total',
    'handler_duration_seconds',
    'handler_failures_total',
  ]
  for (const name of names) assert.match(text, new RegExp(`^# TYPE waybill_${name} `, 'm'))
  assert.match(text, /^process_cpu_seconds_total /m)

  await server.stop('immediate')
  try {
    await until('health to fail', async () => (await status('/health')) === 503)
    const { status: said, checks } = (await (await fetch(`${url}/ready`)).json()) as { status: string; checks: Record<string, string> }
    assert.equal(said, 'failing')
    assert.notEqual(checks.database, 'ok')
    assert.equal(await status('/metrics'), 200)
    assert.doesNotMatch(await (await fetch(`${url}/metrics`)).text(), /^waybill_outbox_pending /m)
  } finally {
    await server.start()
  }
  await until('it to be ready again', async () => (await status('/ready')) === 200)
  await append('k0', { n: 1 })
  await until('the row that came after the outage', () => bench.sent().length === 13)
  relay.kill('SIGTERM')
  const { code, stdout, stderr } = await relay.ended
  assert.deepEqual([code, stdout], [0, '13 rows published\n'], stderr)
  assert.ok(!(stdout + stderr).includes(server.password), 'the password is in the log')
})

test('SIGTERM lets what is in flight finish, and gives the shards back', async () => {
  bench.switch('hold', true)
  for (let n = 0; n < 5; n++) await append(`k${n}`)
  const relay = bench.run(env, '--transport', bench.transport, '--no-http', '--shutdown-ms', '60000', '--json')
  await until('rows in flight', () => bench.isHolding())
  relay.kill('SIGTERM')
  await until('it to stop', () => relay.log().some(({ msg }) => msg === 'stopping'))
  assert.equal(bench.sent().length, 0)
  bench.switch('hold', false)
  const { code, signal, stdout, stderr } = await relay.ended
  assert.deepEqual([code, signal], [0, null], stderr)
  const { published } = JSON.parse(stdout) as { published: number }
  const ids = bench.sent().map(({ id }) => id)
  assert.ok(published > 0)
  assert.deepEqual([ids.length, new Set(ids).size, await rowsLeft()], [published, published, 5 - published])
  assert.deepEqual(await sql('select * from waybill_relay'), [])
  // What it had not begun, the next one publishes: nothing is lost, nothing is sent twice.
  assert.equal((await bench.run(env, '--transport', bench.transport, '--once').ended).stdout, `${5 - published} published\n`)
  assert.equal(new Set(bench.sent().map(({ id }) => id)).size, 5)
})

test('what takes longer than --shutdown-ms is cut off, stays in the outbox, and is exit code 0', async () => {
  bench.switch('hold', true)
  await append('k')
  const relay = bench.run(env, '--transport', bench.transport, '--no-http', '--shutdown-ms', '100')
  await until('a row in flight', () => bench.isHolding())
  relay.kill('SIGINT')
  const { code, signal, stdout, stderr } = await relay.ended
  assert.deepEqual([code, signal, stdout], [0, null, '0 rows published\n'], stderr)
  assert.equal(await rowsLeft(), 1)
  bench.switch('hold', false)
  await withStorage((storage) => storage.outbox.retry({ key: 'k' }))
  assert.equal((await bench.run(env, '--transport', bench.transport, '--once').ended).stdout, '1 published\n')
})

test("a relay's young generation is limited, unless NODE_OPTIONS says how", { skip: process.platform === 'win32' }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'waybill-relay-flags-'))
  const file = join(folder, 'flags.mjs')
  writeFileSync(file, 'export const createTransport = () => { throw new Error(`flags: ${process.execArgv.join(" ")};`) }')
  try {
    const run = (more: Readonly<Record<string, string>>) => bench.run({ ...env, ...more }, '--transport', file, '--once').ended
    assert.match((await run({})).stderr, /flags: [^;]*--max-semi-space-size=16/)
    assert.doesNotMatch((await run({ NODE_OPTIONS: '--max-semi-space-size=32' })).stderr, /flags: [^;]*--max-semi-space-size/)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('a second signal ends it at once', async () => {
  bench.switch('hold', true)
  await append('k')
  const relay = bench.run(env, '--transport', bench.transport, '--no-http', '--shutdown-ms', '600000')
  await until('a row in flight', () => bench.isHolding())
  relay.kill('SIGTERM')
  await until('it to stop', () => relay.log().some(({ msg }) => msg === 'stopping'))
  relay.kill('SIGINT')
  assert.equal((await relay.ended).signal, 'SIGINT')
  assert.equal(await rowsLeft(), 1)
})

test('a relay that is killed loses nothing: the doctor says that it is gone, the next one publishes what it left', async () => {
  bench.switch('hold', true)
  await append('k')
  const relay = bench.run(env, '--transport', bench.transport, '--no-http', '--lease-ms', '1000')
  await until('a row in flight', () => bench.isHolding())
  relay.kill('SIGKILL')
  await relay.ended
  const examine = async (): Promise<string> => {
    let printed = ''
    const stream = { write: (text: string) => void (printed += text) }
    await main(['doctor'], { stdout: stream, stderr: stream, env })
    return printed
  }
  await until('its lease to run out', async () => /relay \S+ is gone: its lease ran out/.test(await examine()))
  assert.match(await examine(), /^error +relays +no relay is at work, and 1 row waits$/m)
  bench.switch('hold', false)
  assert.equal((await bench.run(env, '--transport', bench.transport, '--once').ended).stdout, '1 published\n')
  assert.equal(bench.sent().length, 1)
  assert.match(await examine(), /^ok +lag +nothing waits/m)
})

test('the transport of docs/commands.md is one: it stores, and refuses what can never pass', async () => {
  const page = readFileSync(new URL('../../../../docs/commands.md', import.meta.url), 'utf8')
  const [, source = ''] = /^```js\n([^`]*export async function createTransport[^]*?)^```$/m.exec(page) ?? []
  const folder = mkdtempSync(join(tmpdir(), 'waybill-relay-doc-'))
  try {
    const file = join(folder, 'transport.mjs')
    writeFileSync(file, source.replace("from 'waybill'", `from ${JSON.stringify(import.meta.resolve('waybill'))}`))
    for (let n = 0; n < 5; n++) await append('k', { n })
    await append('bad')
    await sql(`update waybill_outbox set body = 'no JSON' where key = 'bad'`)
    const eventsFile = join(folder, 'events.jsonl')
    const { code, stdout, stderr } = await bench.run({ ...env, EVENTS_FILE: eventsFile }, '--transport', file, '--once').ended
    assert.deepEqual([code, stdout], [0, '5 published\n'], stderr)
    const lines = readFileSync(eventsFile, 'utf8').trimEnd().split('\n')
    const numbers = lines.map((line) => (JSON.parse(line) as { event: { payload: { n: number } } }).event.payload.n)
    assert.deepEqual(numbers, [0, 1, 2, 3, 4])
    const [refused, ...others] = await sql('select key, status, attempts, last_error from waybill_outbox')
    assert.deepEqual(others, [])
    // How often it was tried again meanwhile is a matter of time.
    const { key, attempts, last_error } = refused as { key: string; attempts: number; last_error: string }
    assert.ok(key === 'bad' && attempts >= 1, JSON.stringify(refused))
    assert.match(last_error, /the body is no JSON/)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('a port that is taken, a missing table and a wrong password are one line each, without the password', async () => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const { port } = taken.address() as AddressInfo
  const run = async (env: Record<string, string>, ...args: readonly string[]) => {
    const { code, stdout, stderr } = await bench.run({ LOG_LEVEL: 'debug', ...env }, '--transport', bench.transport, ...args).ended
    assert.equal(stdout, '')
    assert.ok(!stderr.includes(server.password) && !stderr.includes('hunter2'), stderr)
    const said = stderr.split('\n').filter((line) => line.startsWith('waybill: '))
    assert.equal(said.length, 1, stderr)
    return `${code} ${said[0]}`
  }
  try {
    assert.match(
      await run(env, '--port', String(port)),
      new RegExp(`^2 waybill: metrics and health can't be served on 127.0.0.1:${port}: the port is in use \\(allowed: .*--no-http`),
    )
  } finally {
    taken.close()
  }
  assert.match(await run({ DATABASE_URL: server.url() }, '--no-http'), /^1 waybill: .*waybill migrate.*\[NOT_MIGRATED\]$/)
  const wrong = Object.assign(new URL(env.DATABASE_URL), { password: 'hunter2' }).href
  assert.match(await run({ DATABASE_URL: wrong }, '--once'), /^1 waybill: .*password.* at DATABASE_URL\) \[DATABASE_UNREACHABLE\]$/)
  const later = await bench.run(env, '--transport', bench.transport, '--once', '--database', wrong).ended
  assert.equal(later.code, 1)
  assert.match(later.stderr, / at --database\) \[DATABASE_UNREACHABLE\]$/m)
  assert.ok(!later.stderr.includes('hunter2'))
})
