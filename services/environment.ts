import { connect } from 'node:net'
import { messageOf } from './command.ts'
import { speaksKafka } from './kafka.ts'
import type { ServiceName } from './names.ts'
import { natsVersion } from './nats.ts'
import { get } from './ports.ts'
import { redisVersion } from './redis.ts'
import type { ServerAddress } from './server.ts'

/** Variables that name a server which is there already: the first one is its address, the others are further addresses in `extra`. */
const VARIABLES: Readonly<Record<ServiceName, { readonly url: string; readonly extra: Readonly<Record<string, string>> }>> = {
  // DATABASE_URL may be somebody's real database, which tests must never touch.
  postgres: { url: 'WAYBILL_TEST_POSTGRES_URL', extra: {} },
  redis: { url: 'REDIS_URL', extra: {} },
  nats: { url: 'NATS_URL', extra: {} },
  kafka: { url: 'KAFKA_BOOTSTRAP_SERVERS', extra: {} },
  pulsar: { url: 'PULSAR_URL', extra: { webSocketUrl: 'PULSAR_WEB_SOCKET_URL', adminUrl: 'PULSAR_ADMIN_URL' } },
}

const DEFAULT_PORT: Readonly<Record<ServiceName, number>> = { postgres: 5432, redis: 6379, nats: 4222, kafka: 9092, pulsar: 6650 }

type Environment = Readonly<Record<string, string | undefined>>

/** The variables with which programs find a server. For people: PostgreSQL's is DATABASE_URL here. */
export function exportsOf({ name, url, extra }: ServerAddress): Readonly<Record<string, string>> {
  const variables = VARIABLES[name]
  const further = Object.entries(variables.extra).flatMap(([field, variable]) =>
    extra[field] === undefined ? [] : [[variable, extra[field]]],
  )
  return { [name === 'postgres' ? 'DATABASE_URL' : variables.url]: url, ...Object.fromEntries(further) }
}

/**
 * The server that the environment names, undefined where it names none. Throws an `Error` where an address can't be read or a second one is missing;
 * no message holds a password.
 */
export function namedByEnvironment(name: ServiceName, environment: Environment = process.env): Omit<ServerAddress, 'version'> | undefined {
  const variables = VARIABLES[name]
  const url = environment[variables.url]
  if (url === undefined || url === '') return undefined
  const { host, port } = parseAddress(name, url, variables.url)
  const extra: Record<string, string> = {}
  for (const [field, variable] of Object.entries(variables.extra)) {
    const value = environment[variable]
    if (value === undefined || value === '') throw new Error(`${variables.url} is set, but ${variable} is not: ${name} needs both`)
    extra[field] = value
  }
  return { name, url, host, port, extra }
}

function parseAddress(name: ServiceName, url: string, variable: string): { readonly host: string; readonly port: number } {
  const [first = ''] = url.split(',')
  const text = first.includes('://') ? first.trim() : `${name}://${first.trim()}`
  let parsed: URL
  try {
    parsed = new URL(text)
  } catch {
    // Without the cause, whose message would show the whole address with its password.
    throw new Error(`${variable} is no address; it looks like ${name === 'kafka' ? 'host:9092' : `${name}://host:${DEFAULT_PORT[name]}`}`)
  }
  if (parsed.hostname === '') throw new Error(`${variable} names no host`)
  return { host: parsed.hostname.replace(/^\[|\]$/g, ''), port: parsed.port === '' ? DEFAULT_PORT[name] : Number(parsed.port) }
}

/** The version of a running server, `unknown` where it doesn't tell. Throws an `Error` where nobody answers. */
export async function versionAt({ name, host, port, extra }: Omit<ServerAddress, 'version'>): Promise<string> {
  const version = await askVersion(name, host, port, extra)
  if (version !== undefined) return version
  if (await answers(host, port)) return 'unknown'
  throw new Error(`nothing answers at ${host}:${port}`)
}

async function askVersion(
  name: ServiceName,
  host: string,
  port: number,
  extra: Readonly<Record<string, string>>,
): Promise<string | undefined> {
  switch (name) {
    case 'redis':
      return redisVersion(host, port)
    case 'nats':
      return natsVersion(host, port)
    case 'pulsar':
      return (await get(`${extra['adminUrl']}/admin/v2/brokers/version`))?.trim()
    case 'kafka':
    case 'postgres':
      return undefined
  }
}

/** Whether a server answers as one of its kind does. */
export async function isHealthy(address: Omit<ServerAddress, 'version'>): Promise<boolean> {
  const { name, host, port, extra } = address
  switch (name) {
    case 'kafka':
      return speaksKafka(host, port)
    case 'pulsar':
      return (await get(`${extra['adminUrl']}/admin/v2/brokers/health`, { limitMs: 10_000 })) !== undefined
    case 'postgres':
      return answers(host, port)
    case 'redis':
    case 'nats':
      // One that asks for a password or TLS first is not asked further.
      return (await askVersion(name, host, port, extra)) !== undefined || answers(host, port)
  }
}

/** Whether somebody takes connections there. */
export function answers(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: 2_000 })
    const end = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    socket
      .once('connect', () => end(true))
      .once('error', () => end(false))
      .once('timeout', () => end(false))
  })
}

/** By this variable the test runner hands servers to test processes: what it started, or why there is none. */
export const HANDED = 'WAYBILL_SERVICES'

/** What the test runner says of a server. */
export type Handed = (ServerAddress & { readonly provider: string }) | { readonly skipped: string }

/** What the test runner has handed over for `name`. Throws an `Error` where the variable is not what it writes. */
export function handedOver(name: ServiceName, environment: Environment = process.env): Handed | undefined {
  const text = environment[HANDED]
  if (text === undefined || text === '') return undefined
  try {
    return (JSON.parse(text) as Readonly<Partial<Record<ServiceName, Handed>>>)[name]
  } catch (cause) {
    throw new Error(`${HANDED} is written by the test runner, and this is not what it writes: ${messageOf(cause)}`, { cause })
  }
}
