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
  /** 0 to 63. */
  readonly shard: number
}

/** The shards that a relay holds. */
export interface HeldShards {
  readonly shards: readonly number[]
  /** Those of them that are beyond its fair share, and kept only because they were in use: it claims nothing more from them. */
  readonly leaving: readonly number[]
  /** False where nothing at all waits to be published, so that a claim can be spared. */
  readonly pending: boolean
}

/** A relay as the database knows it. */
export interface RelayLease {
  readonly relayId: string
  /** How many shards it holds. */
  readonly shards: number
  /** Until its registration runs out, by the database's clock; negative where it has. */
  readonly expiresInMs: number
}

/** A key that stands still. */
export interface StuckKey {
  readonly topic: string
  readonly key: string
  /** The row that stops it: parked, or held after a failure. */
  readonly rowId: string
  readonly status: 'parked' | 'held'
  readonly attempts: number
  readonly lastError: string | undefined
  /** Rows of the key that wait behind it; counted up to 1,000, and behind a held row only among those that have waited longest. */
  readonly followers: number
  /** Age of the row that stops it. */
  readonly ageMs: number
}

/** A failure to be written to a row. */
export interface RowFailure {
  readonly rowId: string
  readonly error: string
  /** Its attempt was counted before it was sent, by `charge`: it is not counted again. @default false */
  readonly charged?: boolean
}

/** What `waybill outbox ls` shows of a row. */
export interface OutboxRecord {
  readonly rowId: string
  readonly eventId: string
  readonly eventType: string
  readonly destination: string
  readonly topic: string
  readonly key: string
  /** `scheduled`: not due before `dueAt`. `skipped`: given up by somebody; kept for a while, never published unless retried. */
  readonly status: 'pending' | 'scheduled' | 'published' | 'parked' | 'skipped'
  readonly attempts: number
  readonly priority: number
  readonly createdAt: Date
  /** Held or scheduled until then. */
  readonly dueAt: Date | undefined
  readonly lastError: string | undefined
  /** Parked only because it stands behind this row of its key. */
  readonly behind: string | undefined
}

/** A row with what it carries. */
export interface OutboxDetail extends OutboxRecord {
  /** As stored; `undefined` where somebody has edited them into something that is no JSON object of strings. */
  readonly headers: Readonly<Record<string, string>> | undefined
  readonly body: Uint8Array
}

/** Which rows to list or change: those that meet all that is given. */
export interface OutboxFilter {
  readonly status?: OutboxRecord['status']
  readonly eventType?: string
  readonly topic?: string
  readonly key?: string
  readonly rowIds?: readonly string[]
  /** Written at least so long ago. */
  readonly olderThanMs?: number
  /** Stands in the last error, in whatever case. */
  readonly error?: string
  /** 1 to 10,000. @default 100 */
  readonly limit?: number
}

/** What waits. Numbers are exact up to 100,000; beyond that they may be a database's estimate, never below 100,000. */
export interface OutboxStats {
  /** Due, held or in flight. */
  readonly pending: number
  /** Not due yet. */
  readonly scheduled: number
  /** Parked, and parked behind such a row. */
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
  /**
   * Renews `relayId`'s leases, takes free ones up to its fair share, and gives up what exceeds it, except the shards of `inUse`: rows of theirs are in
   * flight, and another relay would send them again.
   */
  acquire(relayId: string, leaseMs: number, inUse?: readonly number[]): Promise<HeldShards>
  /** Ids of the relays that are at work by the database's clock. One that died counts until its leases run out, unless it is known to be dead. */
  relays(): Promise<readonly string[]>
  /** Gives the leases back at once: nothing that was in flight becomes suspect. */
  relinquish(relayId: string): Promise<void>
  /** Who is registered, alive or not yet forgotten. */
  leases(): Promise<readonly RelayLease[]>
  /**
   * Due rows of the shards that `relayId` holds, except those in `leaving`: by priority across keys, oldest first within a key, whatever the
   * priorities in it. None of a key in `busy`, none behind a held or parked row of its key, and none for a destination in `without` (its breaker is
   * open: its rows must not crowd out the others'). One statement; no transaction stays open. The rows stay as they are: the lease is the claim.
   * What is claimed, and `inFlight` (rows of earlier claims that are not settled yet), is what becomes suspect should this relay die.
   */
  claim(
    relayId: string,
    options: {
      readonly limit: number
      readonly busy: readonly { readonly topic: string; readonly key: string }[]
      readonly without?: readonly string[]
      readonly leaving?: readonly number[]
      readonly inFlight?: readonly string[]
    },
  ): Promise<readonly ClaimedRow[]>
  /** Retires published rows, those only whose shard `relayId` still holds; gives back how many. */
  markPublished(relayId: string, rowIds: readonly string[]): Promise<number>
  /** Counts an attempt before a suspect is sent, so that one which kills its relay is found out. */
  charge(relayId: string, rowId: string): Promise<void>
  /** Failed for now: counts an attempt and holds the row, and its key, for `holdMs`. */
  hold(relayId: string, failures: readonly RowFailure[], holdMs: number): Promise<void>
  /** Failed for good: the row and its key stop until somebody retries or skips it. Its followers, as they come, are parked behind it. */
  park(relayId: string, failures: readonly RowFailure[]): Promise<void>
  /** The in-process path succeeded: the row is not needed any more. No lease needed. */
  retire(rowIds: readonly string[]): Promise<void>
  /** The in-process path failed: due now. No lease needed. */
  release(rowIds: readonly string[]): Promise<void>
  /**
   * Parked, held or skipped rows that match become due, with their attempts forgotten, and what is parked behind them goes on with them; gives back
   * how many matched. A row that is parked behind another does not match: its turn comes with that one.
   */
  retry(filter: OutboxFilter): Promise<number>
  /** Gives up parked rows that match, so that their keys go on with the followers; kept as `skipped`. Gives back how many matched. */
  skip(filter: OutboxFilter): Promise<number>
  /**
   * Parks rows that match and wait, with `reason` as their error: their keys stop there. What a relay has in flight may still arrive, and is
   * published again when retried. Gives back how many matched.
   */
  suspend(filter: OutboxFilter, reason: string): Promise<number>
  /** Ordered by number. */
  list(filter: OutboxFilter): Promise<readonly OutboxRecord[]>
  show(rowId: string): Promise<OutboxDetail | undefined>
  /** The longest stopped first. `limit`: 1 to 1,000. */
  stuckKeys(limit: number): Promise<readonly StuckKey[]>
  stats(): Promise<OutboxStats>
  /** Deletes published rows that are older than `keepMs`, and skipped ones older than that and 7 days, at most `limit` of them; gives back how many. */
  sweep(keepMs: number, limit: number): Promise<number>
  /** Present where the database can tell a relay that something was committed. Polling finds everything without it, only later. */
  readonly hints?: OutboxHints
}

/** Wake-ups from the database: a hint, sent once per burst, never the only way. */
export interface OutboxHints {
  /**
   * Calls `onHint` when a transaction with new rows was committed while `relayId` was asleep. Reconnects by itself until `signal` aborts; resolves
   * then. `onState`: told when hints come (`listening`), and when they don't (`deaf`) and why, as behind a pooler that shares sessions.
   */
  listen(
    relayId: string,
    on: { readonly hint: () => void; readonly state: (state: 'listening' | 'deaf', error?: unknown) => void },
    signal: AbortSignal,
  ): Promise<void>
  /** Says that `relayId` is going to wait, so that the next commit is worth a hint; the claim after this one is not told twice. Any claim that finds rows ends it. */
  asleep(relayId: string): Promise<void>
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
