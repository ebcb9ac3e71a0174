import { fullJitterMs, resolveRetryPolicy } from '../core/backoff.ts'
import { type Clock, type Random, systemClock } from '../core/clock.ts'
import { crashpoint } from '../core/crashpoint.ts'
import type { Database, SqlExecutor } from '../core/database.ts'
import { WaybillError } from '../core/errors.ts'
import { type Observe, observeAll, unobserved } from '../core/observe.ts'
import { checkFunction } from '../core/options.ts'
import { currentScope, runInScope } from '../core/scope.ts'
import type { OutboxStore } from '../core/stores.ts'
import type { Receipt, UnitOfWork, UnitResult, UnitScope } from '../core/unit.ts'
import { type OpenUnit, openJoinedUnit, openUnit, type Publish } from './unit-scope.ts'

/** How one unit of work is run. */
export interface UnitOptions {
  /**
   * How often the whole unit may be run where the database aborts it for a deadlock or a serialization failure (SQLSTATE 40P01, 40001); 1 to 100.
   * More than 1 only where the callback changes nothing outside its transaction. @default 1
   */
  readonly attemptsMax?: number
}

/** `RunUnit` of core, with options. */
export type UnitRunner = <T>(fn: (unit: UnitScope) => Promise<T>, options?: UnitOptions) => Promise<UnitResult<T>>

export interface UnitRunnerOptions {
  readonly database: Database
  readonly outbox: OutboxStore
  /** Publishes what tracked aggregates raise. */
  readonly publish: Publish
  /** Tells the relay of this process that rows were committed. */
  readonly wake: () => void
  readonly clock?: Clock
  readonly random?: Random
  readonly observe?: Observe
}

const RERUN = { baseMs: 10, maxMs: 1_000 }

/**
 * Makes the function that runs units of work: a transaction of its own, every publish inside joins it, rows are appended once and last, and what
 * waits for the commit runs after it, outside the transaction.
 *
 * The unit rejects with what `fn` rejected with (rolled back), with the database's error (rolled back), or with `UNKNOWN_OUTCOME` (the commit was cut:
 * it may or may not have happened). It never rejects because of a handler: by then the business change is committed.
 * @throws WaybillError `SESSION_BUSY` inside another unit of work; `INVALID_OPTION`
 */
export function createUnitRunner(options: UnitRunnerOptions): UnitRunner {
  const { database, outbox, publish, wake, clock = systemClock, random = Math.random } = options
  const observe = observeAll([options.observe ?? unobserved])

  async function runOnce<T>(fn: (unit: UnitScope) => Promise<T>): Promise<UnitResult<T>> {
    // Taken here: a database may call back from a context of its own.
    const scope = currentScope()
    let unit!: OpenUnit
    let rowIds: readonly string[] = []
    const result = await database.transaction(async (sql) => {
      unit = openUnit(sql)
      const value = await closing(unit, () => runInScope({ ...scope, unit: unit.scope }, () => collect(unit, publish, fn)))
      crashpoint('unit.beforeAppend')
      if (unit.entries.length > 0) rowIds = await outbox.append(sql, unit.entries)
      crashpoint('unit.beforeCommit')
      return value
    })
    crashpoint('unit.afterCommit')
    if (unit.entries.length > 0) guarded(wake, observe)
    // A closed unit may still stand in the caller's scope, where a callback left work behind: nothing may join that one.
    const { unit: _, ...outside } = scope
    return { result, receipts: await runInScope(outside, () => settleReceipts(unit, rowIds, observe)) }
  }

  return async (fn, unitOptions = {}) => {
    checkFunction(fn, 'unitOfWork')
    const { attemptsMax } = resolveRetryPolicy({ ...RERUN, attemptsMax: unitOptions.attemptsMax ?? 1 }, 'unitOfWork')
    refuseNesting('unitOfWork')
    for (let attempt = 1; ; attempt++) {
      try {
        return await runOnce(fn)
      } catch (error) {
        if (attempt >= attemptsMax || !isRerunnable(error)) throw error
        await clock.sleep(fullJitterMs(RERUN, attempt, random))
      }
    }
  }
}

