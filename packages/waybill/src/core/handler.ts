import type { DomainEvent } from './event.ts'
import type { UnitScope } from './unit.ts'

/** One call of a handler. */
export interface Invocation {
  /** One event, or several for a batch handler; in order. */
  readonly events: readonly DomainEvent[]
  /** Aborts on timeout, on loss of the partition and on shutdown's hard limit. */
  readonly signal: AbortSignal
  /** 1 for the first try. */
  readonly attempt: number
  /** The transaction it runs in, where it has one. */
  readonly unit?: UnitScope
}

/** What the road calls. */
export type Handler = (invocation: Invocation) => Promise<void>

/** Wraps a handler: timeout, inbox, tracing are all this one shape. */
export type Middleware = (next: Handler) => Handler

/** Applies `layers` around `handler`, the first outermost. */
export function compose(handler: Handler, layers: readonly Middleware[]): Handler {
  return layers.reduceRight((next, layer) => layer(next), handler)
}

/** A handler as the road knows it: registered once, under one name, for the in-process path and for the relayed copy alike. */
export interface RegisteredHandler {
  /** `{context}/{handler}`: consumer group, inbox key and label. */
  readonly name: string
  readonly context: string
  /** Names of the event types it handles. */
  readonly eventTypes: ReadonlySet<string>
  /** Topics these types travel on. */
  readonly topics: readonly string[]
  /** Served by the durable road only. */
  readonly ordered: boolean
  /** Most events in one call. */
  readonly batchMax: number
  /** The user's function with the inbox and its transaction around it: each event's effect once. */
  readonly once: Handler
  /** The user's function with a transaction, and no inbox: for events that have no second copy. */
  readonly plain: Handler
}
