import { redisCli } from '../../../../services/redis.ts'
import { redisPartition, redisStreamName } from '../../src/redis.ts'
import { type ForeignClient, interopTests, runClient } from './interop/interop.ts'
import { broker } from './redis.ts'

const NAME = 'redis-cli'
/** As the fixture's transports make their topics. */
const PARTITIONS = 4

async function cliClient(): Promise<ForeignClient> {
  const program = await redisCli()
  return {
    name: NAME,
    async consume(target, topic, who) {
      const stream = redisStreamName(topic, redisPartition('o-1', PARTITIONS))
      const run = (...command: readonly string[]): Promise<string> => runClient(program, ['-u', target['url']!, '--raw', ...command])
      await run('XGROUP', 'CREATE', stream, who, '0')
      const printed = await run('XREADGROUP', 'GROUP', who, 'cli', 'COUNT', '1', 'STREAMS', stream, '>')
      // Stream, id, and then fields and values, a line each; nothing in them has a line end.
      const [, id = '', ...pairs] = printed.trimEnd().split('\n')
      const field = (name: string): string => pairs[pairs.indexOf(name) + 1] ?? ''
      await run('XACK', stream, who, id)
      return { key: field('key'), headers: JSON.parse(field('headers')) as Record<string, string>, body: field('body') }
    },
    async publish(target, topic, key, body) {
      const stream = redisStreamName(topic, redisPartition(key, PARTITIONS))
      await runClient(program, ['-u', target['url']!, 'XADD', stream, '*', 'key', key, 'body', body])
    },
  }
}

interopTests(broker, async () => [await cliClient()], [NAME])
