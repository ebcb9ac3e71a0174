import { type WaybillErrorCode, WaybillError, isWaybillError, messageOf } from '../../core/errors.ts'

/** An error that JetStream answered with. */
export class JetStreamError extends Error {
  override readonly name = 'JetStreamError'
  /** Like an HTTP status. */
  readonly code: number
  /** JetStream's own number for it. */
  readonly errCode: number
  constructor(code: number, errCode: number, description: string) {
    super(description)
    this.code = code
    this.errCode = errCode
  }
}

/** Numbers of JetStream's errors that mean something to us. */
export const JS = { streamMissing: 10059, consumerMissing: 10014, noMessage: 10037, wrongLastSequence: 10071, nameInUse: 10058 } as const

export const isJetStreamError = (error: unknown, ...errCodes: readonly number[]): error is JetStreamError =>
  error instanceof JetStreamError && (errCodes.length === 0 || errCodes.includes(error.errCode))

/** Storage, message, byte and account limits. */
const FULL = new Set([10002, 10023, 10028, 10047, 10076, 10077, 10122])

/** A message, or its headers, which the server takes 64 KiB of. */
const TOO_LARGE = new Set([10054, 10097])

/** Why a message was not stored, as one of ours. */
export function toPublishError(error: JetStreamError, where: string): WaybillError {
  const code: WaybillErrorCode = FULL.has(error.errCode)
    ? 'QUEUE_FULL'
    : TOO_LARGE.has(error.errCode)
      ? 'PAYLOAD_TOO_LARGE'
      : error.code === 503 || error.code === 500
        ? 'TRANSPORT_UNAVAILABLE'
        : 'MESSAGE_REJECTED'
  return new WaybillError(code, `the server did not store the message: ${error.message} (${error.errCode})`, { where, cause: error })
}

/** Anything that a look at the server can end in, as one of ours. */
export function toWaybillError(error: unknown, where: string): WaybillError {
  if (isWaybillError(error)) return error
  if (error instanceof JetStreamError) {
    const code: WaybillErrorCode =
      error.errCode === JS.streamMissing
        ? 'TOPIC_MISSING'
        : error.code === 503 || error.code === 500
          ? 'TRANSPORT_UNAVAILABLE'
          : 'MESSAGE_REJECTED'
    return new WaybillError(code, `JetStream answered: ${error.message} (${error.errCode})`, { where, cause: error })
  }
  return new WaybillError('TRANSPORT_UNAVAILABLE', messageOf(error), { where, cause: error })
}

/** What a failed connection means, with a hint what to look at. `address` is without credentials. */
export function connectError(cause: unknown, address: string, where: string): WaybillError {
  const text = messageOf(cause)
  const name = cause instanceof Error ? cause.name : ''
  if (/authori[sz]ation|authentication|nkey|jwt|permission/i.test(`${name} ${text}`))
    return new WaybillError('ACCESS_DENIED', `${address} refused the credentials: ${text}`, { where, cause })
  return new WaybillError('TRANSPORT_UNAVAILABLE', `${address} can't be reached: ${text}${hintFor(cause, text)}`, { where, cause })
}

function hintFor(cause: unknown, text: string): string {
  const code = codeOf(cause)
  if (/does not support 'tls'|tls.*not available/i.test(text)) return ': the server speaks no TLS here'
  if (/SELF_SIGNED|UNABLE_TO_(?:GET|VERIFY)|CERT_|DEPTH_ZERO|ERR_TLS_CERT/.test(code))
    return ': its certificate is not trusted; give the authority that signed it as tls.ca'
  if (/ERR_SSL|EPROTO|ssl|tls/i.test(`${code} ${text}`)) return ': do both sides speak TLS, with certificates that the other one trusts?'
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return ': is the host name right?'
  if (code === 'ECONNREFUSED' || /refused/.test(text)) return ': does a server listen on that port?'
  return ''
}

function codeOf(error: unknown): string {
  for (let at: unknown = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++) {
    if ('code' in at && typeof at.code === 'string') return at.code
  }
  return ''
}
