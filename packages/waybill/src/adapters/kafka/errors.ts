import { type WaybillErrorCode, WaybillError, isWaybillError, messageOf } from '../../core/errors.ts'

/** What the library's errors tell beside their message. */
interface KafkaErrorLike {
  readonly message: string
  readonly code?: unknown
  readonly apiId?: unknown
  readonly apiCode?: unknown
  readonly serverErrorMessage?: unknown
  readonly canRetry?: unknown
  readonly cause?: unknown
}

const DENIED = new Set([
  'TOPIC_AUTHORIZATION_FAILED',
  'GROUP_AUTHORIZATION_FAILED',
  'CLUSTER_AUTHORIZATION_FAILED',
  'TRANSACTIONAL_ID_AUTHORIZATION_FAILED',
  'SASL_AUTHENTICATION_FAILED',
  'UNSUPPORTED_SASL_MECHANISM',
  'ILLEGAL_SASL_STATE',
])
const NO_LOGIN = new Set(['ILLEGAL_SASL_STATE'])
const KNOWN = 'credentials and rights that the broker knows'
const TOO_LARGE = new Set(['MESSAGE_TOO_LARGE', 'RECORD_LIST_TOO_LARGE'])
const UNKNOWN_TOPIC = new Set(['UNKNOWN_TOPIC_OR_PARTITION', 'UNKNOWN_TOPIC_ID', 'INCONSISTENT_TOPIC_ID'])
/** The broker may have stored it all the same. */
const MAYBE_STORED = new Set([
  'REQUEST_TIMED_OUT',
  'NOT_ENOUGH_REPLICAS_AFTER_APPEND',
  'NETWORK_EXCEPTION',
  'UNKNOWN_SERVER_ERROR',
  'KAFKA_STORAGE_ERROR',
])
const REFUSED_CONTENT = new Set([
  'CORRUPT_MESSAGE',
  'INVALID_RECORD',
  'INVALID_TIMESTAMP',
  'UNSUPPORTED_FOR_MESSAGE_FORMAT',
  'POLICY_VIOLATION',
])
const LEAVES_MAX = 200

/** The errors at the ends of the library's tree of errors, the last tries last. */
export function leavesOf(error: unknown, into: KafkaErrorLike[] = []): readonly KafkaErrorLike[] {
  if (into.length >= LEAVES_MAX) return into
  if (error instanceof AggregateError && error.errors.length > 0) {
    for (const each of error.errors) leavesOf(each, into)
  } else if (error instanceof Error) {
    const leaf: KafkaErrorLike = error
    into.push(leaf)
    if (error.cause !== undefined) leavesOf(error.cause, into)
  }
  return into
}

/** Whether the error, or one within it, has one of these names of Kafka's. */
export function hasApiId(error: unknown, ...ids: readonly string[]): boolean {
  return leavesOf(error).some(({ apiId }) => typeof apiId === 'string' && ids.includes(apiId))
}

/** Whether the broker does not know the topic, or knows another one by its name. */
export function isUnknownTopic(error: unknown): boolean {
  return leavesOf(error).some(
    ({ apiId, message }) => (typeof apiId === 'string' && UNKNOWN_TOPIC.has(apiId)) || message.startsWith('Unknown topic '),
  )
}

/** Whether it is about the membership itself: joining again is all that helps. */
export function isMembershipError(error: unknown): boolean {
  return hasApiId(error, 'ILLEGAL_GENERATION', 'UNKNOWN_MEMBER_ID', 'REBALANCE_IN_PROGRESS', 'FENCED_INSTANCE_ID', 'MEMBER_ID_REQUIRED')
}

/** Whether a produce request may have reached a broker before it failed: everything but a connection that was never made. */
export function mayHaveBeenSent(error: unknown): boolean {
  const leaves = leavesOf(error)
  return leaves.some(
    ({ message, apiId }) =>
      /^(?:Connection closed|Request timed out|Connection error)/.test(message) || (typeof apiId === 'string' && MAYBE_STORED.has(apiId)),
  )
}

/** Whether the broker could not be reached, rather than that it answered something. */
export function isOutage(error: unknown): boolean {
  return leavesOf(error).some(({ code }) => code === 'PLT_KFK_NETWORK')
}

