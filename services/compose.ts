import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { ROOT } from './cache.ts'
import { runCommand } from './command.ts'
import { guard } from './guard.ts'
import type { HostedServer } from './hosted-server.ts'
import type { ServiceName } from './names.ts'
import { freePorts } from './ports.ts'
import type { ServerAddress } from './server.ts'
import { VERSIONS } from './versions.ts'

/** Images are fetched on the way. */
const UP_LIMIT_MS = 10 * 60_000
const DOWN_LIMIT_MS = 120_000
const ANSWER_LIMIT_MS = 10_000

const FILE = join(ROOT, 'compose.yaml')

/** The ports of compose.yaml that a server is given, the first one first. */
const PORT_VARIABLES: Readonly<Record<ServiceName, readonly string[]>> = {
  postgres: ['WAYBILL_POSTGRES_PORT'],
  redis: ['WAYBILL_REDIS_PORT'],
  nats: ['WAYBILL_NATS_PORT', 'WAYBILL_NATS_MONITOR_PORT'],
  kafka: ['WAYBILL_KAFKA_PORT'],
  pulsar: ['WAYBILL_PULSAR_PORT', 'WAYBILL_PULSAR_WEB_PORT'],
}

let engine: Promise<boolean> | undefined

/** Whether Docker Compose is there and its engine answers; asked once. */
export function hasCompose(): Promise<boolean> {
  return (engine ??= Promise.all([
    runCommand('docker', ['compose', 'version'], { limitMs: ANSWER_LIMIT_MS }),
    runCommand('docker', ['info', '--format', '{{.ServerVersion}}'], { limitMs: ANSWER_LIMIT_MS }),
  ]).then(
    () => true,
    // Not installed, not running, not allowed: then the package managers are asked.
    () => false,
  ))
}

/**
 * Starts one container of compose.yaml on free ports, in a project of its own that is removed with its data once this process is gone. Undefined where no
 * engine answers.
 */
export async function composeServer(name: ServiceName): Promise<HostedServer | undefined> {
  if (!(await hasCompose())) return undefined
  const project = newProject(name)
  const watch = guard('docker compose -p "$1" -f "$2" down --volumes --timeout 5', [project, FILE])
  const close = async () => {
    await composeDown(project)
    watch.end()
  }
  try {
    return { ...(await composeUp(name, project)), close }
  } catch (error) {
    await close()
    throw error
  }
}

/** A name that no other run has. */
export const newProject = (name: ServiceName): string => `waybill-${name}-${randomBytes(4).toString('hex')}`

/** Starts one container under `project` on free ports, and waits for its health check. */
export async function composeUp(name: ServiceName, project: string): Promise<ServerAddress> {
  const variables = PORT_VARIABLES[name]
  const ports = await freePorts(variables.length)
  const env = Object.fromEntries(variables.map((variable, index) => [variable, String(ports[index])]))
  await runCommand('docker', ['compose', '-p', project, '-f', FILE, 'up', '--detach', '--wait', name], { env, limitMs: UP_LIMIT_MS })
  return addressOf(name, ports)
}

/** Removes what runs under `project`, with its data. */
export async function composeDown(project: string): Promise<void> {
  await runCommand('docker', ['compose', '-p', project, '-f', FILE, 'down', '--volumes', '--timeout', '5'], { limitMs: DOWN_LIMIT_MS })
}

function addressOf(name: ServiceName, [port = 0, further = 0]: readonly number[]): ServerAddress {
  const host = '127.0.0.1'
  const base = { name, host, port, version: VERSIONS[name] }
  switch (name) {
    case 'postgres':
      return { ...base, url: `postgres://postgres:waybill@${host}:${port}/postgres`, extra: { user: 'postgres', password: 'waybill' } }
    case 'redis':
      return { ...base, url: `redis://${host}:${port}`, extra: {} }
    case 'nats':
      return { ...base, url: `nats://${host}:${port}`, extra: { monitorUrl: `http://${host}:${further}` } }
    case 'kafka':
      return { ...base, url: `${host}:${port}`, extra: {} }
    case 'pulsar':
      return {
        ...base,
        url: `pulsar://${host}:${port}`,
        extra: { webSocketUrl: `ws://${host}:${further}`, adminUrl: `http://${host}:${further}` },
      }
  }
}
