/**
 * Every code a {@link WaybillError} can carry. Codes are stable: match on them, not on messages.
 * The value says whether the same call may succeed later without anybody changing anything.
 */
const CODES = {
  /** A name (event, topic, context, handler, group) is empty, too long or holds forbidden characters. */
  INVALID_NAME: 'final',
  /** An option or policy value is out of its range. */
  INVALID_OPTION: 'final',
  /** A key or aggregate id is empty, too long or holds control characters. */
  INVALID_KEY: 'final',
  /** A header name or value can't be carried by every transport, or the name is reserved. */
  INVALID_HEADER: 'final',
  /** A payload doesn't satisfy the event's schema. */
  INVALID_PAYLOAD: 'final',
  /** A value would not come back equal from the wire (NaN, BigInt, a cycle, a lone surrogate ...). */
  NOT_SERIALIZABLE: 'final',
  /** A message is larger than the limit. */
  PAYLOAD_TOO_LARGE: 'final',
  /** Bytes from the wire are no envelope. */
  DECODE_FAILED: 'final',
  /** An event type that no context declares. */
  UNKNOWN_EVENT: 'final',
  /** A publish strategy, scope or preset that does not exist. */
  UNKNOWN_STRATEGY: 'final',
  /** Two registrations of one name. */
  DUPLICATE: 'final',
  /** A command or query has no handler. */
  NO_HANDLER: 'final',
  /** A hybrid event that no declared consumer handles. */
  HYBRID_WITHOUT_CONSUMER: 'final',
  /** HYBRID_FAST would retire a row that another bounded context still needs. */
  HYBRID_FAST_ACROSS_CONTEXTS: 'final',
  /** A durable strategy was asked for, and there is no outbox. */
  NO_OUTBOX: 'final',
  /** The bus or component was stopped, or not started yet. */
  CLOSED: 'final',
  /** The unit of work has ended: its transaction can't take anything any more. */
  UNIT_CLOSED: 'final',
  /** Not every path that the strategy names could be taken, and none succeeded. */
  PUBLISH_FAILED: 'retryable',
  /** A handler threw. The cause is what it threw. */
  HANDLER_FAILED: 'retryable',
  /** A handler asked for its message to be dead-lettered. */
  DEAD_LETTERED: 'final',
  /** Time ran out. What was running may still have happened. */
  TIMEOUT: 'retryable',
  /** A circuit breaker is open. */
  CIRCUIT_OPEN: 'retryable',
  /** A bounded queue has no room. */
  QUEUE_FULL: 'retryable',
  /** The transport can't be reached; nothing was sent. */
  TRANSPORT_UNAVAILABLE: 'retryable',
  /** The transport refused a message by its content. */
  MESSAGE_REJECTED: 'final',
  /** The broker refused the credentials, or what they have no right to. */
  ACCESS_DENIED: 'final',
  /** A topic, stream or subscription is missing at the broker, and may not be made. */
  TOPIC_MISSING: 'final',
  /** What stands at the broker differs from what is declared. */
  DECLARATION_DIFFERS: 'final',
  /** The broker no longer has what a group has not read: deleted, trimmed or flushed. The group goes on after the gap. */
  POSITION_LOST: 'retryable',
  /** It was sent, the answer never came: it may or may not have happened. */
  UNKNOWN_OUTCOME: 'retryable',
  /** A lease was lost to another owner: what it guarded must be dropped. */
  LEASE_LOST: 'retryable',
  /** The database can't be reached with the given settings. */
  DATABASE_UNREACHABLE: 'retryable',
  /** Another process has the embedded database's folder open. */
  DATABASE_IN_USE: 'retryable',
  /** The tables are missing or older than this library. */
  NOT_MIGRATED: 'final',
  /** The tables were made by a newer version of this library. */
  SCHEMA_TOO_NEW: 'final',
  /** A statement waits for the session that its own transaction holds: it would hang for ever. */
  SESSION_BUSY: 'final',
  /** An optional package is not installed. */
  PEER_MISSING: 'final',
  /** This adapter or setting can't do what was asked. */
  UNSUPPORTED: 'final',
  /** A setting from the environment, a file or the command line is wrong. */
  INVALID_SETTING: 'final',
  /** A file is missing, empty or unreadable. */
  INVALID_FILE: 'final',
} as const satisfies Record<string, 'final' | 'retryable'>

/** A stable name for what went wrong. */
export type WaybillErrorCode = keyof typeof CODES

/** What a {@link WaybillError} says beside its message; all of it is also part of the message. */
export interface WaybillErrorDetails extends ErrorOptions {
  /** What was given. Shown escaped and cut; never pass a secret. */
  readonly got?: unknown
  /** What would have been right. */
  readonly allowed?: string
  /** The option, path, event or place concerned. */
  readonly where?: string
}

/**
 * The one error class of this library: a stable `code`, what was got, what is allowed, and where.
 * Whatever led to it is the `cause`.
 */
export class WaybillError extends Error {
  override readonly name = 'WaybillError'
  readonly code: WaybillErrorCode
  readonly got: string | undefined
  readonly allowed: string | undefined
  readonly where: string | undefined

  constructor(code: WaybillErrorCode, message: string, details: WaybillErrorDetails = {}) {
    const got = 'got' in details ? show(details.got) : undefined
    const parts = [
      ...(got === undefined ? [] : [`got ${got}`]),
      ...(details.allowed === undefined ? [] : [`allowed: ${details.allowed}`]),
      // Once is enough where the message names the place already.
      ...(details.where === undefined || message.includes(details.where) ? [] : [`at ${details.where}`]),
    ]
    super(parts.length === 0 ? message : `${message} (${parts.join('; ')})`, 'cause' in details ? { cause: details.cause } : undefined)
    this.code = code
    this.got = got
    this.allowed = details.allowed
    this.where = details.where
  }

  /** Whether the same call may succeed later without anybody changing anything. */
  get retryable(): boolean {
    return CODES[this.code] === 'retryable'
  }
}

/** Whether `error` is a {@link WaybillError}, of one of `codes` where any are given. */
export function isWaybillError(error: unknown, ...codes: readonly WaybillErrorCode[]): error is WaybillError {
  return error instanceof WaybillError && (codes.length === 0 || codes.includes(error.code))
}

/** The message of anything that can be thrown. */
export function messageOf(error: unknown): string {
  if (error instanceof AggregateError) return error.message || error.errors.map(messageOf).join('; ')
  return error instanceof Error ? error.message : show(error)
}

const SHOWN_MAX = 80

/** A short, printable form: escaped, so that control bytes and line ends can't forge a log line. */
export function show(value: unknown): string {
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'number' || value === undefined) return String(value)
  let text: string
  try {
    if (typeof value === 'function') text = `function ${value.name || '(anonymous)'}`
    else text = typeof value === 'string' ? JSON.stringify(value.slice(0, SHOWN_MAX + 1)) : (JSON.stringify(value) ?? String(value))
  } catch {
    text = Object.prototype.toString.call(value)
  }
  const cut = text.length <= SHOWN_MAX ? text : `${text.slice(0, SHOWN_MAX)}…`
  const length = typeof value === 'string' && value.length > SHOWN_MAX ? ` (${value.length} characters)` : ''
  return (
    cut.replace(
      /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]/gu,
      (character) => `\\u${character.codePointAt(0)!.toString(16).padStart(4, '0')}`,
    ) + length
  )
}
