import Fastify from 'fastify'
import { WaybillError } from 'waybill'
import { messageOf } from '../cli/printable.ts'
import type { Health } from './health.ts'

export interface HttpOptions {
  readonly host: string
  /** 0: any free one. */
  readonly port: number
  readonly health: Health
  readonly metrics: { metrics(): Promise<string>; readonly contentType: string }
}

const REQUEST_MS = 10_000
const BODY_MAX_BYTES = 1024

/**
 * Serves `GET /metrics`, `GET /health` and `GET /ready`.
 * @throws WaybillError `INVALID_SETTING` where the address can't be had
 */
export async function serveHttp({ host, port, health, metrics }: HttpOptions): Promise<{ readonly url: string; close(): Promise<void> }> {
  const server = Fastify({ bodyLimit: BODY_MAX_BYTES, requestTimeout: REQUEST_MS, forceCloseConnections: true })
  server.get('/metrics', async (_, reply) => {
    const text = await metrics.metrics()
    return reply.type(metrics.contentType).send(text)
  })
  for (const name of ['health', 'ready'] as const) {
    server.get(`/${name}`, async (_, reply) => {
      const { ok, ...report } = await health[name]()
      return reply
        .code(ok ? 200 : 503)
        .header('cache-control', 'no-store')
        .send(report)
    })
  }
  try {
    const url = await server.listen({ host, port })
    return { url, close: () => server.close() }
  } catch (cause) {
    await server.close()
    throw new WaybillError('INVALID_SETTING', `metrics and health can't be served on ${host}:${port}: ${reasonOf(cause)}`, {
      allowed: 'a free port of this machine (--host, --port; HOST, PORT), or --no-http',
      cause,
    })
  }
}

const REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'the port is in use',
  EADDRNOTAVAIL: 'this machine has no such address',
  EACCES: 'this user may not use that port',
  ENOTFOUND: 'there is no such host',
}

function reasonOf(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException
  return (code === undefined ? undefined : REASONS[code]) ?? messageOf(error)
}
