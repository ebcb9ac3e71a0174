import { fullJitterMs } from '../../core/backoff.ts'
import { isWaybillError, WaybillError } from '../../core/errors.ts'
import type { RedisLike } from './client-like.ts'
import type { Link } from './link.ts'

/** One subscriber of a channel. */
export interface Listener {
  onMessage(bytes: Buffer): void
  /** The connection was away, and is back: what was sent meanwhile did not come. */
  onGap(error: WaybillError): void
  onFatal(error: WaybillError): void
}

/** All subscriptions of a transport, over one connection. */
export interface Hub {
  /** Resolves when the server has the subscription, or that failed for the first time; then it is tried on. */
  listen(channel: string, listener: Listener): Promise<void>
  leave(channel: string, listener: Listener): void
  /** The connection is lost: subscribe again on a new one. */
  lost(error: WaybillError): void
  close(): void
}

const RETRY = { baseMs: 100, maxMs: 2_000 }

export function createHub(link: Link, heartbeatMs: number): Hub {
  const channels = new Map<string, Set<Listener>>()
  const stop = new AbortController()
  let client: RedisLike | undefined
  let subscribed = new Set<string>()
  let lost: WaybillError | undefined
  let isSyncing = false
  let failures = 0
  let attempts: (() => void)[] = []
  let timer: NodeJS.Timeout | undefined

  /** Subscribes to what is wanted on the connection that there is. */
  async function sync(): Promise<void> {
    if (isSyncing || stop.signal.aborted) return
    isSyncing = true
    let retryMs = heartbeatMs
    try {
      const current = await link.client()
      if (client !== current) {
        client = current
        subscribed = new Set()
      }
      const wanted = [...channels.keys()].filter((channel) => !subscribed.has(channel))
      // The question bounds all: without an answer in time the connection is given up, and with it what waits for it.
      await Promise.all([
        ...wanted.map((channel) => current.subscribe(channel, (bytes) => deliver(channel, bytes), true)),
        link.call(['PING']),
      ])
      if (client !== current) throw new WaybillError('TRANSPORT_UNAVAILABLE', 'the connection was lost again')
      for (const channel of wanted) subscribed.add(channel)
      tellGap(wanted)
      failures = 0
    } catch (error) {
      const typed = isWaybillError(error) ? error : new WaybillError('TRANSPORT_UNAVAILABLE', 'subscribing failed', { cause: error })
      if (!typed.retryable && typed.code !== 'CLOSED') for (const listener of all()) listener.onFatal(typed)
      lost ??= typed
      retryMs = fullJitterMs(RETRY, ++failures, Math.random)
    } finally {
      isSyncing = false
      const told = attempts
      attempts = []
      for (const tell of told) tell()
      plan(retryMs)
    }
  }

  function tellGap(back: readonly string[]): void {
    const error = lost
    lost = undefined
    if (error === undefined) return
    for (const channel of back) for (const listener of channels.get(channel) ?? []) listener.onGap(error)
  }

  const all = (): readonly Listener[] => [...channels.values()].flatMap((listeners) => [...listeners])

  function deliver(channel: string, bytes: Buffer): void {
    for (const listener of channels.get(channel) ?? []) listener.onMessage(bytes)
  }

  function plan(ms: number): void {
    clearTimeout(timer)
    if (stop.signal.aborted || channels.size === 0) return
    timer = setTimeout(() => void sync(), ms)
  }

  return {
    listen(channel, listener) {
      const listeners = channels.get(channel)
      if (listeners === undefined) channels.set(channel, new Set([listener]))
      else listeners.add(listener)
      if (client !== undefined && subscribed.has(channel)) return Promise.resolve()
      return new Promise((resolve) => {
        attempts.push(() => {
          if (subscribed.has(channel) || failures > 0 || !channels.has(channel)) resolve()
          else {
            attempts.push(resolve)
            plan(0)
          }
        })
        void sync()
      })
    },
    leave(channel, listener) {
      const listeners = channels.get(channel)
      if (listeners?.delete(listener) !== true || listeners.size > 0) return
      channels.delete(channel)
      if (subscribed.delete(channel)) client?.unsubscribe(channel).catch(() => undefined)
    },
    lost(error) {
      client = undefined
      subscribed = new Set()
      lost ??= error
      if (!isSyncing) plan(0)
    },
    close() {
      stop.abort()
      clearTimeout(timer)
      link.close()
    },
  }
}
