import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import pg from 'pg'
import { type Storage, WaybillError, newId } from 'waybill'
import { postgresStorage } from 'waybill/postgres'
import { type PostgresServer, startPostgresServer } from '../../../waybill/src/testing/postgres-server.ts'
import { main } from '../main.ts'
import type { Finding } from './finding.ts'
import { relayFindings } from './outbox-checks.ts'
import { clockFinding, sessionsFindings } from './server-checks.ts'
import { unreachable } from './unreachable.ts'

interface Report {
  readonly healthy: boolean
  readonly errors: number
  readonly warnings: number
  readonly findings: readonly Finding[]
}

let server: PostgresServer
let databases = 0

before(async () => {
  // As a server should be set up, unlike one for tests.
  server = await startPostgresServer(['-c', 'fsync=on', '-c', 'idle_in_transaction_session_timeout=1h'])
})
after(() => server.close())

async function run(url: string, ...argv: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const written = { stdout: '', stderr: '' }
  const stream = (name: 'stdout' | 'stderr') => ({ write: (text: string) => (written[name] += text) })
  const code = await main(['doctor', ...argv], { stdout: stream('stdout'), stderr: stream('stderr'), env: { DATABASE_URL: url } })
  return { code, ...written }
}

async function examine(url: string): Promise<Report> {
  const { code, stdout, stderr } = await run(url, '--json')
  const report = JSON.parse(stdout) as Report
  assert.equal(code, report.errors === 0 ? 0 : 1, stderr)
  assert.equal(report.healthy, report.errors === 0)
  for (const { level, advice, found } of report.findings) if (level !== 'ok') assert.ok(advice, `nothing to do: ${found}`)
  return report
}

/** What is not right, by the name of the check. */
const bad = (report: Report): readonly string[] =>
  report.findings.filter(({ level }) => level === 'warn' || level === 'error').map(({ check, level }) => `${check} ${level}`)

const of = (report: Report, check: string): readonly Finding[] => report.findings.filter((finding) => finding.check === check)

async function sql(url: string, text: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(text)
  } finally {
    await client.end()
  }
}

/** A database of its own, with the tables. */
async function freshDatabase(migrated = true): Promise<string> {
  const name = `doctor_${++databases}`
  await sql(server.url(), `create database ${name}`)
  if (migrated) await withStorage(server.url(name), (storage) => storage.migrate())
  return server.url(name)
}

async function withStorage<T>(url: string, use: (storage: Storage) => Promise<T>): Promise<T> {
  const storage = await postgresStorage(url)
  try {
    return await use(storage)
  } finally {
    await storage.close()
  }
}

const append = (url: string, ...keys: readonly string[]): Promise<readonly string[]> =>
  withStorage(url, (storage) =>
    storage.database.transaction((caller) =>
      storage.outbox.append(
        caller,
        keys.map((key) => ({
          eventType: 'shop.Sold',
          message: { id: newId(), topic: 'shop.Sold', key, headers: {}, body: new Uint8Array() },
        })),
      ),
    ),
  )

test('a healthy system has nothing to complain of, and exit code 0', async () => {
  const url = await freshDatabase()
  await withStorage(url, (storage) => storage.outbox.acquire('relay-1', 60_000))
  const report = await examine(url)
  assert.deepEqual(bad(report), [])
  assert.deepEqual(
    report.findings.map(({ check }) => check),
    'server,writable,settings,connections,sessions,clock,migrations,rights,sequence,vacuum,lag,relays,stuck keys,dead letters'.split(','),
  )
  const { code, stdout } = await run(url)
  assert.equal(code, 0)
  assert.match(stdout, /^ok +relays +relay relay-1 holds 64 shards; free in [\d.]+ s unless renewed$/m)
  assert.match(stdout, /^healthy: 0 errors, 0 warnings$/m)
})