/** Whether the broker does not let this user in at all; what a user may do there is another matter. */
export function isLoginRefused(error: unknown): boolean {
  return (
    leavesOf(error).some(({ code }) => code === 'PLT_KFK_AUTHENTICATION') ||
    hasApiId(error, 'SASL_AUTHENTICATION_FAILED', 'UNSUPPORTED_SASL_MECHANISM')
  )
}

/** Whether the broker answered that it can't yet: a leader or coordinator is being chosen, or is loading. */
export function isPassing(error: unknown): boolean {
  return (
    !isOutage(error) &&
    !isUnknownTopic(error) &&
    leavesOf(error).some(({ apiId, canRetry }) => typeof apiId === 'string' && canRetry === true)
  )
}

/** Makes a typed error of what the library throws; no message holds a secret. */
export function createErrors(address: string, hasCredentials: boolean): (error: unknown, what: string) => WaybillError {
  return (error, what) => {
    if (isWaybillError(error)) return error
    const leaves = leavesOf(error)
    const make = (code: WaybillErrorCode, text: string, allowed?: string): WaybillError =>
      new WaybillError(code, `${what}: ${text}`, { where: `Kafka at ${address}`, cause: error, ...(allowed !== undefined && { allowed }) })
    const byId = (ids: ReadonlySet<string>): KafkaErrorLike | undefined =>
      leaves.find(({ apiId }) => typeof apiId === 'string' && ids.has(apiId))

    if (leaves.some(({ code }) => code === 'PLT_KFK_AUTHENTICATION') || byId(DENIED) !== undefined)
      return make(
        'ACCESS_DENIED',
        deniedText(byId(DENIED)?.apiId),
        byId(NO_LOGIN) === undefined ? KNOWN : 'a listener with SASL, or no user',
      )
    const tls = tlsHint(leaves)
    if (tls !== undefined) return make('TRANSPORT_UNAVAILABLE', tls)
    const tooLarge = byId(TOO_LARGE)
    if (tooLarge !== undefined) return make('PAYLOAD_TOO_LARGE', 'the broker takes no batch of this size', 'max.message.bytes of the topic')
    const name = leaves.find(({ apiId }) => apiId === 'INVALID_TOPIC_EXCEPTION')
    if (name !== undefined)
      return make(
        'INVALID_NAME',
        String(name.serverErrorMessage ?? name.message),
        'a name that differs from all others in more than "." and "_"',
      )
    if (isUnknownTopic(error)) return make('TOPIC_MISSING', 'the broker does not have the topic')
    if (byId(REFUSED_CONTENT) !== undefined) return make('MESSAGE_REJECTED', leaves.map(messageOf).join('; '))
    const texts = [...new Set(leaves.map(({ message }) => message))].slice(-4).join('; ')
    const closed = !hasCredentials && /Connection closed/.test(texts)
    return make(
      'TRANSPORT_UNAVAILABLE',
      texts === '' ? messageOf(error) : texts,
      closed ? 'a listener that asks for neither TLS nor a login' : undefined,
    )
  }
}

function deniedText(apiId: unknown): string {
  if (apiId === 'UNSUPPORTED_SASL_MECHANISM') return 'the broker does not know this SASL mechanism'
  if (apiId === 'ILLEGAL_SASL_STATE') return 'this listener asks for no login (SASL), and looked at no credentials: is it the right port?'
  if (apiId === undefined || apiId === 'SASL_AUTHENTICATION_FAILED') return 'the broker refused the credentials'
  return `the user has no right to do this (${String(apiId)})`
}

function tlsHint(leaves: readonly KafkaErrorLike[]): string | undefined {
  for (const { message, code } of leaves) {
    if (/Broker requires TLS/.test(message)) return 'the server speaks TLS here: set tls'
    if (/TLS handshake failed/.test(message) || code === 'ERR_SSL_WRONG_VERSION_NUMBER' || /wrong version number/.test(message))
      return 'the server speaks no TLS here, or not on this port'
    if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return `the server's certificate is for another host: ${message}`
    if (typeof code === 'string' && /^(?:SELF_SIGNED|DEPTH_ZERO|UNABLE_TO_|CERT_)/.test(code))
      return `the server's certificate is not trusted (${code}): set its authority (tls.ca)`
  }
  return undefined
}
