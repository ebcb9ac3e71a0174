import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { pgliteStorage } from 'waybill/postgres'
import { main } from './main.ts'

const folder = mkdtempSync(join(tmpdir(), 'waybill-main-'))
after(() => rmSync(folder, { recursive: true }))

async function run(argv: readonly string[], env: Record<string, string> = {}): Promise<{ code: number; stdout: string; stderr: string }> {
  const written = { stdout: '', stderr: '' }
  const stream = (name: 'stdout' | 'stderr') => ({ write: (text: string) => (written[name] += text) })
  const code = await main(argv, { stdout: stream('stdout'), stderr: stream('stderr'), env })
  return { code, ...written }
}

const OUTBOX = ['ls', 'show', 'publish', 'retry', 'resume', 'skip', 'park'].map((name) => `outbox ${name}`)

test('help and version are printed, for each command too', async () => {
  for (const argv of [[], ['--help'], ['-h'], ['help']]) {
    const { code, stdout } = await run(argv)
    assert.equal(code, 0)
    for (const name of ['demo', 'migrate', 'relay', 'doctor', 'topics', 'tail', ...OUTBOX])
      assert.match(stdout, new RegExp(`^  ${name} `, 'm'))
    assert.doesNotMatch(stdout, /demo-worker/)
  }
  assert.match((await run(['outbox', '--help'])).stdout, /outbox retry/)
  const { code, stdout } = await run(['outbox', 'ls', '--help'])
  assert.equal(code, 0)
  assert.match(stdout, /^Usage: waybill outbox ls/)
  assert.match(stdout, /--status STATUS/)
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
  assert.equal((await run(['--version'])).stdout, `${version}\n`)
})

