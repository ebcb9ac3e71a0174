import { randomBytes } from 'node:crypto'
import { type Environment, WaybillError, isWaybillError } from 'waybill'
import { databaseSetting } from '../cli/settings.ts'
import type { RestartableBroker } from './outages.ts'
import type { DemoBroker, DemoDatabase } from './setup.ts'

/** The servers of one demo. */
export interface DemoServers {
  /** The workers' environment: says where database and broker are. */
  readonly env: Environment
  /** A name that no other run has: for the schema, the topics and the groups. */
  readonly id: string
  /** Of the broker, for people; undefined in process. */
  readonly brokerVersion: string | undefined
  /** The broker, where it was started here and so may be taken away. */
  readonly broker: RestartableBroker | undefined
  /** Whether the database was there before, and stays. */
  readonly keepsDatabase: boolean
  /** Stops what was started here. */
  close(): Promise<void>
}

export interface ServersOptions {
  readonly broker: DemoBroker
  readonly database: DemoDatabase
  readonly restartBroker: boolean
  readonly env: Environment
  readonly signal: AbortSignal
  /** Told of what takes a while. */
  readonly onNote: (line: string) => void
}

/** The part of the workspace package `waybill-services` that is used here. */
interface Services {
  ownServer(name: string): Promise<OwnServer>
  service(name: string): Promise<{ readonly url: string } | { readonly skipped: string }>
  closeServices(): Promise<void>
}

interface OwnServer extends RestartableBroker {
  readonly url: string
  readonly version: string
  readonly extra: Readonly<Record<string, string>>
  close(): Promise<void>
}

/** By which variables a broker is named; the first one is set where the demo starts its own. */
const VARIABLES: Readonly<Record<Exclude<DemoBroker, 'inprocess'>, readonly [string, ...string[]]>> = {
  kafka: ['KAFKA_BOOTSTRAP_SERVERS'],
  nats: ['NATS_URL'],
  redis: ['REDIS_URL'],
  pulsar: ['PULSAR_URL', 'PULSAR_SERVICE_URL'],
}
/** How long a broker of our own keeps what a killed process held: short, since the demo kills all the time. The environment overrules it. */
const SHORT_HOLDS: Readonly<Record<string, string>> = { KAFKA_SESSION_TIMEOUT_MS: '6000', REDIS_LEASE_MS: '5000' }
/** Further addresses of a server that is started here. */
const EXTRA_VARIABLES: Readonly<Record<string, string>> = { webSocketUrl: 'PULSAR_WEB_SOCKET_URL', adminUrl: 'PULSAR_ADMIN_URL' }

/**
 * Finds the servers that the environment names, and starts the others.
 * @throws WaybillError `INVALID_SETTING` where there is none and none can be started, and where one that was there before should be restarted
 */
export async function openServers(options: ServersOptions): Promise<DemoServers> {
  const { broker, restartBroker, env } = options
  const closers: (() => Promise<void>)[] = []
  const close = async (): Promise<void> => {
    for (const closeOne of closers.splice(0).toReversed()) await closeOne()
  }
  if (restartBroker && broker === 'inprocess')
    throw new WaybillError('INVALID_SETTING', '--restart-broker needs a broker', {
      got: 'inprocess',
      allowed: '--broker kafka, nats, redis or pulsar',
    })
  const named = broker === 'inprocess' ? undefined : VARIABLES[broker].find((variable) => (env[variable] ?? '') !== '')
  if (restartBroker && named !== undefined)
    throw new WaybillError(
      'INVALID_SETTING',
      `--restart-broker is for a broker that the demo starts itself, and ${named} names one that is there already`,
      {
        allowed: `${named} not set`,
      },
    )
  try {
    const database = await openDatabaseServer(options, closers)
    const own = broker === 'inprocess' || named !== undefined ? undefined : await openBroker(broker, options, closers)
    return {
      env: { ...(own === undefined ? {} : SHORT_HOLDS), ...env, ...database.env, ...own?.env },
      id: randomBytes(4).toString('hex'),
      brokerVersion: own?.server.version,
      broker: own?.server,
      keepsDatabase: database.given,
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

type Closers = (() => Promise<void>)[]

async function openDatabaseServer(
  { database, env, signal, onNote }: ServersOptions,
  closers: Closers,
): Promise<{ readonly given: boolean; readonly env: Environment }> {
  if (database === 'pglite') return { given: false, env: {} }
  if ((env['DATABASE_URL'] ?? '') !== '') {
    const setting = databaseSetting(env)
    if (setting.kind === 'postgres') return { given: true, env: {} }
    throw new WaybillError('INVALID_SETTING', 'DATABASE_URL names no PostgreSQL server', {
      got: env['DATABASE_URL'],
      allowed: 'postgres://user@host:5432/name, or not set: then the demo starts one where it can',
    })
  }
  const services = await loadServices('postgres', 'DATABASE_URL')
  closers.push(() => services.closeServices())
  onNote('starting PostgreSQL')
  const found = await services.service('postgres')
  refuseWhereStopped(signal)
  if ('skipped' in found) throw noServer('postgres', 'DATABASE_URL', found.skipped)
  return { given: false, env: { DATABASE_URL: found.url } }
}

async function openBroker(
  broker: Exclude<DemoBroker, 'inprocess'>,
  { signal, onNote }: ServersOptions,
  closers: Closers,
): Promise<{ readonly server: OwnServer; readonly env: Environment }> {
  const [variable] = VARIABLES[broker]
  const services = await loadServices(broker, variable)
  onNote(`starting ${broker}`)
  let server: OwnServer
  try {
    server = await services.ownServer(broker)
  } catch (cause) {
    throw noServer(broker, variable, cause)
  }
  closers.push(() => server.close())
  refuseWhereStopped(signal)
  const extra = Object.entries(EXTRA_VARIABLES).flatMap(([field, name]) => {
    const value = server.extra[field]
    return value === undefined ? [] : [[name, value] as const]
  })
  return { server, env: { [variable]: server.url, ...Object.fromEntries(extra) } }
}

/** Only a checkout of the project has this package. */
async function loadServices(name: string, variable: string): Promise<Services> {
  const specifier = 'waybill-services'
  try {
    return (await import(specifier)) as Services
  } catch (cause) {
    throw noServer(
      name,
      variable,
      (cause as NodeJS.ErrnoException).code === 'ERR_MODULE_NOT_FOUND' ? 'it is started by itself in a checkout only' : cause,
    )
  }
}

function noServer(name: string, variable: string, cause: unknown): WaybillError {
  if (isWaybillError(cause)) return cause
  const why = cause instanceof Error ? cause.message : String(cause)
  return new WaybillError('INVALID_SETTING', `there is no ${name} server for the demo: ${why}`, {
    allowed: `${variable} with the address of one`,
    cause,
  })
}

function refuseWhereStopped(signal: AbortSignal): void {
  if (signal.aborted) throw new WaybillError('CLOSED', 'the demo was stopped')
}
