import { Agent as HttpAgent, type IncomingMessage, request as httpRequest } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { WaybillError } from '../../core/errors.ts'
import { refusedBy, unreachable } from './connect-errors.ts'
import type { PulsarOptions } from './options.ts'

/** An answer that is one: not refused for want of rights, and not a failure of the server. */
export interface RestAnswer {
  readonly status: number
  readonly text: string
}

/** Pulsar's admin interface. */
export interface PulsarRest {
  readonly address: string
  /**
   * `path` begins after `/admin/v2`. `accept`: statuses above 299 that are answers too.
   * @throws WaybillError `TRANSPORT_UNAVAILABLE` | `ACCESS_DENIED` | `TOPIC_MISSING` | `UNSUPPORTED`
   */
  call(
    method: 'GET' | 'PUT' | 'POST',
    path: string,
    extra?: { readonly body?: string; readonly accept?: readonly number[]; readonly signal?: AbortSignal },
  ): Promise<RestAnswer>
  close(): void
}

const REDIRECTS_MAX = 5
const ANSWER_MAX = 64 * 1024 * 1024
const SOCKETS_MAX = 8

/** Over `node:http`, since `fetch` takes no certificates. */
export function createRest({ adminUrl, adminFrom, tls, token, requestTimeoutMs }: PulsarOptions): PulsarRest {
  const http = new HttpAgent({ keepAlive: true, maxSockets: SOCKETS_MAX })
  const https = new HttpsAgent({ keepAlive: true, maxSockets: SOCKETS_MAX, ...tlsOptions(tls) })
  const address = adminUrl.origin
  // Who has not given an address must learn from an error where it comes from.
  const place = adminFrom === undefined ? address : `${address} (which follows from ${adminFrom}; adminUrl, PULSAR_ADMIN_URL, is not set)`

  async function ask(url: URL, method: string, body: string | undefined, signal: AbortSignal, redirects = 0): Promise<RestAnswer> {
    const headers: Record<string, string> = { accept: 'application/json, text/plain' }
    if (token !== undefined) headers['authorization'] = `Bearer ${await token()}`
    if (body !== undefined) {
      headers['content-type'] = 'application/json'
      headers['content-length'] = String(Buffer.byteLength(body))
    }
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const options = { method, headers, signal }
      const sent =
        url.protocol === 'https:' ? httpsRequest(url, { ...options, agent: https }) : httpRequest(url, { ...options, agent: http })
      sent.once('response', resolve).once('error', reject).end(body)
    })
    const text = await readText(response)
    const { statusCode: status = 0 } = response
    const { location } = response.headers
    // A topic belongs to one broker of the cluster; the others say which.
    if (status >= 300 && status < 400 && location !== undefined && redirects < REDIRECTS_MAX)
      return ask(new URL(location, url), method, body, signal, redirects + 1)
    return { status, text }
  }

  return {
    address,
    async call(method, path, { body, accept = [], signal } = {}) {
      const timeout = AbortSignal.timeout(requestTimeoutMs)
      const stop = signal === undefined ? timeout : AbortSignal.any([signal, timeout])
      let answer: RestAnswer
      try {
        answer = await ask(new URL(`${adminUrl.href.replace(/\/$/, '')}/admin/v2${path}`), method, body, stop)
      } catch (cause) {
        if (timeout.aborted) throw unreachable(place, new Error(`no answer within ${requestTimeoutMs} ms`, { cause }))
        throw unreachable(place, cause)
      }
      if ((answer.status >= 200 && answer.status < 300) || accept.includes(answer.status)) return answer
      throw refusedBy(answer.status, answer.text, `${method} ${decodeURIComponent(path)}`, place)
    },
    close() {
      http.destroy()
      https.destroy()
    },
  }
}

/** How Node's TLS is told; nothing where the system's certificates will do. */
export function tlsOptions({ ca, validateHostname }: PulsarOptions['tls']): { ca?: string; checkServerIdentity?: () => undefined } {
  return { ...(ca === undefined ? {} : { ca }), ...(validateHostname ? {} : { checkServerIdentity: () => undefined }) }
}

async function readText(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  let bytes = 0
  for await (const part of response as AsyncIterable<Buffer>) {
    bytes += part.byteLength
    if (bytes > ANSWER_MAX)
      throw new WaybillError('TRANSPORT_UNAVAILABLE', "the broker's answer is too long", {
        allowed: `at most ${ANSWER_MAX} bytes`,
        where: 'pulsar transport',
      })
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}
