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
   * gives each key a call of its own. `sent`: the broker has passed it on to whoever listened at that moment, and keeps nothing.
   */
  readonly acknowledges: 'stored' | 'handled' | 'sent'
  /** Whether `Delivery.retry` honours its delay. */
  readonly delay: boolean
  /** Whether messages wait for a group that is away, and come again until it has settled them. @default true */
  readonly keeps?: boolean
  /** Whether the members of a group share its messages; otherwise each gets all of them. @default true */
  readonly shares?: boolean
  /** Whether what was published survives the death of the transport's process: there is a broker. @default true */
  readonly survives?: boolean
  /** Whether a group or a tail can begin at a time. @default false */
  readonly startsAtTime?: boolean
  /** Whether a message that is published twice with the same id, within the broker's window, is stored once. @default false */
  readonly deduplicates?: boolean
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
  /**
   * Where a group that has no position yet begins, and where a tail does: at the oldest message, after the newest, or at the first one that was
   * published at a time or later (by the broker's clock). @default 'earliest'
   */
  readonly start?: 'earliest' | 'latest' | { readonly at: Date }
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
   * group: a key is never with two members at once. Not pulling is the way to pause. The subscription begins with the call, not with the first pull:
   * what this transport publishes afterwards is not missed by one that begins at the latest.
   */
  subscribe(source: Source, signal: AbortSignal): AsyncIterable<readonly Delivery[]>
}

/** Both directions, over one broker. */
export interface Transport extends Publisher, Subscriber {
  /** Its kind, for messages and metrics: `memory`, `kafka` ... */
  readonly name: string
  /**
   * Tells the transport which groups exist, before anything is published. Idempotent.
   * @throws WaybillError `TRANSPORT_UNAVAILABLE` where the broker can't be asked: nothing is half done, ask again
   */
  declareGroups(groups: readonly { readonly topic: string; readonly group: string }[]): Promise<void>
  /** What people ask of the broker behind it; missing where there is none. */
  readonly admin?: TransportAdmin
  /** Idempotent; ends within a bounded time. */
  close(): Promise<void>
}

/** A look at a broker, for commands and metrics. Changes nothing. */
export interface TransportAdmin {
  /**
   * The topics that this transport can carry (by its mapping of names), or those named, in the order of their names; at most 10,000.
   * @throws WaybillError `TRANSPORT_UNAVAILABLE` | `ACCESS_DENIED` | `TOPIC_MISSING` for one that was named
   */
  topics(names: readonly string[] | undefined, signal: AbortSignal): Promise<readonly TopicReport[]>
  /** Who it is and what its settings mean for what is published. @throws WaybillError `TRANSPORT_UNAVAILABLE` | `ACCESS_DENIED` */
  examine(signal: AbortSignal): Promise<BrokerReport>
}

/** One topic, as it stands at the broker. */
export interface TopicReport {
  readonly topic: string
  /** Its name at the broker. */
  readonly brokerName: string
  readonly partitions: number
  /** Messages that the broker holds; undefined where it can't tell. */
  readonly messages: number | undefined
  readonly groups: readonly {
    readonly group: string
    /** Members that are there now; undefined where the broker can't tell. */
    readonly members: number | undefined
    /** Messages that the group has not settled. */
    readonly lag: number | undefined
  }[]
}

/** A broker, as a doctor sees it. */
export interface BrokerReport {
  readonly product: string
  readonly version: string
  /** Without credentials. */
  readonly address: string
  /** Settings that matter, by their names at the broker. */
  readonly settings: Readonly<Record<string, string>>
  /** What could lose or reorder messages, or stop them, worst first; empty where nothing does. */
  readonly findings: readonly { readonly level: 'warning' | 'error'; readonly text: string; readonly advice: string }[]
}
