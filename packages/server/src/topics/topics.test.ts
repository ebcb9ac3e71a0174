import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { WaybillError } from 'waybill'
import { explained } from '../cli/broker.ts'
import { main } from '../main.ts'
import { memoryModule } from '../testing/memory-module.ts'

const folder = mkdtempSync(join(tmpdir(), 'waybill-topics-'))
after(() => rmSync(folder, { recursive: true }))

async function run(...argv: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const written = { stdout: '', stderr: '' }
  const stream = (name: 'stdout' | 'stderr') => ({ write: (text: string) => (written[name] += text) })
  const code = await main(argv, { stdout: stream('stdout'), stderr: stream('stderr'), env: {} })
  return { code, ...written }
}

/** A transport whose broker says these topics. */
const withTopics = (name: string, admin: string): string =>
  memoryModule(
    folder,
    name,
    [],
    `const missing = (name) => { throw new WaybillError('TOPIC_MISSING', 'there is no such topic', { got: name }) }
     transport.admin = ${admin}`,
  )

const REPORTS = `[
  { topic: 'order', brokerName: 'wb.order', partitions: 4, messages: 1207, groups: [
    { group: 'sub-order', members: 2, lag: 17 }, { group: 'stock/take', members: 0, lag: undefined } ] },
  { topic: 'shop.Sold', brokerName: 'shop.Sold', partitions: 12, messages: undefined, groups: [] },
]`

test('topics are listed with their groups and what these have not settled', async () => {
  const file = withTopics(
    'list',
    `{ topics: async (names) => ${REPORTS}.filter(({ topic }) => names === undefined || names.includes(topic) ) }`,
  )
  const { code, stdout, stderr } = await run('topics', '--transport', file)
  assert.equal(code, 0, stderr)
  assert.equal(
    stdout,
    `topic      at the broker  partitions  messages  group       members  lag
order      wb.order                4      1207  sub-order         2   17
                                                stock/take        0    -
shop.Sold  shop.Sold              12         -
`,
  )
  assert.equal(stderr, '2 topics, 2 groups at memory\n')
  assert.deepEqual(JSON.parse((await run('topics', '--transport', file, '--json')).stdout), {
    transport: 'memory',
    topics: [
      {
        topic: 'order',
        brokerName: 'wb.order',
        partitions: 4,
        messages: 1207,
        groups: [
          { group: 'sub-order', members: 2, lag: 17 },
          { group: 'stock/take', members: 0, lag: null },
        ],
      },
      { topic: 'shop.Sold', brokerName: 'shop.Sold', partitions: 12, messages: null, groups: [] },
    ],
  })
  assert.match((await run('topics', 'shop.Sold', '--transport', file)).stderr, /^1 topic, 0 groups/)
  assert.deepEqual(await run('topics', '--transport', withTopics('none', '{ topics: async () => [] }')), {
    code: 0,
    stdout: '',
    stderr: '0 topics, 0 groups at memory\n',
  })
})