test('without tables, with half of them, or with newer ones, it says what to do and looks no further', async () => {
  const url = await freshDatabase(false)
  const empty = await examine(url)
  assert.deepEqual(bad(empty), ['migrations error'])
  assert.match(of(empty, 'migrations')[0]!.advice!, /run "waybill migrate"/)
  assert.deepEqual(of(empty, 'relays'), [])

  await withStorage(url, (storage) => storage.migrate())
  await sql(url, 'alter table waybill_outbox drop column last_error')
  const half = await examine(url)
  assert.deepEqual(bad(half), ['migrations error'])
  assert.match(of(half, 'migrations')[0]!.found, /incomplete.*last_error/)
  assert.match(of(half, 'migrations')[0]!.advice!, /restore/)

  const newer = await freshDatabase()
  await sql(newer, `insert into waybill_migration (version, name) values (99, 'x')`)
  const report = await examine(newer)
  assert.deepEqual(bad(report), ['migrations error'])
  assert.match(of(report, 'migrations')[0]!.advice!, /update waybill/)

  const older = await freshDatabase()
  await sql(older, 'delete from waybill_migration where version > 1')
  assert.match(of(await examine(older), 'migrations')[0]!.advice!, /waybill migrate/)
})

test('a key that stands still is named, with its error and the commands that help', async () => {
  const url = await freshDatabase()
  const [first] = await append(url, 'k', 'k', 'k', 'held')
  await withStorage(url, async ({ outbox }) => {
    await outbox.acquire('relay-1', 60_000)
    const rows = await outbox.claim('relay-1', { limit: 100, busy: [] })
    await outbox.park('relay-1', [{ rowId: first!, error: 'no such\u001b field' }])
    await outbox.hold('relay-1', [{ rowId: rows.find(({ message }) => message.key === 'held')!.rowId, error: 'later' }], 600_000)
  })
  const report = await examine(url)
  assert.deepEqual(
    of(report, 'stuck keys')
      .map(({ level }) => level)
      .toSorted(),
    ['error', 'warn'],
  )
  const parked = of(report, 'stuck keys').find(({ level }) => level === 'error')!
  assert.match(
    parked.found,
    new RegExp(`shop\\.Sold, key k: row ${first} is parked after 1 attempt, 2 behind it, .* old: no such\\\\u001b field`),
  )
  assert.match(parked.advice!, new RegExp(`waybill outbox show ${first}; .*waybill outbox retry ${first}; .*waybill outbox skip ${first}`))
  assert.equal((await run(url)).code, 1)
})

test('a relay that died is told from one at work, and rows that wait for nobody are an error', async () => {
  const url = await freshDatabase()
  await withStorage(url, (storage) => storage.outbox.acquire('relay-dead', 60_000))
  await append(url, 'k')
  await sql(url, `update waybill_outbox set created_at = created_at - interval '20 seconds'`)
  const soon = await examine(url)
  assert.deepEqual(bad(soon), ['relays warn'])
  assert.match(of(soon, 'relays')[0]!.advice!, /if that process is dead, its shards are free in [\d.]+ s/)

  await sql(url, `update waybill_relay set expires_at = now() - interval '9 seconds'`)
  await sql(url, `update waybill_lease set expires_at = now() - interval '9 seconds'`)
  const gone = await examine(url)
  assert.deepEqual(bad(gone), ['relays warn', 'relays error'])
  assert.match(of(gone, 'relays')[0]!.found, /relay relay-dead is gone: its lease ran out (9|1\d)\.\d s ago/)
  assert.match(of(gone, 'relays')[1]!.found, /no relay is at work, and 1 row waits/)
})

test('relays: shards with nobody and an uneven spread are said', () => {
  const lease = (relayId: string, shards: number, expiresInMs = 9_000) => ({ relayId, shards, expiresInMs })
  const levels = (...given: Parameters<typeof relayFindings>) => relayFindings(...given).map(({ level }) => level)
  assert.deepEqual(levels([lease('a', 32), lease('b', 32)], 5, 100), ['ok', 'ok'])
  assert.deepEqual(levels([lease('a', 40), lease('b', 24)], 0, 0), ['ok', 'ok', 'info'])
  assert.deepEqual(levels([lease('a', 32), lease('b', 32, -1)], 1, 100), ['warn', 'ok', 'warn'])
  assert.deepEqual(levels([], 0, 0), ['info'])
})

