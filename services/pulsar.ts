import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Certificate, makeCertificate, signToken } from './credentials.ts'
import { javaFlags, serverJars } from './java.ts'
import { freePorts, get } from './ports.ts'
import type { PreparedServer, ServerOptions } from './server.ts'
import { VERSIONS } from './versions.ts'

const HEAP_MB = 512
const DIRECT_MEMORY_MB = 384
const START_LIMIT_MS = 180_000

/**
 * Pulsar standalone: broker, bookie, WebSocket service and metadata (RocksDB) in one process; `settings` are lines of its standalone.conf.
 * `extra`: `webSocketUrl`, `adminUrl`; `token` (may do everything), `limitedToken` (nothing); `tlsUrl`, `webSocketTlsUrl`, `adminTlsUrl`, `caFile`,
 * `certFile`, `keyFile`.
 */
export async function preparePulsar(folder: string, options: ServerOptions): Promise<PreparedServer> {
  const libs = await serverJars('pulsar')
  const [port, web, bookie, tlsPort, tlsWeb] = (await freePorts(5)) as [number, number, number, number, number]
  const auth = options.auth === undefined ? undefined : tokenAuth()
  const tls = options.tls === undefined ? undefined : await makeCertificate(folder)
  const security = { ...auth?.settings, ...(tls === undefined ? {} : tlsSettings(tls, tlsPort, tlsWeb)) }
  const settings = { ...baseSettings(port, web), ...security, ...options.settings }
  const config = join(folder, 'standalone.conf')
  const lines = Object.entries(settings).map(([name, value]) => `${name}=${value}`)
  await writeFile(config, `${lines.join('\n')}\n`)
  await writeFile(join(folder, 'log4j2.properties'), LOGGING)
  const adminUrl = `http://127.0.0.1:${web}`
  return {
    name: 'pulsar',
    url: `pulsar://127.0.0.1:${port}`,
    host: '127.0.0.1',
    port,
    version: VERSIONS.pulsar,
    extra: {
      webSocketUrl: `ws://127.0.0.1:${web}`,
      adminUrl,
      ...auth?.extra,
      ...(tls === undefined ? {} : { ...tls, ...tlsUrls(tlsPort, tlsWeb) }),
    },
    program: 'java',
    args: [
      ...javaFlags(HEAP_MB),
      `-XX:MaxDirectMemorySize=${DIRECT_MEMORY_MB}m`,
      ...OPENED.flatMap((name) => ['--add-opens', `${name}=ALL-UNNAMED`]),
      `-Dlog4j2.configurationFile=${join(folder, 'log4j2.properties')}`,
      '-Dio.netty.tryReflectionSetAccessible=true',
      '-cp',
      `${libs}/*`,
      'org.apache.pulsar.PulsarStandaloneStarter',
      '--config',
      config,
      '--no-functions-worker',
      '--no-stream-storage',
      '--metadata-dir',
      join(folder, 'metadata'),
      '--bookkeeper-dir',
      join(folder, 'bookkeeper'),
      '--bookkeeper-port',
      String(bookie),
    ],
    isReady: () => isHealthy(adminUrl, auth?.extra.token),
    startLimitMs: START_LIMIT_MS,
  }
}

function tokenAuth() {
  const secret = randomBytes(32)
  const extra = { token: signToken('admin', secret), limitedToken: signToken('limited', secret) }
  const settings = {
    authenticationEnabled: 'true',
    authenticationProviders: 'org.apache.pulsar.broker.authentication.AuthenticationProviderToken',
    authorizationEnabled: 'true',
    superUserRoles: 'admin',
    tokenSecretKey: `data:;base64,${secret.toString('base64')}`,
    brokerClientAuthenticationPlugin: 'org.apache.pulsar.client.impl.auth.AuthenticationToken',
    brokerClientAuthenticationParameters: `token:${extra.token}`,
  }
  return { extra, settings }
}

