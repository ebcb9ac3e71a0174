import type { Clock } from '../../core/clock.ts'
import { monotonicOf } from '../../core/clock.ts'
import { WaybillError, messageOf } from '../../core/errors.ts'
import type { Observe } from '../../core/observe.ts'
import type { NatsLike, NatsMessage, NatsServerInfo } from './client.ts'
import { connectError } from './failures.ts'
import { uniqueToken } from './names.ts'
import { type Replies, createReplies } from './replies.ts'

export interface ConnectionOptions {
  /** Opens a connection that reconnects by itself. */
  dial(): Promise<NatsLike>
  /** Without credentials. */
  readonly address: string
  readonly inboxPrefix: string
  readonly requestTimeoutMs: number
  readonly clock: Clock
  readonly observe: Observe
}

/** One connection, shared by all that a transport does, made with its first use and again whenever it is gone for good. */
export interface Connection {
  readonly isUp: boolean
  /** What the server said of itself when it was last there. */
  readonly info: NatsServerInfo | undefined
  readonly replies: Replies
  /**
   * Resolves once the connection stands.
   * @throws WaybillError `TRANSPORT_UNAVAILABLE` | `ACCESS_DENIED` | `CLOSED`
   */
  ready(limitMs?: number): Promise<NatsLike>
  /** The client where the connection stands at this moment; messages go nowhere else. */
  current(): NatsLike | undefined
  /** Listens until the function that it gives back is called, over any number of connections. */
  subscribe(subject: string, onMessage: (message: NatsMessage) => void): () => void
  /** A place for any number of answers. JetStream's messages keep the subject that they were stored with, so that each has a subscription. */
  mailbox(onMessage: (message: NatsMessage) => void): { readonly subject: string; close(): void }
  /** Called with each change, until the function that it gives back is called. */
  onChange(listener: (isUp: boolean) => void): () => void
  /** Ends it, and waits for what was sent where it stands, at most `limitMs`. */
  close(limitMs: number): Promise<void>
}

