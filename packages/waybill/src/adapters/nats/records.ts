import { JS, isJetStreamError, toWaybillError } from './failures.ts'
import type { JetStreamApi } from './api.ts'
import { natsToken } from './names.ts'
import type { CheckedNatsOptions } from './options.ts'
import { type Streams, storageConfig } from './streams.ts'

/** How far a group has come in a partition, and who works on it. One message of a key-value bucket, replaced as a whole. */
export interface GroupRecord {
  readonly topic: string
  readonly group: string
  /** The member that holds it; null: nobody. */
  readonly owner: string | null
  /** Rises with each new owner. */
  readonly epoch: number
  /** How long an owner that does not write any more keeps it. */
  readonly leaseMs: number
  /** The stream that the sequences are of: when it was made. */
  readonly stream: string
  /** All up to this sequence are settled, but for those of `open`. */
  readonly upTo: number
  readonly open: readonly number[]
  /** Where a group begins that has settled nothing yet; `upTo` is 0 then. */
  readonly at?: string | undefined
  /** What follows `upTo` and was there when this was written, as far as the owner knew. */
  readonly unread: number
}

export interface FoundRecord<Found = GroupRecord> {
  readonly record: Found
  /** What a write must expect to find. */
  readonly revision: number
}

/** The positions and leases of groups. Each write is refused where another one came between: that is what fences. */
export interface Records {
  /** Without a record where there is none, or none that can be read: a tool may have deleted it, or written something else. */
  read(key: string): Promise<FoundRecord<GroupRecord | undefined>>
  /** Gives back the new revision, undefined where somebody else wrote since `expected` (0: there was none). */
  write(key: string, record: GroupRecord, expected: number): Promise<number | undefined>
  key(topic: string, group: string, partition: number): string
  /** All of a topic's, for a look: by group and partition. */
  list(topic: string): Promise<readonly { readonly group: string; readonly partition: number; readonly record: GroupRecord }[]>
}

interface StoredMessage {
  readonly message: { readonly seq: number; readonly data?: string }
}

export function createRecords(api: JetStreamApi, streams: Streams, options: CheckedNatsOptions): Records {
  const bucket = `${options.prefix}-groups`
  const name = `KV_${bucket}`
  let ensured: Promise<unknown> | undefined

  /** As the key-value buckets of NATS's own tools, so that these can read it. */
  function ensure(): Promise<unknown> {
    ensured ??= streams
      .ensure({
        name,
        subjects: [`$KV.${bucket}.>`],
        ...storageConfig(options),
        max_msgs_per_subject: 1,
        max_age: 0,
        max_bytes: -1,
        discard: 'new',
        allow_rollup_hdrs: true,
        deny_delete: true,
        allow_direct: true,
        metadata: { 'waybill-role': 'positions and leases of groups' },
      })
      .catch((error: unknown) => {
        ensured = undefined
        throw error
      })
    return ensured
  }

  async function last(subject: string): Promise<StoredMessage | undefined> {
    try {
      return await api.ask<StoredMessage>(`STREAM.MSG.GET.${name}`, { last_by_subj: subject })
    } catch (error) {
      if (isJetStreamError(error, JS.noMessage)) return undefined
      if (isJetStreamError(error, JS.streamMissing)) {
        ensured = undefined
        return undefined
      }
      throw toWaybillError(error, name)
    }
  }

  return {
    key: (topic, group, partition) => `${natsToken(topic)}.${natsToken(group)}.${partition}`,
    async read(key) {
      await ensure()
      const found = await last(`$KV.${bucket}.${key}`)
      return found === undefined ? { record: undefined, revision: 0 } : { record: parse(found.message.data), revision: found.message.seq }
    },
    async write(key, record, expected) {
      await ensure()
      try {
        return await api.replace(`$KV.${bucket}.${key}`, JSON.stringify(record), expected)
      } catch (error) {
        if (isJetStreamError(error, JS.wrongLastSequence)) return undefined
        if (isJetStreamError(error) && error.code === 503 && error.errCode === 0) {
          // The bucket was deleted: a group that writes finds nothing, as one that reads does.
          ensured = undefined
          return undefined
        }
        throw toWaybillError(error, name)
      }
    },
    async list(topic) {
      const subjects = await subjectsOf(`$KV.${bucket}.${natsToken(topic)}.>`)
      const found = await Promise.all(
        subjects.map(async (subject) => {
          const record = parse((await last(subject))?.message.data)
          return record === undefined ? [] : [{ partition: Number(subject.split('.').at(-1)), record }]
        }),
      )
      return found.flat().map(({ partition, record }) => ({ group: record.group, partition, record }))
    },
  }

  async function subjectsOf(filter: string): Promise<string[]> {
    try {
      const info = await api.ask<{ state: { subjects?: Record<string, number> } }>(`STREAM.INFO.${name}`, { subjects_filter: filter })
      return Object.keys(info.state.subjects ?? {})
    } catch (error) {
      if (isJetStreamError(error, JS.streamMissing)) return []
      throw toWaybillError(error, name)
    }
  }
}

function parse(data = ''): GroupRecord | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(data, 'base64').toString('utf8'))
    return isRecord(value) ? value : undefined
  } catch {
    return undefined
  }
}

function isRecord(value: unknown): value is GroupRecord {
  if (typeof value !== 'object' || value === null) return false
  const { topic, group, owner, epoch, leaseMs, stream, upTo, open, unread, at } = value as Readonly<Record<keyof GroupRecord, unknown>>
  return (
    [topic, group, stream].every((each) => typeof each === 'string') &&
    (owner === null || typeof owner === 'string') &&
    [epoch, leaseMs, upTo, unread].every(isCount) &&
    Array.isArray(open) &&
    open.every(isCount) &&
    (at === undefined || typeof at === 'string')
  )
}

const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && Number(value) >= 0
