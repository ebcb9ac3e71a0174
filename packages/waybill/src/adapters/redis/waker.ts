import { isWaybillError, WaybillError } from '../../core/errors.ts'
import type { Link } from './link.ts'
import { compareIds } from './stream-id.ts'

/** Waits for new entries in many streams, with one connection. */
export interface Waker {
  /** Resolves when the stream may have an entry after `id`, `signal` aborts, or the connection is lost: look then, and wait again. Never rejects. */
  wait(stream: string, id: string, signal: AbortSignal): Promise<void>
  /** All look again; the connection is made anew. */
  reset(): void
  close(): void
}

interface Waiter {
  readonly id: string
  wake(): void
}

export interface WakerOptions {
  /** Of its own: it is blocked most of the time. */
  readonly blocked: Link
  /** Another one, by which a wait is cut short when there is one more stream to wait for. */
  readonly commands: Link
  readonly requestTimeoutMs: number
  onFailure(error: WaybillError): void
}

const BLOCK_MS = 5_000
/** Where a wait can't be cut short. */
const SHORT_BLOCK_MS = 50
/** How long those that were woken may take until they wait again, so that they are waited for together with all others. */
const TOGETHER_MS = 1
const PAUSE_MS = 200

export function createWaker({ blocked, commands, requestTimeoutMs, onFailure }: WakerOptions): Waker {
  const waiters = new Map<string, Set<Waiter>>()
  let isRunning = false
  let closed = false
  let asked = 0
  let clientId: string | undefined
  let clientGeneration = -1
  let canUnblock = true
  let round = 0
  let isBlocked = false
  let isUnblocking = false
  let onBack: (() => void) | undefined
  let away = 0

  function wakeAll(): void {
    const all = [...waiters.values()].flatMap((each) => [...each])
    waiters.clear()
    for (const waiter of all) waiter.wake()
  }

  function wakeBy(reply: unknown): number {
    let count = 0
    for (const [name, entries] of (reply ?? []) as readonly (readonly [string, readonly (readonly [string])[]])[]) {
      const first = entries[0]?.[0]
      const set = waiters.get(name)
      if (set === undefined || first === undefined) continue
      for (const waiter of set) {
        if (compareIds(waiter.id, first) >= 0) continue
        set.delete(waiter)
        waiter.wake()
        count++
      }
      if (set.size === 0) waiters.delete(name)
    }
    return count
  }

  async function block(): Promise<unknown> {
    await blocked.client()
    if (blocked.generation !== clientGeneration || clientId === undefined) {
      const id = await blocked.call(['CLIENT', 'ID']).catch(() => undefined)
      clientId = id === undefined ? undefined : String(id)
      clientGeneration = blocked.generation
    }
    // From here to the command nothing waits: whoever comes later cuts it short.
    const streams = [...waiters.keys()]
    if (streams.length === 0) return undefined
    const ids = [...waiters.values()].map((set) =>
      [...set].map(({ id }) => id).reduce((one, other) => (compareIds(one, other) <= 0 ? one : other)),
    )
    asked = 0
    round++
    isBlocked = true
    const blockMs = canUnblock && clientId !== undefined ? BLOCK_MS : SHORT_BLOCK_MS
    try {
      return await blocked.call(['XREAD', 'COUNT', '1', 'BLOCK', String(blockMs), 'STREAMS', ...streams, ...ids], {
        limitMs: blockMs + requestTimeoutMs,
      })
    } finally {
      isBlocked = false
    }
  }

  async function run(): Promise<void> {
    if (isRunning) return
    isRunning = true
    // Those that begin to wait in the same turn come along.
    await Promise.resolve()
    while (waiters.size > 0 && !closed) {
      try {
        away = wakeBy(await block())
        if (away > 0) await together()
      } catch (error) {
        if (closed) break
        if (isWaybillError(error)) onFailure(error)
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
        wakeAll()
      }
    }
    isRunning = false
  }

  function together(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(done, TOGETHER_MS)
      function done(): void {
        clearTimeout(timer)
        onBack = undefined
        resolve()
      }
      onBack = () => {
        if (--away <= 0) done()
      }
    })
  }

  /** The command may overtake the wait that it is meant for; so it is said again until it helped. */
  async function unblock(): Promise<void> {
    if (isUnblocking || !isBlocked || clientId === undefined || !canUnblock) return
    isUnblocking = true
    const current = round
    try {
      while (isBlocked && round === current && !closed) {
        if (Number(await commands.call(['CLIENT', 'UNBLOCK', clientId])) === 1) break
        await new Promise((resolve) => setImmediate(resolve))
      }
    } catch (error) {
      if (isWaybillError(error, 'ACCESS_DENIED')) canUnblock = false
      // Otherwise the connection is gone, and with it the wait.
    } finally {
      isUnblocking = false
    }
    if (isBlocked && asked > 0 && round !== current) void unblock()
  }

  return {
    wait(stream, id, signal) {
      if (signal.aborted || closed) return Promise.resolve()
      return new Promise((resolve) => {
        const waiter: Waiter = {
          id,
          wake() {
            signal.removeEventListener('abort', leave)
            resolve()
          },
        }
        function leave(): void {
          const set = waiters.get(stream)
          if (set?.delete(waiter) === true && set.size === 0) waiters.delete(stream)
          resolve()
        }
        const set = waiters.get(stream)
        if (set === undefined) waiters.set(stream, new Set([waiter]))
        else set.add(waiter)
        signal.addEventListener('abort', leave, { once: true })
        onBack?.()
        if (!isRunning) void run()
        else if (isBlocked) {
          asked++
          void unblock()
        }
      })
    },
    reset() {
      blocked.drop(new WaybillError('TRANSPORT_UNAVAILABLE', 'the other connection was lost'))
      wakeAll()
    },
    close() {
      closed = true
      wakeAll()
      blocked.close()
    },
  }
}
