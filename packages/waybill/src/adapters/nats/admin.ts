import { WaybillError, isWaybillError } from '../../core/errors.ts'
import { checkTopic } from '../../core/names.ts'
import type { BrokerReport, TopicReport, TransportAdmin } from '../../core/transport.ts'
import type { JetStreamApi } from './api.ts'
import { newId } from '../../core/ids.ts'
import { JS, isJetStreamError, toWaybillError } from './failures.ts'
import { fromNatsSubject, natsPartitionSubject, natsSubject } from './names.ts'
import type { AdapterParts } from './partition.ts'
import { countMembers } from './presence.ts'
import type { GroupRecord } from './records.ts'
import { type StreamInfo, partitionsOf } from './streams.ts'

interface Account {
  readonly storage: number
  readonly limits?: { readonly max_storage?: number }
  readonly api?: { readonly level?: number }
}

const TOPICS_MAX = 10_000
const PAGE = 256

/** Looks at streams, and at the positions of groups. */
export function createAdmin(parts: AdapterParts): TransportAdmin {
  const { api, records, connection, options } = parts

  async function allTopics(signal: AbortSignal): Promise<readonly StreamInfo[]> {
    const all: StreamInfo[] = []
    for (let offset = 0; all.length < TOPICS_MAX;) {
      signal.throwIfAborted()
      const page = await api.ask<{ total: number; streams?: StreamInfo[] | null }>('STREAM.LIST', {
        offset,
        subject: `${options.prefix}.>`,
      })
      const found = page.streams ?? []
      all.push(...found)
      offset += Math.max(found.length, PAGE * Number(found.length === 0))
      if (offset >= page.total || found.length === 0) break
    }
    return all
  }

  async function infoOf(topic: string): Promise<StreamInfo> {
    try {
      return await api.ask<StreamInfo>(`STREAM.INFO.${parts.streams.nameOf(topic)}`)
    } catch (error) {
      if (!isJetStreamError(error, JS.streamMissing)) throw error
      throw new WaybillError('TOPIC_MISSING', `there is no topic ${topic}`, { got: topic, where: 'nats transport', cause: error })
    }
  }

  async function report(info: StreamInfo, topic: string): Promise<TopicReport> {
    const found = await records.list(topic)
    const groups = new Map<string, { partition: number; record: GroupRecord }[]>()
    for (const { group, partition, record } of found) groups.set(group, [...(groups.get(group) ?? []), { partition, record }])
    return {
      topic,
      brokerName: info.config.name,
      partitions: partitionsOf(info.config) ?? options.partitions,
      messages: info.state.messages,
      groups: await Promise.all(
        [...groups]
          .toSorted(([one], [other]) => (one < other ? -1 : 1))
          .map(async ([group, each]) => ({
            group,
            members: await countMembers(connection, options, topic, group),
            lag: await lagOf(info, topic, each),
          })),
      ),
    }
  }

  async function lagOf(info: StreamInfo, topic: string, each: readonly { partition: number; record: GroupRecord }[]): Promise<number> {
    const lags = await Promise.all(
      each.map(async ({ partition, record }) => {
        const filters = [
          natsPartitionSubject(options.prefix, topic, partition),
          ...(partition === 0 ? [natsSubject(options.prefix, topic)] : []),
        ]
        const from = record.stream === info.created ? record : { upTo: 0, open: [], at: undefined }
        return from.open.length + (await countAfter(api, info.config.name, filters, from))
      }),
    )
    return lags.reduce((sum, lag) => sum + lag, 0)
  }

  return {
    async topics(names, signal) {
      try {
        if (names === undefined) {
          const infos = await allTopics(signal)
          const known = infos.flatMap((info) => {
            const topic = topicOf(info, options.prefix)
            return topic === undefined ? [] : [{ info, topic }]
          })
          const sorted = known.toSorted((one, other) => (one.topic < other.topic ? -1 : 1))
          const reports: TopicReport[] = []
          for (const { info, topic } of sorted.slice(0, TOPICS_MAX)) {
            signal.throwIfAborted()
            reports.push(await report(info, topic))
          }
          return reports
        }
        const reports: TopicReport[] = []
        for (const topic of [...new Set(names)].map(checkTopic).toSorted()) {
          signal.throwIfAborted()
          reports.push(await report(await infoOf(topic), topic))
        }
        return reports
      } catch (error) {
        throw signal.aborted ? signal.reason : toWaybillError(error, 'nats transport')
      }
    },
    async examine() {
      await connection.ready()
      const { info } = connection
      const settings: Record<string, string> = {
        max_payload: String(info?.max_payload ?? 'unknown'),
        'stream replicas': String(options.replicas),
        'stream storage': options.storage,
        'stream max_age': options.maxAgeMs === 0 ? 'unlimited' : `${options.maxAgeMs} ms`,
      }
      const findings: BrokerReport['findings'][number][] = []
      try {
        const account = await api.ask<Account>('INFO')
        settings['jetstream storage used'] = String(account.storage)
        settings['jetstream storage limit'] = String(account.limits?.max_storage ?? -1)
      } catch (error) {
        if (isWaybillError(error) || !isJetStreamError(error)) throw toWaybillError(error, 'nats transport')
        findings.push({
          level: 'error',
          text: `JetStream is not there: ${error.message}`,
          advice: 'switch it on for the server and the account (`jetstream {}` in the configuration)',
        })
      }
      findings.push(...findingsOf(parts, info?.max_payload))
      return { product: 'NATS', version: info?.version ?? 'unknown', address: options.address, settings, findings }
    },
  }
}

