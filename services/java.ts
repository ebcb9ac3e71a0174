import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { installOnce } from './cache.ts'
import { MissingToolError, messageOf, runCommand } from './command.ts'
import { LOG4J_VERSION, VERSIONS } from './versions.ts'

/** The first version of Java that Kafka and Pulsar run on. */
const JAVA_MINIMUM = 17
const MAVEN_LIMIT_MS = 8 * 60_000
const TRIES_MAX = 2
/** Plug-ins whose version is not pinned would be looked up anew. */
const DEPENDENCY_PLUGIN = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1'

/**
 * The folder with the jars of a server, fetched by Maven where it isn't there yet. Throws an `Error` that says what is missing and what to do.
 */
export async function serverJars(name: 'kafka' | 'pulsar'): Promise<string> {
  try {
    await requireJava()
    const folder = await installOnce(`${name}-${VERSIONS[name]}`, (work) => fetchJars(name, work))
    return join(folder, 'libs')
  } catch (cause) {
    const variable = name === 'kafka' ? 'KAFKA_BOOTSTRAP_SERVERS' : 'PULSAR_URL, PULSAR_WEB_SOCKET_URL and PULSAR_ADMIN_URL'
    throw new Error(`no ${name} ${VERSIONS[name]}: ${messageOf(cause)}\nStart Docker, or set ${variable}`, { cause })
  }
}

async function requireJava(): Promise<void> {
  const answer = await runCommand('java', ['--version'])
  const major = Number(/\b(\d+)[.\d]*\b/.exec(answer)?.[1] ?? 0)
  if (major < JAVA_MINIMUM) throw new Error(`Java ${JAVA_MINIMUM} or newer is needed; this one is ${answer.split('\n')[0]}`)
}

async function fetchJars(name: 'kafka' | 'pulsar', work: string): Promise<void> {
  const pom = join(work, 'pom.xml')
  await copyFile(fileURLToPath(new URL(`maven/${name}.xml`, import.meta.url)), pom)
  const properties = {
    'server.version': VERSIONS[name],
    'log4j.version': LOG4J_VERSION,
    outputDirectory: join(work, 'libs'),
    includeScope: 'runtime',
    'maven.artifact.threads': '16',
    'aether.connector.requestTimeout': '60000',
  }
  const flags = Object.entries(properties).map(([property, value]) => `-D${property}=${value}`)
  const args = ['-B', '-q', '-ntp', '-f', pom, ...flags, `${DEPENDENCY_PLUGIN}:copy-dependencies`]
  for (let attempt = 1; ; attempt++) {
    try {
      await runCommand('mvn', args, { limitMs: MAVEN_LIMIT_MS })
      return
    } catch (error) {
      // Hundreds of small files in a row: what has come is kept, so that the next try goes on where this one stopped.
      if (attempt === TRIES_MAX || error instanceof MissingToolError) throw error
    }
  }
}

/** Starts fast and stays small; what a test server does in its short life is not worth a second compiler. */
export const javaFlags = (heapMb: number): readonly string[] => [
  `-Xmx${heapMb}m`,
  '-XX:+UseSerialGC',
  '-XX:TieredStopAtLevel=1',
  '-Xshare:auto',
  '-XX:-UsePerfData',
  '-Djava.awt.headless=true',
]
