import { WaybillError } from '../../core/errors.ts'
import { requirePeer } from '../../core/peer.ts'
import type { NatsLibrary, NatsLike } from './client.ts'
import type { CheckedNatsOptions } from './options.ts'

const RECONNECT_MS = 250
/** An unanswered one of these in a row, and the connection counts as lost. */
const PING_MS = 2000
const PINGS_OUT_MAX = 2
const GATHER_BYTES = 256 * 1024

/** Loads the client, unless one is handed in. @throws WaybillError `PEER_MISSING` */
export async function loadLibrary(options: CheckedNatsOptions): Promise<NatsLibrary> {
  if (options.library !== undefined) return options.library
  return requirePeer('@nats-io/transport-node', async () => (await import('@nats-io/transport-node')) as unknown as NatsLibrary)
}

/** Opens connections. They reconnect by themselves, without end. */
export function createDial(library: NatsLibrary, options: CheckedNatsOptions): () => Promise<NatsLike> {
  const { user, password, token, nkeySeed, creds, tls } = options
  const bytes = (text: string): Uint8Array => Buffer.from(text)
  let authenticator: ((nonce?: string) => unknown) | undefined
  try {
    if (nkeySeed !== undefined) authenticator = library.nkeyAuthenticator(bytes(nkeySeed.trim()))
    if (creds !== undefined) authenticator = library.credsAuthenticator(bytes(creds))
    // It looks at them only when it is asked to sign.
    authenticator?.('nonce')
  } catch {
    // What the client says of it may show the secret.
    throw new WaybillError('INVALID_OPTION', 'the credentials are no nkey seed or creds file', {
      allowed: 'what nsc or nk made',
      where: 'natsTransport',
    })
  }
  return () =>
    library.connect({
      servers: options.servers.map((server) => server.replace(/^\w+:\/\//, '')),
      name: options.clientName,
      inboxPrefix: options.inboxPrefix,
      timeout: options.requestTimeoutMs,
      maxReconnectAttempts: -1,
      reconnectTimeWait: RECONNECT_MS,
      reconnectJitter: RECONNECT_MS,
      reconnectJitterTLS: RECONNECT_MS,
      pingInterval: PING_MS,
      maxPingOut: PINGS_OUT_MAX,
      noAsyncTraces: true,
      // Bytes that it gathers before it writes within a turn: a whole batch of messages goes with one call.
      pendingLimit: GATHER_BYTES,
      ...(user === undefined ? {} : { user, pass: password }),
      ...(token === undefined ? {} : { token }),
      ...(authenticator === undefined ? {} : { authenticator }),
      // Without it a server that offers TLS is spoken to in the clear, and one that demands it refuses.
      ...(tls === undefined ? {} : { tls: { ...tls } }),
    })
}
