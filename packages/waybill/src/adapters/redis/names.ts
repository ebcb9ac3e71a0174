import { crc32 } from 'node:zlib'
import { WaybillError } from '../../core/errors.ts'
import { checkTopic } from '../../core/names.ts'

/** Most partitions of a topic. */
export const PARTITIONS_MAX = 1024
const PREFIX = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/

/** The keys of one transport. What belongs to one partition shares a hash tag, and so a slot of a cluster. */
export interface RedisKeys {
  readonly prefix: string
  /** A hash: `partitions`. */
  topic(topic: string): string
  stream(topic: string, partition: number): string
  lease(stream: string, group: string): string
  fence(stream: string): string
  members(topic: string, group: string): string
  bell(topic: string, group: string): string
  /** The topic of a `topic()` key. */
  topicOf(key: string): string | undefined
}

/** @throws WaybillError `INVALID_OPTION` */
export function redisKeys(prefix: unknown, where: string): RedisKeys {
  if (typeof prefix !== 'string' || !PREFIX.test(prefix))
    throw new WaybillError('INVALID_OPTION', `${where} is not usable`, {
      got: prefix,
      allowed: '1 to 64 letters, digits, "_", "." and "-"',
      where,
    })
  return {
    prefix,
    topic: (topic) => `${prefix}:{${topic}}`,
    stream: (topic, partition) => `${prefix}:{${topic}:${partition}}`,
    lease: (stream, group) => `${stream}:lease:${group}`,
    fence: (stream) => `${stream}:fence`,
    members: (topic, group) => `${prefix}:{${topic}}:members:${group}`,
    bell: (topic, group) => `${prefix}:{${topic}}:bell:${group}`,
    topicOf: (key) => (key.startsWith(`${prefix}:{`) && key.endsWith('}') ? usableTopic(key.slice(prefix.length + 2, -1)) : undefined),
  }
}

function usableTopic(name: string): string | undefined {
  try {
    return checkTopic(name)
  } catch {
    return undefined
  }
}

/** The stream that holds a partition of a topic. @throws WaybillError `INVALID_NAME` | `INVALID_OPTION` */
export function redisStreamName(topic: string, partition: number, prefix = 'waybill'): string {
  return redisKeys(prefix, 'prefix').stream(checkTopic(topic), partition)
}

/** What a stream's name stands for; undefined for a stream that is none of ours. */
export function parseRedisStreamName(name: string, prefix = 'waybill'): { readonly topic: string; readonly partition: number } | undefined {
  const found = /^\{([^:{}]+):(0|[1-9]\d{0,3})\}$/.exec(name.startsWith(`${prefix}:`) ? name.slice(prefix.length + 1) : '')
  const topic = found === null ? undefined : usableTopic(found[1]!)
  return topic === undefined ? undefined : { topic, partition: Number(found![2]) }
}

/** The partition of a key: CRC-32 (as in zlib) of its UTF-8 bytes, modulo the topic's partitions. */
export function redisPartition(key: string, partitions: number): number {
  return partitions === 1 ? 0 : crc32(key) % partitions
}
