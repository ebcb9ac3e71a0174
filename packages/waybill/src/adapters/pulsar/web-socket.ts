import type { WaybillError } from '../../core/errors.ts'
import { refusedBy, unreachable } from './connect-errors.ts'

/** What is called of the package `ws`. */
export interface WebSocketLike {
  readonly readyState: number
  readonly bufferedAmount: number
  on(event: 'open', listener: () => void): unknown
  on(event: 'message', listener: (data: Buffer, isBinary: boolean) => void): unknown
  on(event: 'pong' | 'ping', listener: (data: Buffer) => void): unknown
  on(event: 'close', listener: (code: number, reason: Buffer) => void): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
  on(event: 'upgrade', listener: (response: { readonly socket: RawSocket }) => void): unknown
  on(event: 'unexpected-response', listener: (request: { destroy(): unknown }, response: UpgradeResponse) => void): unknown
  send(data: string, done?: (error?: Error | null) => void): void
  ping(data?: string): void
  close(code?: number): void
  terminate(): void
}

/** The connection underneath: writes are held back between `cork` and `uncork`. */
export interface RawSocket {
  cork(): void
  uncork(): void
}

export interface UpgradeResponse extends AsyncIterable<Buffer> {
  readonly statusCode?: number | undefined
}

export type WebSocketConstructor = new (address: string, options: object) => WebSocketLike

/** One connection that is watched: a silent other side is found out. */
export interface WatchedSocket {
  send(text: string): void
  /** Resolves once the other side has read what was sent before; rejects when the connection ends or is too slow. */
  barrier(): Promise<void>
  readonly isOpen: boolean
  /** Resolves when the connection is gone, with why. */
  readonly closed: Promise<WaybillError>
  /** Says goodbye; resolves when the other side has answered, or is given up. */
  close(): Promise<void>
  /** Cuts it. */
  cut(why: unknown): void
}

export interface SocketOptions {
  readonly WebSocket: WebSocketConstructor
  readonly url: URL
  /** For errors: `publishing to persistent://...`. */
  readonly what: string
  readonly token: (() => Promise<string>) | undefined
  readonly tls: object
  readonly requestTimeoutMs: number
  onMessage(text: Buffer): void
}

const OPEN = 1
const PING_INTERVAL_MS = 5_000

/** @throws WaybillError `TRANSPORT_UNAVAILABLE` | `ACCESS_DENIED` | `TOPIC_MISSING` | `UNSUPPORTED` */
export async function openSocket({ WebSocket, url, what, token, tls, requestTimeoutMs, onMessage }: SocketOptions): Promise<WatchedSocket> {
  const address = `${url.protocol}//${url.host}`
  const headers = token === undefined ? {} : { Authorization: `Bearer ${await token()}` }
  const socket = new WebSocket(url.href, { headers, handshakeTimeout: requestTimeoutMs, perMessageDeflate: false, ...tls })
  // Before it is open: what comes with the answer to our greeting comes before any promise is told.
  const watched = watch(socket, { address, what, requestTimeoutMs, onMessage })
  try {
    await new Promise<void>((resolve, reject) => {
      socket.on('open', resolve)
      socket.on('error', (error) => reject(unreachable(address, error)))
      socket.on('unexpected-response', (request, response) => {
        void readStart(response).then((body) => {
          request.destroy()
          reject(refusedBy(response.statusCode ?? 0, body, what, address))
        })
      })
    })
  } catch (error) {
    watched.cut(error)
    throw error
  }
  return watched
}

const BODY_MAX = 65_536

async function readStart(response: UpgradeResponse): Promise<string> {
  let text = ''
  try {
    for await (const part of response) {
      text += part.toString('utf8')
      if (text.length > BODY_MAX) break
    }
  } catch {
    // What has come by then says enough: the status is what counts.
  }
  return text
}

interface Barrier {
  readonly id: number
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

function watch(
  socket: WebSocketLike,
  {
    address,
    what,
    requestTimeoutMs,
    onMessage,
  }: Pick<SocketOptions, 'what' | 'requestTimeoutMs' | 'onMessage'> & { readonly address: string },
): WatchedSocket {
  const gone = Promise.withResolvers<WaybillError>()
  const barriers: Barrier[] = []
  let failure: unknown
  let barrierId = 0
  let heardAt = performance.now()
  let pingedAt: number | undefined
  let raw: RawSocket | undefined
  let isHeld = false

  /** What is sent within one turn goes in one write: a call of the system for each frame costs more than all the rest. */
  function hold(): void {
    if (raw === undefined || isHeld) return
    const held = raw
    isHeld = true
    held.cork()
    process.nextTick(() => {
      isHeld = false
      held.uncork()
    })
  }

  const heard = (): void => {
    heardAt = performance.now()
    pingedAt = undefined
  }
  const timer = setInterval(
    () => {
      const now = performance.now()
      if (pingedAt !== undefined && now - pingedAt >= requestTimeoutMs)
        cut(new Error(`nothing was heard for ${Math.round(now - heardAt)} ms`))
      else if (pingedAt === undefined && now - heardAt >= PING_INTERVAL_MS && socket.readyState === OPEN) {
        pingedAt = now
        socket.ping()
      }
    },
    Math.min(PING_INTERVAL_MS, requestTimeoutMs) / 2,
  )
  // The socket itself is what keeps the process alive.
  timer.unref()

  function cut(why: unknown): void {
    failure ??= why
    socket.terminate()
  }

  socket.on('upgrade', (response) => {
    raw = response.socket
  })
  socket.on('message', (data) => {
    heard()
    try {
      onMessage(data)
    } catch (error) {
      // Not what we know how to read: nothing after it can be trusted either.
      cut(error)
    }
  })
  socket.on('ping', heard)
  socket.on('pong', (data) => {
    heard()
    const id = Number(data.toString())
    while (barriers.length > 0 && barriers[0]!.id <= id) barriers.shift()!.resolve()
  })
  socket.on('error', (error) => void (failure ??= error))
  socket.on('close', (code, reason) => {
    clearInterval(timer)
    const text = reason.toString()
    const error = unreachable(
      address,
      failure ?? new Error(`the connection was closed (${code}${text === '' ? '' : `: ${text}`}) while ${what}`),
    )
    gone.resolve(error)
    for (const barrier of barriers.splice(0)) barrier.reject(error)
  })

  return {
    send(text) {
      hold()
      socket.send(text)
    },
    async barrier() {
      if (socket.readyState !== OPEN) throw await gone.promise
      const id = ++barrierId
      const passed = Promise.withResolvers<void>()
      barriers.push({ id, resolve: passed.resolve, reject: passed.reject })
      socket.ping(String(id))
      const late = setTimeout(() => cut(new Error(`no answer within ${requestTimeoutMs} ms`)), requestTimeoutMs)
      try {
        await passed.promise
      } finally {
        clearTimeout(late)
      }
    },
    get isOpen() {
      return socket.readyState === OPEN
    },
    closed: gone.promise,
    async close() {
      socket.close(1000)
      const late = setTimeout(() => socket.terminate(), requestTimeoutMs)
      await gone.promise
      clearTimeout(late)
    },
    cut,
  }
}
