import type { Database, SqlExecutor } from './database.ts'
import type { Message } from './transport.ts'

/** Locks that `append` takes are hashed from (topic, key) into so many slots. */
export const OUTBOX_SLOTS = 4096
/** A row's shard is its slot modulo this; fixed for ever, since it is stored. */
export const OUTBOX_SHARDS = 64

/** A row to be: the finished message, and when it is due. */
export interface OutboxEntry {
  readonly message: Message
  readonly eventType: string
  /** Which transport takes it. @default 'default' */
  readonly destination?: string
  /** 0 to 9. @default 5 */
  readonly priority?: number
  /** The row, and with it its key, waits this long unless retired or released before (grace of HYBRID_FAST). @default 0 */
  readonly holdMs?: number
  /** Not due before; followers of its key don't wait for it. */
  readonly availableAt?: Date
}

/** A row that a relay may publish now. */
export interface ClaimedRow {
  /** The row's number, in text: it may exceed 2^53. Rises per key in commit order. */
  readonly rowId: string
  readonly destination: string
  readonly message: Message
  /** How often publishing it was charged to it. */
  readonly attempts: number
  /** In flight when a relay died: it goes alone, and is charged before. */
  readonly suspect: boolean
}

/** A failure to be written to a row. */
export interface RowFailure {
  readonly rowId: string
  readonly error: string
}

/** What `waybill outbox ls` shows of a row. */
export interface OutboxRecord {
  readonly rowId: string
  readonly eventId: string
  readonly eventType: string
  readonly topic: string
  readonly key: string
  readonly status: 'pending' | 'published' | 'parked'
  readonly attempts: number
  readonly priority: number
  readonly createdAt: Date
  /** Held or scheduled until then. */
  readonly dueAt: Date | undefined
  readonly lastError: string | undefined
}

/** Which rows to list or retry. */
export interface OutboxFilter {
  readonly status?: OutboxRecord['status']
  readonly eventType?: string
  readonly key?: string
  readonly rowIds?: readonly string[]
  /** 1 to 10,000. @default 100 */
  readonly limit?: number
}

/** What waits. */
export interface OutboxStats {
  readonly pending: number
  readonly parked: number
  /** Age of the oldest pending row by the database's clock; 0 where nothing waits. */
  readonly oldestPendingMs: number
}

/**
 * Rows that must not be lost, in the order of their keys.
 *
 * Order is a property of the rows: `append` locks the slot of (topic, key) before a row's number is drawn and until the transaction ends, so
 * within a key the order of numbers is the order of commits. A relay works only on the shards it holds a lease of; a shard is with one relay at
 * a time. Time is the database's own.
 */
export interface OutboxStore {
  /**
   * Writes rows in the caller's transaction and gives back their numbers, by index. One statement. Call it once, last: the locks are held from
   * here to the end, and are taken in an order that can't deadlock within one call.
   * @throws WaybillError `NOT_MIGRATED`
   */
  append(sql: SqlExecutor, entries: readonly OutboxEntry[]): Promise<readonly string[]>
  /** Renews `relayId`'s leases and takes free ones up to its fair share; gives back the shards it holds. */
  acquire(relayId: string, leaseMs: number): Promise<readonly number[]>
  /** Ids of the relays that are at work by the database's clock. One that died counts until its leases run out, unless it is known to be dead. */
  relays(): Promise<readonly string[]>
  /** Gives the leases back at once: nothing that was in flight becomes suspect. */
  relinquish(relayId: string): Promise<void>
  /**
   * Due rows of the shards that `relayId` holds, oldest first per key, none of a key in `busy`, none behind a held or parked row of its key, and
   * none for a destination in `without` (its breaker is open: its rows must not crowd out the others'). One statement; no transaction stays
   * open. The rows stay as they are: the lease is the claim.
   */
  claim(
    relayId: string,
    options: {
      readonly limit: number
      readonly busy: readonly { readonly topic: string; readonly key: string }[]
      readonly without?: readonly string[]
    },
  ): Promise<readonly ClaimedRow[]>
  /** Retires published rows, those only whose shard `relayId` still holds; gives back how many. */
  markPublished(relayId: string, rowIds: readonly string[]): Promise<number>
  /** Counts an attempt before a suspect is sent, so that one which kills its relay is found out. */
  charge(relayId: string, rowId: string): Promise<void>
  /** Failed for now: counts an attempt and holds the row, and its key, for `holdMs`. */
  hold(relayId: string, failures: readonly RowFailure[], holdMs: number): Promise<void>
  /** Failed for good: the row and its key stop until somebody retries it. */
  park(relayId: string, failures: readonly RowFailure[]): Promise<void>
  /** The in-process path succeeded: the row is not needed any more. No lease needed. */
  retire(rowIds: readonly string[]): Promise<void>
  /** The in-process path failed: due now. No lease needed. */
  release(rowIds: readonly string[]): Promise<void>
  /** Parked or held rows that match become due, with their attempts forgotten; gives back how many. */
  retry(filter: OutboxFilter): Promise<number>
  list(filter: OutboxFilter): Promise<readonly OutboxRecord[]>
  stats(): Promise<OutboxStats>
  /** Deletes published rows that are older than `keepMs`, at most `limit` of them; gives back how many. */
  sweep(keepMs: number, limit: number): Promise<number>
}

