import { isIP } from 'node:net'
import { type Clock, systemClock } from '../../core/clock.ts'
import { WaybillError } from '../../core/errors.ts'
import { type Observe, unobserved } from '../../core/observe.ts'
import { checkFunction, checkInteger, checkNames } from '../../core/options.ts'
import type { KafkaClientOptions, KafkaLike, KafkaSaslMechanism } from './client.ts'

/** How to reach Kafka, and how to use it. Times in milliseconds. */
export interface KafkaTransportOptions {
  /** Where to find the cluster, as `host:port`, one or more. */
  readonly bootstrapServers: readonly string[]
  /** How the broker's logs name this client: letters, digits, `.`, `_` and `-`. @default 'waybill' */
  readonly clientId?: string
  readonly sasl?: { readonly mechanism: KafkaSaslMechanism; readonly username: string; readonly password: string }
  /** `true`, or what is needed beside the system's authorities; PEM texts. @default false */
  readonly tls?:
    | boolean
    | {
        readonly ca?: string
        readonly cert?: string
        readonly key?: string
        /** Whether the certificate must be for the host that was asked for. @default true */
        readonly validateHostname?: boolean
      }
  /** Partitions of topics that are made, 1 to 10,000. @default 12 */
  readonly partitions?: number
  /** Copies of topics that are made, 1 to 100. @default the broker's own */
  readonly replicationFactor?: number
  /** Whether missing topics are made; otherwise they are `TOPIC_MISSING`. @default true */
  readonly createTopics?: boolean
  /** Largest body in bytes, 1 to 64 MiB. A topic that was made by others may take less: that is respected too. @default 1048576 (1 MiB) */
  readonly messageMaxBytes?: number
  /** How long one publish or request may take, its retries included, 100 to 600,000. @default 10000 */
  readonly requestTimeoutMs?: number
  /** How long `close` may take, 100 to 60,000. @default 5000 */
  readonly closeTimeoutMs?: number
  /**
   * How long a member that has died keeps its partitions, 1,000 to 3,600,000; brokers take 6,000 to 1,800,000 unless they are set otherwise.
   * @default 15000
   */
  readonly sessionTimeoutMs?: number
  /** Times the delay of `Delivery.retry`; waits for the broker are the machine's. @default the machine's */
  readonly clock?: Clock
  readonly observe?: Observe
  /** The library to use, `@platformatic/kafka` or a look-alike. @default it is loaded */
  readonly library?: KafkaLike
}

/** {@link KafkaTransportOptions}, checked and complete. */
export interface CheckedKafkaOptions {
  readonly address: string
  readonly client: KafkaClientOptions
  readonly hasCredentials: boolean
  readonly partitions: number
  /** -1: the broker's own. */
  readonly replicationFactor: number
  readonly createTopics: boolean
  readonly messageMaxBytes: number
  readonly requestTimeoutMs: number
  readonly closeTimeoutMs: number
  readonly sessionTimeoutMs: number
  /** For waits for the broker. */
  readonly clock: Clock
  /** For delays that a handler asked for. */
  readonly delayClock: Clock
  readonly observe: Observe
}

const MIB = 1024 * 1024
const WHERE = 'kafkaTransport'
const SERVERS_MAX = 100
const NAMES = {
  bootstrapServers: true,
  clientId: true,
  sasl: true,
  tls: true,
  partitions: true,
  replicationFactor: true,
  createTopics: true,
  messageMaxBytes: true,
  requestTimeoutMs: true,
  closeTimeoutMs: true,
  sessionTimeoutMs: true,
  clock: true,
  observe: true,
  library: true,
} as const
export const SASL_MECHANISMS = ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'] as const satisfies readonly KafkaSaslMechanism[]

