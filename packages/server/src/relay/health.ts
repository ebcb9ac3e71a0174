import { type Waybill, WaybillError } from 'waybill'
import { messageOf } from '../cli/printable.ts'
import type { TransportState } from './transport-state.ts'

/** What is served: 200 where `ok`, else 503. */
export interface HealthReport {
  readonly ok: boolean
  readonly status: string
  /** By name: `ok`, or what is wrong. */
  readonly checks: Readonly<Record<string, string>>
  readonly relay: { readonly id: string; readonly shards: number; readonly rowsInFlight: number; readonly published: number }
}

/** Answers whoever asks whether this process does its work. */
export interface Health {
  /** Alive: database and broker answer, and the relay renews its leases. */
  health(): Promise<HealthReport>
  /** Ready: alive, the tables are right, and the shards are with this relay or another one. */
  ready(): Promise<HealthReport>
  started(): void
  /** No work is to be expected of this process any more: not ready, but alive as long as it drains. */
  stopping(): void
}

export interface HealthOptions {
  readonly app: Waybill
  readonly transport: Pick<TransportState, 'trouble'>
  /** How long the database, and the broker, may take. */
  readonly limitMs: number
  /** How long a relay may take to register after the start. */
  readonly graceMs: number
  readonly now?: () => number
}

/** However many ask at once, one question is under way at the database. */
export function createHealth({ app, transport, limitMs, graceMs, now = () => performance.now() }: HealthOptions): Health {
  let startedAt: number | undefined
  let stops = false
  const leases = once(() => app.database.outbox.leases())
  const tables = once(() => app.database.check())

  async function look(ask: () => Promise<void>): Promise<string> {
    try {
      await inTime(ask(), limitMs)
      return 'ok'
    } catch (error) {
      return messageOf(error)
    }
  }

  async function looked(also: Readonly<Record<string, string>>): Promise<HealthReport> {
    const { relayId, shards, rowsInFlight, published } = app.relayStats()
    const broker = transport.trouble(limitMs)
    let relay = startedAt === undefined ? 'not started yet' : 'ok'
    const database = await look(async () => {
      const found = await leases()
      if (startedAt === undefined || stops) return
      const own = found.find((lease) => lease.relayId === relayId)
      const alive = own !== undefined && own.expiresInMs > 0
      if (!alive && now() - startedAt > graceMs) relay = 'its leases are not renewed: the relay stands still'
      else if (!alive) relay = 'starting'
      else if (found.reduce((sum, lease) => sum + (lease.expiresInMs > 0 ? lease.shards : 0), 0) === 0)
        relay = 'no shard is with any relay yet'
    })
    const checks = { database, relay, transport: (await broker) ?? 'ok', ...also }
    const ok = Object.values(checks).every((text) => text === 'ok')
    return { ok, status: ok ? 'ok' : 'failing', checks, relay: { id: relayId, shards, rowsInFlight, published } }
  }

  return {
    async health() {
      const report = await looked({})
      // A start takes its time, and is no reason to be killed.
      const young = startedAt === undefined || now() - startedAt <= graceMs
      const ok = report.checks.database === 'ok' && (young || report.ok)
      return { ...report, ok, status: ok ? 'ok' : 'failing' }
    },
    async ready() {
      const report = await looked({ tables: await look(tables) })
      if (!stops) return report
      return { ...report, ok: false, status: 'stopping' }
    },
    started: () => void (startedAt = now()),
    stopping: () => void (stops = true),
  }
}

/** Shares a question that is under way. */
function once<T>(ask: () => Promise<T>): () => Promise<T> {
  let asked: Promise<T> | undefined
  return () => (asked ??= ask().finally(() => (asked = undefined)))
}

async function inTime<T>(asked: Promise<T>, limitMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new WaybillError('TIMEOUT', `the database did not answer within ${limitMs} ms`)), limitMs)
  })
  try {
    return await Promise.race([asked, late])
  } finally {
    clearTimeout(timer)
  }
}
