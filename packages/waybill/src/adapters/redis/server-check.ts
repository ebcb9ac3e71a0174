import { WaybillError } from '../../core/errors.ts'
import type { BrokerReport } from '../../core/transport.ts'
import type { RedisArgument } from './client-like.ts'

/** What a server says of itself. */
export interface ServerFacts {
  readonly version: string
  readonly settings: Readonly<Record<string, string>>
  readonly findings: BrokerReport['findings']
  readonly isCluster: boolean
}

type Call = (args: readonly RedisArgument[]) => Promise<unknown>

const WANTED = ['appendonly', 'appendfsync', 'save', 'maxmemory', 'maxmemory-policy', 'min-replicas-to-write']

/** Asks; what a user may not know is `unknown`. Rejects only where the connection breaks. */
export async function askServer(call: Call): Promise<ServerFacts> {
  const info = parseInfo(String((await unlessRefused(call(['INFO', 'everything']))) ?? ''))
  const settings: Record<string, string> = {}
  for (const name of WANTED) {
    const reply = await unlessRefused(call(['CONFIG', 'GET', name]))
    settings[name] = Array.isArray(reply) && reply.length > 1 ? String(reply[1]) : 'unknown'
  }
  settings['role'] = info.get('role') ?? 'unknown'
  settings['connected_slaves'] = info.get('connected_slaves') ?? 'unknown'
  return {
    version: info.get('redis_version') ?? 'unknown',
    settings,
    findings: findingsOf(settings, info),
    isCluster: info.get('cluster_enabled') === '1',
  }
}

async function unlessRefused(asked: Promise<unknown>): Promise<unknown> {
  try {
    return await asked
  } catch (error) {
    const reason = error instanceof WaybillError ? error.code : ''
    if (reason === 'TRANSPORT_UNAVAILABLE' || reason === 'UNKNOWN_OUTCOME') throw error
    return undefined
  }
}

/** @throws WaybillError `UNSUPPORTED` for a server that this adapter can't work with */
export function assertUsable({ version, isCluster }: ServerFacts, where: string): void {
  if (version !== 'unknown' && Number.parseInt(version, 10) < 7)
    throw new WaybillError('UNSUPPORTED', 'this Redis server is too old', { got: version, allowed: '7.0 or newer', where })
  if (isCluster)
    throw new WaybillError('UNSUPPORTED', 'this server is one of a Redis Cluster, which this adapter does not speak to', {
      allowed: 'a single server with its replicas, or an address that leads to the current primary',
      where,
    })
}

function parseInfo(text: string): ReadonlyMap<string, string> {
  return new Map(
    text.split('\r\n').flatMap((line) => {
      const at = line.indexOf(':')
      return at > 0 && !line.startsWith('#') ? [[line.slice(0, at), line.slice(at + 1)] as const] : []
    }),
  )
}

type Finding = BrokerReport['findings'][number]

function findingsOf(settings: Readonly<Record<string, string>>, info: ReadonlyMap<string, string>): readonly Finding[] {
  const findings: Finding[] = []
  const add = (level: Finding['level'], text: string, advice: string): void => void findings.push({ level, text, advice })
  if (info.get('role') === 'slave') add('error', 'this server is a replica: nothing can be stored here', 'give the address of the primary')
  if (info.get('aof_last_write_status') === 'err')
    add('error', 'the server could not write its append-only file', 'look at its disk and its log')
  if (info.get('rdb_last_bgsave_status') === 'err' && settings['appendonly'] !== 'yes')
    add('error', 'the server could not write its last snapshot', 'look at its disk and its log')
  addDurability(settings, add)
  addMemory(settings, info, add)
  const replicas = Number(settings['connected_slaves'])
  if (replicas > 0 && (settings['min-replicas-to-write'] === '0' || settings['min-replicas-to-write'] === 'unknown'))
    add(
      'warning',
      'replication is asynchronous: a failover loses what the replica has not received yet',
      'min-replicas-to-write 1 bounds it to min-replicas-max-lag seconds',
    )
  return findings.toSorted((one, other) => Number(other.level === 'error') - Number(one.level === 'error'))
}

function addDurability(
  settings: Readonly<Record<string, string>>,
  add: (level: Finding['level'], text: string, advice: string) => void,
): void {
  const { appendonly, appendfsync, save } = settings
  if (appendonly === 'no') {
    if (save === '') add('warning', 'nothing is written to disk: a restart loses every message', 'appendonly yes')
    else
      add(
        'warning',
        'there are only snapshots (appendonly no): a crash loses what was stored since the last one, a minute or more',
        'appendonly yes',
      )
  } else if (appendonly === 'unknown')
    add(
      'warning',
      'the server does not tell whether it has an append-only file: without one a crash loses stored messages',
      'allow CONFIG GET, or see to appendonly yes',
    )
  else if (appendfsync === 'everysec')
    add(
      'warning',
      'the append-only file is flushed once a second: a power cut loses up to a second of stored messages',
      'appendfsync always, where that matters more than speed',
    )
  else if (appendfsync === 'no')
    add(
      'warning',
      'the append-only file is flushed when the system likes to: a power cut loses half a minute or so',
      'appendfsync everysec, or always',
    )
}

function addMemory(
  settings: Readonly<Record<string, string>>,
  info: ReadonlyMap<string, string>,
  add: (level: Finding['level'], text: string, advice: string) => void,
): void {
  const { maxmemory } = settings
  const policy = settings['maxmemory-policy'] === 'unknown' ? info.get('maxmemory_policy') : settings['maxmemory-policy']
  if (policy === undefined) return
  if (policy === 'noeviction') {
    const used = Number(info.get('used_memory'))
    if (Number(maxmemory) > 0 && used > 0.9 * Number(maxmemory))
      add('warning', 'the memory is nearly full: then nothing can be stored any more', 'more maxmemory, or a shorter retention')
  } else if (policy.startsWith('allkeys'))
    add(
      maxmemory === '0' ? 'warning' : 'error',
      `when the memory is full the server deletes whole topics (maxmemory-policy ${policy})`,
      'maxmemory-policy noeviction',
    )
  else
    // Our streams do not expire, but leases and the lists of members do.
    add(
      'warning',
      `when the memory is full the server deletes leases (maxmemory-policy ${policy}): messages come twice then`,
      'maxmemory-policy noeviction',
    )
}
