import { readFileSync } from 'node:fs'
import { type Clock, systemClock } from '../../core/clock.ts'
import { type Environment, readSettings } from '../../core/environment.ts'
import { WaybillError, messageOf } from '../../core/errors.ts'
import { type Observe, observeAll, unobserved } from '../../core/observe.ts'
import { checkInteger, checkNames } from '../../core/options.ts'
import { type TopicHome, checkHomePart } from './names.ts'
import type { PulsarLike, PulsarMessageIdsLike } from './pulsar-like.ts'

/** How the members of a group share a topic: see `PulsarTransportOptions.subscriptionType`. */
export type PulsarSubscriptionType = 'Key_Shared' | 'Shared' | 'Failover' | 'Exclusive'
export const SUBSCRIPTION_TYPES: readonly PulsarSubscriptionType[] = ['Key_Shared', 'Shared', 'Failover', 'Exclusive']

export interface PulsarTransportOptions {
  /** `pulsar://host:6650`, `pulsar+ssl://host:6651`: one host. With the WebSocket provider only its host counts. @default pulsar://localhost:6650 */
  readonly serviceUrl?: string
  /** Where Pulsar's WebSocket service is. Setting it chooses the WebSocket provider. @default the service URL's host, ws and 8080, with TLS wss and 8443 */
  readonly webSocketUrl?: string
  /** Where Pulsar's admin REST interface is. @default the service URL's host, port 8080, with TLS 8443; without a service URL, the WebSocket service's */
  readonly adminUrl?: string
  /**
   * `native`: the package `pulsar-client`. `websocket`: the package `ws`, over Pulsar's WebSocket API. @default `native` where that package can be loaded
   * and no `webSocketUrl` is given, else `websocket`
   */
  readonly provider?: 'native' | 'websocket'
  /** A client of your own instead of a provider; you close it. Connection, token and TLS here are then for the admin interface only. */
  readonly client?: PulsarLike
  /** The class `MessageId` of the package that `client` comes from: needed to subscribe without a group. */
  readonly messageIds?: PulsarMessageIdsLike
  /** A JSON web token, or what gives one at each connection. */
  readonly token?: string | (() => string | Promise<string>)
  readonly tls?: {
    /** True allows no address that says otherwise (`ws:`, `http:`). @default true where the service URL says so */
    readonly enabled?: boolean
    /** A file with the certificates that are trusted. @default the system's */
    readonly caPath?: string
    /** Whether the certificate must be made for the host. @default true */
    readonly validateHostname?: boolean
  }
  /** `non-persistent` topics keep nothing. @default 'persistent' */
  readonly persistence?: 'persistent' | 'non-persistent'
  /** @default 'public' */
  readonly tenant?: string
  /** @default 'default' */
  readonly namespace?: string
  /**
   * `Key_Shared`: members share a topic by key, each key in order. `Failover`: one member works, the others wait. `Exclusive`: one member only.
   * `Shared`: members share messages, in no order. @default 'Key_Shared'
   */
  readonly subscriptionType?: PulsarSubscriptionType
  /** Partitions of topics that are made here, 0 to 1,000; 0: without partitions. Topics that exist stay as they are. @default 0 */
  readonly partitions?: number
  /** Whether missing topics are made. @default true */
  readonly createTopics?: boolean
  /** Largest body in bytes, 1 to 5 MiB. @default 524288 (512 KiB) over WebSocket, else 1048576 (1 MiB) */
  readonly messageMaxBytes?: number
  /** The server's `webSocketMaxTextFrameSize`, which a message must fit in as JSON, its body in base64. @default 1048576, as the server's */
  readonly webSocketFrameMaxBytes?: number
  /** How long the broker may take for an answer, 100 to 600,000. @default 10000 */
  readonly requestTimeoutMs?: number
  /** Within which `close` ends, 100 to 600,000. @default 5000 */
  readonly closeTimeoutMs?: number
  /** How often a member looks whether its subscription is still the one that it knew, 100 to 3,600,000. @default 5000 */
  readonly watchIntervalMs?: number
  /** Messages of one topic or partition that a member has fetched and not handed out, 1 to 1,000. @default 1000 */
  readonly prefetchMax?: number
  /** Their bytes, 1 KiB to 1 GiB. @default 16777216 (16 MiB) */
  readonly prefetchMaxBytes?: number
  readonly clock?: Clock
  readonly observe?: Observe
}

