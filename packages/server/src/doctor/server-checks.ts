import { counted, lengthOfTime, printable } from '../cli/printable.ts'
import { type Check, type CheckInput, type Finding, oneRow } from './finding.ts'

const SERVER_MIN = 140_000
const CLOCK_WARN_MS = 1_000
const CLOCK_ERROR_MS = 30_000
const IDLE_WARN_S = 60
const SESSIONS_SHOWN = 5
const CONNECTIONS_WARN = 0.8
const CONNECTIONS_ERROR = 0.95

type Found = Omit<Finding, 'check'>

/** Whether the server is one that everything else can be asked of. */
export const serverCheck: Check = {
  name: 'server',
  async run(input) {
    const { number, version, encoding } = await oneRow<{ number: string; version: string; encoding: string }>(
      input,
      `select current_setting('server_version_num') as number, current_setting('server_version') as version,
         current_setting('server_encoding') as encoding`,
    )
    const findings: Found[] = []
    if (Number(number) < SERVER_MIN)
      findings.push({ level: 'error', found: `PostgreSQL ${version} is too old`, advice: 'update the server to version 14 or newer' })
    if (encoding !== 'UTF8')
      findings.push({
        level: 'error',
        found: `the database's encoding is ${encoding}: not every key and error can be stored`,
        advice: "make a database with encoding 'UTF8' and move to it",
      })
    const name = input.server ? 'PostgreSQL' : 'PGlite, PostgreSQL'
    return findings.length > 0 ? findings : [{ level: 'ok', found: `${name} ${version}, ${encoding}` }]
  },
}

const writableCheck: Check = {
  name: 'writable',
  async run(input) {
    const { replica, readonly } = await oneRow<{ replica: boolean; readonly: string }>(
      input,
      `select pg_catalog.pg_is_in_recovery() as replica, current_setting('transaction_read_only') as readonly`,
    )
    if (replica)
      return [{ level: 'error', found: 'this server is a replica: nothing can be written', advice: 'give the URL of the primary server' }]
    if (readonly === 'on')
      return [
        {
          level: 'error',
          found: 'transactions are read-only by default',
          advice: 'set default_transaction_read_only to off, for the server, the database or the user',
        },
      ]
    return [{ level: 'ok', found: 'a primary server that takes writes' }]
  },
}

interface Setting {
  readonly level: 'warn' | 'error'
  readonly bad: readonly string[]
  readonly because: string
}

const SETTINGS: Readonly<Record<string, Setting>> = {
  fsync: { level: 'error', bad: ['off'], because: 'a crash of the machine loses committed events, or the database' },
  full_page_writes: { level: 'error', bad: ['off'], because: 'a crash of the machine may leave torn pages behind' },
  synchronous_commit: { level: 'warn', bad: ['off'], because: 'a crash of the server loses the commits of its last moments' },
  autovacuum: { level: 'warn', bad: ['off'], because: 'deleted rows pile up, and each look at the outbox steps over them' },
}

const settingsCheck: Check = {
  name: 'settings',
  serverOnly: true,
  async run({ storage }) {
    const { rows } = await storage.database.query<{ name: string; setting: string }>(
      'select name, setting from pg_catalog.pg_settings where name = any ($1::text[])',
      [Object.keys(SETTINGS)],
    )
    const found = rows.flatMap(({ name, setting }): readonly Found[] => {
      const rule = SETTINGS[name]
      if (rule?.bad.includes(setting) !== true) return []
      return [{ level: rule.level, found: `${name} is ${setting}: ${rule.because}`, advice: `set ${name} to on` }]
    })
    return found.length > 0 ? found : [{ level: 'ok', found: `${Object.keys(SETTINGS).join(', ')} are on` }]
  },
}

const connectionsCheck: Check = {
  name: 'connections',
  serverOnly: true,
  async run(input) {
    const { used, most } = await oneRow<{ used: number; most: number }>(
      input,
      `select count(*)::int as used,
         (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int) as most
       from pg_catalog.pg_stat_activity where backend_type = 'client backend'`,
    )
    const part = used / most
    const found = `${used} of ${most} connections are in use`
    if (part < CONNECTIONS_WARN) return [{ level: 'ok', found }]
    return [
      {
        level: part < CONNECTIONS_ERROR ? 'warn' : 'error',
        found,
        advice: 'raise max_connections, make pools smaller, or put a pooler in front; each process of Waybill needs 2 or more',
      },
    ]
  },
}

