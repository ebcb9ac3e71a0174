import { redisPubSub } from '../../src/redis.ts'
import type { BrokerFixture } from './fixture.ts'
import { sharedRedis, startOwnRedis } from './redis.ts'

const MESSAGE_MAX_BYTES = 256 * 1024

/** A transport to `target`, as the tests want it: also for other processes. */
export const connect: BrokerFixture['connect'] = (target, { observe, clock } = {}) =>
  redisPubSub({
    url: target['url']!,
    messageMaxBytes: MESSAGE_MAX_BYTES,
    requestTimeoutMs: Number(target['requestTimeoutMs'] ?? 10_000),
    ...(observe === undefined ? {} : { observe }),
    ...(clock === undefined ? {} : { clock }),
  })

export const broker: BrokerFixture = {
  name: 'redis-pubsub',
  service: 'redis',
  shared: sharedRedis,
  connect,
  startOwn: startOwnRedis,
  messageMaxBytes: MESSAGE_MAX_BYTES,
  versions: ['Redis 7.0', 'redis 6.3.1'],
}
