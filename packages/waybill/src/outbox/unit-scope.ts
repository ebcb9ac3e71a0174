import type { SqlExecutor } from '../core/database.ts'
import { WaybillError } from '../core/errors.ts'
import type { DomainEvent } from '../core/event.ts'
import type { PublishConfig, PublishPreset } from '../core/publish-config.ts'
import type { OutboxEntry, OutboxStore } from '../core/stores.ts'
import type { RaisesEvents, Receipt, UnitScope } from '../core/unit.ts'

/** Publishes by policy; joins the unit of work of the running scope. */
export type Publish = (event: DomainEvent, config?: PublishConfig | PublishPreset) => Promise<Receipt>

/** Most rows, after-commit functions and aggregates of one unit of work, each. */
export const UNIT_MAX = 100_000
const ROUNDS_MAX = 100

type AfterCommit = (rowIds: readonly string[]) => Promise<Receipt>

/** A unit of work as its runner sees it. */
export interface OpenUnit {
  readonly scope: UnitScope
  readonly entries: readonly OutboxEntry[]
  /** What is to run after the commit, in the order of the publishes. */
  readonly afterCommit: readonly AfterCommit[]
  /** Publishes what the tracked aggregates have raised, until none raises any more. @throws WaybillError `QUEUE_FULL` */
  pullEvents(publish: Publish): Promise<void>
  /** From here on the unit takes nothing any more. */
  close(): void
}

/** A unit in a transaction of its own: collects, and writes nothing by itself. */
export function openUnit(sql: SqlExecutor): OpenUnit {
  const state = createState(sql)
  const entries: OutboxEntry[] = []
  const afterCommit: AfterCommit[] = []
  const scope: UnitScope = {
    sql: state.sql,
    get closed() {
      return state.closed
    },
    enqueue(entry, run) {
      state.assertOpen('publish')
      assertFits(entries.length, 'events')
      const index = entries.push(entry) - 1
      if (run !== undefined) afterCommit.push((rowIds) => run(rowIds[index]!))
    },
    afterCommit(run) {
      state.assertOpen('publish')
      assertFits(afterCommit.length, 'events')
      afterCommit.push(run)
    },
    track: state.track,
  }
  return { scope, entries, afterCommit, pullEvents: state.pullEvents, close: state.close }
}

/** A unit in a transaction that the caller owns: each row is written at once, and nothing runs after the commit. */
export function openJoinedUnit(sql: SqlExecutor, outbox: OutboxStore): OpenUnit {
  const state = createState(sql)
  const noHook = (): never => {
    throw new WaybillError('UNSUPPORTED', 'nothing can run after the commit of a transaction that the caller owns', {
      allowed: 'a strategy that writes a row, or waybill.unitOfWork',
      where: 'joinTransaction',
    })
  }
  const scope: UnitScope = {
    sql: state.sql,
    get closed() {
      return state.closed
    },
    enqueue: noHook,
    afterCommit: noHook,
    track: state.track,
    async write(entry) {
      state.assertOpen('publish')
      const { holdMs: _, ...due } = entry
      const [rowId] = await outbox.append(sql, [due])
      return rowId!
    },
  }
  return { scope, entries: [], afterCommit: [], pullEvents: state.pullEvents, close: state.close }
}

interface UnitState extends Pick<OpenUnit, 'pullEvents' | 'close'> {
  readonly sql: SqlExecutor
  readonly closed: boolean
  assertOpen(where: string): void
  track(...aggregates: readonly RaisesEvents[]): void
}

function createState(sql: SqlExecutor): UnitState {
  const tracked = new Set<RaisesEvents>()
  let closed = false

  const assertOpen = (where: string): void => {
    if (closed) throw new WaybillError('UNIT_CLOSED', 'the unit of work has ended; was a promise in it not awaited?', { where })
  }

  // Derived, not copied: a store may know its own executor by more than its `query`.
  const guarded: SqlExecutor = Object.create(sql, {
    query: {
      value: async (text: string, params?: readonly unknown[]) => {
        assertOpen('sql.query')
        return sql.query(text, params)
      },
    },
  })

  return {
    sql: guarded,
    get closed() {
      return closed
    },
    assertOpen,
    track(...aggregates) {
      assertOpen('track')
      assertFits(tracked.size + aggregates.length - 1, 'aggregates')
      for (const aggregate of aggregates) {
        if (typeof aggregate?.pullEvents !== 'function')
          throw new WaybillError('INVALID_OPTION', 'only what raises events can be tracked', {
            got: aggregate,
            allowed: 'an object with pullEvents()',
            where: 'track',
          })
        tracked.add(aggregate)
      }
    },
    async pullEvents(publish) {
      for (let round = 0; round < ROUNDS_MAX; round++) {
        const events = [...tracked].flatMap((aggregate) => aggregate.pullEvents())
        if (events.length === 0) return
        // One after the other: the order of raising is the order of the rows.
        for (const event of events) await publish(event)
      }
      throw new WaybillError('QUEUE_FULL', 'the aggregates never stop raising events', {
        got: ROUNDS_MAX,
        allowed: `at most ${ROUNDS_MAX} rounds`,
        where: 'track',
      })
    },
    close() {
      closed = true
    },
  }
}

function assertFits(size: number, what: string): void {
  if (size < UNIT_MAX) return
  throw new WaybillError('QUEUE_FULL', `a unit of work holds too many ${what}`, {
    got: size + 1,
    allowed: `at most ${UNIT_MAX}`,
    where: 'unitOfWork',
  })
}
