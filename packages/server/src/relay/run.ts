import type { Logger } from 'pino'
import client from 'prom-client'
import { type Observe, type Transport, type Waybill, WaybillError, createWaybill, observeAll } from 'waybill'
import { prometheusMetrics } from 'waybill/prometheus'
import type { CommandInput, ExitCode } from '../cli/command.ts'
import { loadApp, loadTransport } from '../cli/load-module.ts'
import { counted } from '../cli/printable.ts'
import { openNamed } from '../cli/storage.ts'
import { inAll } from '../outbox/ls.ts'
import { publishUntilStopped } from '../outbox/publish.ts'
import { createHealth } from './health.ts'
import { serveHttp } from './http.ts'
import { createLog, logEvents } from './log.ts'
import type { RelaySettings } from './settings.ts'

const HEALTH_LIMIT_MS = 3_000
const HEALTH_GRACE_MS = 15_000
const STOP_SLACK_MS = 5_000

/** Composes the relay and runs it until it is stopped, or once. */
export async function runRelay(input: CommandInput, settings: RelaySettings): Promise<ExitCode> {
  const log = createLog(settings.logLevel, input.output.note)
  const register = new client.Registry()
  const metrics = await prometheusMetrics({ client, register })
  const app = await compose(input, settings, observeAll([metrics.observe, logEvents(log)]))
  try {
    metrics.watch(app)
    if (settings.once) return await publishOnce(input, app)
    client.collectDefaultMetrics({ register })
    return await serve(input, settings, app, register, log)
  } finally {
    await stopInTime(app, settings.shutdownMs)
  }
}

async function compose(input: CommandInput, { source, relay, listen, shutdownMs }: RelaySettings, observe: Observe): Promise<Waybill> {
  if (source.kind === 'app') return loadApp(source.file, { observe })
  const transport = await loadTransport(source.file)
  try {
    checkTransport(transport)
    const database = await openNamed(input, { listen })
    try {
      return await createWaybill({ contexts: [], database, transport, relay, shutdownMs, source: 'relay', observe })
    } catch (error) {
      await database.close()
      throw error
    }
  } catch (error) {
    await transport.close()
    throw error
  }
}

function checkTransport({ name, capabilities }: Transport): void {
  if (capabilities.acknowledges === 'stored') return
  throw new WaybillError('UNSUPPORTED', 'this transport waits for handlers, which live in the application: nothing was published', {
    got: name,
    allowed: 'a transport that acknowledges what it has stored; or --app FILE',
    where: '--transport',
  })
}

async function publishOnce({ flags, output, signal }: CommandInput, app: Waybill): Promise<ExitCode> {
  await app.start()
  const published = await publishUntilStopped(app, signal)
  const stats = await app.database.outbox.stats()
  const { pending, scheduled, parked } = stats
  if (flags.on('json')) output.json({ published, pending, scheduled, parked })
  else output.print(`${published} published`)
  if (pending + parked + scheduled > 0) {
    output.note(`left in the outbox: ${inAll(stats)}`)
    for (const reason of await reasonsForPending(app, pending)) output.note(reason)
    if (parked > 0) output.note('parked rows wait for somebody: see "waybill doctor"')
  }
  return 0
}

async function reasonsForPending(app: Waybill, pending: number): Promise<readonly string[]> {
  if (pending === 0) return []
  const { relayId, breakers } = app.relayStats()
  const closed = Object.entries(breakers).filter(([, state]) => state !== 'closed')
  const others = (await app.database.outbox.leases()).filter(
    (lease) => lease.relayId !== relayId && lease.expiresInMs > 0 && lease.shards > 0,
  )
  return [
    ...closed.map(([destination]) => `the transport of destination "${destination}" does not answer: its rows stay until it does`),
    ...others.map((lease) => `relay ${lease.relayId} has ${lease.shards} of the 64 shards: it publishes their rows`),
    ...(closed.length + others.length === 0
      ? ['they are held for a while, after a failure or for their grace: see "waybill outbox ls"']
      : []),
  ]
}

async function serve(
  { flags, output, signal }: CommandInput,
  { http, source, shutdownMs }: RelaySettings,
  app: Waybill,
  register: InstanceType<typeof client.Registry>,
  log: Logger,
): Promise<ExitCode> {
  const health = createHealth({ app, limitMs: HEALTH_LIMIT_MS, graceMs: HEALTH_GRACE_MS })
  const server = http === undefined ? undefined : await serveHttp({ ...http, health, metrics: register })
  try {
    if (server !== undefined) log.info({ url: server.url }, 'serving /metrics, /health and /ready')
    await app.start()
    health.started()
    log.info({ relayId: app.relayStats().relayId, database: app.database.name, [source.kind]: source.file }, 'relay started')
    // Rejects with what ended the relay for good.
    await Promise.race([aborted(signal), app.finished])
    health.stopping()
    log.info({ rowsInFlight: app.relayStats().rowsInFlight }, 'stopping')
    await stopInTime(app, shutdownMs)
    const { published } = app.relayStats()
    log.info({ published }, 'stopped')
    if (flags.on('json')) output.json({ published })
    else output.print(`${counted(published, 'row')} published`)
    return 0
  } finally {
    await server?.close()
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

/** A stop is bounded stage by stage; all of them together must be too, whatever an application does in its own. */
async function stopInTime(app: Waybill, shutdownMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () =>
        reject(
          new WaybillError('TIMEOUT', 'it could not be stopped in time: what was in flight is published again', { where: '--shutdown-ms' }),
        ),
      shutdownMs + STOP_SLACK_MS,
    )
  })
  try {
    await Promise.race([app.stop(), late])
  } finally {
    clearTimeout(timer)
  }
}
