import { type Socket, connect } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { BrokerReport } from '../../core/transport.ts'
import { whyNot } from './connect-errors.ts'
import type { PulsarOptions } from './options.ts'
import { tlsOptions } from './rest.ts'

/** By which address messages go. */
export type MessageAddress = 'webSocketUrl' | 'serviceUrl'

const VARIABLES: Readonly<Record<MessageAddress, string>> = { webSocketUrl: 'PULSAR_WEB_SOCKET_URL', serviceUrl: 'PULSAR_URL' }
const PORTS: Readonly<Record<string, number>> = { 'ws:': 80, 'wss:': 443, 'pulsar:': 6650, 'pulsar+ssl:': 6651 }

/** Connects and ends: an error as a finding where nobody takes connections there, within the limit of a request. */
export async function whetherReachable(by: MessageAddress, options: PulsarOptions, signal: AbortSignal): Promise<BrokerReport['findings']> {
  const url = options[by]
  const { requestTimeoutMs } = options
  let socket: Socket | undefined
  try {
    await new Promise<void>((resolve, reject) => {
      const isTls = url.protocol === 'wss:' || url.protocol === 'pulsar+ssl:'
      const place = { host: url.hostname.replace(/^\[|\]$/g, ''), port: Number(url.port) || PORTS[url.protocol]! }
      socket = isTls ? connectTls({ ...place, ...tlsOptions(options.tls) }) : connect(place)
      socket.once(isTls ? 'secureConnect' : 'connect', resolve).once('error', reject)
      socket.setTimeout(requestTimeoutMs, () => reject(new Error(`no answer within ${requestTimeoutMs} ms`)))
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
    })
    return []
  } catch (error) {
    signal.throwIfAborted()
    return [
      {
        level: 'error',
        text: `nothing can be published or read at ${whyNot(`${url.protocol}//${url.host}`, error)}`,
        advice: `start the service there; or correct ${by} (${VARIABLES[by]})`,
      },
    ]
  } finally {
    socket?.on('error', () => undefined).destroy()
  }
}