/** Options with their defaults, checked. */
export interface PulsarOptions {
  readonly serviceUrl: URL
  readonly webSocketUrl: URL
  readonly adminUrl: URL
  /** From which option `adminUrl` follows, and its variable; undefined where it was given. */
  readonly adminFrom: string | undefined
  readonly provider: 'native' | 'websocket' | undefined
  readonly webSocketAsked: boolean
  readonly client: PulsarLike | undefined
  readonly messageIds: PulsarMessageIdsLike | undefined
  readonly token: (() => Promise<string>) | undefined
  readonly tls: {
    readonly enabled: boolean
    readonly ca: string | undefined
    readonly caPath: string | undefined
    readonly validateHostname: boolean
  }
  readonly home: TopicHome
  readonly subscriptionType: PulsarSubscriptionType
  readonly partitions: number
  readonly createTopics: boolean
  readonly messageMaxBytes: number | undefined
  readonly webSocketFrameMaxBytes: number
  readonly requestTimeoutMs: number
  readonly closeTimeoutMs: number
  readonly watchIntervalMs: number
  readonly prefetchMax: number
  readonly prefetchMaxBytes: number
  readonly clock: Clock
  readonly observe: Observe
}

const WHERE = 'pulsarTransport'
const MIB = 1024 * 1024
const NAMES = {
  serviceUrl: true,
  webSocketUrl: true,
  adminUrl: true,
  provider: true,
  client: true,
  messageIds: true,
  token: true,
  tls: true,
  persistence: true,
  tenant: true,
  namespace: true,
  subscriptionType: true,
  partitions: true,
  createTopics: true,
  messageMaxBytes: true,
  webSocketFrameMaxBytes: true,
  requestTimeoutMs: true,
  closeTimeoutMs: true,
  watchIntervalMs: true,
  prefetchMax: true,
  prefetchMaxBytes: true,
  clock: true,
  observe: true,
} as const

/** @throws WaybillError `INVALID_OPTION` | `INVALID_FILE` */
export function resolvePulsarOptions(options: PulsarTransportOptions): PulsarOptions {
  checkNames(options, NAMES, WHERE)
  if (options.tls !== undefined) checkNames(options.tls, { enabled: true, caPath: true, validateHostname: true }, `${WHERE}.tls`)
  const integer = (name: keyof PulsarTransportOptions, min: number, max: number, otherwise: number): number =>
    checkInteger(options[name] ?? otherwise, `${WHERE}.${name}`, min, max)
  const { token, createTopics = true, clock = systemClock, observe = unobserved } = options
  if (typeof createTopics !== 'boolean') throw invalid('createTopics', createTopics, 'true or false')
  return {
    ...resolveAddresses(options),
    provider: oneOf('provider', options.provider, ['native', 'websocket']),
    webSocketAsked: options.webSocketUrl !== undefined,
    client: options.client,
    messageIds: options.messageIds,
    token: token === undefined ? undefined : async () => checkToken(typeof token === 'function' ? await token() : token),
    home: {
      persistence: oneOf('persistence', options.persistence, ['persistent', 'non-persistent']) ?? 'persistent',
      tenant: checkHomePart(options.tenant ?? 'public', `${WHERE}.tenant`),
      namespace: checkHomePart(options.namespace ?? 'default', `${WHERE}.namespace`),
    },
    subscriptionType: oneOf('subscriptionType', options.subscriptionType, SUBSCRIPTION_TYPES) ?? 'Key_Shared',
    partitions: integer('partitions', 0, 1000, 0),
    createTopics,
    messageMaxBytes: options.messageMaxBytes === undefined ? undefined : integer('messageMaxBytes', 1, 5 * MIB, MIB),
    webSocketFrameMaxBytes: integer('webSocketFrameMaxBytes', 1024, 64 * MIB, MIB),
    requestTimeoutMs: integer('requestTimeoutMs', 100, 600_000, 10_000),
    closeTimeoutMs: integer('closeTimeoutMs', 100, 600_000, 5_000),
    watchIntervalMs: integer('watchIntervalMs', 100, 3_600_000, 5_000),
    prefetchMax: integer('prefetchMax', 1, 1000, 1000),
    prefetchMaxBytes: integer('prefetchMaxBytes', 1024, 1024 * MIB, 16 * MIB),
    clock,
    observe: observeAll([observe]),
  }
}