test('wrong usage and wrong settings are one line on stderr, nothing on stdout, and exit code 2', async () => {
  const cases: readonly (readonly [readonly string[], Record<string, string>, RegExp])[] = [
    [['dmeo'], {}, /unknown command; did you mean "demo"\? \(got "dmeo"; allowed: demo, migrate, relay, doctor, topics, tail, outbox ls/],
    [['outbox', 'list'], {}, /unknown command; did you mean "outbox ls"\?/],
    [['--verison'], {}, /unknown option; did you mean "--version"\?/],
    [['demo', '--kill', '3'], {}, /did you mean "--kills"\?/],
    [['demo', '--kills', '101'], {}, /--kills is not usable \(got "101"; allowed: a whole number from 0 to 100\)/],
    [['demo', '--seed', 'x'], {}, /--seed/],
    [['demo', '--data', join(folder, 'missing.csv')], {}, /there is no such file.*\[INVALID_FILE\]/],
    [['demo', '--keep', new URL('.', import.meta.url).pathname], {}, /--keep is not usable/],
    [['demo-worker', '--folder', folder, '--run', '0'], {}, /started by "waybill demo" only/],
    [['migrate'], {}, /DATABASE_URL is not set/],
    [['migrate'], { DATABASE_URL: 'mysql://u:hunter2@localhost/x' }, /DATABASE_URL names no database.*allowed: postgres:/],
    [['outbox', 'ls'], { DATABASE_URL: join(folder, 'none') }, /no PGlite database/],
    [['outbox', 'publish'], {}, /no broker is configured.*--app is missing; nothing was published/],
    [['outbox', 'publish'], { MESSAGE_BUS_TYPE: 'kafkka' }, /MESSAGE_BUS_TYPE is unknown/],
    [['outbox', 'skip', '--limit', '3'], { DATABASE_URL: './x' }, /which rows to skip was not said; nothing was done/],
    [['outbox', 'park'], { DATABASE_URL: './x' }, /which rows to park was not said; nothing was done/],
    [['outbox', 'show'], { DATABASE_URL: './x' }, /which row was not said/],
    [['outbox', 'retry', 'x'], { DATABASE_URL: './x' }, /--row is not a row number/],
    [['outbox', 'ls', '--older-than', '5'], { DATABASE_URL: './x' }, /--older-than is not usable/],
    [['relay'], {}, /there is nothing to relay to.*nothing was published \(allowed: --transport FILE/],
    [['relay', '--transport', 'a', '--app', 'b'], {}, /exclude each other/],
    [['relay', '--app', 'b', '--lease-ms', '500'], {}, /--lease-ms is for the application to say/],
    [['relay', '--transport', join(folder, 'none.ts')], {}, /there is no such file/],
    [['relay', '--transport', 'a'], { PORT: '70000' }, /PORT is not usable/],
    [['relay', '--transport', 'a'], { LOG_LEVEL: 'wran' }, /LOG_LEVEL is unknown; did you mean "warn"\?/],
    [['relay', '--transport', 'a'], { MESSAGE_BUS_TYPE: 'kafkka' }, /MESSAGE_BUS_TYPE is unknown; did you mean "kafka"\?/],
    [['relay', '--transport', 'a', '--broker', 'kafka'], {}, /--transport and --broker exclude each other/],
    [['relay', '--app', 'a', '--broker', 'kafka'], {}, /--broker and --app exclude each other/],
    [['relay', '--broker', 'memory'], {}, /--broker is not usable.*allowed: kafka, nats, redis, pulsar/],
    [['outbox', 'publish'], { MESSAGE_BUS_TYPE: 'nats' }, /with a broker \(nats\).*allowed: "waybill relay --once"/],
    [['topics'], {}, /there is no broker to ask: MESSAGE_BUS_TYPE is inprocess/],
    [
      ['topics', 'bad topic'],
      { MESSAGE_BUS_TYPE: 'redis', REDIS_URL: 'redis://127.0.0.1:1' },
      /topic is not a usable name.*\[INVALID_NAME\]/,
    ],
    [['topics', '--broker', 'kafkka'], {}, /--broker is not usable; did you mean "kafka"\?/],
    [['tail'], { MESSAGE_BUS_TYPE: 'redis' }, /which topic was not said/],
    [
      ['tail', 'a.B', '--from', 'yesterday'],
      { MESSAGE_BUS_TYPE: 'redis' },
      /--from is not usable \(got "yesterday"; allowed: earliest, latest, a time/,
    ],
    [['tail', 'a.B', '--from', '2026-11-21T15:00:00'], { MESSAGE_BUS_TYPE: 'redis' }, /with its zone/],
    [['tail', 'a.B', '--from', '2026-13-41'], { MESSAGE_BUS_TYPE: 'redis' }, /--from is not usable/],
    [['tail', 'a.B', '--where', 'payload..x=1'], { MESSAGE_BUS_TYPE: 'redis' }, /--where is not usable/],
    [['tail', 'a.B', '--count', '0'], { MESSAGE_BUS_TYPE: 'redis' }, /--count is not usable/],
    [['topics', '--broker', 'kafka'], {}, /KAFKA_BOOTSTRAP_SERVERS is not set/],
    [['topics', '--broker', 'redis'], { REDIS_URL: 'http://u:hunter2@h' }, /^waybill: REDIS_URL is not usable \(allowed: redis:\/\//],
    [['tail', 'a.B', '--broker', 'nats'], { NATS_URL: 'http://u:hunter2@h' }, /^waybill: NATS_URL is not usable \(allowed: nats:\/\//],
    [['doctor', '--broker', 'pulsar'], { PULSAR_SERVICE_URL: 'xx' }, /^waybill: PULSAR_SERVICE_URL is not usable/],
    [['migrate', '--env-file', join(folder, 'none.env')], {}, /--env-file names a file that is not there .*\[INVALID_FILE\]/],
    [['migrate', '--env-file', folder], {}, /--env-file is a folder/],
    [['relay', '--transport', 'a', '--listen-url', 'mysql://u:hunter2@h/x'], {}, /--listen-url names no database/],
    [['doctor'], {}, /DATABASE_URL is not set/],
    [['doctor', '--schema', 'No"'], { DATABASE_URL: 'postgres://u:hunter2@127.0.0.1:1/x' }, /schema is not a usable SQL name/],
    [['outbox', 'publish', '--app', join(folder, 'none.ts')], {}, /there is no such file/],
    [['outbox', 'publish', '--app', fileURLToPath(import.meta.resolve('./cli/suggest.ts'))], {}, /exports no createApp/],
  ]
  for (const [argv, env, message] of cases) {
    const { code, stdout, stderr } = await run(argv, env)
    assert.deepEqual([code, stdout], [2, ''], `${argv.join(' ')}: ${stderr}`)
    assert.match(stderr, message)
    assert.match(stderr, /^waybill: [^\n]+\n$/)
    assert.doesNotMatch(stderr, /hunter2/)
  }
})

test('a database that does not answer is exit code 1, without its password', async () => {
  const { code, stderr } = await run(['migrate'], { DATABASE_URL: 'postgres://user:hunter2@127.0.0.1:1/shop' })
  assert.equal(code, 1)
  assert.match(stderr, /\[DATABASE_UNREACHABLE\]/)
  assert.doesNotMatch(stderr, /hunter2/)
})

test('migrate makes the tables once; ls shows rows; publish hands them to the application; retry takes parked ones back', async () => {
  const env = { DATABASE_URL: join(folder, 'shop') }
  const first = JSON.parse((await run(['migrate', '--json'], env)).stdout) as { applied: readonly string[] }
  assert.ok(first.applied.length > 0)
  assert.match((await run(['migrate'], env)).stdout, /Nothing to do/)

  await withStorage(env.DATABASE_URL, (storage) =>
    storage.database.transaction(async (sql) => {
      const message = (id: string, key: string) => ({
        id,
        topic: 'shop.Sold',
        key,
        headers: { event_id: id, event_type: 'shop.Sold', content_type: 'application/json' },
        body: new TextEncoder().encode(
          JSON.stringify({
            event_id: id,
            event_type: 'shop.Sold',
            occurred_at: '2010-12-01T08:26:00.000Z',
            source: 'test',
            version: 1,
            payload: { key },
          }),
        ),
      })
      await storage.outbox.append(sql, [
        { message: message('01900000-0000-7000-8000-000000000001', 'a'), eventType: 'shop.Sold' },
        { message: message('01900000-0000-7000-8000-000000000002', 'b'), eventType: 'shop.Sold' },
      ])
    }),
  )
  const rows = JSON.parse((await run(['outbox', 'ls', '--key', 'b', '--json'], env)).stdout) as readonly {
    readonly key: string
    readonly status: string
  }[]
  assert.deepEqual(
    rows.map(({ key, status }) => [key, status]),
    [['b', 'pending']],
  )
  const listed = await run(['outbox', 'ls', '--type', 'shop.Sold'], env)
  assert.match(listed.stdout, /^row .*\n.* pending +shop\.Sold +a /)
  assert.match(listed.stderr, /2 shown; in all 2 pending, the oldest for [\d.]+ (ms|s|min), 0 parked/)

  const { code, stdout } = await run(['outbox', 'publish', '--app', await appFile(env.DATABASE_URL), '--json'], env)
  assert.deepEqual([code, JSON.parse(stdout)], [0, { published: 2, pending: 0, parked: 0, deadLettered: 1 }])
  assert.deepEqual(await run(['outbox', 'retry', '--json'], env), { code: 0, stdout: '{"retried":0}\n', stderr: '' })
})

test('the command file runs from a checkout, and ends by itself', () => {
  const { status, stdout } = spawnSync(process.execPath, [fileURLToPath(new URL('../bin/waybill.js', import.meta.url)), '--help'], {
    encoding: 'utf8',
    timeout: 60_000,
  })
  assert.equal(status, 0)
  assert.match(stdout, /^Usage: waybill COMMAND/)
})

async function appFile(database: string): Promise<string> {
  const path = join(folder, 'app.ts')
  const from = (specifier: string): string => JSON.stringify(import.meta.resolve(specifier))
  writeFileSync(
    path,
    `import { createWaybill, defineContext, defineEvent, on } from ${from('waybill')}
import { pgliteStorage } from ${from('waybill/postgres')}

const Sold = defineEvent('shop.Sold')
const shop = defineContext('shop', { events: [Sold], publish: 'INTER_BC_RELIABLE' })
const stock = defineContext('stock', { handlers: { take: on([Sold], ({ payload }) => { if (payload.key === 'b') throw new Error('no room') }, { retry: { attemptsMax: 1 } }) } })

export async function createApp() {
  return createWaybill({ database: await pgliteStorage(${JSON.stringify(database)}), contexts: [shop, stock], source: 'test' })
}
`,
  )
  return path
}

async function withStorage(path: string, use: (storage: Awaited<ReturnType<typeof pgliteStorage>>) => Promise<void>): Promise<void> {
  const storage = await pgliteStorage(path)
  try {
    await use(storage)
  } finally {
    await storage.close()
  }
}
