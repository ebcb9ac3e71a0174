import { randomUUID } from 'node:crypto'
import { fullJitterMs } from '../../core/backoff.ts'
import { type Clock, type Random, systemClock } from '../../core/clock.ts'
import type { SqlExecutor } from '../../core/database.ts'
import { WaybillError, messageOf } from '../../core/errors.ts'
import type { OutboxHints } from '../../core/stores.ts'
import { hintChannel } from './hint-sql.ts'
import { type ListenClientLike, type ListenConnection, openListenConnection, orAfter, pgListenClient } from './listen-connection.ts'
import { type Place, explainConnection, placeOf } from './pg-errors.ts'
import { standalone } from './statements.ts'
import type { Tables } from './tables.ts'

export interface OutboxHintsOptions {
  /** The pool that producers use too: what is notified there must arrive here. */
  readonly database: SqlExecutor
  readonly tables: Tables
  /** Makes a client with a session of its own; called for each new connection. */
  readonly client: () => Promise<ListenClientLike>
  /** Where that client connects to, for messages. */
  readonly place?: Place | undefined
  readonly clock?: Clock
  readonly random?: Random
}

// Somebody is asleep for it: soon at first, and then no server is hammered.
const RETRY = { baseMs: 500, maxMs: 30_000 }
const OPEN_MAX_MS = 10_000
// A notification takes a few milliseconds.
const PROBE_MAX_MS = 2_000
const PROBE_EVERY_MS = 60_000

type On = Parameters<OutboxHints['listen']>[1]

/**
 * Hints by LISTEN and NOTIFY. After each LISTEN, and every minute, it asks through the pool for a notification to itself: a pooler that shares
 * sessions takes LISTEN and never delivers anything, and a connection that is cut without a word looks like one on which nothing happens.
 */
export function createOutboxHints(options: OutboxHintsOptions): OutboxHints {
  const { database, tables, client, place, clock = systemClock, random = Math.random } = options
  const run = standalone(database, tables)
  const channel = hintChannel(tables)

  /** Listens until the connection is lost, and throws why. */
  async function session(on: On, listening: () => void, signal: AbortSignal): Promise<never> {
    const answers = new Map<string, () => void>()
    const connection = await openListenConnection(
      {
        client: await client(),
        channel,
        openMaxMs: OPEN_MAX_MS,
        clock,
        // Whoever else listens there asks for answers too: those are not for us, and no hints.
        onMessage: (payload) => (payload === '' ? on.hint() : answers.get(payload)?.()),
      },
      signal,
    )
    try {
      for (;;) {
        await probe(connection, answers, signal)
        listening()
        await waitUntilLost(connection, signal)
      }
    } finally {
      await connection.close()
    }
  }

  async function probe(connection: ListenConnection, answers: Map<string, () => void>, signal: AbortSignal): Promise<void> {
    const nonce = randomUUID()
    const { promise: answered, resolve } = Promise.withResolvers<void>()
    answers.set(nonce, resolve)
    try {
      const asked = run('select pg_notify($1::text, $2::text)', [channel, nonce]).then(() => answered)
      await orAfter(Promise.race([asked, connection.lost.then(throwIt)]), PROBE_MAX_MS, clock, signal, unheard)
    } finally {
      answers.delete(nonce)
    }
  }

  async function waitUntilLost(connection: ListenConnection, signal: AbortSignal): Promise<void> {
    const timer = new AbortController()
    try {
      await Promise.race([clock.sleep(PROBE_EVERY_MS, AbortSignal.any([timer.signal, signal])), connection.lost.then(throwIt)])
    } finally {
      timer.abort('ended')
    }
    if (signal.aborted) throw new WaybillError('CLOSED', 'listening was ended')
  }

  return {
    async listen(_relayId, on, signal) {
      let told: string | undefined
      const tell = (state: 'listening' | 'deaf', error?: unknown): void => {
        const what = error === undefined ? state : `${state}: ${messageOf(error)}`
        // Each change once, not each try.
        if (what !== told) on.state(state, error)
        told = what
      }
      for (let failures = 1; !signal.aborted; failures++) {
        let waitMs = 0
        try {
          await session(
            on,
            () => {
              failures = 0
              tell('listening')
            },
            signal,
          )
        } catch (cause) {
          if (signal.aborted) return
          const error = explainConnection(cause, place, 'listen')
          tell('deaf', error)
          // Nothing but somebody's change of the settings will help there.
          waitMs = isUnheard(error) ? PROBE_EVERY_MS : fullJitterMs(RETRY, Math.max(failures, 1), random)
        }
        await clock.sleep(waitMs, signal)
      }
    },
    async asleep(relayId) {
      await run(`update ${tables.relay} set asleep = true where id = $1::text and not asleep`, [relayId])
    },
  }
}

/** Whether to listen, and where: `true` at the storage's own URL. */
export type ListenOption = boolean | { readonly url: string }

/**
 * The hints that a storage is asked for, once its tables are known; nothing where none are wanted. `url` is the storage's own, if it has one.
 * @throws WaybillError `INVALID_OPTION`; `DATABASE_UNREACHABLE` for a URL that is none
 */
export function hintsBy(
  listen: ListenOption | undefined,
  url: string | undefined,
  database: SqlExecutor,
): ((tables: Tables) => OutboxHints) | undefined {
  if (listen === undefined || listen === false) return undefined
  const target = listen === true ? url : listen.url
  if (typeof target !== 'string')
    throw new WaybillError('INVALID_OPTION', 'listening needs a session of its own, and a pool has none to give', {
      allowed: '{ url: "postgres://user:password@host:port/database" }, leading straight to the same database',
      where: 'listen',
    })
  const place = placeOf(target)
  return (tables) => createOutboxHints({ database, tables, place, client: () => pgListenClient(target, OPEN_MAX_MS) })
}

function throwIt(error: Error): never {
  throw error
}

function unheard(): WaybillError {
  return new WaybillError('UNSUPPORTED', `no notification came within ${PROBE_MAX_MS} ms on the connection that listens; polling goes on`, {
    allowed: 'a URL that leads straight to the same database: a pooler in transaction mode shares sessions, and delivers none',
    where: 'listen',
  })
}

function isUnheard(error: unknown): boolean {
  return error instanceof WaybillError && error.code === 'UNSUPPORTED'
}
