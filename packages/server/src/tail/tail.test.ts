import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { main } from '../main.ts'
import { startCommand } from '../testing/command-process.ts'
import { eventMessage, memoryModule } from '../testing/memory-module.ts'
import { until } from '../testing/relay-process.ts'

const folder = mkdtempSync(join(tmpdir(), 'waybill-tail-'))
after(() => rmSync(folder, { recursive: true }))

async function run(...argv: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const written = { stdout: '', stderr: '' }
  const stream = (name: 'stdout' | 'stderr') => ({ write: (text: string) => (written[name] += text) })
  const code = await main(['tail', ...argv], { stdout: stream('stdout'), stderr: stream('stderr'), env: { NO_COLOR: '1' } })
  return { code, ...written }
}

const foreign = (body: Uint8Array, more: object = {}) => ({ id: 'f', topic: 'shop.Sold', key: 'f', headers: {}, body, ...more })

const MESSAGES = [
  eventMessage('shop.Sold', 'o-1', { pence: 100, lines: [{ sku: 'A1' }] }),
  eventMessage('shop.Sold', 'o-2', { pence: 250, paid: true }, { metadata: { tenant: 'acme' } }),
  foreign(Buffer.from('no\u001b[31m envelope\u0007')),
  foreign(Uint8Array.of(0xff, 0x00, 0x80)),
  eventMessage('shop.Sold', 'o-1', { note: '\u001b]0;title\u0007\u202e\u009b31m' }, { event_type: 'shop.Noted' }),
]

test('what passes by is shown decoded, a line each, until --count; what is no event as it is; nothing that moves a cursor', async () => {
  const file = memoryModule(folder, 'human', MESSAGES)
  const { code, stdout, stderr } = await run('shop.Sold', '--transport', file, '--from', 'earliest', '--count', '5')
  assert.equal(code, 0, stderr)
  const lines = stdout.trimEnd().split('\n')
  assert.equal(lines.length, 5)
  assert.match(
    lines[0]!,
    /^2026-11-21T15:40:41\.666Z {2}shop\.Sold\S*@\d+ {2}shop\.Sold {2}o-1 {2}\{"pence":100,"lines":\[\{"sku":"A1"\}\]\}$/,
  )
  assert.match(lines[2]!, /^shop\.Sold\S*@\d+ {2}no envelope {2}f {2}no\\u001b\[31m envelope\\u0007 {2}\(the body is not JSON\)$/)
  assert.match(lines[3]!, / {2}no envelope {2}f {2}base64 \/wCA {2}/)
  assert.match(lines[4]!, /shop\.Noted/)
  assert.doesNotMatch(stdout, /(?!\n)[\p{Cc}\p{Cf}]/u)
})

test('--json is one object a line, with the envelope or the raw body', async () => {
  const file = memoryModule(folder, 'json', MESSAGES)
  const { code, stdout, stderr } = await run('shop.Sold', '--transport', file, '--from', 'earliest', '--count', '5', '--json')
  assert.equal(code, 0, stderr)
  assert.doesNotMatch(stdout, /(?!\n)[\p{Cc}\p{Cf}]/u)
  const seen = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  const { sequence, partition, headers, envelope, ...rest } = seen[0]!
  assert.deepEqual(rest, { topic: 'shop.Sold', id: MESSAGES[0]!.id, key: 'o-1' })
  assert.deepEqual([typeof sequence, typeof partition], ['string', 'string'])
  assert.equal((headers as Record<string, string>)['event_type'], 'shop.Sold')
  assert.deepEqual(envelope, JSON.parse(Buffer.from(MESSAGES[0]!.body).toString()))
  assert.deepEqual([seen[2]!['encoding'], seen[2]!['body'], 'envelope' in seen[2]!], ['text', 'no\u001b[31m envelope\u0007', false])
  assert.match(String(seen[2]!['problem']), /not JSON/)
  assert.deepEqual([seen[3]!['encoding'], seen[3]!['body']], ['base64', '/wCA'])
  assert.deepEqual(
    (seen[4]!['envelope'] as { payload: object }).payload,
    { note: '\u001b]0;title\u0007\u202e\u009b31m' },
    'escaped, not changed',
  )
})

test('filters choose by type, key and field, and --count counts what is shown', async () => {
  const last = eventMessage('shop.Sold', 'end', { pence: 0 }, { event_type: 'end.Mark' })
  const file = memoryModule(folder, 'filters', [...MESSAGES, last])
  const ids = async (...filters: readonly string[]): Promise<readonly string[]> => {
    const count = String(filters.length === 0 ? 6 : 1)
    const { stdout, stderr } = await run('shop.Sold', '--transport', file, '--from', 'earliest', '--json', '--count', count, ...filters)
    assert.equal(stderr, '')
    return stdout
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as { id: string }).id)
  }
  assert.equal((await ids()).length, 6)
  assert.deepEqual(await ids('--type', 'end.*'), [last.id])
  assert.deepEqual(await ids('--type', 'shop.N*'), [MESSAGES[4]!.id])
  assert.deepEqual(await ids('--type', 'no.Such', '--type', '*.Mark'), [last.id])
  assert.deepEqual(await ids('--key', 'o-2'), [MESSAGES[1]!.id])
  assert.deepEqual(await ids('--key', 'o-1', '--type', 'shop.Noted'), [MESSAGES[4]!.id])
  assert.deepEqual(await ids('--where', 'payload.pence=250'), [MESSAGES[1]!.id])
  assert.deepEqual(await ids('--where', 'payload.paid=true', '--where', 'metadata.tenant=acme'), [MESSAGES[1]!.id])
  assert.deepEqual(await ids('--where', 'payload.lines.0.sku=A1'), [MESSAGES[0]!.id])
  assert.deepEqual(await ids('--where', 'aggregate_id=end'), [last.id])
})