function invalid(name: string, got: unknown, allowed: string): WaybillError {
  return new WaybillError('INVALID_OPTION', `${WHERE}.${name} is not usable`, { got, allowed, where: `${WHERE}.${name}` })
}

function oneOf<T extends string>(name: string, value: unknown, allowed: readonly T[]): T | undefined {
  if (value === undefined) return undefined
  const known = allowed.find((one) => one === value)
  if (known !== undefined) return known
  throw invalid(name, value, allowed.join(', '))
}

function checkToken(token: unknown): string {
  // Never shown, in no error.
  if (typeof token === 'string' && /^[\x21-\x7e]+$/.test(token)) return token
  throw new WaybillError('INVALID_OPTION', `${WHERE}.token is not usable`, { allowed: 'a token without spaces or line ends' })
}

type Addresses = Pick<PulsarOptions, 'serviceUrl' | 'webSocketUrl' | 'adminUrl' | 'adminFrom' | 'tls'>

function resolveAddresses({ serviceUrl, webSocketUrl, adminUrl, tls = {}, token }: PulsarTransportOptions): Addresses {
  if (typeof token === 'string') checkToken(token)
  const service = parseUrl('serviceUrl', serviceUrl ?? 'pulsar://localhost:6650', ['pulsar:', 'pulsar+ssl:'])
  const web = webSocketUrl === undefined ? undefined : parseUrl('webSocketUrl', webSocketUrl, ['ws:', 'wss:'])
  const encrypted = service.protocol === 'pulsar+ssl:' || (serviceUrl === undefined && web?.protocol === 'wss:')
  const enabled = tls.enabled ?? encrypted
  if (encrypted && !enabled)
    throw invalid('tls.enabled', false, `true, as ${serviceUrl === undefined ? 'webSocketUrl' : 'serviceUrl'} says`)
  // Who asks for TLS must not send a token in the clear because of an address.
  const plain = tls.enabled === true ? plainAddress({ webSocketUrl, adminUrl }) : undefined
  if (plain !== undefined) throw invalid('tls.enabled', true, `${TLS_SCHEMES[plain]} in ${plain}, or false`)
  // A host of its own kind of address: `pulsar:` is no scheme that URL would split alike everywhere.
  const host = serviceUrl === undefined && web !== undefined ? web.hostname : service.hostname
  const port = enabled ? 8443 : 8080
  const nearWeb = serviceUrl === undefined && web !== undefined
  return {
    serviceUrl: enabled && service.protocol === 'pulsar:' ? new URL(service.href.replace(/^pulsar:/, 'pulsar+ssl:')) : service,
    webSocketUrl: web ?? new URL(`${enabled ? 'wss' : 'ws'}://${host}:${port}`),
    adminUrl:
      adminUrl !== undefined
        ? parseUrl('adminUrl', adminUrl, ['http:', 'https:'])
        : nearWeb
          ? new URL(`${web.protocol === 'wss:' ? 'https' : 'http'}://${web.host}`)
          : new URL(`${enabled ? 'https' : 'http'}://${host}:${port}`),
    adminFrom:
      adminUrl !== undefined
        ? undefined
        : nearWeb
          ? 'webSocketUrl, PULSAR_WEB_SOCKET_URL'
          : `${serviceUrl === undefined ? 'the default of ' : ''}serviceUrl, PULSAR_URL`,
    tls: {
      enabled,
      caPath: tls.caPath,
      ca: tls.caPath === undefined ? undefined : readCa(tls.caPath),
      validateHostname: tls.validateHostname ?? true,
    },
  }
}

const ADDRESS_VARIABLES = { webSocketUrl: 'PULSAR_WEB_SOCKET_URL', adminUrl: 'PULSAR_ADMIN_URL' } as const
const TLS_SCHEMES = { webSocketUrl: 'wss://', adminUrl: 'https://' } as const

