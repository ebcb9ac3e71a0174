import { randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { runCommand } from './command.ts'
import { type Certificate, makeCertificate, newUsers, type Users } from './credentials.ts'
import { javaFlags, serverJars } from './java.ts'
import { ask, freePorts } from './ports.ts'
import type { PreparedServer, ServerOptions } from './server.ts'
import { VERSIONS } from './versions.ts'

const HEAP_MB = 384
/** After a SIGKILL the controller waits for the end of the broker's old session, and recovery reads the logs. */
const START_LIMIT_MS = 120_000
const FORMAT_HEAP_MB = 128
const FORMAT_LIMIT_MS = 120_000

/**
 * Kafka in KRaft mode, broker and controller in one process; `settings` are lines of its server.properties. The plain listener stays with `auth` and `tls`;
 * with `auth` whoever comes there may do everything still.
 * `extra`: `saslUrl` (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512), `user`, `password`, `limitedUser`, `limitedPassword`; `tlsUrl`, `caFile`, `certFile`, `keyFile`;
 * with both `saslTlsUrl`. Each `Url` is `host:port`.
 */
export async function prepareKafka(folder: string, options: ServerOptions): Promise<PreparedServer> {
  const libs = await serverJars('kafka')
  const [port, controller, sasl, ssl, saslSsl] = (await freePorts(5)) as [number, number, number, number, number]
  const users = options.auth === undefined ? undefined : newUsers()
  const tls = options.tls === undefined ? undefined : await makeCertificate(folder)
  const listeners: Listener[] = [{ name: 'PLAINTEXT', protocol: 'PLAINTEXT', port }]
  if (users !== undefined) listeners.push({ name: 'SASL', protocol: 'SASL_PLAINTEXT', port: sasl })
  if (tls !== undefined) listeners.push({ name: 'TLS', protocol: 'SSL', port: ssl })
  if (users !== undefined && tls !== undefined) listeners.push({ name: 'SASLTLS', protocol: 'SASL_SSL', port: saslSsl })
  const security = { ...(users === undefined ? {} : saslSettings(users, listeners)), ...(tls === undefined ? {} : await tlsSettings(tls)) }
  const settings = { ...baseSettings(folder, controller, listeners), ...security, ...options.settings }
  const config = join(folder, 'server.properties')
  await writeFile(
    config,
    Object.entries(settings)
      .map(([name, value]) => `${name}=${value}\n`)
      .join(''),
  )
  await writeFile(join(folder, 'log4j2.properties'), LOGGING)
  const java = ['-cp', `${libs}/*`, `-Dlog4j2.configurationFile=${join(folder, 'log4j2.properties')}`]
  const format = ['kafka.tools.StorageTool', 'format', '--standalone', '-t', newClusterId(), '-c', config]
  await runCommand('java', [...javaFlags(FORMAT_HEAP_MB), ...java, ...format, ...(users === undefined ? [] : scramUsers(users))], {
    limitMs: FORMAT_LIMIT_MS,
  })
  const urls = Object.fromEntries(listeners.slice(1).map((listener) => [URL_NAMES[listener.name], `127.0.0.1:${listener.port}`]))
  return {
    name: 'kafka',
    url: `127.0.0.1:${port}`,
    host: '127.0.0.1',
    port,
    version: VERSIONS.kafka,
    extra: { ...urls, ...users, ...tls },
    program: 'java',
    args: [...javaFlags(HEAP_MB), ...java, 'kafka.Kafka', config],
    isReady: () => speaksKafka('127.0.0.1', port),
    startLimitMs: START_LIMIT_MS,
  }
}

interface Listener {
  readonly name: 'PLAINTEXT' | 'SASL' | 'TLS' | 'SASLTLS'
  readonly protocol: string
  readonly port: number
}

const URL_NAMES = { PLAINTEXT: 'url', SASL: 'saslUrl', TLS: 'tlsUrl', SASLTLS: 'saslTlsUrl' } as const

const SECURITY = 'org.apache.kafka.common.security'
const SCRAMS = ['SCRAM-SHA-256', 'SCRAM-SHA-512']

function saslSettings(
  { user, password, limitedUser, limitedPassword }: Users,
  listeners: readonly Listener[],
): Readonly<Record<string, string>> {
  const settings: Record<string, string> = {
    'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
    'super.users': `User:ANONYMOUS;User:${user}`,
  }
  for (const { name, protocol } of listeners) {
    if (!protocol.startsWith('SASL')) continue
    const prefix = `listener.name.${name.toLowerCase()}`
    settings[`${prefix}.sasl.enabled.mechanisms`] = ['PLAIN', ...SCRAMS].join(',')
    settings[`${prefix}.plain.sasl.jaas.config`] =
      `${SECURITY}.plain.PlainLoginModule required user_${user}="${password}" user_${limitedUser}="${limitedPassword}";`
    for (const scram of SCRAMS)
      settings[`${prefix}.${scram.toLowerCase()}.sasl.jaas.config`] = `${SECURITY}.scram.ScramLoginModule required;`
  }
  return settings
}

const scramUsers = ({ user, password, limitedUser, limitedPassword }: Users): readonly string[] =>
  SCRAMS.flatMap((scram) => [
    `${scram}=[name=${user},password=${password}]`,
    `${scram}=[name=${limitedUser},password=${limitedPassword}]`,
  ]).flatMap((scramUser) => ['--add-scram', scramUser])

/** Kafka reads key and certificate from one file. */
async function tlsSettings({ certFile, keyFile }: Certificate): Promise<Readonly<Record<string, string>>> {
  const both = `${keyFile}.and-certificate`
  await writeFile(both, `${await readFile(keyFile, 'utf8')}${await readFile(certFile, 'utf8')}`)
  return { 'ssl.keystore.type': 'PEM', 'ssl.keystore.location': both, 'ssl.client.auth': 'none' }
}

/** 16 bytes in base64url, as Kafka wants it. The first one is small, so that the text doesn't begin with a dash, which the tool takes for a flag. */
function newClusterId(): string {
  const bytes = randomBytes(16)
  bytes[0]! &= 0x7f
  return bytes.toString('base64url')
}

const LOGGING = `rootLogger.level = WARN
rootLogger.appenderRefs = out
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1}: %m%n
`

function baseSettings(folder: string, controller: number, listeners: readonly Listener[]): Readonly<Record<string, string>> {
  const addresses = listeners.map(({ name, port }) => `${name}://127.0.0.1:${port}`).join(',')
  return {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.bootstrap.servers': `127.0.0.1:${controller}`,
    listeners: `${addresses},CONTROLLER://127.0.0.1:${controller}`,
    'advertised.listeners': addresses,
    'listener.security.protocol.map': ['CONTROLLER:PLAINTEXT', ...listeners.map(({ name, protocol }) => `${name}:${protocol}`)].join(','),
    'inter.broker.listener.name': 'PLAINTEXT',
    'controller.listener.names': 'CONTROLLER',
    'log.dirs': join(folder, 'data'),
    'num.partitions': '4',
    'offsets.topic.num.partitions': '4',
    'offsets.topic.replication.factor': '1',
    'transaction.state.log.num.partitions': '4',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'share.coordinator.state.topic.num.partitions': '1',
    'share.coordinator.state.topic.replication.factor': '1',
    'share.coordinator.state.topic.min.isr': '1',
    'group.initial.rebalance.delay.ms': '0',
    'group.min.session.timeout.ms': '1000',
    // Tests need not wait long for what a killed process left: the session of the broker itself after SIGKILL.
    'broker.heartbeat.interval.ms': '500',
    'broker.session.timeout.ms': '2000',
    'num.network.threads': '2',
    'num.io.threads': '4',
    'background.threads': '2',
    'log.cleaner.dedupe.buffer.size': '16777216',
    'log.index.size.max.bytes': '1048576',
    'controlled.shutdown.max.retries': '1',
  }
}

/** ApiVersions, version 0, without a client id; it is answered once the broker takes requests. */
const API_VERSIONS = Buffer.from([0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff])

/** Whether a Kafka broker answers there. */
export async function speaksKafka(host: string, port: number): Promise<boolean> {
  const answer = await ask({ host, port }, API_VERSIONS, (bytes) => bytes.length >= 10, 2_000)
  // The length, our correlation id, and no error.
  return answer !== undefined && answer.length >= 10 && answer.readInt32BE(4) === 1 && answer.readInt16BE(8) === 0
}