test('latest shows what comes, and a topic that is not there yet is waited for and shown from its beginning', async () => {
  const made = join(folder, 'made')
  const file = memoryModule(
    folder,
    'missing',
    MESSAGES,
    `transport.admin = {
      topics: async ([name]) => {
        if (existsSync(${JSON.stringify(made)})) return []
        throw new WaybillError('TOPIC_MISSING', 'there is no such topic', { got: name })
      },
    }
    await publish([])
    const waiting = setInterval(() => {
      if (!existsSync(${JSON.stringify(made)})) return
      clearInterval(waiting)
      void publish(messages)
    }, 10)`,
  )
  const tail = startCommand(['tail', 'shop.Sold', '--transport', file, '--count', '2', '--json'])
  await until('it to say that it waits', () => tail.stderr() === 'shop.Sold is not there yet: waiting for it\n')
  assert.ok(tail.isRunning())
  writeFileSync(made, '')
  const { code, stdout, stderr } = await tail.ended
  assert.equal(code, 0, stderr)
  assert.deepEqual(
    stdout
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as { id: string }).id),
    [MESSAGES[0]!.id, MESSAGES[1]!.id],
  )
})

test('a broker that can not begin at a time, has no rights or does not answer is said in one line', async () => {
  const file = memoryModule(folder, 'time', MESSAGES)
  const late = await run('shop.Sold', '--transport', file, '--from', '10m')
  assert.deepEqual([late.code, late.stdout], [2, ''])
  assert.match(
    late.stderr,
    /^waybill: memory cannot begin at a time \(got "10m"; allowed: earliest or latest; at --from\) \[UNSUPPORTED\]\n$/,
  )
  const down = memoryModule(
    folder,
    'down',
    MESSAGES,
    `transport.admin = { topics: async () => { throw new WaybillError('TRANSPORT_UNAVAILABLE', 'nobody answers at h:1') } }`,
  )
  assert.match((await run('shop.Sold', '--transport', down)).stderr, /^waybill: nobody answers at h:1 \[TRANSPORT_UNAVAILABLE\]\n$/)
  const bad = await run('no topic', '--transport', file)
  assert.match(bad.stderr, /topic is not a usable name/)
  // Who may not list topics may still read one.
  const denied = memoryModule(
    folder,
    'denied',
    MESSAGES,
    `transport.admin = { topics: async () => { throw new WaybillError('ACCESS_DENIED', 'no') } }`,
  )
  assert.equal((await run('shop.Sold', '--transport', denied, '--from', 'earliest', '--count', '1')).code, 0)
})

test('SIGINT ends it with exit code 0, and with what has been shown', async () => {
  const tail = startCommand(['tail', 'shop.Sold', '--transport', memoryModule(folder, 'stop', MESSAGES), '--from', 'earliest', '--json'])
  await until('five lines', () => tail.stdout().split('\n').length === 6)
  tail.kill('SIGINT')
  const { code, signal, stderr } = await tail.ended
  assert.deepEqual([code, signal, stderr], [0, null, ''])
})

/** Hands out messages of 4 KiB for ever, and writes how many were pulled. */
const endless = (counter: string): string => `
  let pulled = 0
  transport.subscribe = async function* (source, signal) {
    while (!signal.aborted) {
      yield Array.from({ length: 5 }, () => ({ message: { ...message(0), id: String(pulled++) }, position: { partition: '0' } }))
      writeFileSync(${JSON.stringify(counter)}, String(pulled))
      await new Promise(setImmediate)
    }
  }`

test('a reader that is slow slows it down: nothing piles up in memory; one that goes away ends it', async () => {
  const counter = join(folder, 'pulled')
  const pulled = (): number => (existsSync(counter) ? Number(readFileSync(counter, 'utf8')) : 0)
  const file = memoryModule(folder, 'endless', [eventMessage('shop.Sold', 'k', { text: 'x'.repeat(4_000) })], endless(counter))
  const tail = startCommand(['tail', 'shop.Sold', '--transport', file, '--json'], { paused: true })
  try {
    let before = -1
    await until('it to stand still', async () => {
      const now = pulled()
      const still = now > 0 && now === before
      before = now
      if (!still) await new Promise((resolve) => setTimeout(resolve, 500))
      return still
    })
    // As many as a pipe and the buffers of its two streams hold.
    assert.ok(pulled() < 500, `${pulled()} were pulled`)
    tail.output.resume()
    await until('it to go on', () => pulled() > before + 1_000)
    tail.output.destroy()
    const { code, stderr } = await tail.ended
    assert.deepEqual([code, stderr], [0, ''])
  } finally {
    tail.kill('SIGKILL')
  }
})
