import { type Clock, systemClock } from '../../core/clock.ts'
import { type Environment, readSettings } from '../../core/environment.ts'
import { WaybillError } from '../../core/errors.ts'
import { type Observe, unobserved } from '../../core/observe.ts'
import { checkFunction, checkInteger, checkNames } from '../../core/options.ts'
import type { NatsLibrary } from './client.ts'

export interface NatsTransportOptions {
  /** One server or several of one cluster: `nats://host:port`, `tls://host:port`, `host:port`. @default 'nats://127.0.0.1:4222' */
  readonly servers?: string | readonly string[]
  readonly user?: string
  readonly password?: string
  readonly token?: string
  /** Seed of a user's nkey: `SU...`. */
  readonly nkeySeed?: string
  /** Content of a creds file: a JWT and its seed. */
  readonly creds?: string
  /** TLS; an empty object for a certificate that the system trusts. Contents of PEM files, not paths. */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string }
  /** Begins each subject and stream: 1 to 32 letters, digits, `_` and `-`. @default 'waybill' */
  readonly prefix?: string
  /** Partitions of a topic that is made; an existing one keeps its own. 1 to 256. @default 12 */
  readonly partitions?: number
  /** Copies of each stream, 1 to 5. @default 1 */
  readonly replicas?: number
  /** @default 'file' */
  readonly storage?: 'file' | 'memory'
  /** How long a message is kept, 0 for ever, up to 10 years. @default 2592000000 (30 days) */
  readonly maxAgeMs?: number
  /** Most bytes of a stream, the oldest go; 0 for no limit. @default 0 */
  readonly maxBytes?: number
  /** For how long a repeated id is known, 100 ms to 1 day. @default 120000 */
  readonly duplicateWindowMs?: number
  /** Makes streams that are missing; otherwise `TOPIC_MISSING`. @default true */
  readonly createTopics?: boolean
  /** Changes a stream that differs from what is declared here; otherwise that is only said. Its partitions never change. @default false */
  readonly update?: boolean
  /** Largest body in bytes, 1 to 64 MiB; together with its headers it must not exceed the server's `max_payload` either. @default 1048576 (1 MiB) */
  readonly messageMaxBytes?: number
  /** How long an answer of the server is waited for, 100 to 600,000 ms. @default 10000 */
  readonly requestTimeoutMs?: number
  /** `close` ends within it, 100 to 600,000 ms. @default 5000 */
  readonly closeTimeoutMs?: number
  /** How long a member that has fallen silent keeps its partitions, 1,000 to 600,000 ms. @default 5000 */
  readonly leaseMs?: number
  /** Messages of one partition that wait here to be handed out, 1 to 100,000. @default 256 */
  readonly prefetchMax?: number
  /**
   * Acks of one partition that may be on their way: so many resolve before the server has confirmed them, and come again after a crash. 0 waits for
   * each; leaving and closing wait for all. Up to 10,000. @default 100
   */
  readonly ackAheadMax?: number
  /** Begins JetStream's API; `$JS.{domain}.API` reaches a domain. @default '$JS.API' */
  readonly apiPrefix?: string
  /** Begins inboxes, where rights are limited. @default '_INBOX' */
  readonly inboxPrefix?: string
  /** Name of the connection in the server's lists. @default 'waybill' */
  readonly clientName?: string
  /** Used instead of loading `@nats-io/transport-node`. */
  readonly library?: NatsLibrary
  /** @default the machine's */
  readonly clock?: Clock
  readonly observe?: Observe
}

/** Options with their defaults. */
export interface CheckedNatsOptions {
  readonly servers: readonly string[]
  /** Without credentials. */
  readonly address: string
  readonly user: string | undefined
  readonly password: string | undefined
  readonly token: string | undefined
  readonly nkeySeed: string | undefined
  readonly creds: string | undefined
  readonly tls: NatsTransportOptions['tls']
  readonly prefix: string
  readonly partitions: number
  readonly replicas: number
  readonly storage: 'file' | 'memory'
  readonly maxAgeMs: number
  readonly maxBytes: number
  readonly duplicateWindowMs: number
  readonly createTopics: boolean
  readonly update: boolean
  readonly messageMaxBytes: number
  readonly requestTimeoutMs: number
  readonly closeTimeoutMs: number
  readonly leaseMs: number
  readonly prefetchMax: number
  readonly ackAheadMax: number
  readonly apiPrefix: string
  readonly inboxPrefix: string
  readonly clientName: string
  readonly library: NatsLibrary | undefined
  readonly clock: Clock
  readonly observe: Observe
}

