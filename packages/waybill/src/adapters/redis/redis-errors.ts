import { WaybillError, type WaybillErrorCode, isWaybillError, messageOf } from '../../core/errors.ts'

/** The word in capitals that an error reply begins with (`NOGROUP`, `OOM` ...); undefined for what is none. */
export function replyCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || 'errno' in error) return undefined
  return /^([A-Z][A-Z0-9]+)(?= |$)/.exec(error.message)?.[1]
}

const CODES: Readonly<Record<string, WaybillErrorCode>> = {
  NOAUTH: 'ACCESS_DENIED',
  WRONGPASS: 'ACCESS_DENIED',
  NOPERM: 'ACCESS_DENIED',
  OOM: 'QUEUE_FULL',
  WRONGTYPE: 'DECLARATION_DIFFERS',
  LEASELOST: 'LEASE_LOST',
  NOGROUP: 'POSITION_LOST',
  MOVED: 'UNSUPPORTED',
  ASK: 'UNSUPPORTED',
  CROSSSLOT: 'UNSUPPORTED',
  LOADING: 'TRANSPORT_UNAVAILABLE',
  BUSY: 'TRANSPORT_UNAVAILABLE',
  READONLY: 'TRANSPORT_UNAVAILABLE',
  MASTERDOWN: 'TRANSPORT_UNAVAILABLE',
  CLUSTERDOWN: 'TRANSPORT_UNAVAILABLE',
  TRYAGAIN: 'TRANSPORT_UNAVAILABLE',
  MISCONF: 'TRANSPORT_UNAVAILABLE',
  NOREPLICAS: 'TRANSPORT_UNAVAILABLE',
  UNBLOCKED: 'TRANSPORT_UNAVAILABLE',
}

const HINTS: Readonly<Record<string, string>> = {
  OOM: 'the server has no memory left (maxmemory)',
  MISCONF: 'the server can not write to its disk, and refuses to store',
  READONLY: 'this server is a replica',
  LOADING: 'the server reads its file',
  WRONGTYPE: 'a key that the topic needs holds something else',
  MOVED: 'the server is one of a Redis Cluster',
}

/** An error reply, typed. */
export function replyError(code: string, cause: unknown, where: string): WaybillError {
  // The words of the server name users and commands, never passwords.
  const said = messageOf(cause).replace(/ script: [0-9a-f]{40}.*$/, '')
  return new WaybillError(CODES[code] ?? 'MESSAGE_REJECTED', `the server refuses: ${HINTS[code] ?? said}`, { where, cause })
}

/** What a command failed with: a refusal by the server, or a connection that broke, after which it may have been carried out. */
export function commandError(error: unknown, where: string): WaybillError {
  if (isWaybillError(error)) return error
  const code = replyCode(error)
  if (code !== undefined) return replyError(code, error, where)
  if (error instanceof Error && (error.message === 'The client is closed' || error.message === 'The client is offline'))
    return new WaybillError('TRANSPORT_UNAVAILABLE', 'the connection to the Redis server is closed', { where, cause: error })
  return new WaybillError('UNKNOWN_OUTCOME', `the connection broke before the answer: ${messageOf(error)}`, { where, cause: error })
}

/** What a connection could not be made for. */
export function connectError(
  error: unknown,
  { address, isTls }: { readonly address: string; readonly isTls: boolean },
  where: string,
): WaybillError {
  if (isWaybillError(error)) return error
  const code = replyCode(error)
  if (code !== undefined && code !== 'ERR') {
    const typed = replyError(code, error, where)
    return new WaybillError(typed.code, `${address}: ${typed.message}`, { where, cause: error })
  }
  // Without AUTH set up, a server that is given a password says `ERR AUTH <password> called without any password configured`.
  if (code === 'ERR' && messageOf(error).includes('AUTH'))
    return new WaybillError('ACCESS_DENIED', `${address}: the server knows no such password`, { where, cause: error })
  return new WaybillError('TRANSPORT_UNAVAILABLE', `no connection to the Redis server at ${address}: ${hintFor(error, isTls)}`, {
    where,
    cause: error,
  })
}

function hintFor(error: unknown, isTls: boolean): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  if (code === 'ECONNREFUSED') return 'nothing listens there'
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return 'there is no such host'
  // A plain server waits for the end of a line that a TLS greeting does not have.
  if (isTls && (/WRONG_VERSION|EPROTO|ECONNRESET/.test(code) || /no answer|timeout/i.test(messageOf(error))))
    return `the server speaks no TLS here? Then say redis:// (${messageOf(error)})`
  if (/CERT|ISSUER|SIGNATURE|ALTNAME/.test(code))
    return `its certificate is not trusted: give its authority as tls.ca (${messageOf(error)})`
  if (!isTls && /closed unexpectedly|ECONNRESET|Unknown RESP/.test(`${code} ${messageOf(error)}`))
    return `it hangs up; where it speaks TLS, say rediss:// (${messageOf(error)})`
  return messageOf(error)
}