test('rows that wait long are a warning; dead letters too', async () => {
  const url = await freshDatabase()
  await append(url, 'k')
  await sql(url, `update waybill_outbox set created_at = created_at - interval '3 hours'`)
  await withStorage(url, (storage) =>
    storage.deadLetters.park([
      {
        handler: 'shop/bill',
        message: { id: 'x', topic: 't', key: 'k', headers: {}, body: new Uint8Array() },
        eventType: 't',
        reason: 'failed',
        error: 'no',
        attempts: 5,
        partition: '0',
        sequence: undefined,
      },
    ]),
  )
  const report = await examine(url)
  assert.deepEqual(bad(report), ['lag warn', 'relays error', 'dead letters warn'])
  assert.match(of(report, 'lag')[0]!.found, /1 row pending, the oldest for 3\.0 h/)
  assert.match(of(report, 'dead letters')[0]!.found, /1 message could not be handled, by shop\/bill/)
})

describe('what loses data or order', () => {
  test('a changed sequence', async () => {
    const url = await freshDatabase()
    await sql(url, 'alter sequence waybill_outbox_ids cache 20')
    const report = await examine(url)
    assert.deepEqual(bad(report), ['sequence error'])
    assert.match(of(report, 'sequence')[0]!.advice!, /alter sequence "public"\."waybill_outbox_ids" cache 1/)
  })

  test('settings of the server, and autovacuum turned off for the table', async () => {
    const url = await freshDatabase()
    const name = new URL(url).pathname.slice(1)
    await sql(server.url(), `alter database ${name} set synchronous_commit = off`)
    await sql(url, 'alter table waybill_outbox set (autovacuum_enabled = off)')
    assert.deepEqual(bad(await examine(url)), ['settings warn', 'vacuum warn'])
  })

  test('a server that does not wait for the disk', async () => {
    const careless = await startPostgresServer()
    try {
      const report = await examine(careless.url())
      assert.deepEqual(bad(report), ['settings error', 'migrations error'])
      assert.match(of(report, 'settings')[0]!.found, /^fsync is off/)
    } finally {
      await careless.close()
    }
  })
})

