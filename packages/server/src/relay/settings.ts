import { WaybillError } from 'waybill'
import type { FlagSpec } from '../cli/arguments.ts'
import { BROKER_FLAGS, type BrokerChoice, brokerChoice } from '../cli/broker.ts'
import type { CommandInput } from '../cli/command.ts'
import { type Environment, databaseSetting } from '../cli/settings.ts'
import { DATABASE_FLAGS } from '../cli/storage.ts'
import { suggestion } from '../cli/suggest.ts'

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

const HOST_DEFAULT = '127.0.0.1'
const PORT_DEFAULT = 9464
const PORT_MAX = 65_535
const SHUTDOWN_DEFAULT_MS = 10_000

export const RELAY_FLAGS: Readonly<Record<string, FlagSpec>> = {
  ...DATABASE_FLAGS,
  broker: BROKER_FLAGS.broker,
  transport: { value: 'FILE', help: 'module that exports createTransport(), .js, .mjs or .ts' },
  app: { value: 'FILE', help: 'module that exports createApp(): its relay and its handlers' },
  once: { help: 'publish everything that is due, say how many rows, and end' },
  listen: { help: 'let the database wake the relay (LISTEN/NOTIFY), beside polling' },
  'listen-url': { value: 'URL', help: 'the same, by this URL: straight to the server where DATABASE_URL leads to a pooler' },
  'lease-ms': { value: 'N', help: 'how long shards stay ours without renewal, 100 to 3600000 (default 15000)' },
  'batch-size': { value: 'N', help: 'most rows claimed at a time, 1 to 10000 (default 200)' },
  'poll-ms': { value: 'N', help: 'longest pause between two looks, 1 to 60000 (default 500)' },
  'shutdown-ms': { value: 'N', help: `how long a stop waits for what is in flight, 0 to 600000 (default ${SHUTDOWN_DEFAULT_MS})` },
  host: { value: 'HOST', help: `where to serve metrics and health; overrides HOST (default ${HOST_DEFAULT})` },
  port: { value: 'N', help: `on which port, 0 for any free one; overrides PORT (default ${PORT_DEFAULT})` },
  'no-http': { help: 'serve neither metrics nor health' },
}

/** What `waybill relay` was told. */
export interface RelaySettings {
  readonly source: BrokerChoice | { readonly kind: 'app'; readonly file: string }
  readonly once: boolean
  /** As `createWaybill` takes them. */
  readonly relay: { readonly leaseMs?: number; readonly batchSize?: number; readonly pollIntervalMs?: number }
  /** Whether, and at which URL, to be woken by the database. */
  readonly listen: boolean | { readonly url: string }
  readonly shutdownMs: number
  readonly http: { readonly host: string; readonly port: number } | undefined
  readonly logLevel: LogLevel
}

/** Reads options and environment. @throws WaybillError `INVALID_SETTING` | `UNSUPPORTED` */
export function relaySettings({ flags, env }: Pick<CommandInput, 'flags' | 'env'>): RelaySettings {
  const [transport, app] = [flags.text('transport'), flags.text('app')]
  if (app !== undefined && (transport !== undefined || flags.on('broker')))
    throw new WaybillError('INVALID_SETTING', `--${transport === undefined ? 'broker' : 'transport'} and --app exclude each other`, {
      allowed: 'one of them: an application brings its own transport',
    })
  const choice = brokerChoice({ flags, env })
  const tuning = ['listen', 'listen-url', 'lease-ms', 'batch-size', 'poll-ms', 'database', 'schema', 'prefix'].filter((name) =>
    flags.on(name),
  )
  if (app !== undefined && tuning.length > 0)
    throw new WaybillError('INVALID_SETTING', `--${tuning[0]} is for the application to say: --app brings its own database and relay`, {
      allowed: 'the relay option of its createWaybill()',
    })
  const source = app === undefined ? choice : { kind: 'app' as const, file: app }
  if (source === undefined)
    throw new WaybillError(
      'INVALID_SETTING',
      'there is nothing to relay to: MESSAGE_BUS_TYPE is inprocess, whose handlers live in the application; nothing was published',
      {
        allowed:
          '--transport FILE, a module that exports createTransport(); --app FILE, one that exports createApp(); --broker TYPE, or MESSAGE_BUS_TYPE=kafka, nats, redis or pulsar',
      },
    )
  const given = {
    leaseMs: flags.integer('lease-ms', 100, 3_600_000),
    batchSize: flags.integer('batch-size', 1, 10_000),
    pollIntervalMs: flags.integer('poll-ms', 1, 60_000),
  }
  const relay = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  return {
    source,
    once: flags.on('once'),
    relay,
    listen: listenSetting(flags),
    shutdownMs: flags.integer('shutdown-ms', 0, 600_000) ?? SHUTDOWN_DEFAULT_MS,
    http:
      flags.on('no-http') || flags.on('once')
        ? undefined
        : { host: flags.text('host') ?? (env.HOST || HOST_DEFAULT), port: port(flags, env) },
    logLevel: logLevel(env),
  }
}

function listenSetting(flags: CommandInput['flags']): RelaySettings['listen'] {
  const url = flags.text('listen-url')
  if (url === undefined) return flags.on('listen')
  const setting = databaseSetting({}, url, '--listen-url')
  if (setting.kind === 'postgres') return { url: setting.url }
  throw new WaybillError('INVALID_SETTING', '--listen-url is no URL of a server', { allowed: 'postgres://user@host:5432/name' })
}

function port(flags: CommandInput['flags'], env: Environment): number {
  const flag = flags.integer('port', 0, PORT_MAX)
  if (flag !== undefined) return flag
  const value = env.PORT
  if (value === undefined || value === '') return PORT_DEFAULT
  if (/^\d{1,5}$/.test(value) && Number(value) <= PORT_MAX) return Number(value)
  throw new WaybillError('INVALID_SETTING', 'PORT is not usable', { got: value, allowed: `a whole number from 0 to ${PORT_MAX}` })
}

function logLevel(env: Environment): LogLevel {
  const value = env.LOG_LEVEL === undefined || env.LOG_LEVEL === '' ? 'info' : env.LOG_LEVEL.toLowerCase()
  const known = LOG_LEVELS.find((level) => level === value)
  if (known !== undefined) return known
  throw new WaybillError('INVALID_SETTING', `LOG_LEVEL is unknown${suggestion(value, LOG_LEVELS)}`, {
    got: value,
    allowed: LOG_LEVELS.join(', '),
  })
}
