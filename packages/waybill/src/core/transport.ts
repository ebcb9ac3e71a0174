import type { WaybillError } from './errors.ts'

/** A finished message: all that a transport needs to carry it, and nothing of the application's. */
export interface Message {
  /** The event's id. */
  readonly id: string
  /** Logical topic; each adapter maps it to its broker's own name. */
  readonly topic: string
  /** Messages of one topic and key stay in order. Without order it is the message's own id. */
  readonly key: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
  /** True where the sender may have sent it before (a relay after a crash). A hint: at-least-once holds without it. */
  readonly resent?: boolean
}

/**
 * What became of one message.
 * - `stored`: durable at the other side, by the transport's own promise.
 * - `rejected`: not stored. `error.retryable` tells a full queue or an unreachable broker from a message that will never pass.
 * - `unknown`: sent, and cut off before the answer. Never taken for success; it is sent again.
 */
export type PublishOutcome =
  | { readonly kind: 'stored' }
  | { readonly kind: 'rejected'; readonly error: WaybillError }
  | { readonly kind: 'unknown'; readonly error: WaybillError }

/** What an adapter declares, and the contract suite proves. */
export interface Capabilities {
  /** `key`: messages of one (topic, key) arrive in the order published. */
  readonly ordering: 'none' | 'key'
  /**
   * True where no message is stored after an earlier unstored one of its (topic, key), also across concurrent calls.
   * Where it is false, a relay keeps one message in flight per key.
   */
  readonly stopsKeyAtFailure: boolean
  /**
   * When `publish` reports stored. `handled`: each declared group has settled the message, so that a slow key takes its time; a relay then
   * gives each key a call of its own.
   */
  readonly acknowledges: 'stored' | 'handled'
  /** Whether `Delivery.retry` honours its delay. */
  readonly delay: boolean
}

/** Sends messages. A transport, a router, an outbox and a dead-letter sink are all publishers. */
export interface Publisher {
  readonly capabilities: Capabilities
  /**
   * One outcome per message, by index. Safe to call concurrently; adapters micro-batch. Resolves also where every message failed: it rejects
   * only with a bug or with `CLOSED`. When `signal` aborts, what was not sent is `rejected`, what was sent is `unknown`.
   */
  publish(messages: readonly Message[], signal: AbortSignal): Promise<readonly PublishOutcome[]>
}

/** What to read. */
export interface Source {
  readonly topics: readonly string[]
  /** Members of one group share the messages; each group gets all of them. Without a group: a tail that settles nothing. */
  readonly group?: string
  /** Where a group that has no position yet begins. @default 'earliest' */
  readonly start?: 'earliest' | 'latest'
  /** Most messages in one array, 1 to 10,000. @default 200 */
  readonly batchMax?: number
}

/** A place in a partition. */
export interface Position {
  readonly partition: string
  /** Rises within the partition, where the broker has such a number. */
  readonly sequence?: bigint
}

/** The right to work on a partition, for a while. */
export interface Assignment {
  readonly id: string
  /** Aborts when the partition is lost: drop what is queued; late settles are ignored. */
  readonly signal: AbortSignal
}

/**
 * One message handed to one member of a group, to be settled exactly once. Until then the adapter keeps it ours (extends acks, heartbeats).
 * Settling again, or after the assignment was lost, does nothing.
 */
export interface Delivery {
  readonly message: Message
  readonly position: Position
  /** Whether it was delivered before, where the broker can tell. */
  readonly redelivered: 'yes' | 'no' | 'unknown'
  readonly assignment: Assignment
  /** Done: never deliver it to this group again. */
  ack(): Promise<void>
  /** Not handled, no attempt spent: deliver it again, in its place. */
  release(): Promise<void>
  /** Deliver it again after `afterMs`. For unordered work only: followers overtake. */
  retry(afterMs: number): Promise<void>
}

/** Receives messages. */
export interface Subscriber {
  /**
   * Yields arrays of deliveries until `signal` aborts, then ends; what is unsettled is delivered again. Order holds per (topic, key) within a
   * group: a key is never with two members at once. Not pulling is the way to pause.
   */
  subscribe(source: Source, signal: AbortSignal): AsyncIterable<readonly Delivery[]>
}

/** Both directions, over one broker. */
export interface Transport extends Publisher, Subscriber {
  /** Its kind, for messages and metrics: `memory`, `kafka` ... */
  readonly name: string
  /** Tells the transport which groups exist, before anything is published. Idempotent. */
  declareGroups(groups: readonly { readonly topic: string; readonly group: string }[]): Promise<void>
  /** Idempotent; ends within a bounded time. */
  close(): Promise<void>
}
