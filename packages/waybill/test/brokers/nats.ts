import { ownServer, service } from 'waybill-services'
import { natsTransport } from '../../src/nats.ts'
import { startFaultProxy } from '../../src/testing/fault-proxy.ts'
import type { BrokerFixture, OwnBroker, Target } from './fixture.ts'

const MESSAGE_MAX_BYTES = 256 * 1024
const PARTITIONS = 4

/** A transport to `target`, as the tests want it: also for other processes. */
export const connect: BrokerFixture['connect'] = (target, { observe, clock } = {}) =>
  natsTransport({
    servers: target['url']!,
    partitions: PARTITIONS,
    messageMaxBytes: MESSAGE_MAX_BYTES,
    requestTimeoutMs: Number(target['requestTimeoutMs'] ?? 10_000),
    leaseMs: Number(target['leaseMs'] ?? 5000),
    ...(observe === undefined ? {} : { observe }),
    ...(clock === undefined ? {} : { clock }),
  })

async function shared(): Promise<Target | { readonly skipped: string }> {
  const found = await service('nats')
  return 'skipped' in found ? found : { url: found.url }
}

async function startOwn(): Promise<OwnBroker> {
  const server = await ownServer('nats')
  const proxy = await startFaultProxy({ target: { host: server.host, port: server.port } })
  return {
    target: { url: `nats://127.0.0.1:${proxy.port}`, requestTimeoutMs: '3000', leaseMs: '4000' },
    server,
    proxy,
    async close() {
      await proxy.close()
      await server.close()
    },
  }
}

export const broker: BrokerFixture = {
  name: 'nats',
  service: 'nats',
  shared,
  connect,
  startOwn,
  messageMaxBytes: MESSAGE_MAX_BYTES,
  versions: ['nats-server 2.15.1', '@nats-io/transport-node 3.4.0'],
}