/**
 * The unit of work that users see, on top of a runner. The callback's unit is good until the callback ends; then it rejects with `UNIT_CLOSED`.
 */
export function createUnitOfWork(
  run: UnitRunner,
  publish: Publish,
): <T>(fn: (unit: UnitOfWork) => Promise<T>, options?: UnitOptions) => Promise<UnitResult<T>> {
  return (fn, options) => {
    checkFunction(fn, 'unitOfWork')
    return run((scope) => fn(unitOfWorkOf(scope, publish)), options)
  }
}

/** A unit of work for users, from the scope that rooms know. Publishes in that unit wherever it is called from. */
export function unitOfWorkOf(unit: UnitScope, publish: Publish): UnitOfWork {
  return {
    sql: unit.sql,
    track: unit.track,
    async publish(event, config) {
      if (unit.closed)
        throw new WaybillError('UNIT_CLOSED', 'the unit of work has ended; was a promise in it not awaited?', { where: 'publish' })
      const scope = currentScope()
      return scope.unit === unit ? publish(event, config) : runInScope({ ...scope, unit }, () => publish(event, config))
    },
  }
}

/**
 * Makes the function that publishes in a transaction which the caller owns. There is no commit hook: what a durable strategy publishes is a row of
 * that transaction at once, due with its commit; SYNC_ONLY rejects. The rows of several publishes lock their keys one after the other, so two such
 * transactions may deadlock where a unit of work could not.
 */
export function createJoinTransaction(
  outbox: OutboxStore,
  publish: Publish,
): <T>(transaction: { readonly sql: SqlExecutor }, fn: (unit: UnitOfWork) => Promise<T>) => Promise<T> {
  return async ({ sql }, fn) => {
    checkFunction(fn, 'joinTransaction')
    refuseNesting('joinTransaction')
    const unit = openJoinedUnit(sql, outbox)
    const scope = { ...currentScope(), unit: unit.scope }
    return closing(unit, () => runInScope(scope, () => collect(unit, publish, (joined) => fn(unitOfWorkOf(joined, publish)))))
  }
}

async function collect<T>(unit: OpenUnit, publish: Publish, fn: (unit: UnitScope) => Promise<T>): Promise<T> {
  const value = await fn(unit.scope)
  await unit.pullEvents(publish)
  return value
}

/** Closes the unit whichever way `run` ends: what was not awaited must not reach a transaction that is being committed or rolled back. */
async function closing<T>(unit: OpenUnit, run: () => Promise<T>): Promise<T> {
  try {
    return await run()
  } finally {
    unit.close()
  }
}

async function settleReceipts(unit: OpenUnit, rowIds: readonly string[], observe: Observe): Promise<readonly Receipt[]> {
  const running = unit.afterCommit.map(async (run) => {
    try {
      return await run(rowIds)
    } catch (error) {
      // By contract it never rejects. If it does, the business change is committed all the same: failing here would have it repeated.
      observe({ type: 'unit.failed', error })
      return undefined
    }
  })
  const receipts = await Promise.all(running)
  return receipts.filter((receipt) => receipt !== undefined)
}

function guarded(run: () => void, observe: Observe): void {
  try {
    run()
  } catch (error) {
    observe({ type: 'unit.failed', error })
  }
}

function refuseNesting(where: string): void {
  const { unit } = currentScope()
  if (unit === undefined || unit.closed) return
  throw new WaybillError('SESSION_BUSY', "a unit of work can't be nested: use the one that is running", {
    allowed: "the unit (or the handler's context) at hand",
    where,
  })
}

const RERUNNABLE: ReadonlySet<unknown> = new Set(['40001', '40P01'])

/** Whether the database aborted the transaction for others' sake; looks through wrapped errors. */
function isRerunnable(error: unknown): boolean {
  for (let at: unknown = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++) {
    if ('code' in at && RERUNNABLE.has(at.code)) return true
  }
  return false
}
