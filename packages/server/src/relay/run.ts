import type { Logger } from 'pino'
import client from 'prom-client'
import { type Observe, type Transport, type Waybill, WaybillError, createWaybill, observeAll } from 'waybill'
import { prometheusMetrics } from 'waybill/prometheus'
import type { CommandInput, ExitCode } from '../cli/command.ts'
import { type BrokerChoice, explained, openBroker } from '../cli/broker.ts'
import { loadApp } from '../cli/load-module.ts'
import { counted } from '../cli/printable.ts'
import type { Environment } from '../cli/settings.ts'
import { openNamed } from '../cli/storage.ts'
import { inAll } from '../outbox/ls.ts'
import { publishUntilStopped } from '../outbox/publish.ts'
import { createHealth } from './health.ts'
import { serveHttp } from './http.ts'
import { createLog, logEvents } from './log.ts'
import type { RelaySettings } from './settings.ts'
import { type TransportState, createTransportState } from './transport-state.ts'

const HEALTH_LIMIT_MS = 3_000
const HEALTH_GRACE_MS = 15_000
const STOP_SLACK_MS = 5_000

/** Composes the relay and runs it until it is stopped, or once. */
export async function runRelay(input: CommandInput, settings: RelaySettings): Promise<ExitCode> {
  const log = createLog(settings.logLevel, input.output.note)
  const register = new client.Registry()
  const metrics = await prometheusMetrics({ client, register })
  const state = createTransportState()
  const observe = observeAll([metrics.observe, logEvents(log), state.observe])
  const { app, transport } = await compose(input, settings, observe, state)
  try {
    metrics.watch(app)
    if (settings.once) return await publishOnce(input, app)
    // Not for a run of a moment: nobody reads its metrics.
    if (transport !== undefined) metrics.watch({ transport })
    client.collectDefaultMetrics({ register })
    return await serve(input, settings, { app, state, register, log })
  } finally {
    await stopInTime(app, settings.shutdownMs)
  }
}

interface Composed {
  readonly app: Waybill
  /** Where it is not the application's own affair. */
  readonly transport?: Transport
}

async function compose(
  input: CommandInput,
  { source, relay, listen, shutdownMs }: RelaySettings,
  observe: Observe,
  state: TransportState,
): Promise<Composed> {
  if (source.kind === 'app') return { app: await loadApp(source.file, { observe }) }
  const transport = await openBroker(source, input.env, observe)
  try {
    checkTransport(transport, source)
    state.watch(transport)
    await checkAccess(state, source, input.env)
    const database = await openNamed(input, { listen })
    try {
      const app = await createWaybill({ contexts: [], database, transport, relay, shutdownMs, source: 'relay', observe })
      return { app, transport }
    } catch (error) {
      await database.close()
      throw error
    }
  } catch (error) {
    await transport.close()
    throw error
  }
}

function checkTransport({ name, capabilities }: Transport, { kind }: BrokerChoice): void {
  if (capabilities.acknowledges === 'stored') return
  throw new WaybillError('UNSUPPORTED', 'this transport waits for handlers, which live in the application: nothing was published', {
    got: name,
    allowed: 'a transport that acknowledges what it has stored; or --app FILE',
    where: `--${kind}`,
  })
}

/** With wrong credentials each row would fail by itself, and in the end they would all be parked: better not to begin. */
async function checkAccess(state: TransportState, choice: BrokerChoice, env: Environment): Promise<void> {
  await state.trouble(HEALTH_LIMIT_MS)
  const refusal = state.refusal()
  if (refusal !== undefined) throw explained(refusal, choice, env)
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

interface Serving {
  readonly app: Waybill
  readonly state: TransportState
  readonly register: InstanceType<typeof client.Registry>
  readonly log: Logger
}

async function serve(
  { flags, output, signal }: CommandInput,
  { http, source, shutdownMs }: RelaySettings,
  { app, state, register, log }: Serving,
): Promise<ExitCode> {
  const health = createHealth({ app, transport: state, limitMs: HEALTH_LIMIT_MS, graceMs: HEALTH_GRACE_MS })
  const server = http === undefined ? undefined : await serveHttp({ ...http, health, metrics: register })
  try {
    if (server !== undefined) log.info({ url: server.url }, 'serving /metrics, /health and /ready')
    await app.start()
    health.started()
    log.info(
      {
        relayId: app.relayStats().relayId,
        database: app.database.name,
        [source.kind]: source.kind === 'broker' ? source.type : source.file,
      },
      'relay started',
    )
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
