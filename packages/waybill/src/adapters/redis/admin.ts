import { isWaybillError, WaybillError } from '../../core/errors.ts'
import type { BrokerReport, TopicReport, TransportAdmin } from '../../core/transport.ts'
import { checkTopic } from '../../core/names.ts'
import type { Link } from './link.ts'
import type { RedisKeys } from './names.ts'
import { PROBED, missingRights } from './rights.ts'
import { askServer } from './server-check.ts'

export interface AdminOptions {
  readonly where: string
  readonly link: Link
  readonly keys: RedisKeys
  readonly address: string
}

const TOPICS_MAX = 10_000
const SCAN_COUNT = '1000'

/** Looks, and changes nothing. */
export function createAdmin({ where, link, keys, address }: AdminOptions): TransportAdmin {
  const call = (args: readonly string[]): Promise<unknown> => answered(link.call(args))

  /** Nothing is changed, so that a lost answer is just that. */
  async function answered<T>(asked: Promise<T>): Promise<T> {
    try {
      return await asked
    } catch (error) {
      if (!isWaybillError(error, 'UNKNOWN_OUTCOME')) throw error
      throw new WaybillError('TRANSPORT_UNAVAILABLE', 'the connection broke before the answer', { where, cause: error })
    }
  }

  async function allTopics(signal: AbortSignal): Promise<readonly string[]> {
    const topics = new Set<string>()
    let cursor = '0'
    do {
      signal.throwIfAborted()
      const match = ['MATCH', `${keys.prefix}:{*}`, 'COUNT', SCAN_COUNT, 'TYPE', 'hash']
      const [next, names] = (await call(['SCAN', cursor, ...match])) as readonly [string, readonly string[]]
      cursor = next
      for (const name of names) {
        const topic = keys.topicOf(name)
        if (topic !== undefined) topics.add(topic)
      }
    } while (cursor !== '0' && topics.size < TOPICS_MAX)
    // SCAN shows keys of others too, so that one without any right to ours would hear that there are none.
    if (topics.size === 0) await call(['EXISTS', keys.topic(PROBED)])
    return [...topics].toSorted().slice(0, TOPICS_MAX)
  }

  async function report(topic: string): Promise<TopicReport | undefined> {
    const partitions = Number(await call(['HGET', keys.topic(topic), 'partitions']))
    if (partitions === 0) return undefined
    const streams = Array.from({ length: partitions }, (_, partition) => keys.stream(topic, partition))
    const lengths = await Promise.all(streams.map(async (stream) => Number(await call(['XLEN', stream]))))
    const groups = new Map<string, { lag: number | undefined }>()
    for (const [name, lag] of (await Promise.all(streams.map(groupsOf))).flat()) {
      const group = groups.get(name) ?? { lag: 0 }
      group.lag = group.lag === undefined || lag === undefined ? undefined : group.lag + lag
      groups.set(name, group)
    }
    return {
      topic,
      brokerName: keys.topic(topic),
      partitions,
      messages: lengths.reduce((sum, length) => sum + length, 0),
      groups: await Promise.all([...groups].map(async ([group, { lag }]) => ({ group, lag, members: await membersOf(topic, group) }))),
    }
  }

  async function groupsOf(stream: string): Promise<readonly (readonly [name: string, lag: number | undefined])[]> {
    if (Number(await call(['EXISTS', stream])) === 0) return []
    const groups = (await call(['XINFO', 'GROUPS', stream])) as readonly (readonly unknown[])[]
    return groups.map((flat) => {
      const fields = new Map<unknown, unknown>()
      for (let at = 0; at + 1 < flat.length; at += 2) fields.set(flat[at], flat[at + 1])
      const lag = fields.get('lag')
      return [String(fields.get('name')), typeof lag === 'number' ? lag + Number(fields.get('pending')) : undefined] as const
    })
  }

  async function membersOf(topic: string, group: string): Promise<number> {
    const [seconds] = (await call(['TIME'])) as readonly [string]
    return Number(await call(['ZCOUNT', keys.members(topic, group), String(Number(seconds) * 1000), '+inf']))
  }

  return {
    async topics(names, signal) {
      const wanted = names === undefined ? await allTopics(signal) : [...new Set(names.map(checkTopic))].toSorted()
      const reports: TopicReport[] = []
      for (const topic of wanted) {
        signal.throwIfAborted()
        const found = await report(topic)
        if (found !== undefined) reports.push(found)
        else if (names !== undefined) throw new WaybillError('TOPIC_MISSING', `there is no topic ${topic}`, { got: topic, where })
      }
      return reports
    },
    async examine(signal): Promise<BrokerReport> {
      signal.throwIfAborted()
      // What a user may not be told the report leaves open; that he is not let in at all, it must not.
      await answered(link.client())
      const { version, settings, findings } = await askServer((args) => call(args.map(String)))
      const missing = await missingRights({ call, keys, allTopics: () => allTopics(signal) })
      return { product: 'Redis', version, address, settings, findings: [...missing, ...findings] }
    },
  }
}
