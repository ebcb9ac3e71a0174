import type { BrokerReport } from '../../core/transport.ts'
import type { KafkaAdminLike } from './client.ts'
import { hasApiId } from './errors.ts'
import type { CheckedKafkaOptions } from './options.ts'

const BROKER = 4
const NAMES = [
  'default.replication.factor',
  'min.insync.replicas',
  'unclean.leader.election.enable',
  'auto.create.topics.enable',
  'log.retention.hours',
  'log.retention.ms',
  'log.retention.bytes',
  'offsets.retention.minutes',
  'offsets.topic.replication.factor',
  'message.max.bytes',
  'group.min.session.timeout.ms',
  'group.max.session.timeout.ms',
] as const

/**
 * What a cluster's settings mean for what is published. The protocol names no version of the broker; what it can do tells about which one it is.
 */
export async function examineKafka(admin: KafkaAdminLike, options: CheckedKafkaOptions): Promise<BrokerReport> {
  const [apis, metadata] = await Promise.all([admin.listApis(), admin.metadata({ topics: [], forceUpdate: true })])
  const told = await brokerSettings(admin, [...metadata.brokers.keys()][0])
  const settings = told ?? {}
  return {
    product: 'Kafka',
    version: versionOf(apis),
    address: options.address,
    settings: { brokers: String(metadata.brokers.size), ...settings },
    findings: [...(told === undefined ? [UNTOLD] : []), ...findingsOf(settings, metadata.brokers.size, options)],
  }
}

/** Also the mark of a user without any rights: topics that one may not see Kafka hides, rather than to refuse the question. */
const UNTOLD = {
  level: 'warning',
  text: "this user may not read the broker's settings: whether one of them loses messages is not known, nor what else the user may do",
  advice: 'Allow the user DescribeConfigs on the cluster; and Describe, Read and Write on its topics, Read on its groups',
} as const satisfies BrokerReport['findings'][number]

/** Undefined where this user may not read them. */
async function brokerSettings(admin: KafkaAdminLike, node: number | undefined): Promise<Readonly<Record<string, string>> | undefined> {
  if (node === undefined) return {}
  try {
    const [described] = await admin.describeConfigs({
      resources: [{ resourceType: BROKER, resourceName: String(node), configurationKeys: [...NAMES] }],
    })
    return Object.fromEntries(
      (described?.configs ?? []).filter(({ value }) => typeof value === 'string').map(({ name, value }) => [name, String(value)]),
    )
  } catch (error) {
    // Who may publish need not be allowed to read the broker's settings.
    if (hasApiId(error, 'CLUSTER_AUTHORIZATION_FAILED')) return undefined
    throw error
  }
}

/** The first version with such an API: from the newest down. */
const SINCE: readonly (readonly [version: string, api: string, maxVersion: number])[] = [
  ['4.1 or newer', 'StreamsGroupHeartbeat', 0],
  ['4.1 or newer', 'DescribeShareGroupOffsets', 0],
  ['4.0', 'Fetch', 17],
  ['3.7 to 3.9', 'Fetch', 16],
  ['3.5 or 3.6', 'Fetch', 15],
  ['3.1 to 3.4', 'Fetch', 13],
]

function versionOf(apis: readonly { readonly name: string; readonly maxVersion: number }[]): string {
  const highest = new Map(apis.map(({ name, maxVersion }) => [name, maxVersion]))
  return SINCE.find(([, api, maxVersion]) => (highest.get(api) ?? -1) >= maxVersion)?.[0] ?? 'older than 3.1'
}

function findingsOf(settings: Readonly<Record<string, string>>, brokers: number, options: CheckedKafkaOptions): BrokerReport['findings'] {
  const found: { level: 'warning' | 'error'; text: string; advice: string }[] = []
  const add = (level: 'warning' | 'error', text: string, advice: string): void => void found.push({ level, text, advice })
  const replicas = options.replicationFactor > 0 ? options.replicationFactor : Number(settings['default.replication.factor'] ?? Number.NaN)
  const inSync = Number(settings['min.insync.replicas'] ?? Number.NaN)
  if (settings['unclean.leader.election.enable'] === 'true')
    add(
      'error',
      'unclean.leader.election.enable is true: a copy that is behind may become leader, and what it lacks is lost',
      'Set it to false',
    )
  if (replicas === 1)
    add(
      'warning',
      'new topics have one copy: they are lost with its disk, and stand still while its broker is away',
      'Use 3 brokers and KAFKA_REPLICATION_FACTOR=3',
    )
  else if (inSync === 1)
    add('warning', 'min.insync.replicas is 1: what is acknowledged may be on one broker only', 'Set min.insync.replicas=2')
  if (replicas > 1 && inSync >= replicas)
    add(
      'warning',
      `min.insync.replicas is ${inSync} of ${replicas}: publishing stops when one broker is away`,
      'Keep one replica more than min.insync.replicas',
    )
  if (brokers > 0 && replicas > brokers)
    add(
      'error',
      `topics need ${replicas} brokers, and there are ${brokers}: none can be made`,
      'Add brokers, or lower KAFKA_REPLICATION_FACTOR',
    )
  if (settings['offsets.topic.replication.factor'] === '1' && brokers > 1)
    add(
      'warning',
      'offsets.topic.replication.factor is 1: groups lose their positions with one disk',
      'Set it to 3 before the first group is made',
    )
  const retentionHours =
    Number(settings['log.retention.ms'] ?? Number.NaN) / 3_600_000 || Number(settings['log.retention.hours'] ?? Number.NaN)
  if (retentionHours > 0 && retentionHours < 24)
    add(
      'warning',
      `messages are kept for ${retentionHours} hours: a group that is away for longer misses some`,
      'Keep them for longer than any outage: log.retention.hours=168',
    )
  const session = options.sessionTimeoutMs
  if (
    session < Number(settings['group.min.session.timeout.ms'] ?? 0) ||
    session > Number(settings['group.max.session.timeout.ms'] ?? Infinity)
  )
    add(
      'error',
      `the broker takes no sessions of ${session} ms: groups can't be joined`,
      'Choose sessionTimeoutMs within group.min.session.timeout.ms and group.max.session.timeout.ms',
    )
  return found.toSorted((a, b) => (a.level === b.level ? 0 : a.level === 'error' ? -1 : 1))
}