/** @throws WaybillError `INVALID_OPTION` */
export function checkKafkaOptions(options: KafkaTransportOptions): CheckedKafkaOptions {
  checkNames(options, NAMES, WHERE)
  const servers = checkServers(options.bootstrapServers)
  const clientId = options.clientId ?? 'waybill'
  if (typeof clientId !== 'string' || !/^[A-Za-z0-9._-]{1,200}$/.test(clientId))
    throw invalid('clientId', 'is not usable', clientId, '1 to 200 letters, digits, ".", "_" and "-"')
  const sasl = checkSasl(options.sasl)
  const requestTimeoutMs = checkInteger(options.requestTimeoutMs ?? 10_000, `${WHERE}.requestTimeoutMs`, 100, 600_000)
  const { replicationFactor, createTopics = true } = options
  if (typeof createTopics !== 'boolean') throw invalid('createTopics', 'is no flag', createTopics, 'true or false')
  return {
    address: servers.join(','),
    hasCredentials: sasl !== undefined || (options.tls ?? false) !== false,
    client: {
      clientId,
      bootstrapBrokers: servers,
      connectTimeout: Math.min(5_000, requestTimeoutMs),
      requestTimeout: requestTimeoutMs,
      timeout: requestTimeoutMs,
      retries: 0,
      retryDelay: 100,
      metadataMaxAge: 60_000,
      autocreateTopics: false,
      ...checkTls(options.tls, servers),
      ...(sasl !== undefined && { sasl }),
    },
    partitions: checkInteger(options.partitions ?? 12, `${WHERE}.partitions`, 1, 10_000),
    replicationFactor: replicationFactor === undefined ? -1 : checkInteger(replicationFactor, `${WHERE}.replicationFactor`, 1, 100),
    createTopics,
    messageMaxBytes: checkInteger(options.messageMaxBytes ?? MIB, `${WHERE}.messageMaxBytes`, 1, 64 * MIB),
    requestTimeoutMs,
    closeTimeoutMs: checkInteger(options.closeTimeoutMs ?? 5_000, `${WHERE}.closeTimeoutMs`, 100, 60_000),
    sessionTimeoutMs: checkInteger(options.sessionTimeoutMs ?? 15_000, `${WHERE}.sessionTimeoutMs`, 1_000, 3_600_000),
    clock: systemClock,
    delayClock: options.clock ?? systemClock,
    observe: checkFunction(options.observe ?? unobserved, `${WHERE}.observe`),
  }
}

const invalid = (name: string, what: string, got: unknown, allowed: string): WaybillError =>
  new WaybillError('INVALID_OPTION', `${name} ${what}`, { got, allowed, where: `${WHERE}.${name}` })

function checkServers(value: unknown): string[] {
  if (!Array.isArray(value) || value.length === 0 || value.length > SERVERS_MAX)
    throw invalid('bootstrapServers', 'names no server', value, `1 to ${SERVERS_MAX} times host:port`)
  return value.map((server: unknown) => {
    const port = typeof server === 'string' ? Number(/^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})$/.exec(server)?.[1]) : Number.NaN
    // What is no address is not shown: it may be a URL with a password.
    if (!(port >= 1 && port <= 65_535)) throw invalid('bootstrapServers', 'holds no address', typeof server, 'host:port')
    return String(server)
  })
}

function checkSasl(sasl: KafkaTransportOptions['sasl']): KafkaClientOptions['sasl'] {
  if (sasl === undefined) return undefined
  checkNames(sasl, { mechanism: true, username: true, password: true }, `${WHERE}.sasl`)
  const mechanism = SASL_MECHANISMS.find((known) => known === sasl.mechanism)
  if (mechanism === undefined) throw invalid('sasl.mechanism', 'is not known', sasl.mechanism, SASL_MECHANISMS.join(', '))
  const { username, password } = sasl
  if (typeof username !== 'string' || username === '') throw invalid('sasl.username', 'is missing', typeof username, 'a text')
  if (typeof password !== 'string' || password === '') throw invalid('sasl.password', 'is missing', typeof password, 'a text')
  return { mechanism, username, password }
}

function checkTls(tls: KafkaTransportOptions['tls'], servers: readonly string[]): Pick<KafkaClientOptions, 'tls' | 'tlsServerName'> {
  if (tls === undefined || tls === false) return {}
  // TLS has no place for an address where the name of a server is meant.
  const tlsServerName = servers.every((server) => isIP(server.replace(/:\d+$/, '').replace(/^\[|\]$/g, '')) === 0)
  if (tls === true) return { tls: {}, tlsServerName }
  if (typeof tls !== 'object') throw invalid('tls', 'is not usable', typeof tls, 'true, false or an object')
  checkNames(tls, { ca: true, cert: true, key: true, validateHostname: true }, `${WHERE}.tls`)
  const { ca, cert, key, validateHostname = true } = tls
  for (const [name, pem] of Object.entries({ ca, cert, key })) {
    if (pem !== undefined && (typeof pem !== 'string' || !pem.includes('-----BEGIN ')))
      throw invalid(`tls.${name}`, 'is no PEM text', typeof pem, 'a text with -----BEGIN … -----')
  }
  if ((cert === undefined) !== (key === undefined))
    throw invalid('tls', 'has a certificate or a key without the other', cert === undefined ? 'no cert' : 'no key', 'both or neither')
  return {
    tls: {
      ...(ca !== undefined && { ca }),
      ...(cert !== undefined && { cert, key }),
      ...(!validateHostname && { checkServerIdentity: () => undefined }),
    },
    tlsServerName,
  }
}