interface OldSession {
  readonly pid: number
  readonly name: string
  readonly seconds: number
}

const sessionsCheck: Check = {
  name: 'sessions',
  serverOnly: true,
  run: (input) => sessionsFindings(input, IDLE_WARN_S),
}

/** Who keeps a transaction open for longer than `idleS` seconds: it keeps dead rows alive, for everybody. */
export async function sessionsFindings(input: CheckInput, idleS: number): Promise<readonly Found[]> {
  const { rows } = await input.storage.database.query<OldSession>(
    `select pid, application_name as name, extract(epoch from clock_timestamp() - xact_start)::float8 as seconds
     from pg_catalog.pg_stat_activity
     where state like 'idle in transaction%' and xact_start < clock_timestamp() - make_interval(secs => $1::int)
     order by xact_start limit ${SESSIONS_SHOWN}`,
    [idleS],
  )
  const { prepared, timeout } = await oneRow<{ prepared: number; timeout: string }>(
    input,
    `select (select count(*)::int from pg_catalog.pg_prepared_xacts where prepared < clock_timestamp() - interval '5 minutes') as prepared,
       current_setting('idle_in_transaction_session_timeout') as timeout`,
  )
  const findings = rows.map(({ pid, name, seconds }): Found => ({
    level: 'warn',
    found:
      `session ${pid}${name === '' ? '' : ` (${printable(name)})`} has had a transaction open for ${lengthOfTime(seconds * 1000)}, doing nothing: ` +
      "vacuum can't remove what was deleted since, and keys it has written to stand still",
    advice: `end it where its program is, or: select pg_terminate_backend(${pid})`,
  }))
  if (prepared > 0)
    findings.push({
      level: 'warn',
      found: `${counted(prepared, 'prepared transaction')} older than 5 minutes`,
      advice: 'commit prepared or rollback prepared each; see pg_prepared_xacts',
    })
  if (findings.length > 0) return findings
  if (timeout !== '0') return [{ level: 'ok', found: `no long idle transaction; they are ended after ${timeout}` }]
  return [
    {
      level: 'info',
      found: 'no long idle transaction; but nothing ends one (idle_in_transaction_session_timeout is 0)',
      advice: "for example: alter database ... set idle_in_transaction_session_timeout = '5min'",
    },
  ]
}

const clockCheck: Check = {
  name: 'clock',
  async run(input) {
    const before = input.now()
    const { ms } = await oneRow<{ ms: number }>(input, 'select (extract(epoch from clock_timestamp()) * 1000)::float8 as ms')
    const after = input.now()
    return [clockFinding(Number(ms), before, after)]
  },
}

/** What is between asking and answer is no difference of clocks. */
export function clockFinding(databaseMs: number, beforeMs: number, afterMs: number): Found {
  const ahead = databaseMs > afterMs ? databaseMs - afterMs : databaseMs < beforeMs ? databaseMs - beforeMs : 0
  const off = Math.abs(ahead)
  if (off <= CLOCK_WARN_MS) return { level: 'ok', found: 'database and this machine agree to within 1 s' }
  return {
    level: off <= CLOCK_ERROR_MS ? 'warn' : 'error',
    found: `the database's clock is ${lengthOfTime(off)} ${ahead > 0 ? 'ahead of' : 'behind'} this machine's: ages and due times seem wrong`,
    advice: 'let both machines keep their time by NTP; leases are safe, they go by the database alone',
  }
}

/** In the order in which they are read. */
export const SERVER_CHECKS: readonly Check[] = [writableCheck, settingsCheck, connectionsCheck, sessionsCheck, clockCheck]

/** Whether anything further makes sense: without a usable server nothing else can be asked. */
export function isUsable(findings: readonly Finding[]): boolean {
  return findings.every(({ level }) => level !== 'error')
}