const MIB = 1024 * 1024
const DAY_MS = 86_400_000
const NAMES = {
  servers: true,
  user: true,
  password: true,
  token: true,
  nkeySeed: true,
  creds: true,
  tls: true,
  prefix: true,
  partitions: true,
  replicas: true,
  storage: true,
  maxAgeMs: true,
  maxBytes: true,
  duplicateWindowMs: true,
  createTopics: true,
  update: true,
  messageMaxBytes: true,
  requestTimeoutMs: true,
  closeTimeoutMs: true,
  leaseMs: true,
  prefetchMax: true,
  ackAheadMax: true,
  apiPrefix: true,
  inboxPrefix: true,
  clientName: true,
  library: true,
  clock: true,
  observe: true,
} as const

/** @throws WaybillError `INVALID_OPTION` */
export function checkNatsOptions(options: NatsTransportOptions): CheckedNatsOptions {
  const where = 'natsTransport'
  checkNames(options, NAMES, where)
  if (options.tls !== undefined) checkNames(options.tls, { ca: true, cert: true, key: true }, `${where}.tls`)
  const whole = (name: keyof NatsTransportOptions, fallback: number, min: number, max: number): number =>
    checkInteger(options[name] ?? fallback, `${where}.${name}`, min, max)
  const { servers, address, user, password } = checkServers(options.servers ?? 'nats://127.0.0.1:4222')
  const checked: CheckedNatsOptions = {
    servers,
    address,
    user: text(options.user, 'user') ?? user,
    password: text(options.password, 'password') ?? password,
    token: text(options.token, 'token'),
    nkeySeed: text(options.nkeySeed, 'nkeySeed'),
    creds: text(options.creds, 'creds'),
    tls: options.tls ?? (servers.some((server) => server.startsWith('tls://')) ? {} : undefined),
    prefix: token(options.prefix ?? 'waybill', 'prefix'),
    partitions: whole('partitions', 12, 1, 256),
    replicas: whole('replicas', 1, 1, 5),
    storage: checkStorage(options.storage ?? 'file'),
    maxAgeMs: whole('maxAgeMs', 30 * DAY_MS, 0, 3650 * DAY_MS),
    maxBytes: whole('maxBytes', 0, 0, Number.MAX_SAFE_INTEGER),
    duplicateWindowMs: whole('duplicateWindowMs', 120_000, 100, DAY_MS),
    createTopics: options.createTopics ?? true,
    update: options.update ?? false,
    messageMaxBytes: whole('messageMaxBytes', MIB, 1, 64 * MIB),
    requestTimeoutMs: whole('requestTimeoutMs', 10_000, 100, 600_000),
    closeTimeoutMs: whole('closeTimeoutMs', 5000, 100, 600_000),
    leaseMs: whole('leaseMs', 5000, 1000, 600_000),
    prefetchMax: whole('prefetchMax', 256, 1, 100_000),
    ackAheadMax: whole('ackAheadMax', 100, 0, 10_000),
    apiPrefix: subject(options.apiPrefix ?? '$JS.API', 'apiPrefix'),
    inboxPrefix: subject(options.inboxPrefix ?? '_INBOX', 'inboxPrefix'),
    clientName: text(options.clientName, 'clientName') ?? 'waybill',
    library: options.library,
    clock: options.clock ?? systemClock,
    observe: options.observe === undefined ? unobserved : checkFunction(options.observe, `${where}.observe`),
  }
  checkWays(checked)
  return checked
}

/** One way in at a time: with two, nobody could tell which one the server takes. */
function checkWays({ user, password, token: secret, nkeySeed, creds }: CheckedNatsOptions): void {
  const given = Object.entries({ user, token: secret, nkeySeed, creds }).filter(([, value]) => value !== undefined)
  if (given.length > 1)
    throw new WaybillError('INVALID_OPTION', 'there are several credentials', {
      got: given.map(([name]) => name).join(', '),
      allowed: 'one of user and password, token, nkeySeed, creds',
      where: 'natsTransport',
    })
  if (password !== undefined && user === undefined)
    throw new WaybillError('INVALID_OPTION', 'a password without a user', { allowed: 'both, or none', where: 'natsTransport.password' })
}

