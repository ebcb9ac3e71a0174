import { monotonicOf } from '../../core/clock.ts'
import { WaybillError, isWaybillError } from '../../core/errors.ts'
import { newId } from '../../core/ids.ts'
import type { Arrival, Holding, Member } from '../../core/member.ts'
import type { JetStreamApi } from './api.ts'
import type { Connection } from './connection.ts'
import { decodeMessage } from './headers.ts'
import { type GroupPosition, type Lease, takeLease } from './lease.ts'
import { type Ledger, createLedger } from './ledger.ts'
import { natsPartitionSubject, natsSubject } from './names.ts'
import type { CheckedNatsOptions } from './options.ts'
import { type Read, type Reader, createReader } from './reader.ts'
import type { FoundRecord, GroupRecord, Records } from './records.ts'
import type { StreamInfo, Streams, TopicStream } from './streams.ts'

export interface AdapterParts {
  readonly connection: Connection
  readonly api: JetStreamApi
  readonly streams: Streams
  readonly records: Records
  readonly options: CheckedNatsOptions
}

export interface PartitionOptions {
  readonly stream: TopicStream
  readonly partition: number
  readonly group: string
  readonly memberId: string
  readonly start: Start
  readonly member: Member<number>
  onHeld(isHeld: boolean): void
  /** The subscription can't go on. */
  onFailed(error: WaybillError): void
}

export type Start = 'earliest' | 'latest' | { readonly at: Date }

/** One partition as one member of a group sees it: wanted or not, held or not. */
export interface Partition {
  readonly label: string
  readonly isHeld: boolean
  /** Whether this member is to hold it. Giving it up waits for what is handed out. */
  want(isWanted: boolean): void
  /** Somebody may have given it up. */
  nudge(): void
  /** To be called now and then. */
  tick(): void
  /** Gives it up now; ends within the time that a question takes. */
  leave(): Promise<void>
}

/** How long a partition that is to move waits for what is handed out; after that it stays for a while. */
const DRAIN_MS = 10_000
const DRAIN_AGAIN_MS = 30_000
const BYTES_MAX = 16 * 1024 * 1024
/** Most messages of a partition that are handed out or wait for it: what a successor would get again. */
const UNSETTLED_MAX = 5000
const DONE = Promise.resolve()

/** The record of a partition that has none yet. @throws as `Streams.info` */
export function firstRecord(stream: TopicStream, group: string, start: Start, info: StreamInfo, leaseMs: number): GroupRecord {
  const base = { topic: stream.topic, group, owner: null, epoch: 0, leaseMs, stream: info.created, open: [], unread: 0 }
  if (typeof start === 'object') return { ...base, upTo: 0, at: start.at.toISOString() }
  return { ...base, upTo: start === 'latest' ? info.state.last_seq : 0 }
}

