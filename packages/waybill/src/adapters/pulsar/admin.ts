import { WaybillError, isWaybillError } from '../../core/errors.ts'
import type { BrokerReport, TopicReport, TransportAdmin } from '../../core/transport.ts'
import { type MessageAddress, whetherReachable } from './reachable.ts'
import type { Health } from './health.ts'
import { groupOfSubscription, pulsarTopicName, topicOfPulsarName } from './names.ts'
import type { PulsarOptions } from './options.ts'
import type { PulsarRest } from './rest.ts'
import type { TopicStats } from './topics.ts'
import { pathOf } from './web-socket-client.ts'

const TOPICS_MAX = 10_000

/** Looks at the broker by its admin interface. */
export function createPulsarAdmin(rest: PulsarRest, options: PulsarOptions, health: Health, messagesBy?: MessageAddress): TransportAdmin {
  const { home } = options
  const space = `${home.tenant}/${home.namespace}`
  const read = async (path: string, signal: AbortSignal): Promise<unknown> => JSON.parse((await rest.call('GET', path, { signal })).text)

  /** What it says of the broker is told to whoever watches the transport. */
  async function asked<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    try {
      const answer = await work()
      health.up()
      return answer
    } catch (error) {
      if (!signal.aborted) health.failed(error)
      throw error
    }
  }

  async function allTopics(signal: AbortSignal): Promise<readonly string[]> {
    const names = [
      ...((await read(`/${home.persistence}/${space}`, signal)) as string[]),
      ...((await read(`/${home.persistence}/${space}/partitioned`, signal)) as string[]),
    ]
    const topics = new Set(names.map((name) => topicOfPulsarName(name, home)).filter((topic) => topic !== undefined))
    return [...topics].toSorted().slice(0, TOPICS_MAX)
  }

  async function report(topic: string, signal: AbortSignal): Promise<TopicReport> {
    const brokerName = pulsarTopicName(topic, home)
    const path = `/${pathOf(brokerName)}`
    const { partitions } = (await read(`${path}/partitions`, signal)) as { readonly partitions: number }
    const stats = (await read(partitions === 0 ? `${path}/stats` : `${path}/partitioned-stats?perPartition=false`, signal)) as TopicStats
    const groups = Object.entries(stats.subscriptions ?? {})
      .filter(([, { isDurable }]) => isDurable !== false)
      .map(([name, { consumers, msgBacklog }]) => ({ group: groupOfSubscription(name), members: consumers?.length, lag: msgBacklog }))
      .toSorted((a, b) => (a.group < b.group ? -1 : 1))
    const messages = await stored(path, partitions, signal)
    return { topic, brokerName, partitions: Math.max(partitions, 1), messages, groups }
  }

  /** Entries in the ledgers that are there: without batches, messages. */
  async function stored(path: string, partitions: number, signal: AbortSignal): Promise<number | undefined> {
    if (home.persistence !== 'persistent') return undefined
    const answer = (await read(`${path}/${partitions === 0 ? 'internalStats' : 'partitioned-internalStats'}`, signal)) as InternalStats
    const parts = partitions === 0 ? [answer] : Object.values(answer.partitions ?? {})
    return parts.reduce((sum, part) => sum + (part.numberOfEntries ?? 0), 0)
  }

  return {
    topics: (names, signal) =>
      asked(signal, async () => {
        const reports: TopicReport[] = []
        for (const topic of names?.toSorted() ?? (await allTopics(signal)))
          reports.push(
            await report(topic, signal).catch((error: unknown) => {
              throw isTopicMissing(error) ? missing(topic, error) : error
            }),
          )
        return reports
      }),
    examine: (signal) => asked(signal, () => examine(signal)),
  }

  async function examine(signal: AbortSignal): Promise<BrokerReport> {
    const version = (await rest.call('GET', '/brokers/version', { signal })).text.trim()
    const policies = (await read(`/namespaces/${space}`, signal)) as Policies
    const runtime = await runtimeSettings(signal)
    const settings = settingsOf(policies, runtime)
    // The admin interface may answer where messages can't be sent.
    const unreachable = messagesBy === undefined ? [] : await whetherReachable(messagesBy, options, signal)
    const findings = [...unreachable, ...findingsOf(settings, options)]
    return { product: 'Apache Pulsar', version, address: rest.address, settings, findings }
  }

  /** For superusers only; a program needs no such right. */
  async function runtimeSettings(signal: AbortSignal): Promise<Readonly<Record<string, string>>> {
    const { status, text } = await rest.call('GET', '/brokers/configuration/runtime', { signal, accept: [401, 403] })
    return status === 200 ? (JSON.parse(text) as Record<string, string>) : {}
  }
}

/** Not that of a tenant or namespace, which says so. */
const isTopicMissing = (error: unknown): boolean => isWaybillError(error, 'TOPIC_MISSING') && !/namespace/.test(error.message)

const missing = (topic: string, cause: unknown): WaybillError =>
  new WaybillError('TOPIC_MISSING', `there is no topic ${topic}`, { got: topic, where: 'pulsar transport', cause })