/** Which events a handler has handled. Event ids and handler names (`{context}/{handler}`) make the key. */
export interface InboxStore {
  /**
   * Records `eventIds` as handled in the handler's own transaction, and gives back those that were not yet: only these are to be handled.
   * Where another transaction is recording the same one, waits for its end.
   */
  record(sql: SqlExecutor, handler: string, eventIds: readonly string[]): Promise<ReadonlySet<string>>
  /** Counts an attempt, durably, before handling; gives back how many there were with this one. Forgotten when the event is recorded or swept. */
  countAttempt(handler: string, eventId: string): Promise<number>
  /** Forgets what was handled longer than `keepMs` ago, at most `limit` of it; gives back how many. */
  sweep(keepMs: number, limit: number): Promise<number>
}

/** A message that could not be handled, as it came. */
export interface DeadLetter {
  /** `{context}/{handler}`. */
  readonly handler: string
  readonly message: Message
  readonly eventType: string | undefined
  /**
   * `failed`: all attempts spent. `refused`: the handler asked for it. `undecodable`: no envelope. `follower`: behind another of its key.
   */
  readonly reason: 'failed' | 'refused' | 'undecodable' | 'follower'
  readonly error: string | undefined
  readonly attempts: number
  /** Where it came from. */
  readonly partition: string
  readonly sequence: bigint | undefined
}

/** Where messages rest that could not be handled, in their order. */
export interface DeadLetterStore {
  /** Durable when it resolves; only then the message is acked. The same message of the same handler again changes nothing. */
  park(letters: readonly DeadLetter[]): Promise<void>
  /** The (topic, key) pairs whose followers of `handler` must be parked too. */
  parkedKeys(handler: string): Promise<readonly { readonly topic: string; readonly key: string }[]>
  /** Oldest first. */
  list(filter: { readonly handler?: string; readonly limit?: number }): Promise<readonly (DeadLetter & { readonly parkedAt: Date })[]>
  count(): Promise<number>
}

/** A database with Waybill's tables in it. */
export interface Storage {
  /** `pglite`, `postgres` or `memory`. */
  readonly name: string
  readonly database: Database
  readonly outbox: OutboxStore
  readonly inbox: InboxStore
  readonly deadLetters: DeadLetterStore
  /** How long published rows stay before `outbox.sweep` may remove them, in milliseconds. @default 0: they are deleted at once */
  readonly keepPublishedMs?: number
  /** Brings the tables to this version. Safe to run again, and by several processes at once. Gives back what was applied. */
  migrate(): Promise<readonly string[]>
  /** Checks that the database answers and has the tables. @throws WaybillError `DATABASE_UNREACHABLE` | `NOT_MIGRATED` | `SCHEMA_TOO_NEW` */
  check(): Promise<void>
  /** Idempotent. */
  close(): Promise<void>
}
