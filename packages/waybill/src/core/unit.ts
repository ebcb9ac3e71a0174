import type { SqlExecutor } from './database.ts'
import type { DomainEvent } from './event.ts'
import type { PublishConfig, PublishPreset, PublishStrategy, EventScope } from './publish-config.ts'
import type { OutboxEntry } from './stores.ts'

/** What became of a publish. */
export interface Receipt {
  readonly eventId: string
  readonly eventType: string
  readonly strategy: PublishStrategy
  readonly scope: EventScope
  /** Which rule named the strategy: the call, the event type, the bounded context, or the default of the scope. */
  readonly decidedBy: 'call' | 'event' | 'context' | 'default'
  /** `delivered`: in-process handlers did it, nothing is left to do. `pending`: a row is (or will be, at commit) in the outbox. */
  readonly state: 'delivered' | 'pending'
  /** The in-process handlers ran and all succeeded. */
  readonly confirmed: boolean
  /** Why the in-process path did not confirm, where it was tried. */
  readonly unconfirmedBecause?: 'timeout' | 'failed' | 'no handler' | 'breaker open'
  readonly durationMs: number
}

/** Something that raises events, and hands each of them over once. */
export interface RaisesEvents {
  /** The events raised since the last call, oldest first. */
  pullEvents(): readonly DomainEvent[]
}

/** A business transaction, from the inside. */
export interface UnitOfWork {
  /** Runs statements in the transaction. */
  readonly sql: SqlExecutor
  /** Publishes with the commit: a rolled-back unit publishes nothing. Resolves `pending`. @throws WaybillError `UNIT_CLOSED` */
  publish(event: DomainEvent, config?: PublishConfig | PublishPreset): Promise<Receipt>
  /** Publishes, at commit, what these raise until then. */
  track(...aggregates: readonly RaisesEvents[]): void
}

/** A unit of work, from where the rooms meet it: what a publish joins. */
export interface UnitScope {
  readonly sql: SqlExecutor
  /** True once the callback has ended. */
  readonly closed: boolean
  /**
   * Adds a row, to be written once and last. `afterCommit` runs once the transaction has committed, with the row's number, and must not reject;
   * what it resolves is the publish's receipt in {@link UnitResult}, so a row that nobody confirms passes a function that resolves its pending
   * receipt at once. Without a function there is no receipt.
   * @throws WaybillError `UNIT_CLOSED`; `QUEUE_FULL`; `UNSUPPORTED` where `write` is present
   */
  enqueue(entry: OutboxEntry, afterCommit: ((rowId: string) => Promise<Receipt>) | undefined): void
  /** Adds work without a row, for after the commit. @throws WaybillError `UNIT_CLOSED`; `QUEUE_FULL`; `UNSUPPORTED` where `write` is present */
  afterCommit(run: () => Promise<Receipt>): void
  /**
   * Present only in a transaction that the caller owns: there is no commit hook, so nothing can run after the commit and rows can't wait for the
   * end. Writes a row at once, in the caller's transaction; gives it no `holdMs`, since nobody would confirm it. Strategies without a row can't
   * be kept there and reject.
   * @throws WaybillError `UNIT_CLOSED`
   */
  readonly write?: (entry: OutboxEntry) => Promise<string>
  track(...aggregates: readonly RaisesEvents[]): void
}

/** What a unit of work gives back after its commit. */
export interface UnitResult<T> {
  readonly result: T
  /** Settled receipts of what was published in it, in order. */
  readonly receipts: readonly Receipt[]
}

/** Runs `fn` as a unit of work in a transaction of its own. */
export type RunUnit = <T>(fn: (unit: UnitScope) => Promise<T>) => Promise<UnitResult<T>>
