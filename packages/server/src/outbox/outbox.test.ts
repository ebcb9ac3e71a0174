import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import pg from 'pg'
import { type Storage, newId } from 'waybill'
import { postgresStorage } from 'waybill/postgres'
import { testPostgres } from '../../../waybill/src/testing/test-postgres.ts'
import { main } from '../main.ts'

let url = ''

async function run(...argv: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const written = { stdout: '', stderr: '' }
  const stream = (name: 'stdout' | 'stderr') => ({ write: (text: string) => (written[name] += text) })
  const code = await main(['outbox', ...argv], { stdout: stream('stdout'), stderr: stream('stderr'), env: { DATABASE_URL: url } })
  return { code, ...written }
}

async function json(...argv: readonly string[]): Promise<any> {
  const { code, stdout, stderr } = await run(...argv, '--json')
  assert.equal(code, 0, stdout + stderr)
  return JSON.parse(stdout)
}

const statuses = async (...argv: readonly string[]): Promise<readonly string[]> =>
  (await json('ls', ...argv)).map(({ rowId, status }: { rowId: string; status: string }) => `${rowId} ${status}`)

async function withStorage<T>(use: (storage: Storage) => Promise<T>): Promise<T> {
  const storage = await postgresStorage(url)
  try {
    return await use(storage)
  } finally {
    await storage.close()
  }
}

/** What the table holds, asked by another client: `row status attempts behind error`. */
async function held(key: string): Promise<readonly string[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const { rows } = await client.query<{ line: string }>(
      `select concat_ws(' ', id, status, attempts, 'behind ' || behind, last_error) as line from waybill_outbox where key = $1 order by id`,
      [key],
    )
    return rows.map(({ line }) => line)
  } finally {
    await client.end()
  }
}

interface Given {
  readonly key: string
  readonly type?: string
  readonly body?: Uint8Array
}

const append = (...rows: readonly Given[]): Promise<readonly string[]> =>
  withStorage((storage) =>
    storage.database.transaction((sql) =>
      storage.outbox.append(
        sql,
        rows.map(({ key, type = 'shop.Sold', body = new TextEncoder().encode('{"pence":5}') }) => ({
          eventType: type,
          message: { id: newId(), topic: type, key, headers: { event_type: type, odd: 'a\u001b[2Jb' }, body },
        })),
      ),
    ),
  )

/** Parks rows as a relay does whose transport has refused them. */
const refuse = (rowIds: readonly string[], error: string): Promise<void> =>
  withStorage(async ({ outbox }) => {
    await outbox.acquire('test', 60_000)
    await outbox.claim('test', { limit: 100, busy: [] })
    await outbox.park(
      'test',
      rowIds.map((rowId) => ({ rowId, error })),
    )
    await outbox.relinquish('test')
  })

before(async () => {
  url = (await testPostgres()).url()
  await withStorage((storage) => storage.migrate())
  // Rows 1 to 6.
  await append({ key: 'a' }, { key: 'a' }, { key: 'b' }, { key: 'c', type: 'shop.Seen' }, { key: 'd' }, { key: 'e' })
})

test('park stops rows that fit, with their reason, and only with a filter or --all', async () => {
  assert.equal((await run('park')).code, 2)
  assert.deepEqual(await json('park', '--key', 'b', '--reason', 'audit'), { parked: 1 })
  assert.deepEqual(await statuses('--error', 'AUDIT'), ['3 parked'])
  assert.match((await run('park', '--key', 'nobody')).stderr, /no row fits/)
  assert.match((await run('park', '--row', '4', '--reason', 'x'.repeat(501))).stderr, /--reason is too long/)
})

test('resume takes parked rows only; retry takes parked and held ones, and skipped ones only where they are named', async () => {
  assert.equal((await run('resume', '--key', 'b')).stdout, '1 row is due again\n')
  assert.deepEqual(await statuses('3'), ['3 pending'])
  await json('park', '3', '4')
  assert.equal((await run('skip', '4')).stdout, '1 row is skipped\n')
  assert.deepEqual(await statuses('3', '4'), ['3 parked', '4 skipped'])
  assert.deepEqual(await json('resume'), { resumed: 1 })
  await json('park', '3')
  assert.deepEqual(await json('retry'), { retried: 1 })
  assert.deepEqual(await statuses('3', '4'), ['3 pending', '4 skipped'])
  assert.deepEqual(await json('retry', '--row', '4'), { retried: 1 })
  assert.deepEqual(await statuses('--status', 'skipped'), [])
})

test('filters narrow down: type, topic, key, age, error, status and limit', async () => {
  assert.deepEqual(await statuses('--type', 'shop.Seen'), ['4 pending'])
  assert.deepEqual(await statuses('--topic', 'shop.Seen'), ['4 pending'])
  assert.deepEqual(await statuses('--key', 'a', '--limit', '1'), ['1 pending'])
  assert.deepEqual(await statuses('--older-than', '1d'), [])
  assert.equal((await statuses('--older-than', '1ms')).length, 6)
  assert.equal((await statuses('--status', 'pending')).length, 6)
  assert.equal((await run('ls', '--status', 'parkd')).code, 2)
})

