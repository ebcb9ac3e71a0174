import { WaybillError } from '../../core/errors.ts'
import type { BrokerReport, TopicReport, TransportAdmin } from '../../core/transport.ts'
import type { KafkaAdminLike } from './client.ts'
import { isLoginRefused, isOutage, isUnknownTopic } from './errors.ts'
import { examineKafka } from './examine.ts'
import type { Health } from './health.ts'
import { kafkaTopicName, topicOfKafkaName } from './names.ts'
import { earliestOffsets, latestOffsets, placeOf } from './offsets.ts'
import type { CheckedKafkaOptions } from './options.ts'
import { patiently } from './pace.ts'

export interface KafkaAdminOptions {
  readonly admin: KafkaAdminLike
  readonly options: CheckedKafkaOptions
  readonly health: Health
  readonly toError: (error: unknown, what: string) => WaybillError
}

const TOPICS_MAX = 10_000
const GROUPS_MAX = 10_000
const DIVIDING: ReadonlySet<string> = new Set(['PreparingRebalance', 'CompletingRebalance'])

interface GroupState {
  readonly group: string
  /** Members, by what they subscribe to. */
  readonly subscriptions: readonly (readonly string[])[]
  /** By place. */
  readonly committed: ReadonlyMap<string, bigint>
}

/** A look at a Kafka cluster. */
export function createKafkaAdmin({ admin, options, health, toError }: KafkaAdminOptions): TransportAdmin {
  async function asked<T>(what: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(options.requestTimeoutMs * 2)])
    const cut = new Promise<never>((_, reject) => {
      limit.addEventListener(
        'abort',
        () => reject(new WaybillError('TRANSPORT_UNAVAILABLE', `${what}: no answer in time`, { where: options.address })),
        {
          once: true,
        },
      )
    })
    cut.catch(() => undefined)
    try {
      const answer = await Promise.race([patiently(options.clock, options.requestTimeoutMs, limit, work), cut])
      health.up()
      return answer
    } catch (error) {
      const failure = toError(error, what)
      if (isOutage(error) || isLoginRefused(error)) health.down(failure)
      throw failure
    }
  }

  async function reports(names: readonly string[] | undefined): Promise<readonly TopicReport[]> {
    const wanted =
      names === undefined ? (await admin.listTopics()).filter((name) => topicOfKafkaName(name) !== undefined) : names.map(kafkaTopicName)
    const brokerNames = [...new Set(wanted)].toSorted().slice(0, TOPICS_MAX)
    if (brokerNames.length === 0) return []
    const { topics } = await admin.metadata({ topics: brokerNames, forceUpdate: true }).catch(async (error: unknown) => {
      throw names !== undefined && isUnknownTopic(error) ? await missingTopic(brokerNames, error) : error
    })
    const partitioned = brokerNames.map((topic) => ({
      topic,
      partitions: Array.from({ length: topics.get(topic)?.partitionsCount ?? 0 }, (_, index) => index),
    }))
    const [oldest, newest, groups] = await Promise.all([
      earliestOffsets(admin, partitioned),
      latestOffsets(admin, partitioned),
      groupStates(admin),
    ])
    return partitioned.map(({ topic, partitions }) => {
      const places = partitions.map((partition) => placeOf(topic, partition))
      return {
        topic,
        brokerName: topic,
        partitions: partitions.length,
        messages: sum(places.map((place) => (newest.get(place) ?? 0n) - (oldest.get(place) ?? 0n))),
        groups: groups
          .filter(
            ({ committed, subscriptions }) =>
              places.some((place) => committed.has(place)) || subscriptions.some((read) => read.includes(topic)),
          )
          .map(({ group, committed, subscriptions }) => ({
            group,
            members: subscriptions.filter((read) => read.includes(topic)).length,
            lag: sum(places.map((place) => lagOf(committed.get(place), oldest.get(place) ?? 0n, newest.get(place) ?? 0n))),
          })),
      }
    })
  }

  /** The broker's refusal does not say which of several it means. */
  async function missingTopic(brokerNames: readonly string[], cause: unknown): Promise<unknown> {
    const there = new Set(await admin.listTopics())
    const topic = brokerNames.find((name) => !there.has(name))
    if (topic === undefined) return cause
    return new WaybillError('TOPIC_MISSING', `there is no topic ${topic}`, { got: topic, where: `Kafka at ${options.address}`, cause })
  }

  return {
    topics: (names, signal) => asked('looking at topics', signal, () => reports(names)),
    examine: (signal): Promise<BrokerReport> => asked('looking at the broker', signal, () => examineKafka(admin, options)),
  }
}

async function groupStates(admin: KafkaAdminLike): Promise<readonly GroupState[]> {
  const groups = [...(await admin.listGroups()).keys()].toSorted().slice(0, GROUPS_MAX)
  if (groups.length === 0) return []
  const [described, offsets] = await Promise.all([admin.describeGroups({ groups }), admin.listConsumerGroupOffsets({ groups })])
  return groups.map((group) => ({
    group,
    // While a group divides its partitions anew, nobody has a place in it.
    subscriptions: DIVIDING.has(described.get(group)?.state ?? '')
      ? []
      : [...(described.get(group)?.members.values() ?? [])].map(({ metadata }) => metadata?.topics ?? []),
    committed: new Map(
      (offsets.find(({ groupId }) => groupId === group)?.topics ?? []).flatMap(({ name, partitions }) =>
        partitions
          .filter(({ committedOffset }) => committedOffset >= 0n)
          .map(({ partitionIndex, committedOffset }) => [placeOf(name, partitionIndex), committedOffset] as const),
      ),
    ),
  }))
}

const sum = (counts: readonly bigint[]): number => Number(counts.reduce((total, count) => total + (count > 0n ? count : 0n), 0n))
const lagOf = (committed: bigint | undefined, oldest: bigint, newest: bigint): bigint =>
  newest - (committed === undefined || committed < oldest ? oldest : committed)