describe('what keeps it from working', () => {
  test('a database that takes no writes', async () => {
    const url = await freshDatabase()
    await sql(server.url(), `alter database ${new URL(url).pathname.slice(1)} set default_transaction_read_only = on`)
    const report = await examine(url)
    assert.deepEqual(bad(report), ['writable error'])
    assert.match(of(report, 'writable')[0]!.advice!, /default_transaction_read_only/)
  })

  test('rights that are missing, with the statement that grants them', async () => {
    const url = await freshDatabase()
    await sql(url, `create role clerk login password 'sesame'; grant select on all tables in schema public to clerk`)
    const clerk = Object.assign(new URL(url), { username: 'clerk', password: 'sesame' }).href
    const report = await examine(clerk)
    assert.ok(bad(report).every((line) => line === 'rights error'))
    const advice = of(report, 'rights').map((finding) => finding.advice)
    assert.ok(advice.includes('grant insert, update, delete on "public"."waybill_outbox" to clerk'), advice.join('\n'))
    assert.ok(advice.includes('grant usage on sequence "public"."waybill_outbox_ids" to clerk'), advice.join('\n'))

    await sql(url, 'revoke all on waybill_migration from clerk')
    const blind = JSON.parse((await run(clerk, '--json')).stdout) as Report
    assert.ok(of(blind, 'rights').some((finding) => finding.advice === 'grant select on "public"."waybill_migration" to clerk'))
  })

  test('an encoding that can not hold every text', async () => {
    await sql(server.url(), `create database latin encoding 'LATIN1' locale 'C' template template0`)
    const report = await examine(server.url('latin'))
    assert.deepEqual(bad(report), ['server error'])
    assert.equal(report.findings.length, 1)
  })

  test('a session that keeps a transaction open', async () => {
    const url = await freshDatabase()
    const client = new pg.Client({ connectionString: url, application_name: 'forgotten' })
    await client.connect()
    try {
      await client.query('begin')
      await client.query('select 1')
      // Sixty seconds are what makes a transaction old: asked with less, it is the same question.
      const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
      const findings = await withStorage(url, (storage) =>
        sessionsFindings({ storage, server: true, schema: 'public', prefix: 'waybill_', now: Date.now }, 0),
      )
      const found = findings.find((finding) => finding.found.includes('(forgotten)'))
      assert.equal(found?.level, 'warn')
      assert.match(found.advice!, new RegExp(`pg_terminate_backend\\(${rows[0]!.pid}\\)`))
    } finally {
      await client.end()
    }
  })

  test('a server that is not there, a wrong password, a database that does not exist: one finding, without the password', async () => {
    for (const [url, found, advice] of [
      [
        'postgres://user:hunter2@127.0.0.1:1/shop',
        /ECONNREFUSED .*\(host 127\.0\.0\.1, port 1, /,
        /^start the server; or correct host and port/,
      ],
      [Object.assign(new URL(server.url()), { password: 'hunter2' }).href, /password authentication failed/, /^correct user and password/],
      [server.url('nowhere'), /"nowhere" does not exist/, /^correct the database in DATABASE_URL; or make it/],
    ] as const) {
      const report = await examine(url)
      assert.deepEqual(bad(report), ['database error'], url)
      assert.match(report.findings[0]!.found, found)
      assert.match(report.findings[0]!.advice!, advice)
      assert.doesNotMatch(report.findings[0]!.found, /\n/)
      const { stdout, stderr } = await run(url)
      assert.doesNotMatch(stdout + stderr, /hunter2/)
      assert.ok(!(stdout + stderr).includes(server.password))
    }
  })
})

test('what the way to the server says becomes what to do; anything else a list of what to check', () => {
  const advice = (message: string) =>
    unreachable(new WaybillError('DATABASE_UNREACHABLE', message, { got: 'host h', allowed: 'x' }), 'DATABASE_URL').advice!
  assert.match(advice('getaddrinfo ENOTFOUND h'), /^correct the host/)
  assert.match(advice('role "shop" does not exist'), /^correct the user/)
  assert.match(advice('it did not answer in time'), /firewall$/)
  assert.match(advice('no pg_hba.conf entry for host "10.0.0.1"'), /^let this machine in/)
  assert.match(advice('sorry, too many clients already'), /raise max_connections$/)
  assert.match(advice('the moon is full'), /^check host, port, database, user and password/)
  assert.equal(
    unreachable(new WaybillError('DATABASE_UNREACHABLE', 'no', { got: 'host h', allowed: 'x' }), 'DATABASE_URL').found,
    'no (host h)',
  )
  assert.match(unreachable(new WaybillError('DATABASE_IN_USE', 'taken'), 'DATABASE_URL').advice!, /^a PGlite folder has one owner/)
})

test('a difference of clocks is what can not be explained by the time that the question took', () => {
  assert.equal(clockFinding(1_000, 0, 5_000).level, 'ok')
  assert.equal(clockFinding(5_900, 0, 5_000).level, 'ok')
  assert.match(clockFinding(9_000, 0, 5_000).found, /4\.0 s ahead/)
  assert.equal(clockFinding(-2_000, 0, 5_000).level, 'warn')
  assert.match(clockFinding(-2_000, 0, 5_000).found, /2\.0 s behind/)
  assert.equal(clockFinding(100_000, 0, 5_000).level, 'error')
})

test('an embedded database is looked at as far as that makes sense', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'waybill-doctor-'))
  try {
    const database = join(folder, 'shop')
    const out = { write: () => {} }
    assert.equal(await main(['migrate'], { stdout: out, stderr: out, env: { DATABASE_URL: database } }), 0)
    const report = await examine(database)
    assert.deepEqual(bad(report), [])
    assert.deepEqual(
      report.findings.map(({ check }) => check),
      ['server', 'writable', 'clock', 'migrations', 'rights', 'sequence', 'lag', 'relays', 'stuck keys', 'dead letters'],
    )
  } finally {
    rmSync(folder, { recursive: true })
  }
})