test('the limit is kept and said; --all goes on until nothing fits', async () => {
  const { stdout, stderr } = await run('park', '--type', 'shop.Sold', '--limit', '2')
  assert.match(stdout, /^2 rows are parked/)
  assert.match(stderr, /that is the limit/)
  assert.equal((await run('park', '--all', '--limit', '2')).code, 2)
  assert.deepEqual(await json('park', '--all'), { parked: 4 })
  assert.deepEqual(await json('retry', '--all'), { retried: 6 })
})

test('show prints attributes, headers, body and the place in the key, all of it printable', async () => {
  await refuse(['1'], 'no\u0007 such field')
  const { code, stdout, stderr } = await run('show', '1')
  assert.equal(code, 0, stderr)
  assert.match(stdout, /^row +1$/m)
  assert.match(stdout, /^status +parked$/m)
  assert.match(stdout, /^in its key +0 before it, 1 after it$/m)
  assert.match(stdout, /^last error +no\\u0007 such field$/m)
  assert.match(stdout, /^ {2}odd: a\\u001b\[2Jb$/m)
  assert.match(stdout, /^body, 11 bytes\n\{\n {2}"pence": 5\n\}$/m)
  assert.match(stderr, /waybill outbox retry 1; to give it up: waybill outbox skip 1/)
  assert.doesNotMatch(stdout, /[\u0000-\u0009\u000b-\u001f]/)
  const row = await json('show', '--row', '1')
  assert.deepEqual(
    [row.rowId, row.status, row.body, row.headers.event_type, row.before, row.after],
    ['1', 'parked', '{"pence":5}', 'shop.Sold', 0, 1],
  )
})

test('retry and skip of a head free what is parked behind it; park, retry and resume leave attempts and errors as they should be', async () => {
  const ids = await append({ key: 'line' }, { key: 'line' }, { key: 'line' })
  const [first, second, third] = ids.map(Number)
  await refuse([String(first)], 'too long')
  // What comes after a parked row is parked behind it as a relay meets it.
  await refuse([], '')
  const parkedBehind = [`${first} parked 1 too long`, `${second} parked 0 behind ${first}`, `${third} parked 0 behind ${first}`]
  assert.deepEqual(await held('line'), parkedBehind)

  assert.equal((await run('retry', '--error', 'TOO LONG')).stdout, '1 row is due again\n')
  assert.deepEqual(await held('line'), [`${first} pending 0 too long`, `${second} pending 0`, `${third} pending 0`])

  await refuse([String(first)], 'too long')
  await refuse([], '')
  assert.deepEqual(await held('line'), parkedBehind)
  const tooFew = await run('skip', String(second), '999999', '6')
  assert.deepEqual([tooFew.code, tooFew.stdout], [1, '0 rows are skipped\n'])
  assert.equal(
    tooFew.stderr,
    `row ${second} stands behind row ${first}, and goes on with that one\nrow 999999 is not there\nrow 6 is pending\n`,
  )
  const told = await run('resume', '6', '--json')
  assert.deepEqual([told.code, JSON.parse(told.stdout)], [1, { resumed: 0, unchanged: [{ rowId: '6', why: 'is pending' }] }])
  assert.match((await run('park', '6', '--key', 'nobody')).stderr, /^row 6 does not fit the other options$/m)
  assert.deepEqual(await json('skip', String(first)), { skipped: 1 })
  assert.deepEqual(await held('line'), [`${first} skipped 1 too long`, `${second} pending 0`, `${third} pending 0`])

  assert.deepEqual(await json('park', '--key', 'line', '--reason', 'audit'), { parked: 2 })
  assert.deepEqual(await held('line'), [`${first} skipped 1 too long`, `${second} parked 0 audit`, `${third} parked 0 audit`])
  assert.deepEqual(await json('resume', '--key', 'line'), { resumed: 2 })
  assert.deepEqual(await json('resume', '--key', 'line'), { resumed: 0 })
  assert.deepEqual(await json('retry', '--status', 'skipped', '--key', 'line'), { retried: 1 })
  assert.deepEqual(
    (await held('line')).map((line) => line.split(' ', 2).join(' ')),
    [`${first} pending`, `${second} pending`, `${third} pending`],
  )
})

test('a body that is no text is shown in base64; a row that is not there is exit code 1', async () => {
  const [rowId] = await append({ key: 'raw', body: new Uint8Array([0xff, 0x00, 0x01]) })
  assert.match((await run('show', rowId!)).stdout, /^body, 3 bytes, no text: base64\n\/wAB$/m)
  const row = await json('show', rowId!)
  assert.deepEqual([row.body, row.bodyBase64], [undefined, '/wAB'])
  const { code, stderr } = await run('show', '999')
  assert.equal(code, 1)
  assert.match(stderr, /there is no row 999/)
})