function topicOf(info: StreamInfo, prefix: string): string | undefined {
  const named = info.config.metadata?.['waybill-topic']
  const bare = (info.config.subjects ?? []).map((subject) => fromNatsSubject(prefix, subject)?.topic)
  const topic = named ?? bare.find((one) => one !== undefined)
  try {
    return topic !== undefined && bare.includes(topic) ? checkTopic(topic) : undefined
  } catch {
    // A stream of somebody else's.
    return undefined
  }
}

/** How many messages follow a position: a consumer that is made and removed again tells. */
async function countAfter(
  api: JetStreamApi,
  stream: string,
  filters: readonly string[],
  { upTo, at }: Pick<GroupRecord, 'upTo' | 'at'>,
): Promise<number> {
  const name = `waybill-count-${newId().replaceAll('-', '')}`
  const start =
    at !== undefined && upTo === 0
      ? { deliver_policy: 'by_start_time', opt_start_time: at }
      : { deliver_policy: 'by_start_sequence', opt_start_seq: upTo + 1 }
  const made = await api.ask<{ num_pending?: number }>(`CONSUMER.CREATE.${stream}.${name}`, {
    stream_name: stream,
    action: 'create',
    config: {
      name,
      ack_policy: 'none',
      mem_storage: true,
      num_replicas: 1,
      inactive_threshold: 5_000_000_000,
      ...start,
      ...(filters.length === 1 ? { filter_subject: filters[0] } : { filter_subjects: filters }),
    },
  })
  await api.ask(`CONSUMER.DELETE.${stream}.${name}`).catch(() => undefined)
  return made.num_pending ?? 0
}

function findingsOf({ options }: AdapterParts, payloadMax: number | undefined): BrokerReport['findings'][number][] {
  const findings: BrokerReport['findings'][number][] = []
  const warn = (text: string, advice: string): void => void findings.push({ level: 'warning', text, advice })
  if (options.storage === 'memory') warn('streams are kept in memory: a restart of the server loses them', "storage: 'file'")
  if (options.replicas === 1) warn('each stream has one copy: a lost disk loses it', 'replicas: 3 in a cluster of three servers')
  warn(
    'the server answers before what it stored is on the disk (it syncs every 2 minutes unless told otherwise): a power cut can lose what was acknowledged',
    'sync_interval: always in the configuration of the server, or replicas on machines that do not fail together',
  )
  if (payloadMax !== undefined && payloadMax < options.messageMaxBytes + 65_536)
    warn(
      `the server takes ${payloadMax} bytes with headers, less than bodies of ${options.messageMaxBytes} bytes may need`,
      'a larger max_payload in its configuration, or a smaller messageMaxBytes',
    )
  return findings
}