export function createPartition(parts: AdapterParts, options: PartitionOptions): Partition {
  const { records, streams } = parts
  const { stream, partition, group, memberId } = options
  const { clock, observe, leaseMs } = parts.options
  const now = monotonicOf(clock)
  const label = `${stream.topic}/${partition}`
  const key = records.key(stream.topic, group, partition)
  const left = new AbortController()
  let isWanted = false
  let held: Held | undefined
  let wake = Promise.withResolvers<void>()
  let watched: { readonly revision: number; readonly since: number } | undefined
  let drainUntil: number | undefined
  let drainNotBefore = 0

  const gap = (error: WaybillError, missing?: number): void =>
    observe({
      type: 'transport.gap',
      transport: 'nats',
      topic: stream.topic,
      group,
      partition: label,
      error,
      ...(missing === undefined ? {} : { missing }),
    })

  async function work(): Promise<void> {
    while (!left.signal.aborted) {
      if (!isWanted || held !== undefined) {
        await rest(600_000)
        continue
      }
      try {
        await acquire()
      } catch (cause) {
        if (!isWaybillError(cause) || !cause.retryable) {
          options.onFailed(
            isWaybillError(cause)
              ? cause
              : new WaybillError('TRANSPORT_UNAVAILABLE', 'a partition could not be taken', { where: label, cause }),
          )
          return
        }
        await rest(leaseMs / 10)
      }
    }
  }

  /** Until somebody nudges, or the time is up. */
  async function rest(ms: number): Promise<void> {
    const cut = new AbortController()
    await Promise.race([wake.promise, clock.sleep(ms, cut.signal)])
    cut.abort()
    wake = Promise.withResolvers()
  }

  async function acquire(): Promise<void> {
    const info = await lookAtStream()
    const found = await find(info)
    if (found === undefined) return rest(50)
    const { owner } = found.record
    if (owner !== null && owner !== memberId && !hasExpired(found)) return rest(Math.min(leaseMs / 4, 1000))
    const changes = compare(found.record, info)
    // Until there is a reader, the position is the one that was taken over.
    let position = (record: GroupRecord): GroupPosition => record
    const lease = await takeLease(found, changes, {
      key,
      memberId,
      records,
      options: parts.options,
      position: (record) => position(record),
      onLost: (error) => lostIt(error),
      onDeleted: lostPosition,
    })
    if (lease === undefined) return rest(50)
    watched = undefined
    if (left.signal.aborted || !isWanted) return lease.giveUp()
    held = hold(lease, info)
    position = held.position
    options.onHeld(true)
  }

  /** The group's position, which begins here where there is none; nothing where somebody else was faster. */
  async function find(info: StreamInfo): Promise<FoundRecord | undefined> {
    const { record, revision } = await records.read(key)
    if (record !== undefined) return { record, revision }
    // Where its whole bucket is gone, nothing tells whether it has ever been there.
    if (revision > 0) lostPosition()
    const first = firstRecord(stream, group, options.start, info, leaseMs)
    const written = await records.write(key, first, revision)
    return written === undefined ? undefined : { record: first, revision: written }
  }

  function lostPosition(): void {
    gap(new WaybillError('POSITION_LOST', 'the position of the group was deleted: it begins anew', { where: label }))
  }

  /** Whether its owner has not written for as long as it promised to. */
  function hasExpired({ record, revision }: FoundRecord): boolean {
    if (watched?.revision !== revision) watched = { revision, since: now() }
    return now() - watched.since >= record.leaseMs
  }

  async function lookAtStream(): Promise<StreamInfo> {
    try {
      return await streams.info(stream)
    } catch (error) {
      if (!isWaybillError(error, 'TOPIC_MISSING')) throw error
      streams.forget(stream.topic)
      await streams.open(stream.topic)
      return streams.info(stream)
    }
  }

  /** What the record says against what the broker has. */
  function compare(record: GroupRecord, info: StreamInfo): Partial<GroupRecord> {
    if (record.stream !== info.created) {
      gap(new WaybillError('POSITION_LOST', `stream ${stream.name} was deleted and made again`, { where: label }))
      return { stream: info.created, upTo: 0, open: [], unread: 0 }
    }
    const { first_seq: first } = info.state
    const open = record.open.filter((sequence) => sequence >= first)
    const missing = record.open.length - open.length
    // What was settled moves on while a member is there, also where nothing comes: a stream that begins later has lost what came since.
    const isOvertaken = record.upTo > 0 && first > record.upTo + 1
    if (missing > 0 || isOvertaken)
      gap(
        new WaybillError('POSITION_LOST', `stream ${stream.name} begins at ${first}, the group was at ${record.upTo}`, { where: label }),
        isOvertaken ? undefined : missing,
      )
    return { open, upTo: Math.max(record.upTo, first - 1) }
  }

  interface Held {
    position(): GroupPosition
    readonly lease: Lease
    readonly holding: Holding<number>
    readonly reader: Reader
    readonly ledger: Ledger
  }

  function hold(lease: Lease, info: StreamInfo): Held {
    const { record } = lease
    const ledger = createLedger(record.upTo, record.open)
    let unconfirmed = 0
    /** Enough waits to be handed out. */
    let isFull = false
    // What came before this owner may have been handed out by another one.
    const knownSince = record.epoch === 1 ? 0 : info.state.last_seq
    const holding = options.member.hold({
      id: newId(),
      partition: label,
      ack(sequences) {
        for (const sequence of sequences) ledger.settle(sequence)
        const written = lease.write()
        reader.pull()
        if (drainUntil !== undefined) queueMicrotask(drain)
        unconfirmed += sequences.length
        const confirmed = written
          // What is lost with the lease is told by the assignment.
          .catch((error: unknown) => {
            if (!isWaybillError(error, 'LEASE_LOST')) throw error
          })
          .finally(() => {
            unconfirmed -= sequences.length
          })
        // What a crash could bring again is bounded; whoever leaves waits for it.
        if (unconfirmed > parts.options.ackAheadMax) return confirmed
        confirmed.catch((error: unknown) => observe({ type: 'transport.failed', transport: 'nats', error }))
        return DONE
      },
    })
    const reader = createReader(parts, {
      stream,
      created: record.stream,
      subjects: subjects(),
      from: record.at !== undefined && record.upTo === 0 ? { at: record.at } : { sequence: ledger.received + 1 },
      unread: record.unread,
      room() {
        if (isFull || drainUntil !== undefined || ledger.unsettledBytes >= BYTES_MAX) return 0
        return Math.min(parts.options.prefetchMax, UNSETTLED_MAX - ledger.unsettled)
      },
      onMessages(messages) {
        holding.add(arrivals(messages, ledger, knownSince))
        if (isFull) return
        isFull = true
        void holding.room().then(() => {
          isFull = false
          reader.pull()
        })
      },
      onCaughtUp: (sequence) => ledger.advance(sequence),
      onGap: gap,
      onStreamChanged: (error) => lease.lose(error),
      onFailed: (error) => options.onFailed(error),
    })
    const position = (): GroupPosition => {
      const at = ledger.position()
      return { ...at, unread: reader.unread, ...(record.at === undefined || at.upTo > 0 ? {} : { at: record.at }) }
    }
    return { position, lease, holding, reader, ledger }
  }

  function subjects(): readonly string[] {
    const { prefix } = parts.options
    const own = natsPartitionSubject(prefix, stream.topic, partition)
    // What is published without a partition is in the first one.
    return partition === 0 ? [own, natsSubject(prefix, stream.topic)] : [own]
  }

  function arrivals(messages: readonly Read[], ledger: Ledger, knownSince: number): Arrival<number>[] {
    const came: Arrival<number>[] = []
    for (const { message, sequence } of messages) {
      if (!ledger.isOpen(sequence)) continue
      const decoded = decodeMessage(stream.topic, () => `nats:${stream.name}:${sequence}`, message)
      const gone = ledger.take(sequence, decoded.body.byteLength)
      if (gone > 0)
        gap(new WaybillError('POSITION_LOST', `stream ${stream.name} no longer has messages that were not settled`, { where: label }), gone)
      came.push({
        message: decoded,
        sequence: BigInt(sequence),
        redelivered: sequence > knownSince ? 'no' : 'unknown',
        place: sequence,
      })
    }
    return came
  }

  function lostIt(error: WaybillError): void {
    const was = held
    if (was === undefined) return
    held = undefined
    drainUntil = undefined
    was.reader.stop()
    was.holding.lose()
    options.onHeld(false)
    if (error.code !== 'LEASE_LOST' && error.code !== 'POSITION_LOST') observe({ type: 'transport.failed', transport: 'nats', error })
    wake.resolve()
  }

  /** Gives back what is held; nothing of it is handed out any more where this is called. */
  async function giveUp(): Promise<void> {
    const was = held
    if (was === undefined) return
    held = undefined
    drainUntil = undefined
    was.reader.stop()
    was.holding.lose()
    try {
      await was.lease.giveUp()
    } catch (error) {
      // It expires.
      observe({ type: 'transport.failed', transport: 'nats', error })
    }
    options.onHeld(false)
    wake.resolve()
  }

  /** Once nothing is handed out any more, a partition that others are to have is given up. */
  function drain(): void {
    if (held === undefined || isWanted || left.signal.aborted) {
      if (drainUntil !== undefined && isWanted) {
        drainUntil = undefined
        held?.reader.pull()
      }
      return
    }
    const at = now()
    if (drainUntil === undefined) {
      if (at < drainNotBefore) return
      drainUntil = at + DRAIN_MS
    }
    if (held.holding.unsettled === 0) void giveUp()
    else if (at > drainUntil) {
      // Somebody works on it for long: it stays here, and its other keys go on.
      drainUntil = undefined
      drainNotBefore = at + DRAIN_AGAIN_MS
      held.reader.pull()
    }
  }

  void work()
  return {
    label,
    get isHeld() {
      return held !== undefined
    },
    want(to) {
      if (isWanted === to) return
      isWanted = to
      drainNotBefore = 0
      drain()
      wake.resolve()
    },
    nudge: () => wake.resolve(),
    tick() {
      held?.lease.renew()
      held?.reader.check()
      drain()
    },
    async leave() {
      left.abort()
      isWanted = false
      wake.resolve()
      // Without a connection, time gives it back.
      if (parts.connection.isUp) await giveUp()
      else held?.lease.lose(new WaybillError('LEASE_LOST', 'the connection is away', { where: label }))
    },
  }
}
