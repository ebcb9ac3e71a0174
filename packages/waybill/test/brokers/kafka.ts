import { ownServer, service } from 'waybill-services'
import { kafkaTransport } from '../../src/kafka.ts'
import { startFaultProxy } from '../../src/testing/fault-proxy.ts'
import type { BrokerFixture, OwnBroker, Target } from './fixture.ts'

const MESSAGE_MAX_BYTES = 256 * 1024
const PARTITIONS = 4

/** A transport to `target`, as the tests want it: also for other processes. */
export const connect: BrokerFixture['connect'] = (target, { observe, clock } = {}) =>
  kafkaTransport({
    bootstrapServers: target['bootstrapServers']!.split(','),
    partitions: PARTITIONS,
    messageMaxBytes: MESSAGE_MAX_BYTES,
    requestTimeoutMs: Number(target['requestTimeoutMs'] ?? 10_000),
    // The shared server may be one that takes no shorter ones.
    sessionTimeoutMs: Number(target['sessionTimeoutMs'] ?? 6_000),
    ...(observe === undefined ? {} : { observe }),
    ...(clock === undefined ? {} : { clock }),
  })

/** Where the shared server is, or why there is none. */
export async function sharedKafka(): Promise<Target | { readonly skipped: string }> {
  const found = await service('kafka')
  return 'skipped' in found ? found : { bootstrapServers: found.url }
}

/** A broker, and a line to it. It tells clients where it is, so it must name the line's own port. */
export async function startOwnKafka(settings: Readonly<Record<string, string>> = {}): Promise<OwnBroker> {
  const behind = { host: '127.0.0.1', port: 1 }
  const proxy = await startFaultProxy({ target: behind })
  const server = await ownServer('kafka', {
    settings: { 'advertised.listeners': `PLAINTEXT://127.0.0.1:${proxy.port}`, ...settings },
  })
  behind.port = server.port
  return {
    target: { bootstrapServers: `127.0.0.1:${proxy.port}`, requestTimeoutMs: '3000', sessionTimeoutMs: '3000' },
    server,
    proxy,
    async close() {
      await proxy.close()
      await server.close()
    },
  }
}

export const broker: BrokerFixture = {
  name: 'kafka',
  service: 'kafka',
  shared: sharedKafka,
  connect,
  startOwn: startOwnKafka,
  messageMaxBytes: MESSAGE_MAX_BYTES,
  versions: ['Kafka 4.1.0', '@platformatic/kafka 2.12.1'],
}
