import { ownServer, service } from 'waybill-services'
import { redisTransport } from '../../src/redis.ts'
import { startFaultProxy } from '../../src/testing/fault-proxy.ts'
import type { BrokerFixture, OwnBroker, Target } from './fixture.ts'

const MESSAGE_MAX_BYTES = 256 * 1024
const PARTITIONS = 4

/** A transport to `target`, as the tests want it: also for other processes. */
export const connect: BrokerFixture['connect'] = (target, { observe, clock } = {}) =>
  redisTransport({
    url: target['url']!,
    partitions: PARTITIONS,
    messageMaxBytes: MESSAGE_MAX_BYTES,
    requestTimeoutMs: Number(target['requestTimeoutMs'] ?? 10_000),
    leaseMs: Number(target['leaseMs'] ?? 10_000),
    ...(observe === undefined ? {} : { observe }),
    ...(clock === undefined ? {} : { clock }),
  })

/** Where the shared server is, or why there is none. */
export async function sharedRedis(): Promise<Target | { readonly skipped: string }> {
  const found = await service('redis')
  return 'skipped' in found ? found : { url: found.url }
}

/** A server with an append-only file, and a line to it. */
export async function startOwnRedis(): Promise<OwnBroker> {
  const server = await ownServer('redis')
  const proxy = await startFaultProxy({ target: { host: server.host, port: server.port } })
  return {
    target: { url: `redis://127.0.0.1:${proxy.port}`, requestTimeoutMs: '3000', leaseMs: '3000' },
    server,
    proxy,
    async close() {
      await proxy.close()
      await server.close()
    },
  }
}

export const broker: BrokerFixture = {
  name: 'redis',
  service: 'redis',
  shared: sharedRedis,
  connect,
  startOwn: startOwnRedis,
  messageMaxBytes: MESSAGE_MAX_BYTES,
  versions: ['Redis 7.0', 'redis 6.3.1'],
}