test('what the broker calls things can not move the cursor', async () => {
  const report = `{ topic: 'a.B', brokerName: '\\u001b[31m', partitions: 1, messages: 0, groups: [{ group: '\\u202e', members: 1, lag: 0 }] }`
  const { stdout } = await run('topics', '--transport', withTopics('hostile', `{ topics: async () => [${report}] }`))
  assert.match(stdout, /\\u001b\[31m .*\\u202e/)
})

test('a missing topic, a broker that does not answer and a transport without one are one line each', async () => {
  const missing = await run('topics', 'no.Such', '--transport', withTopics('missing', '{ topics: async ([name]) => missing(name) }'))
  assert.deepEqual([missing.code, missing.stdout], [1, ''])
  assert.match(missing.stderr, /^waybill: there is no such topic \(got "no\.Such"\) \[TOPIC_MISSING\]\n$/)
  const down = `{ topics: async () => { throw new WaybillError('TRANSPORT_UNAVAILABLE', 'nobody answers at h:1') } }`
  const unavailable = await run('topics', '--transport', withTopics('down', down))
  assert.deepEqual([unavailable.code, unavailable.stderr], [1, 'waybill: nobody answers at h:1 [TRANSPORT_UNAVAILABLE]\n'])
  const none = await run('topics', '--transport', memoryModule(folder, 'memory', []))
  assert.deepEqual([none.code, none.stdout], [2, ''])
  assert.match(none.stderr, /has no broker that could be asked \(got "memory"/)
})

test('the doctor looks at the broker: what it is, its settings, and what is wrong with them', async () => {
  const report = (findings: string): string =>
    `{ examine: async () => ({ product: 'Redis', version: '8.2', address: 'h:6379', settings: { appendonly: 'no' }, findings: ${findings} }) }`
  const ill = withTopics(
    'ill',
    report(`[{ level: 'error', text: 'appendonly is off', advice: 'set it' }, { level: 'warning', text: 'slow', advice: 'a; b' }]`),
  )
  const examined = await run('doctor', '--transport', ill, '--json')
  assert.deepEqual([examined.code, examined.stderr], [1, ''])
  assert.deepEqual(JSON.parse(examined.stdout), {
    healthy: false,
    errors: 1,
    warnings: 1,
    findings: [
      {
        check: 'database',
        level: 'info',
        found: 'DATABASE_URL is not set: outbox, inbox and dead letters are not looked at',
        advice: 'name the database in DATABASE_URL, or with --database, if there is one',
      },
      { check: 'broker', level: 'ok', found: 'Redis 8.2 at h:6379' },
      { check: 'broker settings', level: 'ok', found: 'appendonly = no' },
      { check: 'broker', level: 'error', found: 'appendonly is off', advice: 'set it' },
      { check: 'broker', level: 'warn', found: 'slow', advice: 'a; b' },
    ],
  })
  const well = await run('doctor', '--transport', withTopics('well', report('[]')))
  assert.equal(well.code, 0)
  assert.match(well.stdout, /^ok +broker +Redis 8\.2 at h:6379$/m)
})

test('a broker that does not answer, or refuses us, is a finding that says what to do', async () => {
  for (const [code, advice] of [
    ['TRANSPORT_UNAVAILABLE', /^start the broker; or correct its address/],
    ['ACCESS_DENIED', /^correct user, password or token in/],
  ] as const) {
    const file = withTopics(code.toLowerCase(), `{ examine: async () => { throw new WaybillError('${code}', 'no way') } }`)
    const { code: exit, stdout } = await run('doctor', '--transport', file, '--json')
    assert.equal(exit, 1)
    const { findings } = JSON.parse(stdout) as { findings: readonly { check: string; level: string; found: string; advice: string }[] }
    const found = findings.find(({ level }) => level === 'error')!
    assert.deepEqual([found.check, found.found], ['broker', 'no way'])
    assert.match(found.advice, advice)
  }
  assert.deepEqual([(await run('doctor', '--transport', memoryModule(folder, 'silent', []))).code], [2])
})

test('a broker that can not be reached names its address and its setting, and no password', async () => {
  const settings = {
    KAFKA_BOOTSTRAP_SERVERS: '127.0.0.1:1',
    NATS_URL: 'nats://u:hunter2@127.0.0.1:1',
    REDIS_URL: 'redis://u:hunter2@127.0.0.1:1',
    PULSAR_URL: 'pulsar://127.0.0.1:1',
  }
  for (const [name, url] of Object.entries(settings)) {
    const written = { out: '', err: '' }
    const env = {
      [name]: url,
      MESSAGE_BUS_TYPE: name.split('_')[0]!.toLowerCase(),
      PULSAR_AUTH_TOKEN: '',
      PULSAR_WEB_SOCKET_URL: 'ws://127.0.0.1:1',
      PULSAR_ADMIN_URL: 'http://127.0.0.1:1',
    }
    const started = performance.now()
    const io = {
      stdout: { write: (text: string) => (written.out += text) },
      stderr: { write: (text: string) => (written.err += text) },
      env,
    }
    assert.equal(await main(['topics'], io), 1, name)
    assert.match(written.err, /^waybill: [^\n]*127\.0\.0\.1:1\b[^\n]*\[TRANSPORT_UNAVAILABLE\]\n$/, name)
    // Topics of Pulsar are asked of its admin interface.
    assert.ok(written.err.includes(name === 'PULSAR_URL' ? 'PULSAR_ADMIN_URL' : name), `${name}: ${written.err}`)
    assert.ok(!written.err.includes('hunter2'), written.err)
    assert.ok(performance.now() - started < 30_000, name)
  }
})

test('of the three addresses of Pulsar the one is named that was at fault, also where two share a port', async () => {
  const env = {
    MESSAGE_BUS_TYPE: 'pulsar',
    PULSAR_URL: 'pulsar://127.0.0.1:1',
    PULSAR_WEB_SOCKET_URL: 'ws://127.0.0.1:2',
    PULSAR_ADMIN_URL: 'http://127.0.0.1:2',
  }
  const said = async (more: Readonly<Record<string, string>>, ...args: readonly string[]): Promise<string> => {
    let written = ''
    const write = (text: string) => (written += text)
    await main(args, { stdout: { write }, stderr: { write }, env: { ...env, ...more } })
    return written
  }
  assert.match(await said({}, 'topics'), /at http:\/\/127\.0\.0\.1:2: .* \(at PULSAR_ADMIN_URL\) \[TRANSPORT_UNAVAILABLE\]/)
  for (const name of ['PULSAR_WEB_SOCKET_URL', 'PULSAR_ADMIN_URL', 'PULSAR_URL'])
    for (const args of [['topics'], ['tail', 'a.B']])
      assert.match(
        await said({ [name]: 'xx' }, ...args),
        new RegExp(`^waybill: ${name} is not usable \\(allowed: .*\\[INVALID_SETTING\\]\n$`),
      )
  const error = (address: string) =>
    new WaybillError('TRANSPORT_UNAVAILABLE', `can't be reached at ${address}`, { where: 'pulsar transport' })
  for (const [address, setting] of [
    ['ws://127.0.0.1:2', 'PULSAR_WEB_SOCKET_URL'],
    ['pulsar://127.0.0.1:1', 'PULSAR_URL'],
  ] as const)
    assert.equal(
      (explained(error(address), { kind: 'broker', type: 'pulsar' }, env) as Error).message,
      `can't be reached at ${address} (at ${setting})`,
    )
  const denied = new WaybillError('ACCESS_DENIED', 'no', { got: 401, where: 'Pulsar at http://127.0.0.1:2' })
  assert.equal(
    (explained(denied, { kind: 'broker', type: 'pulsar' }, env) as Error).message,
    'no (got 401) (at PULSAR_ADMIN_URL, http://127.0.0.1:2)',
  )
})

test('an admin address that was made of PULSAR_URL says so, and names the setting for it; several hosts are refused', async () => {
  const ask = async (url: string): Promise<readonly [code: number, said: string]> => {
    let said = ''
    const write = (text: string) => (said += text)
    const env = { PULSAR_URL: url, MESSAGE_BUS_TYPE: 'pulsar' }
    const code = await main(['doctor', '--json'], { stdout: { write }, stderr: { write }, env })
    return [code, said]
  }
  const [away, found] = await ask('pulsar://nowhere.invalid:6650')
  assert.equal(away, 1, found)
  assert.match(
    found,
    /http:\/\/nowhere\.invalid:8080 \(which follows from serviceUrl, PULSAR_URL; adminUrl, PULSAR_ADMIN_URL, is not set\)/,
  )
  const [refused, why] = await ask('pulsar://a:6650,b:6650')
  assert.equal(refused, 2)
  assert.match(why, /PULSAR_URL is not usable \(allowed: one host: .*\[INVALID_SETTING\]/)
})
