import { type AddressInfo, type Socket, connect, createServer } from 'node:net'
import { WaybillError } from '../core/errors.ts'
import { checkInteger } from '../core/options.ts'

export interface FaultProxyOptions {
  /** Where what comes in goes to. */
  readonly target: { readonly host: string; readonly port: number }
}

/** How often each fault has struck something: a connection, or a piece of what is sent. A run in which it stays 0 has not tested that fault. */
export interface FaultsSeen {
  /** Connections that were reset. */
  readonly cut: number
  /** Pieces that were held back, and connections that were not made. */
  readonly blackHole: number
  /** Pieces that came late. */
  readonly latency: number
  /** Connections of which one direction was ended. */
  readonly halfClose: number
  /** Times the allowance of bytes was used up. */
  readonly limitBytes: number
}

/** A line between a client and a server, with faults at will. */
export interface FaultProxy {
  /** On 127.0.0.1. */
  readonly port: number
  /** Resets all connections (RST), on both sides; gives back how many. New ones are welcome. */
  cut(): number
  /** While on, nothing gets through and nobody is told: no bytes, no ends, no new connections. What was held goes on when it is off, as TCP would. */
  blackHole(on: boolean): void
  /** A question and its answer take this much longer, half of it each way; 0 to 3,600,000 ms. */
  latency(ms: number): void
  /**
   * Ends one direction of each connection that is open: towards the target (it hangs up, and the client, who is not told, waits for ever for an
   * answer), or towards the client. Gives back how many.
   * @default 'target'
   */
  halfClose(towards?: 'target' | 'client'): number
  /** Lets so many more bytes through, both ways and over all connections together; the next one resets them all, once. 0 to 2^53 - 1. */
  limitBytes(count: number): void
  /** No more faults. What a half-close has silenced stays so. */
  heal(): void
  /** Lines of which an end is open. */
  readonly connections: number
  /** Bytes that have got through. */
  readonly bytes: number
  readonly seen: FaultsSeen
  /** Resets what is open. Idempotent. */
  close(): Promise<void>
}

/** What waits in one direction before its source is not read any more. */
const QUEUE_BYTES_MAX = 1024 * 1024

interface State {
  isBlackHole: boolean
  latencyMs: number
  bytesLeft: number
  bytes: number
  readonly seen: { -readonly [Fault in keyof FaultsSeen]: number }
  /** The allowance of bytes is used up. */
  exceeded(): void
}

/** One direction of one connection. */
interface Pipe {
  pump(): void
  /** Ends it, and drops what still comes. */
  silence(): void
  stop(): void
}

interface Piece {
  readonly bytes: Buffer
  readonly dueAt: number
  readonly what: 'bytes' | 'end' | 'reset'
}

function pipe(from: Socket, to: Socket, state: State): Pipe {
  const queue: Piece[] = []
  let queued = 0
  let timer: NodeJS.Timeout | undefined
  let isSilent = false
  let isBlocked = false

  function put(what: Piece['what'], bytes: Buffer = Buffer.alloc(0)): void {
    if (isSilent) return
    if (state.isBlackHole) state.seen.blackHole++
    else if (state.latencyMs > 0 && what === 'bytes') state.seen.latency++
    queue.push({ what, bytes, dueAt: performance.now() + state.latencyMs / 2 })
    queued += bytes.length
    if (queued > QUEUE_BYTES_MAX) from.pause()
    pump()
  }

  function pump(): void {
    clearTimeout(timer)
    while (!state.isBlackHole && !isBlocked && queue.length > 0) {
      const waitMs = queue[0]!.dueAt - performance.now()
      if (waitMs > 0) {
        timer = setTimeout(pump, waitMs)
        return
      }
      const { what, bytes } = queue.shift()!
      queued -= bytes.length
      if (what === 'end') to.end()
      else if (what === 'reset') to.resetAndDestroy()
      else send(bytes)
    }
    if (!state.isBlackHole && queued <= QUEUE_BYTES_MAX) from.resume()
  }

  function send(bytes: Buffer): void {
    const allowed = bytes.subarray(0, state.bytesLeft)
    state.bytesLeft -= allowed.length
    state.bytes += allowed.length
    isBlocked = !to.write(allowed)
    if (allowed.length < bytes.length) state.exceeded()
  }

  from.on('data', (bytes: Buffer) => put('bytes', bytes))
  // What is silenced has nobody to tell: left open it would stay for ever.
  from.on('end', () => (isSilent ? from.destroy() : put('end')))
  from.on('close', (hadError) => hadError && put('reset'))
  // A reset is what this is for; `close` follows.
  from.on('error', () => {})
  to.on('drain', () => {
    isBlocked = false
    pump()
  })
  return {
    pump,
    silence() {
      isSilent = true
      to.end()
    },
    stop() {
      clearTimeout(timer)
      isSilent = true
      queue.length = 0
    },
  }
}

