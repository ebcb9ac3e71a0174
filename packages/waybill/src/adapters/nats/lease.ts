import { monotonicOf } from '../../core/clock.ts'
import { WaybillError, isWaybillError } from '../../core/errors.ts'
import type { CheckedNatsOptions } from './options.ts'
import type { FoundRecord, GroupRecord, Records } from './records.ts'

/** The right to one partition of a group, and the only way to write its position. */
export interface Lease {
  /** As it was taken over. */
  readonly record: GroupRecord
  /** Aborts when it is lost, or given up. */
  readonly signal: AbortSignal
  /**
   * Writes the position; what is asked for while a write is on its way goes with the next one. Tries again until the lease is lost.
   * @throws WaybillError `LEASE_LOST`; whatever else keeps it from being written
   */
  write(): Promise<void>
  /** To be called now and then: keeps it ours, and notices that it no longer is. */
  renew(): void
  /** Writes the position and gives it back: the next member need not wait. What it can't write, time does. */
  giveUp(): Promise<void>
  /** Not ours any more, without a word. */
  lose(error: WaybillError): void
}

/** The part of a record that moves. */
export type GroupPosition = Pick<GroupRecord, 'upTo' | 'open' | 'unread' | 'at'>

export interface LeaseOptions {
  readonly key: string
  readonly memberId: string
  readonly records: Records
  readonly options: CheckedNatsOptions
  /** What is to be written now. */
  position(record: GroupRecord): GroupPosition
  onLost(error: WaybillError): void
  /** The position is gone from the broker; `onLost` follows. */
  onDeleted(): void
}

/** How much of a lease must be left for its owner to go on working. */
const SAFE_SHARE = 0.8
const RETRY_MS = 100

/**
 * Takes a partition over: nobody may hold it, or its owner has written nothing for as long as it promised to, as seen from here. `changes` are what is
 * to differ in the record, such as the stream that its sequences are of. Gives back nothing where somebody else was faster.
 */
export async function takeLease(found: FoundRecord, changes: Partial<GroupRecord>, lease: LeaseOptions): Promise<Lease | undefined> {
  const { key, memberId, records, options } = lease
  const now = monotonicOf(options.clock)
  const record: GroupRecord = {
    ...found.record,
    ...changes,
    owner: memberId,
    epoch: found.record.epoch + 1,
    leaseMs: options.leaseMs,
  }
  let confirmedAt = now()
  let revision = await records.write(key, record, found.revision)
  // Its answer may have been lost while it was written.
  if (revision === undefined) {
    const seen = await records.read(key)
    if (seen.record?.owner !== memberId || seen.record.epoch !== record.epoch) return undefined
    revision = seen.revision
  }
  let current = revision
  const lost = new AbortController()
  let writing: Promise<void> | undefined
  let next: Promise<void> | undefined
  let released = false

  function lose(error: WaybillError): void {
    if (lost.signal.aborted) return
    lost.abort(error)
    lease.onLost(error)
  }

  const lateError = (): WaybillError =>
    new WaybillError('LEASE_LOST', `the partition was not confirmed for ${Math.round(now() - confirmedAt)} ms`, { where: key })

  const isSafe = (): boolean => now() - confirmedAt < options.leaseMs * SAFE_SHARE

  async function writeOnce(owner: string | null): Promise<void> {
    const sentAt = now()
    const { upTo, open, unread, at } = lease.position(record)
    const content: GroupRecord = { ...record, owner, upTo, open, unread, at }
    const written = await records.write(key, content, current)
    if (written !== undefined) {
      current = written
      confirmedAt = sentAt
      return
    }
    const seen = await records.read(key)
    if (seen.record?.owner !== memberId || seen.record.epoch !== record.epoch) {
      if (seen.record === undefined) lease.onDeleted()
      const text = seen.record === undefined ? 'the position was deleted' : 'the partition is held by somebody else now'
      const error = new WaybillError('LEASE_LOST', text, { where: key })
      lose(error)
      throw error
    }
    // An earlier write of ours whose answer was lost.
    current = seen.revision
    await writeOnce(owner)
  }

  async function writeUntilLost(): Promise<void> {
    for (;;) {
      if (lost.signal.aborted)
        throw new WaybillError('LEASE_LOST', 'the partition is held by somebody else now', { where: key, cause: lost.signal.reason })
      try {
        await writeOnce(memberId)
        return
      } catch (error) {
        if (!isWaybillError(error) || !error.retryable || error.code === 'LEASE_LOST') throw error
        if (!isSafe()) lose(lateError())
        else await options.clock.sleep(RETRY_MS, lost.signal)
      }
    }
  }

  function start(): Promise<void> {
    const mine = writeUntilLost().finally(() => {
      if (writing === mine) writing = undefined
    })
    writing = mine
    return mine
  }

  function write(): Promise<void> {
    if (next !== undefined) return next
    if (writing === undefined) return start()
    const after = writing
    next = (async () => {
      await after.catch(() => undefined)
      next = undefined
      await start()
    })()
    return next
  }

  return {
    record,
    signal: lost.signal,
    write,
    renew() {
      if (lost.signal.aborted) return
      if (!isSafe()) {
        // Where this process itself was held up, the answer may be here already, and not read yet.
        setImmediate(() => {
          if (!isSafe()) lose(lateError())
        })
      } else if (writing === undefined && now() - confirmedAt > options.leaseMs / 3 - 50) write().catch(() => undefined)
    },
    async giveUp() {
      if (released) return
      released = true
      await (next ?? writing)?.catch(() => undefined)
      const wasLost = lost.signal.aborted
      if (!wasLost) await writeOnce(null).finally(() => lost.abort(new WaybillError('LEASE_LOST', 'given up', { where: key })))
    },
    lose,
  }
}