function text(value: unknown, name: string): string | undefined {
  if (value === undefined || (typeof value === 'string' && value !== '')) return value
  // Never shown: it may be a secret.
  throw new WaybillError('INVALID_OPTION', `${name} is no text`, { allowed: 'text that is not empty', where: `natsTransport.${name}` })
}

function token(value: string, name: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$/.test(value)) return value
  throw new WaybillError('INVALID_OPTION', `${name} is not usable`, {
    got: value,
    allowed: '1 to 32 letters, digits, "_" and "-"',
    where: `natsTransport.${name}`,
  })
}

function subject(value: string, name: string): string {
  if (/^[\w$-]+(?:\.[\w$-]+)*$/.test(value) && value.length <= 200) return value
  throw new WaybillError('INVALID_OPTION', `${name} is no subject`, {
    got: value,
    allowed: 'tokens joined by dots',
    where: `natsTransport.${name}`,
  })
}

function checkStorage(value: unknown): 'file' | 'memory' {
  if (value === 'file' || value === 'memory') return value
  throw new WaybillError('INVALID_OPTION', 'storage is not known', {
    got: value,
    allowed: "'file' or 'memory'",
    where: 'natsTransport.storage',
  })
}

interface Servers {
  readonly servers: readonly string[]
  readonly address: string
  readonly user: string | undefined
  readonly password: string | undefined
}

function checkServers(value: string | readonly string[]): Servers {
  const all = (typeof value === 'string' ? value.split(',') : [...value]).map((one) => String(one).trim()).filter((one) => one !== '')
  const urls = all.map((one) => {
    const full = one.includes('://') ? one : `nats://${one}`
    const url = URL.canParse(full) ? new URL(full) : undefined
    // Not shown: there may be a password in it.
    if (url === undefined || !/^(?:nats|tls):$/.test(url.protocol) || url.hostname === '')
      throw new WaybillError('INVALID_OPTION', 'an address of a server is not usable', {
        allowed: 'nats://host:port or tls://host:port, several with commas',
        where: 'natsTransport.servers',
      })
    return url
  })
  if (urls.length === 0)
    throw new WaybillError('INVALID_OPTION', 'there is no server', {
      got: value,
      allowed: 'one address or more',
      where: 'natsTransport.servers',
    })
  const servers = urls.map((url) => `${url.protocol}//${url.hostname}:${url.port || '4222'}`)
  const known = urls.find((url) => url.username !== '')
  return {
    servers,
    address: servers.join(','),
    user: known === undefined ? undefined : decodeURIComponent(known.username),
    password: known === undefined || known.password === '' ? undefined : decodeURIComponent(known.password),
  }
}

/**
 * Options from the environment: NATS_URL (several with commas), NATS_USER, NATS_PASSWORD, NATS_TOKEN, NATS_NKEY_SEED_PATH, NATS_CREDS_PATH, NATS_TLS_ENABLED,
 * NATS_TLS_CA_PATH, NATS_TLS_CERT_PATH, NATS_TLS_KEY_PATH, NATS_STREAM_REPLICAS, NATS_STREAM_STORAGE, NATS_STREAM_MAX_AGE_MS, NATS_PARTITIONS.
 * @throws WaybillError `INVALID_SETTING` | `INVALID_FILE`
 */
export function natsSettings(env: Environment): NatsTransportOptions {
  const read = readSettings(env)
  const ca = read.file('NATS_TLS_CA_PATH')
  const cert = read.file('NATS_TLS_CERT_PATH')
  const key = read.file('NATS_TLS_KEY_PATH')
  const isTls = read.flag('NATS_TLS_ENABLED') ?? (ca !== undefined || cert !== undefined)
  return defined({
    servers: read.text('NATS_URL'),
    user: read.text('NATS_USER'),
    password: read.text('NATS_PASSWORD'),
    token: read.text('NATS_TOKEN'),
    nkeySeed: read.file('NATS_NKEY_SEED_PATH')?.trim(),
    creds: read.file('NATS_CREDS_PATH'),
    tls: isTls ? defined({ ca, cert, key }) : undefined,
    replicas: read.integer('NATS_STREAM_REPLICAS', 1, 5),
    storage: read.oneOf('NATS_STREAM_STORAGE', ['file', 'memory'] as const),
    maxAgeMs: read.integer('NATS_STREAM_MAX_AGE_MS', 0, 3650 * DAY_MS),
    partitions: read.integer('NATS_PARTITIONS', 1, 256),
  })
}

function defined<T extends object>(values: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as { [K in keyof T]?: NonNullable<T[K]> }
}
