import { AsyncLocalStorage } from 'node:async_hooks'
import type { Database, SqlExecutor } from '../../core/database.ts'
import { WaybillError } from '../../core/errors.ts'

/** A transaction of the memory database: its writes wait for the commit, its locks are held to the end. */
export interface MemoryTransaction {
  /** Waits until no other transaction holds `name`, then holds it to the end of this one. @throws WaybillError `SESSION_BUSY` on a deadlock; `UNIT_CLOSED` */
  lock(name: string): Promise<void>
  /** Runs `apply` at commit, never at rollback; in the order given. It must not throw. */
  onCommit(apply: () => void): void
  /** Runs `undo` at rollback, never at commit. */
  onRollback(undo: () => void): void
}

/** The memory database, from where its stores meet it. */
export interface MemoryDatabase extends Database {
  /** The transaction that `sql` stands for; where `sql` is the database itself, one of its own around `fn`. */
  join<T>(sql: SqlExecutor, fn: (transaction: MemoryTransaction) => Promise<T>): Promise<T>
  /** @throws WaybillError `CLOSED` */
  assertOpen(): void
  close(): void
}

interface Lock {
  holder: Session
  readonly waiters: Waiter[]
}

interface Waiter {
  readonly session: Session
  readonly proceed: () => void
  readonly give: (error: WaybillError) => void
}

interface Session extends MemoryTransaction {
  readonly sql: SqlExecutor
  /** The transaction from within which this one was begun: it can't end before this one does. */
  readonly parent: Session | undefined
  waitsFor: Lock | undefined
  /** Ends it. @throws WaybillError `UNIT_CLOSED` */
  end(how: 'commit' | 'rollback'): void
}

// A symbol and not a WeakMap, so that an executor derived with Object.create still stands for its transaction.
const TRANSACTION = Symbol('waybill.memory.transaction')
const LOCKS_MAX = 100_000

const noSql = (): never => {
  throw new WaybillError('UNSUPPORTED', 'the memory storage runs no SQL', {
    allowed: 'pgliteStorage() for SQL without a server, postgresStorage() with one',
    where: 'sql.query',
  })
}

/**
 * A database without tables: transactions, locks that are held to their end, and nothing else. Transactions run concurrently; what stores write
 * is applied at commit, all at once, and dropped at rollback.
 */
export function createMemoryDatabase(): MemoryDatabase {
  const locks = new Map<string, Lock>()
  const running = new AsyncLocalStorage<Session>()
  let closed = false

  const assertOpen = (): void => {
    if (closed) throw new WaybillError('CLOSED', 'the memory storage is closed')
  }

  async function transaction<T>(fn: (sql: SqlExecutor) => Promise<T>): Promise<T> {
    assertOpen()
    const session = createSession(locks, running.getStore())
    let result: T
    try {
      result = await running.run(session, () => fn(session.sql))
    } catch (error) {
      session.end('rollback')
      throw error
    }
    session.end('commit')
    return result
  }

  const database: MemoryDatabase = {
    async query() {
      return noSql()
    },
    transaction,
    join(sql, fn) {
      if (sql === database) return transaction((own) => database.join(own, fn))
      const session = (sql as { readonly [TRANSACTION]?: Session })[TRANSACTION]
      if (session !== undefined) return fn(session)
      throw new WaybillError('UNSUPPORTED', 'the memory storage takes part in its own transactions only', {
        allowed: 'the executor that memoryStorage().database.transaction gave',
        where: 'sql',
      })
    },
    assertOpen,
    close() {
      closed = true
    },
  }
  return database
}

function createSession(locks: Map<string, Lock>, parent: Session | undefined): Session {
  const held = new Set<string>()
  const atCommit: (() => void)[] = []
  const atRollback: (() => void)[] = []
  let ended = false

  const assertRunning = (): void => {
    if (ended) throw new WaybillError('UNIT_CLOSED', 'the transaction has ended', { where: 'memory storage' })
  }

  const session: Session = {
    sql: {
      async query() {
        return noSql()
      },
    },
    parent,
    waitsFor: undefined,
    async lock(name) {
      assertRunning()
      if (held.has(name)) return
      if (held.size >= LOCKS_MAX)
        throw new WaybillError('QUEUE_FULL', 'a transaction holds too many locks', {
          got: held.size,
          allowed: `at most ${LOCKS_MAX}`,
          where: 'memory storage',
        })
      const lock = locks.get(name)
      if (lock === undefined) locks.set(name, { holder: session, waiters: [] })
      else await waitFor(lock, session)
      held.add(name)
    },
    onCommit(apply) {
      assertRunning()
      atCommit.push(apply)
    },
    onRollback(undo) {
      assertRunning()
      atRollback.push(undo)
    },
    end(how) {
      assertRunning()
      ended = true
      if (session.waitsFor !== undefined) leaveQueue(session.waitsFor, session)
      for (const apply of how === 'commit' ? atCommit : atRollback) apply()
      // After the writes, so that whoever waited for a lock finds them.
      for (const name of held) handOver(locks, name)
    },
  }
  Object.defineProperty(session.sql, TRANSACTION, { value: session })
  return session
}

async function waitFor(lock: Lock, session: Session): Promise<void> {
  if (wouldDeadlock(lock, session)) {
    throw new WaybillError('SESSION_BUSY', 'two transactions wait for each other', {
      where: 'memory storage',
      // The code a PostgreSQL gives, so that whoever reruns on it does so here as well.
      cause: Object.assign(new Error('deadlock detected'), { code: '40P01' }),
    })
  }
  session.waitsFor = lock
  try {
    await new Promise<void>((proceed, give) => lock.waiters.push({ session, proceed, give }))
  } finally {
    session.waitsFor = undefined
  }
}

function wouldDeadlock(lock: Lock, session: Session): boolean {
  const waiting = new Set<Session>()
  // A transaction begun within another keeps that one waiting, so its ancestors wait as well.
  for (let at: Session | undefined = session; at !== undefined; at = at.parent) waiting.add(at)
  for (let next: Lock | undefined = lock; next !== undefined; next = next.holder.waitsFor) {
    if (waiting.has(next.holder)) return true
    waiting.add(next.holder)
  }
  return false
}

function leaveQueue(lock: Lock, session: Session): void {
  const at = lock.waiters.findIndex((waiter) => waiter.session === session)
  const [waiter] = at < 0 ? [] : lock.waiters.splice(at, 1)
  waiter?.give(new WaybillError('UNIT_CLOSED', 'the transaction ended while it waited for a lock', { where: 'memory storage' }))
}

function handOver(locks: Map<string, Lock>, name: string): void {
  const lock = locks.get(name)!
  const next = lock.waiters.shift()
  if (next === undefined) {
    locks.delete(name)
    return
  }
  lock.holder = next.session
  // Not left to the waiter: whoever walks the graph before it runs must not see it waiting for itself.
  next.session.waitsFor = undefined
  next.proceed()
}
