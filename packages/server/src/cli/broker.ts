import {
  MESSAGE_BUS_TYPES,
  type MessageBusType,
  type Observe,
  type Transport,
  type TransportAdmin,
  WaybillError,
  isWaybillError,
  messageBusType,
  transportFromEnvironment,
} from 'waybill'
import type { CommandInput } from './command.ts'
import { loadTransport } from './load-module.ts'
import { maskUrl } from './secrets.ts'
import type { Environment } from './settings.ts'
import { suggestion } from './suggest.ts'

/** The types of `MESSAGE_BUS_TYPE` that have a broker behind them. */
export const BROKER_TYPES = ['kafka', 'nats', 'redis', 'pulsar'] as const
export type BrokerType = (typeof BROKER_TYPES)[number]

/** By which setting each one is found; the first is the one to name, where the error does not show another's address. */
const ADDRESSES: Readonly<Record<BrokerType, readonly string[]>> = {
  kafka: ['KAFKA_BOOTSTRAP_SERVERS'],
  nats: ['NATS_URL'],
  redis: ['REDIS_URL'],
  pulsar: ['PULSAR_URL', 'PULSAR_SERVICE_URL', 'PULSAR_WEB_SOCKET_URL', 'PULSAR_ADMIN_URL'],
}

/** Options with a setting of their own. */
const OPTION_SETTINGS: Readonly<Record<string, string>> = { webSocketUrl: 'PULSAR_WEB_SOCKET_URL', adminUrl: 'PULSAR_ADMIN_URL' }

/** Options of every command that asks a broker. */
export const BROKER_FLAGS = {
  broker: { value: 'TYPE', help: 'kafka, nats, redis or pulsar; overrides MESSAGE_BUS_TYPE' },
  transport: { value: 'FILE', help: 'module that exports createTransport(), instead of a broker from the environment' },
} as const

/** Where messages go, as it was said. */
export type BrokerChoice = { readonly kind: 'transport'; readonly file: string } | { readonly kind: 'broker'; readonly type: BrokerType }

/** How long a broker may take to answer one question. */
const ANSWER_MAX_MS = 15_000

/** `MESSAGE_BUS_TYPE`. @throws WaybillError `INVALID_SETTING` for an unknown type, with the nearest known one */
export function busType(env: Environment): MessageBusType {
  try {
    return messageBusType(env)
  } catch (error) {
    const got = env.MESSAGE_BUS_TYPE?.trim() ?? ''
    if (!isWaybillError(error, 'INVALID_SETTING')) throw error
    throw new WaybillError('INVALID_SETTING', `MESSAGE_BUS_TYPE is unknown${suggestion(got.toLowerCase(), MESSAGE_BUS_TYPES)}`, {
      got,
      allowed: MESSAGE_BUS_TYPES.join(', '),
    })
  }
}

/**
 * What `--transport`, `--broker` or `MESSAGE_BUS_TYPE` names, in this order; undefined where events stay in process.
 * @throws WaybillError `INVALID_SETTING`
 */
export function brokerChoice({ flags, env }: Pick<CommandInput, 'flags' | 'env'>): BrokerChoice | undefined {
  const [file, named] = [flags.text('transport'), flags.oneOf('broker', BROKER_TYPES)]
  if (file !== undefined && named !== undefined)
    throw new WaybillError('INVALID_SETTING', '--transport and --broker exclude each other', { allowed: 'one of them' })
  // Looked at in any case: a mistyped setting must not lie in wait.
  const configured = busType(env)
  if (file !== undefined) return { kind: 'transport', file }
  const type = named ?? configured
  return type === 'inprocess' || type === 'memory' ? undefined : { kind: 'broker', type }
}

/** The same, where there must be one. @throws WaybillError `INVALID_SETTING` */
export function requiredBroker(input: Pick<CommandInput, 'flags' | 'env'>): BrokerChoice {
  const choice = brokerChoice(input)
  if (choice !== undefined) return choice
  throw new WaybillError('INVALID_SETTING', 'there is no broker to ask: MESSAGE_BUS_TYPE is inprocess', {
    allowed: 'MESSAGE_BUS_TYPE=kafka, nats, redis or pulsar, in the environment or .env; --broker TYPE; or --transport FILE',
  })
}