interface InternalStats {
  readonly numberOfEntries?: number
  readonly partitions?: Readonly<Record<string, InternalStats>>
}

interface Policies {
  readonly persistence?: {
    readonly bookkeeperEnsemble?: number
    readonly bookkeeperWriteQuorum?: number
    readonly bookkeeperAckQuorum?: number
  } | null
  readonly backlog_quota_map?: Readonly<
    Record<string, { readonly limitSize?: number; readonly limitTime?: number; readonly policy?: string }>
  >
  readonly message_ttl_in_seconds?: number | null
  readonly retention_policies?: { readonly retentionTimeInMinutes?: number; readonly retentionSizeInMB?: number } | null
  readonly subscription_expiration_time_minutes?: number | null
}

const RUNTIME = [
  'allowAutoTopicCreation',
  'brokerDeleteInactiveTopicsEnabled',
  'brokerDeduplicationEnabled',
  'journalSyncData',
  'maxMessageSize',
  'maxUnackedMessagesPerConsumer',
  'maxUnackedMessagesPerSubscription',
  'subscriptionExpirationTimeMinutes',
  'webSocketMaxTextFrameSize',
]

function settingsOf(policies: Policies, runtime: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const quota = (name: keyof NonNullable<Policies['persistence']>, setting: string): string =>
    String(policies.persistence?.[name] ?? runtime[setting] ?? 'unknown')
  const backlog = policies.backlog_quota_map?.['destination_storage']
  const settings: Record<string, string> = {
    ensembleSize: quota('bookkeeperEnsemble', 'managedLedgerDefaultEnsembleSize'),
    writeQuorum: quota('bookkeeperWriteQuorum', 'managedLedgerDefaultWriteQuorum'),
    ackQuorum: quota('bookkeeperAckQuorum', 'managedLedgerDefaultAckQuorum'),
    messageTTLInSeconds: String(policies.message_ttl_in_seconds ?? runtime['ttlDurationDefaultInSeconds'] ?? 'unknown'),
    backlogQuotaPolicy: backlog?.policy ?? runtime['backlogQuotaDefaultRetentionPolicy'] ?? 'unknown',
    backlogQuotaLimitBytes: String(backlog?.limitSize ?? runtime['backlogQuotaDefaultLimitBytes'] ?? 'unknown'),
    retentionMinutes: String(policies.retention_policies?.retentionTimeInMinutes ?? runtime['defaultRetentionTimeInMinutes'] ?? 'unknown'),
  }
  for (const name of RUNTIME) if (runtime[name] !== undefined) settings[name] = runtime[name]
  const expiration = policies.subscription_expiration_time_minutes ?? undefined
  if (expiration !== undefined) settings['subscriptionExpirationTimeMinutes'] = String(expiration)
  return settings
}

function findingsOf(
  settings: Readonly<Record<string, string>>,
  { home, subscriptionType, messageMaxBytes }: PulsarOptions,
): BrokerReport['findings'] {
  const findings: BrokerReport['findings'][number][] = []
  const add = (level: 'warning' | 'error', text: string, advice: string): void => void findings.push({ level, text, advice })
  const number = (name: string): number => Number(settings[name] ?? Number.NaN)
  if (home.persistence === 'non-persistent') add('error', 'non-persistent topics keep nothing', "use persistence: 'persistent'")
  if (settings['backlogQuotaPolicy'] === 'consumer_backlog_eviction' && number('backlogQuotaLimitBytes') > 0)
    add('error', 'a full backlog is thrown away unread (consumer_backlog_eviction)', 'set the backlog quota to producer_request_hold')
  if (number('messageTTLInSeconds') > 0)
    add(
      'error',
      `what a group has not read within ${settings['messageTTLInSeconds']} s is thrown away`,
      'set the message TTL of the namespace to 0',
    )
  if (number('subscriptionExpirationTimeMinutes') > 0)
    add('warning', 'a group that is away for long loses its position (subscriptionExpirationTimeMinutes)', 'set it to 0 for this namespace')
  if (number('ackQuorum') === 1)
    add(
      'warning',
      `a message is acknowledged by one bookie (ackQuorum 1): it is gone with its disk`,
      'use an ensemble of 3, write quorum 3, ack quorum 2',
    )
  if (settings['journalSyncData'] === 'false')
    add('warning', 'bookies acknowledge before the disk has it (journalSyncData)', 'set journalSyncData to true')
  if (messageMaxBytes !== undefined && number('maxMessageSize') < messageMaxBytes)
    add(
      'warning',
      `the broker takes ${settings['maxMessageSize']} bytes only, messageMaxBytes is ${messageMaxBytes}`,
      'lower messageMaxBytes or raise maxMessageSize',
    )
  if (subscriptionType === 'Shared') add('warning', 'Shared subscriptions keep no order', 'use Key_Shared where order matters')
  return findings.toSorted((a, b) => (a.level === b.level ? 0 : a.level === 'error' ? -1 : 1))
}
