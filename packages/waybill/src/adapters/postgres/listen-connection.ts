import type { Clock } from '../../core/clock.ts'
import { WaybillError } from '../../core/errors.ts'
import { requirePeer } from '../../core/peer.ts'

/** The part of a `pg` client that listening needs: a session of its own, not one of a pool. */
export interface ListenClientLike {
  connect(): Promise<unknown>
  query(text: string): Promise<unknown>
  on(event: 'notification', listener: (message: { readonly channel: string; readonly payload?: string | undefined }) => void): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
  on(event: 'end', listener: () => void): unknown
  end(): Promise<void>
  /** Where it is there, a connection that does not close in good order is cut. */
  readonly connection?: { readonly stream?: { destroy(): unknown } }
}

export interface ListenConnection {
  /** Resolves with the reason when the connection is lost or closed; never rejects. */
  readonly lost: Promise<Error>
  /** Idempotent; ends within a second. */
  close(): Promise<void>
}

export interface ListenOptions {
  readonly client: ListenClientLike
  /** Of letters that need no quoting but `"`: our own names. */
  readonly channel: string
  /** How long connecting and LISTEN may take together. */
  readonly openMaxMs: number
  readonly onMessage: (payload: string) => void
  readonly clock: Clock
}

const CLOSE_MAX_MS = 1_000

/**
 * Connects `client` and listens. Rejects where that fails or takes too long, or when `signal` aborts; the client is closed then.
 * @throws WaybillError `TIMEOUT` | `CLOSED`; what the client throws
 */
export async function openListenConnection(options: ListenOptions, signal: AbortSignal): Promise<ListenConnection> {
  const { client, channel, openMaxMs, onMessage, clock } = options
  const { promise: lost, resolve: lose } = Promise.withResolvers<Error>()
  client.on('error', lose)
  client.on('end', () => lose(new Error('the connection was closed')))
  client.on('notification', (message) => {
    if (message.channel === channel) onMessage(message.payload ?? '')
  })
  let closing: Promise<void> | undefined
  const close = (): Promise<void> => (closing ??= closeClient(client, clock))
  const opening = (async () => {
    await client.connect()
    await client.query(`listen "${channel}"`)
  })()
  try {
    await orAfter(opening, openMaxMs, clock, signal, () => {
      if (signal.aborted) return new WaybillError('CLOSED', 'listening was ended')
      return new WaybillError('TIMEOUT', 'the connection to listen on was not ready in time', {
        allowed: `${openMaxMs} ms`,
        where: 'listen',
      })
    })
  } catch (error) {
    await close()
    throw error
  }
  return { lost, close }
}

/** What `running` resolves; an error once `ms` have passed or `signal` aborts. What comes after that is dropped. */
export async function orAfter<T>(running: Promise<T>, ms: number, clock: Clock, signal: AbortSignal, late: () => Error): Promise<T> {
  const timer = new AbortController()
  const either = AbortSignal.any([timer.signal, signal])
  try {
    return await Promise.race([
      running,
      clock.sleep(ms, either).then(() => {
        throw late()
      }),
    ])
  } finally {
    timer.abort('ended')
    // The loser of the race is nobody's any more.
    running.catch(() => undefined)
  }
}

async function closeClient(client: ListenClientLike, clock: Clock): Promise<void> {
  const timer = new AbortController()
  // A connection that is cut without a word never answers to the goodbye; one that is broken rejects it. Either way it is gone after this.
  const goodbye = client.end().catch(() => undefined)
  await Promise.race([goodbye, clock.sleep(CLOSE_MAX_MS, timer.signal)])
  timer.abort('ended')
  client.connection?.stream?.destroy()
}

/** A client of the package `pg`, not connected yet. @throws WaybillError `PEER_MISSING` | `DATABASE_UNREACHABLE` */
export async function pgListenClient(url: string, connectTimeoutMs: number): Promise<ListenClientLike> {
  const { default: pg } = await requirePeer('pg', () => import('pg'))
  try {
    return new pg.Client({
      connectionString: url,
      connectionTimeoutMillis: connectTimeoutMs,
      keepAlive: true,
      application_name: 'waybill listen',
    })
  } catch {
    // No cause: the parser's error repeats the URL with its password.
    throw new WaybillError('DATABASE_UNREACHABLE', 'the URL to listen at is not usable', {
      allowed: 'postgres://user:password@host:port/database',
      where: 'listen',
    })
  }
}
