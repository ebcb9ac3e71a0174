import { requirePeer } from '../../core/peer.ts'
import { WaybillError } from '../../core/errors.ts'
import { checkInteger, checkNames } from '../../core/options.ts'
import type { SettingReader } from '../../core/environment.ts'
import type { RedisClientSettings, RedisLibrary, RedisLike } from './client-like.ts'

/** How to reach a Redis server; the same for Streams and Pub/Sub. */
export interface RedisConnectionOptions {
  /** `redis://[[user:]password@]host[:6379][/database]`; `rediss://` for TLS. @default 'redis://127.0.0.1:6379' */
  readonly url?: string
  /** Instead of the one in `url`. */
  readonly username?: string
  /** Instead of the one in `url`. Never shown in an error. */
  readonly password?: string
  /** Certificates, as PEM; any of them means TLS. `serverName`: what the server's certificate must be for. @default the host of `url` */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string; readonly serverName?: string }
  /** The `redis` package (5 or 6), or a look-alike; it is loaded when left out. */
  readonly library?: RedisLibrary
}

/** A checked way to a server. */
export interface RedisAddress {
  /** `host:port`, for people. */
  readonly address: string
  readonly isTls: boolean
  /** A client that is not connected yet. */
  open(): RedisLike
}

interface ParsedUrl {
  readonly host: string
  readonly port: number
  readonly isTls: boolean
  readonly username: string | undefined
  readonly password: string | undefined
  readonly database: number
}

const DATABASE_MAX = 65_535
export const CONNECTION_NAMES = { url: true, username: true, password: true, tls: true, library: true } as const

/** @throws WaybillError `INVALID_OPTION` | `PEER_MISSING` */
export async function redisAddress(options: RedisConnectionOptions, where: string, connectTimeoutMs: number): Promise<RedisAddress> {
  const parsed = parseUrl(options.url ?? 'redis://127.0.0.1:6379', where)
  const { tls } = options
  if (tls !== undefined) checkNames(tls, { ca: true, cert: true, key: true, serverName: true }, `${where}.tls`)
  const username = checkText(options.username, `${where}.username`) ?? parsed.username
  const password = checkText(options.password, `${where}.password`) ?? parsed.password
  for (const [name, value] of Object.entries(tls ?? {})) checkText(value, `${where}.tls.${name}`)
  const isTls = parsed.isTls || tls !== undefined
  const settings: RedisClientSettings = {
    socket: {
      host: parsed.host,
      port: parsed.port,
      connectTimeout: connectTimeoutMs,
      // The link connects anew itself: then it is known which commands had been sent.
      reconnectStrategy: false,
      ...(isTls ? { tls: true, ...tlsSettings(tls ?? {}, parsed.host) } : {}),
    },
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    database: parsed.database,
    RESP: 2,
    disableOfflineQueue: true,
    // Otherwise it makes an AbortSignal with a timer for each command, which bounds only the wait until it is written.
    commandOptions: { timeout: 0 },
  }
  const library = options.library ?? (await requirePeer('redis', loadRedis))
  return { address: `${parsed.host}:${parsed.port}`, isTls, open: () => library.createClient(settings) }
}

async function loadRedis(): Promise<RedisLibrary> {
  const { createClient } = await import('redis')
  return { createClient: (settings) => createClient(settings) }
}

function tlsSettings({ ca, cert, key, serverName }: NonNullable<RedisConnectionOptions['tls']>, host: string): object {
  const isName = !/^[\d.]+$|:/.test(host)
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    // An address is no server name, by the rules of TLS.
    ...(serverName === undefined ? (isName ? { servername: host } : {}) : { servername: serverName }),
  }
}

function checkText(value: unknown, where: string): string | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'string' && value !== '') return value
  throw new WaybillError('INVALID_OPTION', `${where} is not usable`, { allowed: 'a text that is not empty', where })
}

function parseUrl(url: unknown, where: string): ParsedUrl {
  const refuse = (): WaybillError =>
    // Without what was got: it may hold a password.
    new WaybillError('INVALID_OPTION', 'the address of the Redis server is not usable', {
      allowed: 'redis://[[user:]password@]host[:port][/database], or rediss:// for TLS',
      where: `${where}.url`,
    })
  if (typeof url !== 'string' || !URL.canParse(url)) throw refuse()
  const { protocol, hostname, port, username, password, pathname, search, hash } = new URL(url)
  const database = pathname === '' || pathname === '/' ? '0' : pathname.slice(1)
  if (!['redis:', 'rediss:'].includes(protocol) || hostname === '' || search !== '' || hash !== '' || !/^\d{1,5}$/.test(database))
    throw refuse()
  try {
    return {
      host: hostname.replace(/^\[|\]$/g, ''),
      port: port === '' ? 6379 : Number(port),
      isTls: protocol === 'rediss:',
      username: username === '' ? undefined : decodeURIComponent(username),
      password: password === '' ? undefined : decodeURIComponent(password),
      database: checkInteger(Number(database), `${where}.url (its database)`, 0, DATABASE_MAX),
    }
  } catch (error) {
    if (error instanceof WaybillError) throw error
    throw refuse()
  }
}

/** `REDIS_URL`, `REDIS_USERNAME`, `REDIS_PASSWORD` and `REDIS_TLS_CA_PATH`, `_CERT_PATH`, `_KEY_PATH`, `REDIS_TLS_SERVER_NAME`. */
export function connectionSettings(settings: SettingReader): RedisConnectionOptions {
  const url = settings.text('REDIS_URL')
  const username = settings.text('REDIS_USERNAME')
  const password = settings.text('REDIS_PASSWORD')
  const ca = settings.file('REDIS_TLS_CA_PATH')
  const cert = settings.file('REDIS_TLS_CERT_PATH')
  const key = settings.file('REDIS_TLS_KEY_PATH')
  const serverName = settings.text('REDIS_TLS_SERVER_NAME')
  const tls = {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(serverName === undefined ? {} : { serverName }),
  }
  return {
    ...(url === undefined ? {} : { url }),
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(Object.keys(tls).length === 0 ? {} : { tls }),
  }
}
