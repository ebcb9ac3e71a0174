import { WaybillError, isWaybillError, messageOf } from '../../core/errors.ts'

const HINTS: readonly (readonly [pattern: RegExp, hint: string])[] = [
  [/WRONG_VERSION_NUMBER|EPROTO|wrong version number|packet length too long/i, 'the server speaks no TLS there'],
  [
    /self-signed|SELF_SIGNED|UNABLE_TO_VERIFY|unable to (verify|get)|UNABLE_TO_GET|CERT_|certificate/i,
    "the server's certificate is not trusted: name its authority in tls.caPath (PULSAR_TLS_CERT_PATH)",
  ],
  [/ALTNAME/i, "the server's certificate is made for another host"],
  [/Parse Error|HPE_|socket hang up|ECONNRESET/i, 'the server closed at once: it may speak TLS only, or something else than HTTP'],
  [/ENOTFOUND|EAI_AGAIN/i, 'there is no such host'],
  [/ECONNREFUSED/i, 'nobody listens there'],
]

/** What kept us from an address, as `TRANSPORT_UNAVAILABLE` with a hint. */
export function unreachable(address: string, cause: unknown): WaybillError {
  if (isWaybillError(cause)) return cause
  return new WaybillError('TRANSPORT_UNAVAILABLE', `Pulsar can't be reached at ${whyNot(address, cause)}`, {
    where: 'pulsar transport',
    cause,
  })
}

/** The address, what happened there, and a hint. */
export function whyNot(address: string, cause: unknown): string {
  const code = typeof cause === 'object' && cause !== null && 'code' in cause ? String(cause.code) : ''
  const text = `${code} ${messageOf(cause)}`
  const hint = HINTS.find(([pattern]) => pattern.test(text))?.[1]
  return `${address}: ${messageOf(cause)}${hint === undefined ? '' : `; ${hint}`}`
}

const CLIENT_ERRORS = [
  [/AuthenticationError|AuthorizationError|NotAllowedError/i, 'ACCESS_DENIED'],
  [/TopicNotFound/i, 'TOPIC_MISSING'],
  [/MessageTooBig/i, 'PAYLOAD_TOO_LARGE'],
  [/ProducerQueueIsFull|MemoryBufferIsFull/i, 'QUEUE_FULL'],
  [/TopicTerminated/i, 'MESSAGE_REJECTED'],
] as const

/**
 * What a client threw, as one of ours: the official package tells by words only. `otherwise` is the code for what it does not name. A fault in the code
 * itself stays what it is.
 */
export function clientError(error: unknown, otherwise: 'TRANSPORT_UNAVAILABLE' | 'UNKNOWN_OUTCOME'): unknown {
  if (isWaybillError(error) || error instanceof TypeError || error instanceof ReferenceError || error instanceof RangeError) return error
  const text = messageOf(error)
  const code = CLIENT_ERRORS.find(([pattern]) => pattern.test(text))?.[1] ?? otherwise
  return new WaybillError(code, `Pulsar's client says: ${text}`, { where: 'pulsar transport', cause: error })
}

/** The answer of a server that refused something over HTTP. `what`: `subscribing to persistent://...`. */
export function refusedBy(status: number, body: string, what: string, address: string): WaybillError {
  const reason = reasonOf(body)
  const details = { where: `Pulsar at ${address}`, got: reason === '' ? status : `${status} ${reason}` }
  // What the WebSocket service couldn't do for us at the broker, it reports as its own failure: the text tells.
  if (status === 401 || status === 403 || (status >= 500 && /not authorized|authorization|authenticat|permission/i.test(reason)))
    return new WaybillError(
      'ACCESS_DENIED',
      // It says 401 too to who is known, and has no right to it.
      `Pulsar refuses ${what}: ${status === 401 && !/^unauthorized to /i.test(reason) ? 'the token is missing or wrong' : 'no right to it'}`,
      details,
    )
  if (status === 404) {
    if (/namespace|tenant|property/i.test(reason))
      return new WaybillError('TOPIC_MISSING', `Pulsar has no such tenant or namespace, for ${what}`, details)
    // A server without the service answers so too, but in other words.
    if (/topic|subscription|partition|Failed to create/i.test(reason))
      return new WaybillError('TOPIC_MISSING', `Pulsar has no such topic, for ${what}`, details)
    return new WaybillError(
      'TRANSPORT_UNAVAILABLE',
      `there is no such service at ${address}: is ${/^wss?:/.test(address) ? 'webSocketServiceEnabled set there' : 'it the admin interface'}?`,
      details,
    )
  }
  if (status >= 500 && /topic.{0,40}(not (found|exist)|does not exist)/i.test(reason))
    return new WaybillError('TOPIC_MISSING', `Pulsar has no such topic, for ${what}`, details)
  if (status === 412 && isBusy(body)) return new WaybillError('TRANSPORT_UNAVAILABLE', `Pulsar is busy with ${what}`, details)
  if (status === 400 || status === 405 || status === 412)
    return new WaybillError(
      /plain HTTP|HTTPS|TLS|SSL/i.test(reason) ? 'TRANSPORT_UNAVAILABLE' : 'UNSUPPORTED',
      `Pulsar refuses ${what}`,
      details,
    )
  return new WaybillError('TRANSPORT_UNAVAILABLE', `Pulsar can't do it now: ${what}, at ${address}`, details)
}

/** Whether a broker refuses a subscription because somebody else makes or moves it at this moment. */
export const isBusy = (body: string): boolean => /subscription busy|failed to fence/i.test(body)

const REASON_MAX = 300

/** The sentence in an answer, on one line: of JSON, Pulsar's own or that of the server within it, or of a page of HTML. */
export function reasonOf(body: string): string {
  const json = /"(?:reason|message)"\s*:\s*("(?:[^"\\]|\\.)*")/.exec(body)?.[1]
  if (json !== undefined) return oneLine(unquoted(json))
  const title = /<title>([^<]*)<\/title>/i.exec(body)?.[1] ?? body
  const text = title.replaceAll('&quot;', '"').replaceAll('&apos;', "'").replaceAll('&#39;', "'")
  return oneLine(/"errorMsg"\s*:\s*"([^"]+)"/.exec(text)?.[1] ?? text)
}

const oneLine = (text: string): string => text.replaceAll(/\s+/g, ' ').trim().slice(0, REASON_MAX)

function unquoted(json: string): string {
  try {
    return String(JSON.parse(json))
  } catch {
    return json.slice(1, -1)
  }
}
