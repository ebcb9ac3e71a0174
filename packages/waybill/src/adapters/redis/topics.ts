import { WaybillError } from '../../core/errors.ts'
import type { Link } from './link.ts'
import type { RedisKeys } from './names.ts'
import { TOPIC } from './scripts.ts'

/** How many partitions each topic has: what the server says, which the first one to use the topic has told it. */
export interface Topics {
  known(topic: string): number | undefined
  /** Asks, and makes the topic where that is allowed. @throws WaybillError `TOPIC_MISSING`, and those of a call */
  ensure(topic: string): Promise<number>
  /** Asks anew next time. */
  forget(): void
}

export interface TopicsOptions {
  readonly where: string
  readonly link: Link
  readonly keys: RedisKeys
  /** For topics that are made. */
  readonly partitions: number
  readonly createTopics: boolean
}

const TOPICS_MAX = 10_000

export function createTopics({ where, link, keys, partitions, createTopics: mayCreate }: TopicsOptions): Topics {
  const found = new Map<string, number>()
  const asking = new Map<string, Promise<number>>()

  async function ask(topic: string): Promise<number> {
    const answer = Number(await link.script(TOPIC, [keys.topic(topic)], [mayCreate ? String(partitions) : '0']))
    if (answer === 0)
      throw new WaybillError(
        'TOPIC_MISSING',
        `there is no topic ${topic} at the Redis server, and it may not be made (createTopics is false)`,
        {
          got: topic,
          where,
        },
      )
    if (found.size >= TOPICS_MAX) found.clear()
    found.set(topic, answer)
    return answer
  }

  return {
    known: (topic) => found.get(topic),
    ensure(topic) {
      const current = asking.get(topic)
      if (current !== undefined) return current
      const asked = ask(topic).finally(() => asking.delete(topic))
      asking.set(topic, asked)
      return asked
    },
    forget: () => found.clear(),
  }
}