const tlsSettings = ({ caFile, certFile, keyFile }: Certificate, port: number, web: number): Readonly<Record<string, string>> => ({
  brokerServicePortTls: String(port),
  webServicePortTls: String(web),
  // The WebSocket service's own client speaks to the broker without, on the same machine.
  brokerClientTlsEnabled: 'false',
  tlsCertificateFilePath: certFile,
  tlsKeyFilePath: keyFile,
  tlsTrustCertsFilePath: caFile,
})

const tlsUrls = (port: number, web: number): Readonly<Record<string, string>> => ({
  tlsUrl: `pulsar+ssl://127.0.0.1:${port}`,
  webSocketTlsUrl: `wss://127.0.0.1:${web}`,
  adminTlsUrl: `https://127.0.0.1:${web}`,
})

/** What Pulsar's own start script opens. */
const OPENED = [
  'java.base/java.lang',
  'java.base/java.nio',
  'java.base/sun.nio.ch',
  'java.base/jdk.internal.misc',
  'java.base/java.util.zip',
  'java.base/jdk.internal.platform',
  'java.base/sun.net',
  'java.management/sun.management',
  'jdk.management/com.sun.management.internal',
]

const LOGGING = `rootLogger.level = WARN
rootLogger.appenderRefs = out
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1}: %m%n
`

function baseSettings(port: number, web: number): Readonly<Record<string, string>> {
  return {
    clusterName: 'standalone',
    brokerServicePort: String(port),
    webServicePort: String(web),
    bindAddress: '127.0.0.1',
    advertisedAddress: '127.0.0.1',
    allowLoopback: 'true',
    webSocketServiceEnabled: 'true',
    webSocketNumIoThreads: '2',
    webSocketConnectionsPerBroker: '2',
    managedLedgerDefaultEnsembleSize: '1',
    managedLedgerDefaultWriteQuorum: '1',
    managedLedgerDefaultAckQuorum: '1',
    bookkeeperNumberOfChannelsPerBookie: '2',
    bookkeeperUseV2WireProtocol: 'true',
    systemTopicEnabled: 'false',
    topicLevelPoliciesEnabled: 'false',
    transactionCoordinatorEnabled: 'false',
    loadBalancerEnabled: 'false',
    loadManagerClassName: 'org.apache.pulsar.broker.loadbalance.NoopLoadManager',
    // A topic that nobody is connected to is no rubbish: its backlog is what tests come back for.
    brokerDeleteInactiveTopicsEnabled: 'false',
    forceDeleteNamespaceAllowed: 'true',
    forceDeleteTenantAllowed: 'true',
    activeConsumerFailoverDelayTimeMillis: '0',
    managedLedgerCacheSizeMB: '32',
    ledgerStorageClass: 'org.apache.bookkeeper.bookie.storage.ldb.DbLedgerStorage',
    dbStorage_writeCacheMaxSizeMb: '32',
    dbStorage_readAheadCacheMaxSizeMb: '16',
    dbStorage_rocksDB_blockCacheSize: '8388608',
    // Like the other servers: what is killed are processes, not the machine.
    journalSyncData: 'false',
    journalMaxGroupWaitMSec: '1',
    diskUsageThreshold: '0.99',
    diskUsageWarnThreshold: '0.99',
    numOrderedExecutorThreads: '2',
    numCacheExecutorThreadPoolSize: '2',
    numHttpServerThreads: '8',
    brokerShutdownTimeoutMs: '10000',
  }
}

/** Whether the broker there answers a message of its own, and the namespace that everybody uses is there. */
async function isHealthy(adminUrl: string, token: string | undefined): Promise<boolean> {
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` }
  // Asked first: the health check of a broker that is not up waits long for its answer.
  const namespaces = await get(`${adminUrl}/admin/v2/namespaces/public`, { headers })
  if (namespaces?.includes('public/default') !== true) return false
  return (await get(`${adminUrl}/admin/v2/brokers/health`, { headers, limitMs: 10_000 })) !== undefined
}