/** A TCP proxy on a free port of 127.0.0.1 that loses, delays and cuts what it carries, when told to. @throws WaybillError `INVALID_OPTION` */
export async function startFaultProxy({ target }: FaultProxyOptions): Promise<FaultProxy> {
  const lines = new Set<{ readonly client: Socket; readonly upstream: Socket; readonly up: Pipe; readonly down: Pipe }>()
  // Clients that have come while nothing gets through.
  const kept = new Set<Socket>()
  const state: State = {
    isBlackHole: false,
    latencyMs: 0,
    bytesLeft: Number.MAX_SAFE_INTEGER,
    bytes: 0,
    seen: { cut: 0, blackHole: 0, latency: 0, halfClose: 0, limitBytes: 0 },
    exceeded() {
      state.bytesLeft = Number.MAX_SAFE_INTEGER
      state.seen.limitBytes++
      resetAll()
    },
  }

  function admit(client: Socket): void {
    if (state.isBlackHole) {
      state.seen.blackHole++
      kept.add(client)
      client.on('error', () => {})
      client.on('close', () => kept.delete(client))
      return
    }
    const upstream = connect({ ...target, allowHalfOpen: true })
    const line = { client, upstream, up: pipe(client, upstream, state), down: pipe(upstream, client, state) }
    lines.add(line)
    // Not before: what one side has left behind may still be on its way to the other.
    const closed = (): void => void (client.closed && upstream.closed && lines.delete(line))
    client.on('close', closed)
    upstream.on('close', closed)
  }

  function resetAll(): number {
    const count = lines.size + kept.size
    for (const { client, upstream, up, down } of lines) {
      up.stop()
      down.stop()
      client.resetAndDestroy()
      upstream.resetAndDestroy()
    }
    for (const client of kept) client.resetAndDestroy()
    lines.clear()
    kept.clear()
    return count
  }

  function pumpAll(): void {
    for (const { up, down } of lines) {
      up.pump()
      down.pump()
    }
  }

  function blackHole(on: boolean): void {
    state.isBlackHole = on
    if (on) return
    const waiting = [...kept]
    kept.clear()
    waiting.forEach(admit)
    pumpAll()
  }

  const server = createServer({ allowHalfOpen: true }, admit)
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  let closing: Promise<void> | undefined
  return {
    port: (server.address() as AddressInfo).port,
    cut() {
      const count = resetAll()
      state.seen.cut += count
      return count
    },
    blackHole,
    latency(ms) {
      state.latencyMs = checkInteger(ms, 'latency', 0, 3_600_000)
    },
    halfClose(towards = 'target') {
      if (towards !== 'target' && towards !== 'client')
        throw new WaybillError('INVALID_OPTION', 'no such direction', { got: towards, allowed: 'target, client', where: 'halfClose' })
      for (const { up, down } of lines) {
        if (towards === 'target') {
          up.silence()
          // The target's own end, which follows, is not passed on.
          down.stop()
        } else down.silence()
      }
      state.seen.halfClose += lines.size
      return lines.size
    },
    limitBytes(count) {
      state.bytesLeft = checkInteger(count, 'limitBytes', 0, Number.MAX_SAFE_INTEGER)
    },
    heal() {
      state.latencyMs = 0
      state.bytesLeft = Number.MAX_SAFE_INTEGER
      blackHole(false)
    },
    get connections() {
      return lines.size + kept.size
    },
    get bytes() {
      return state.bytes
    },
    get seen() {
      return { ...state.seen }
    },
    close: () => (closing ??= closeAll()),
  }

  function closeAll(): Promise<void> {
    resetAll()
    return new Promise((resolve) => {
      server.close(() => resolve())
      resetAll()
    })
  }
}
