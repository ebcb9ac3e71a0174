import { ownServer, service } from 'waybill-services'
import { pulsarTransport } from '../../src/pulsar.ts'
import { startFaultProxy } from '../../src/testing/fault-proxy.ts'
import type { BrokerFixture, Target } from './fixture.ts'

const MESSAGE_MAX_BYTES = 512 * 1024

/** Topics without partitions, as is usual for Pulsar: Key_Shared spreads keys over members without them. */
export const connect: BrokerFixture['connect'] = (target, options = {}) =>
  pulsarTransport({
    provider: 'websocket',
    serviceUrl: target['url']!,
    webSocketUrl: target['webSocketUrl']!,
    adminUrl: target['adminUrl']!,
    messageMaxBytes: MESSAGE_MAX_BYTES,
    // Soon enough for tests that delete what is read.
    watchIntervalMs: 1_000,
    ...options,
  })

const targetOf = (url: string, extra: Readonly<Record<string, string>>): Target => ({
  url,
  webSocketUrl: extra['webSocketUrl']!,
  adminUrl: extra['adminUrl']!,
})

export const broker: BrokerFixture = {
  name: 'pulsar',
  service: 'pulsar',
  messageMaxBytes: MESSAGE_MAX_BYTES,
  versions: ['Pulsar 4.2.4 (WebSocket API)', 'ws 8.23.0'],
  async shared() {
    const found = await service('pulsar')
    return 'skipped' in found ? { skipped: found.skipped } : targetOf(found.url, found.extra)
  },
  connect,
  async startOwn() {
    const server = await ownServer('pulsar')
    const web = new URL(server.extra['adminUrl']!)
    const proxy = await startFaultProxy({ target: { host: web.hostname, port: Number(web.port) } })
    return {
      // The WebSocket service and the admin interface share a port; nothing of ours speaks to the other one.
      target: targetOf(server.url, { webSocketUrl: `ws://127.0.0.1:${proxy.port}`, adminUrl: `http://127.0.0.1:${proxy.port}` }),
      server,
      proxy,
      async close() {
        await proxy.close()
        await server.close()
      },
    }
  },
}
