import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { transportFromEnvironment } from 'waybill'
import { ownServerOrSkip } from 'waybill-services'
import { startCommand } from '../testing/command-process.ts'
import { eventMessage } from '../testing/memory-module.ts'
import { until } from '../testing/relay-process.ts'

const redis = await ownServerOrSkip('redis')
after(async () => {
  if (!('skipped' in redis)) await redis.close()
})

const PUBLISH_MAX_MS = 60_000

test(
  'a broker that goes away under a tail is said on stderr, and the tail goes on when it is back',
  { skip: 'skipped' in redis && redis.skipped },
  async () => {
    if ('skipped' in redis) return
    const env = { MESSAGE_BUS_TYPE: 'redis', REDIS_URL: redis.url }
    const transport = await transportFromEnvironment(env)
    const publish = async (n: number): Promise<boolean> => {
      const [outcome] = await transport.publish(
        [eventMessage('shop.Sold', 'k', { n }, { event_id: `e-${n}` })],
        AbortSignal.timeout(PUBLISH_MAX_MS),
      )
      return outcome!.kind === 'stored'
    }
    const tail = startCommand(['tail', 'shop.Sold', '--from', 'earliest', '--json'], { env })
    const seen = (): readonly string[] =>
      tail
        .stdout()
        .split('\n')
        .slice(0, -1)
        .map((line) => (JSON.parse(line) as { id: string }).id)
    try {
      assert.ok(await publish(1))
      await until('the first', () => seen().includes('e-1'))
      await redis.stop('kill')
      await until('it to say that the broker is away', () => /^redis does not answer, trying again: /m.test(tail.stderr()))
      await redis.start()
      await until('the second to be stored', () => publish(2))
      await until('the second', () => seen().includes('e-2'))
      await until('it to say that the broker is back', () => /^redis answers again$/m.test(tail.stderr()))
      assert.deepEqual(seen(), ['e-1', 'e-2'])
      tail.kill('SIGINT')
      assert.equal((await tail.ended).code, 0)
    } finally {
      tail.kill('SIGKILL')
      await transport.close()
    }
  },
)