/** Which of these addresses asks for a connection without TLS. */
function plainAddress(urls: { readonly webSocketUrl?: string | undefined; readonly adminUrl?: string | undefined }) {
  return (['webSocketUrl', 'adminUrl'] as const).find((name) => /^\s*(?:ws|http):/i.test(urls[name] ?? ''))
}

function readCa(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new WaybillError('INVALID_FILE', `${WHERE}.tls.caPath names a file that can't be read: ${messageOf(cause)}`, {
      got: path,
      allowed: 'a file with certificates in PEM',
    })
  }
}

function parseUrl(name: string, text: string, protocols: readonly string[]): URL {
  const whole = typeof text === 'string' ? text.trim() : ''
  const url = URL.canParse(whole) ? new URL(whole) : undefined
  // Pulsar's own clients go from one host to the next. The admin interface and the WebSocket service have no such list, and would stay with one.
  if (whole.includes(','))
    throw new WaybillError('INVALID_OPTION', `${WHERE}.${name} names several hosts`, {
      allowed: 'one host: a proxy, a name that leads to every broker, or any broker of the cluster',
      where: `${WHERE}.${name}`,
    })
  if (url !== undefined && protocols.includes(url.protocol) && url.hostname !== '' && url.username === '' && url.password === '') return url
  // The address may hold a password, so it is not shown.
  throw new WaybillError('INVALID_OPTION', `${WHERE}.${name} is not usable`, {
    allowed: `an address like ${protocols[0]}//host:${name === 'serviceUrl' ? 6650 : 8080}, with ${protocols.join(' or ')}, without a user`,
    where: `${WHERE}.${name}`,
  })
}

/**
 * The options that the environment gives: PULSAR_URL (or PULSAR_SERVICE_URL), PULSAR_WEB_SOCKET_URL, PULSAR_ADMIN_URL, PULSAR_AUTH_TOKEN, PULSAR_TLS_ENABLED,
 * PULSAR_TLS_CERT_PATH (of the trusted certificates), PULSAR_TLS_VALIDATE_HOSTNAME, PULSAR_TENANT, PULSAR_NAMESPACE, PULSAR_SUBSCRIPTION_TYPE.
 * @throws WaybillError `INVALID_SETTING` | `INVALID_FILE`
 */
export function pulsarSettings(env: Environment): PulsarTransportOptions {
  const settings = readSettings(env)
  const tls = {
    ...given('enabled', settings.flag('PULSAR_TLS_ENABLED')),
    ...given('caPath', settings.file('PULSAR_TLS_CERT_PATH') === undefined ? undefined : settings.text('PULSAR_TLS_CERT_PATH')),
    ...given('validateHostname', settings.flag('PULSAR_TLS_VALIDATE_HOSTNAME')),
  }
  const [webSocketUrl, adminUrl] = [settings.text('PULSAR_WEB_SOCKET_URL'), settings.text('PULSAR_ADMIN_URL')]
  const plain = tls.enabled === true ? plainAddress({ webSocketUrl, adminUrl }) : undefined
  if (plain !== undefined)
    throw new WaybillError('INVALID_SETTING', `PULSAR_TLS_ENABLED is true, and ${ADDRESS_VARIABLES[plain]} is without TLS`, {
      allowed: `${TLS_SCHEMES[plain]} in ${ADDRESS_VARIABLES[plain]}, or PULSAR_TLS_ENABLED=false`,
    })
  return {
    ...given('serviceUrl', settings.text('PULSAR_URL') ?? settings.text('PULSAR_SERVICE_URL')),
    ...given('webSocketUrl', webSocketUrl),
    ...given('adminUrl', adminUrl),
    ...given('token', settings.text('PULSAR_AUTH_TOKEN')),
    ...given('tenant', settings.text('PULSAR_TENANT')),
    ...given('namespace', settings.text('PULSAR_NAMESPACE')),
    ...given('subscriptionType', settings.oneOf('PULSAR_SUBSCRIPTION_TYPE', SUBSCRIPTION_TYPES)),
    ...(Object.keys(tls).length === 0 ? {} : { tls }),
  }
}

function given<K extends string, V>(name: K, value: V | undefined): { readonly [name in K]?: V } {
  return value === undefined ? {} : ({ [name]: value } as { [name in K]: V })
}