export function createConnection({ dial, address, inboxPrefix, requestTimeoutMs, clock, observe }: ConnectionOptions): Connection {
  const inbox = `${inboxPrefix}.${uniqueToken()}.`
  const replies = createReplies(inbox, monotonicOf(clock))
  const listeners = new Set<(isUp: boolean) => void>()
  const subscriptions = new Set<{ readonly subject: string; onMessage(message: NatsMessage): void; stop: (() => void) | undefined }>()
  let client: NatsLike | undefined
  let info: NatsServerInfo | undefined
  let isUp = false
  let dialing: Promise<NatsLike> | undefined
  let isClosed = false
  let wasDown = false
  let mailboxes = 0

  const unavailable = (message: string, cause?: unknown): WaybillError =>
    new WaybillError('TRANSPORT_UNAVAILABLE', `${address} ${message}`, {
      where: 'nats transport',
      ...(cause === undefined ? {} : { cause }),
    })

  function change(to: boolean, error?: unknown): void {
    if (isUp === to) return
    isUp = to
    info = client?.info ?? info
    if (!to) replies.cut()
    if (!isClosed) {
      if (!to) wasDown = true
      if (!to || wasDown)
        observe({ type: 'transport.changed', transport: 'nats', to: to ? 'up' : 'down', ...(error === undefined ? {} : { error }) })
    }
    for (const listener of listeners) listener(to)
  }

  function listen(on: NatsLike, subject: string, onMessage: (message: NatsMessage) => void): () => void {
    const subscription = on.subscribe(subject, {
      callback: (error, message) => {
        if (error === null) onMessage(message)
        else observe({ type: 'transport.failed', transport: 'nats', error })
      },
    })
    return () => subscription.unsubscribe()
  }

  async function follow(on: NatsLike): Promise<void> {
    let last: unknown
    for await (const { type, error } of on.status()) {
      if (type === 'disconnect' || type === 'staleConnection') change(false, last)
      else if (type === 'reconnect') change(true)
      else if (type === 'error') {
        last = error
        denied(error)
      }
    }
  }

  /** A refused publish is told beside the road, by its subject. */
  function denied(error: unknown): void {
    if (!(error instanceof Error) || !('operation' in error) || !('subject' in error)) return
    const refusal = new WaybillError('ACCESS_DENIED', `no right to ${String(error.operation)}: ${messageOf(error)}`, {
      where: address,
      cause: error,
    })
    if (error.operation === 'publish') replies.deny(String(error.subject), refusal)
    else observe({ type: 'transport.failed', transport: 'nats', error: refusal })
  }

  async function open(): Promise<NatsLike> {
    let opened: NatsLike
    try {
      opened = await dial()
    } catch (cause) {
      const error = cause instanceof WaybillError ? cause : connectError(cause, address, 'nats transport')
      if (!wasDown) {
        wasDown = true
        observe({ type: 'transport.changed', transport: 'nats', to: 'down', error })
      }
      throw error
    }
    if (isClosed) {
      await opened.close()
      throw new WaybillError('CLOSED', 'the transport is closed', { where: 'nats transport' })
    }
    client = opened
    listen(opened, `${inbox}*`, (message) => replies.receive(message))
    for (const one of subscriptions) one.stop = listen(opened, one.subject, (message) => one.onMessage(message))
    void follow(opened).catch((error: unknown) => observe({ type: 'transport.failed', transport: 'nats', error }))
    void opened.closed().then((error) => {
      if (client !== opened) return
      client = undefined
      for (const one of subscriptions) one.stop = undefined
      change(false, error)
      // A closed client stays closed: whoever works here finds the next one by its next question.
      for (const listener of listeners) listener(false)
    })
    change(true)
    return opened
  }

  /** Resolves with the next change to up, or at the end of the time. */
  function waitUp(limitMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      const done = (to: boolean): void => {
        listeners.delete(onChange)
        clearTimeout(timer)
        resolve(to)
      }
      const onChange = (to: boolean): void => {
        if (to || client === undefined) done(to)
      }
      const timer = setTimeout(() => done(isUp), limitMs)
      listeners.add(onChange)
    })
  }

  function subscribe(subject: string, onMessage: (message: NatsMessage) => void): () => void {
    const one = { subject, onMessage, stop: client === undefined ? undefined : listen(client, subject, onMessage) }
    subscriptions.add(one)
    return () => {
      if (subscriptions.delete(one) && client !== undefined) one.stop?.()
    }
  }

  return {
    get isUp() {
      return isUp
    },
    get info() {
      return client?.info ?? info
    },
    replies,
    async ready(limitMs = requestTimeoutMs) {
      if (isClosed) throw new WaybillError('CLOSED', 'the transport is closed', { where: 'nats transport' })
      if (isUp && client !== undefined) return client
      if (client === undefined) {
        dialing ??= open().finally(() => {
          dialing = undefined
        })
        return dialing
      }
      if (await waitUp(limitMs)) return client
      throw unavailable('is away: the connection was lost and does not come back yet')
    },
    current: () => (isUp ? client : undefined),
    subscribe,
    mailbox(onMessage) {
      const subject = `${inbox}m.${++mailboxes}`
      return { subject, close: subscribe(subject, onMessage) }
    },
    onChange(listener) {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
    async close(limitMs) {
      if (isClosed) return
      isClosed = true
      const closing = client
      if (closing !== undefined) {
        let timer: NodeJS.Timeout | undefined
        const late = new Promise<void>((resolve) => {
          timer = setTimeout(resolve, limitMs)
        })
        if (isUp) await Promise.race([closing.flush().catch(() => undefined), late])
        await Promise.race([closing.close().catch(() => undefined), late])
        clearTimeout(timer)
      }
      change(false)
      replies.cut()
    },
  }
}