/** The transport, which has not connected yet. @throws WaybillError `INVALID_SETTING` | `INVALID_FILE` | `PEER_MISSING` ... */
export async function openBroker(choice: BrokerChoice, env: Environment, observe?: Observe): Promise<Transport> {
  if (choice.kind === 'transport') return loadTransport(choice.file)
  try {
    return await transportFromEnvironment(env, { type: choice.type, ...(observe === undefined ? {} : { observe }) })
  } catch (error) {
    // The library knows its options; here they have come by a setting.
    const message = isWaybillError(error, 'INVALID_OPTION') ? error.message : ''
    const option = /\.(url|servers|serviceUrl|bootstrapServers|webSocketUrl|adminUrl)\b/.exec(message)?.[1]
    if (option === undefined) throw error
    const { allowed } = error as WaybillError
    const name = OPTION_SETTINGS[option] ?? addressSetting(choice.type, env) ?? ADDRESSES[choice.type][0]!
    throw new WaybillError('INVALID_SETTING', `${name} is not usable`, {
      ...(allowed === undefined ? {} : { allowed }),
      cause: error,
    })
  }
}

/** The setting that says where the broker is, so far as one does: of several the one whose address `shown` shows, else the first. */
function addressSetting(type: BrokerType, env: Environment, shown = ''): string | undefined {
  const set = ADDRESSES[type].filter((name) => (env[name] ?? '').trim() !== '')
  return set.find((name) => shown.includes(originOf(env[name]!))) ?? set[0]
}

/** With its scheme, since services of one host may share a port: two settings of Pulsar's usually do. */
const originOf = (address: string): string => {
  const url = URL.parse(address.trim())
  return url === null ? address.trim() : `${url.protocol}//${url.host}`
}

/** What can be asked of the broker behind `transport`. @throws WaybillError `UNSUPPORTED` where there is none */
export function adminOf({ name, admin }: Transport): TransportAdmin {
  if (admin !== undefined) return admin
  throw new WaybillError('UNSUPPORTED', 'this transport has no broker that could be asked', { got: name, allowed: 'one with an `admin`' })
}

/**
 * Asks a broker, within a limit. What goes wrong names the setting by which it was found.
 * @throws WaybillError `TRANSPORT_UNAVAILABLE` where it does not answer in time
 */
export async function ask<T>(
  choice: BrokerChoice,
  env: Environment,
  signal: AbortSignal,
  question: (signal: AbortSignal) => Promise<T>,
  limitMs = ANSWER_MAX_MS,
): Promise<T> {
  const late = new AbortController()
  let timer: NodeJS.Timeout | undefined
  const ended = new Promise<never>((_, reject) => {
    const error = new WaybillError('TRANSPORT_UNAVAILABLE', `the broker did not answer within ${limitMs / 1_000} s`)
    timer = setTimeout(() => {
      reject(error)
      late.abort(error)
    }, limitMs)
  })
  try {
    return await Promise.race([question(AbortSignal.any([signal, late.signal])), ended])
  } catch (error) {
    throw explained(error, choice, env)
  } finally {
    clearTimeout(timer)
  }
}

/** The error of a broker with the setting that led there, and what stands in it, so far as the error does not say so itself. */
export function explained(error: unknown, choice: BrokerChoice, env: Environment): unknown {
  if (!isWaybillError(error, 'TRANSPORT_UNAVAILABLE', 'ACCESS_DENIED') || choice.kind === 'transport') return error
  const names = ADDRESSES[choice.type]
  if (names.some((name) => error.message.includes(name))) return error
  const name = addressSetting(choice.type, env, error.message)
  const value = name === undefined ? undefined : maskUrl(env[name]!.trim())
  // By the first host in it, so that one that the error names is not said twice.
  const host = value
    ?.replace(/^[a-z][a-z0-9+.-]*:\/\//i, '')
    .replace(/^[^@/]*@/, '')
    .replace(/[,/?].*$/s, '')
  // Of two places the setting is the one that people can change.
  const said = error.message.replace(/ \(at [^()]*\)$/, '').replace(/; at [^();]*\)$/, ')')
  const where =
    value === undefined ? `${names[0]}, which is not set` : host !== undefined && said.includes(host) ? name! : `${name}, ${value}`
  return new WaybillError(error.code, said, { where, cause: error })
}
