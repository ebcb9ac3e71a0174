import { composeServer } from './compose.ts'
import { messageOf } from './command.ts'
import { handedOver, namedByEnvironment, versionAt } from './environment.ts'
import { SERVICE_NAMES, type ServiceName } from './names.ts'
import { type HostedServer, hostedServer } from './hosted-server.ts'
import { ownServer } from './own-server.ts'
import type { OwnServer, ServerAddress, ServerOptions } from './server.ts'

/** Where a server comes from: an address in the environment, Docker Compose, or the package managers. */
export type Provider = 'environment' | 'compose' | 'installed'

/** A server that tests share: they keep to topics, streams and databases of their own, and never stop it. */
export interface ServiceAvailable extends ServerAddress {
  readonly provider: Provider
}

/** Why there is no server. */
export interface ServiceSkipped {
  readonly skipped: string
}

const asked = new Map<ServiceName, Promise<ServiceAvailable | ServiceSkipped>>()
const closers: (() => Promise<void>)[] = []

/**
 * A server for the tests of this process: the one whose address is in the environment, else one of Docker Compose where an engine answers, else one that
 * is installed and started, and ends with this process. The same one each time.
 * Where there can be none: why, as `skipped`, but where WAYBILL_REQUIRE_SERVERS is `all` or a list with `name`: rejects with an `Error` that says why
 * (`evenIfRequired`: `skipped` there too, for whoever hands it on).
 */
export async function service(
  name: ServiceName,
  options: { readonly evenIfRequired?: true } = {},
): Promise<ServiceAvailable | ServiceSkipped> {
  let found = asked.get(name)
  if (found === undefined) asked.set(name, (found = find(name)))
  return options.evenIfRequired === true ? found : refuseWhereRequired(name, await found)
}

/**
 * `ownServer` for tests: where it can't be had, why, as `skipped`; where WAYBILL_REQUIRE_SERVERS asks for it, rejects with an `Error` that says why.
 */
export async function ownServerOrSkip(name: ServiceName, options: ServerOptions = {}): Promise<OwnServer | ServiceSkipped> {
  try {
    return await ownServer(name, options)
  } catch (error) {
    return refuseWhereRequired(name, { skipped: messageOf(error) })
  }
}

/** Stops what `service` has started. Without it the servers end with this process. */
export async function closeServices(): Promise<void> {
  asked.clear()
  await Promise.all(closers.splice(0).map((close) => close()))
}

function refuseWhereRequired<T extends object>(name: ServiceName, outcome: T): T {
  if ('skipped' in outcome && isRequired(name)) throw new Error(`${name} is required (WAYBILL_REQUIRE_SERVERS): ${String(outcome.skipped)}`)
  return outcome
}

/** Whether `name` must be there. Throws an `Error` where the variable names an unknown server. */
export function isRequired(name: ServiceName, required: string | undefined = process.env['WAYBILL_REQUIRE_SERVERS']): boolean {
  const names = (required ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
  const unknown = names.find((part) => part !== 'all' && !(SERVICE_NAMES as readonly string[]).includes(part))
  if (unknown !== undefined)
    throw new Error(`WAYBILL_REQUIRE_SERVERS is all or a list of ${SERVICE_NAMES.join(', ')}; got ${JSON.stringify(unknown)}`)
  return names.includes('all') || names.includes(name)
}

async function find(name: ServiceName): Promise<ServiceAvailable | ServiceSkipped> {
  try {
    const handed = handedOver(name)
    if (handed !== undefined) return 'skipped' in handed ? handed : { ...handed, provider: handed.provider as Provider }
    const named = namedByEnvironment(name)
    if (named !== undefined) return { ...named, version: await versionAt(named), provider: 'environment' }
    const composed = await composeServer(name)
    if (composed !== undefined) return started(composed, 'compose')
    return started(await hostedServer(name), 'installed')
  } catch (error) {
    return { skipped: messageOf(error) }
  }
}

function started({ close, ...address }: HostedServer, provider: Provider): ServiceAvailable {
  closers.push(close)
  return { ...address, provider }
}
