import { createHash } from 'node:crypto'
import { fullJitterMs } from '../../core/backoff.ts'
import { WaybillError } from '../../core/errors.ts'
import type { RedisArgument, RedisLike } from './client-like.ts'
import type { RedisAddress } from './connection-options.ts'
import { commandError, connectError, replyCode } from './redis-errors.ts'

/** A Lua script, and the name by which the server knows it. */
export interface Script {
  readonly source: string
  readonly sha: string
}

export function defineScript(source: string): Script {
  return { source, sha: createHash('sha1').update(source).digest('hex') }
}

export interface CallOptions {
  /** Texts of the reply as Buffers. */
  readonly bytes?: boolean
  /** Longest wait for the reply; then the connection is given up. @default the link's */
  readonly limitMs?: number
}

/**
 * One connection that is made when it is needed, and again when it was lost. While a new one can't be had, calls are refused at once for a short pause,
 * so that nothing queues up.
 */
export interface Link {
  /** @throws WaybillError `TRANSPORT_UNAVAILABLE`, `ACCESS_DENIED`: not sent; `UNKNOWN_OUTCOME`: sent, no answer; by the server's own refusals */
  call(args: readonly RedisArgument[], options?: CallOptions): Promise<unknown>
  /**
   * Several commands, with nothing of ours between them, and their replies. Where some fail, the first of these failures.
   * @throws WaybillError as `call`; `TRANSPORT_UNAVAILABLE` where the connection is not that of `generation` any more: nothing was sent
   */
  together(
    commands: readonly (readonly RedisArgument[])[],
    options?: CallOptions & { readonly generation?: number },
  ): Promise<readonly unknown[]>
  /** A script by its name, or where the server does not know it, by its text. */
  script(script: Script, keys: readonly string[], args: readonly RedisArgument[], options?: CallOptions): Promise<unknown>
  /** The connected client. */
  client(): Promise<RedisLike>
  /** Counts connections: rises with each new one. */
  readonly generation: number
  /** Ends the connection; the next call makes a new one. */
  drop(error: WaybillError): void
  /** Ends it for good. */
  close(): void
}

export interface LinkOptions {
  readonly where: string
  readonly address: RedisAddress
  readonly requestTimeoutMs: number
  /** With the new connection, before anything else is sent on it. What it throws, connecting fails with. */
  readonly onOpen?: (client: RedisLike) => Promise<void>
  readonly onUp?: () => void
  readonly onDown?: (error: WaybillError) => void
}

const BYTES = Object.freeze({ typeMapping: { 36: Buffer } })
const RETRY = { baseMs: 100, maxMs: 2_000 }

/** A user without the right to one command may have all others. */
async function unlessForbidden(sent: Promise<unknown>): Promise<void> {
  try {
    await sent
  } catch (error) {
    if (replyCode(error) !== 'NOPERM') throw error
  }
}

export function createLink({ where, address, requestTimeoutMs, onOpen, onUp, onDown }: LinkOptions): Link {
  let current: RedisLike | undefined
  let connecting: Promise<RedisLike> | undefined
  let failure: WaybillError | undefined
  let failures = 0
  let retryAtMs = 0
  let generation = 0
  let closed = false
  let unfinished: RedisLike | undefined

  function end(client: RedisLike): void {
    try {
      client.destroy()
    } catch {
      // It was closed already; that is what is wanted.
    }
  }

  function lose(client: RedisLike, error: WaybillError): void {
    if (current !== client) return
    current = undefined
    failure = error
    end(client)
    if (!closed) onDown?.(error)
  }

  function ready(): Promise<RedisLike> {
    if (current !== undefined) return Promise.resolve(current)
    if (closed) return Promise.reject(new WaybillError('CLOSED', 'the transport is closed', { where }))
    if (connecting !== undefined) return connecting
    if (failure !== undefined && failures > 0 && performance.now() < retryAtMs) return Promise.reject(failure)
    connecting = connect().finally(() => {
      connecting = undefined
    })
    return connecting
  }

  async function connect(): Promise<RedisLike> {
    const client = address.open()
    unfinished = client
    client.on('error', (error) => lose(client, commandError(error, where)))
    let late: NodeJS.Timeout | undefined
    try {
      const limit = new Promise<never>((_, reject) => {
        late = setTimeout(() => reject(new Error(`no answer within ${requestTimeoutMs} ms`)), requestTimeoutMs)
      })
      await Promise.race([open(client), limit])
      if (closed) throw new WaybillError('CLOSED', 'the transport is closed', { where })
    } catch (cause) {
      end(client)
      const error = connectError(cause, address, where)
      const isFirst = failures === 0 && failure === undefined
      failure = error
      retryAtMs = performance.now() + fullJitterMs(RETRY, ++failures, Math.random)
      if (isFirst && !closed) onDown?.(error)
      throw error
    } finally {
      clearTimeout(late)
      unfinished = undefined
    }
    current = client
    generation++
    failures = 0
    failure = undefined
    onUp?.()
    return client
  }

  async function open(client: RedisLike): Promise<void> {
    await client.connect()
    await Promise.all([
      unlessForbidden(client.sendCommand(['PING'])),
      // For whoever looks at the server's list of clients.
      unlessForbidden(client.sendCommand(['CLIENT', 'SETNAME', 'waybill'])),
    ])
    await onOpen?.(client)
  }

  const together: Link['together'] = async (commands, { bytes = false, limitMs = requestTimeoutMs, generation: wanted } = {}) => {
    const client = current ?? (await ready())
    if (wanted !== undefined && wanted !== generation)
      throw new WaybillError('TRANSPORT_UNAVAILABLE', 'the connection is another one now', { where })
    const timer = setTimeout(() => {
      lose(client, new WaybillError('TRANSPORT_UNAVAILABLE', `${address.address} gave no answer within ${limitMs} ms`, { where }))
    }, limitMs)
    try {
      const sent = await Promise.allSettled(commands.map((args) => client.sendCommand(args, bytes ? BYTES : undefined)))
      return sent.map((each) => {
        if (each.status === 'rejected') throw each.reason
        return each.value
      })
    } catch (error) {
      throw commandError(error, where)
    } finally {
      clearTimeout(timer)
    }
  }

  const call: Link['call'] = async (args, options) => (await together([args], options))[0]

  return {
    call,
    together,
    client: ready,
    async script({ sha, source }, keys, args, options) {
      const count = String(keys.length)
      try {
        return await call(['EVALSHA', sha, count, ...keys, ...args], options)
      } catch (error) {
        if (replyCode(error instanceof WaybillError ? error.cause : error) !== 'NOSCRIPT') throw error
        return call(['EVAL', source, count, ...keys, ...args], options)
      }
    },
    get generation() {
      return generation
    },
    drop(error) {
      if (current !== undefined) lose(current, error)
    },
    close() {
      closed = true
      if (unfinished !== undefined) end(unfinished)
      if (current !== undefined) end(current)
      current = undefined
    },
  }
}
