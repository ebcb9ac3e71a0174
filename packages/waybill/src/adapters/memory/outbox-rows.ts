import { WaybillError } from '../../core/errors.ts'
import { OUTBOX_SHARDS, OUTBOX_SLOTS, type OutboxEntry, type OutboxFilter, type OutboxRecord } from '../../core/stores.ts'
import { type Due, pickDue } from './outbox-due.ts'

/** A row of the memory outbox. Its status is changed by {@link OutboxRows.move} alone. */
export interface Row {
  readonly id: number
  readonly entry: OutboxEntry
  readonly keyId: string
  readonly shard: number
  readonly destination: string
  readonly priority: number
  readonly createdAt: number
  /** Not due before; followers don't wait for it. */
  readonly scheduledFor: number
  /** Its key waits until then. */
  heldUntil: number
  status: OutboxRecord['status']
  attempts: number
  lastError: string | undefined
  /** The row of its key that it is parked behind. */
  behind: Row | undefined
  /** When it was published, parked or skipped. */
  movedAt: number
}

/** The text by which a (topic, key) is told from others. */
export const keyIdOf = (message: { readonly topic: string; readonly key: string }): string => `${message.topic}\0${message.key}`

/** The slot of a key: FNV-1a of its text, modulo the number of slots. */
export function slotOf(keyId: string): number {
  let hash = 0x811c9dc5
  for (let at = 0; at < keyId.length; at++) hash = Math.imul(hash ^ keyId.charCodeAt(at), 0x01000193)
  return (hash >>> 0) % OUTBOX_SLOTS
}

export const shardOf = (slot: number): number => slot % OUTBOX_SHARDS

const PRIORITIES = 10

/** The rows, and the orders in which they are looked for. */
export interface OutboxRows {
  readonly byId: ReadonlyMap<number, Row>
  /** How many have a status. */
  count(status: Row['status']): number
  add(row: Row): void
  /** Gives a row another status. Published and skipped ones are kept for a while, for whoever lists them. */
  move(row: Row, status: Row['status'], at: number): void
  /** Rows of the key that are parked behind `row` become pending. */
  free(row: Row, at: number): void
  /** Rows of a key that are neither published nor skipped, by number. */
  ofKey(keyId: string): Iterable<Row>
  /** Makes scheduled rows pending whose time has come, where `admits` says so. */
  wake(now: number, admits: (row: Row) => boolean): void
  wakes(now: number): boolean
  /** Deletes rows published before `publishedBefore` or skipped before `skippedBefore`, at most `limit`; gives back how many. */
  sweep(publishedBefore: number, skippedBefore: number, limit: number): number
  oldestPendingAt(): number | undefined
  due(now: number, limit: number, admits: (row: Row) => boolean): Due
}

/** `finishedMax` bounds how many published and skipped rows are kept. */
export function createOutboxRows(finishedMax: number): OutboxRows {
  const byId = new Map<number, Row>()
  const finished = new Set<Row>()
  // Pending rows by priority, nearly in the order of commits. What comes back (woken, retried, freed) is put in its place before the next look.
  const levels: Set<Row>[] = Array.from({ length: PRIORITIES }, () => new Set<Row>())
  const unsorted = new Set<number>()
  // What is not finished, by key, in the order of numbers: within a key, rows are added in the order of commits, which is the same.
  const keys = new Map<string, Set<Row>>()
  // Scheduled rows, the soonest last.
  const scheduled: Row[] = []
  const counts = new Map<Row['status'], number>()

  const counted = (status: Row['status'], by: number): void => void counts.set(status, (counts.get(status) ?? 0) + by)

  const leaveKey = (row: Row): void => {
    const rows = keys.get(row.keyId)
    rows?.delete(row)
    if (rows?.size === 0) keys.delete(row.keyId)
  }

  const joinKey = (row: Row): void => {
    const rows = keys.get(row.keyId) ?? new Set()
    if (rows.has(row)) return
    rows.add(row)
    // Only one that comes back from the skipped ones is not the last of its key.
    const returned = finished.has(row)
    keys.set(row.keyId, returned ? new Set([...rows].toSorted((a, b) => a.id - b.id)) : rows)
  }

  const sorted = (): readonly ReadonlySet<Row>[] => {
    for (const priority of unsorted) levels[priority] = new Set([...levels[priority]!].toSorted((a, b) => a.id - b.id))
    unsorted.clear()
    return levels
  }

  const forget = (row: Row): void => {
    finished.delete(row)
    byId.delete(row.id)
    counted(row.status, -1)
  }

  const enter = (row: Row): void => {
    if (row.status === 'pending') levels[row.priority]!.add(row)
    if (row.status === 'scheduled') scheduled.splice(placeOf(scheduled, row.scheduledFor), 0, row)
    const isFinished = row.status === 'published' || row.status === 'skipped'
    if (!isFinished) joinKey(row)
    if (!isFinished) finished.delete(row)
    else {
      leaveKey(row)
      finished.add(row)
      if (finished.size > finishedMax) forget(first(finished)!)
    }
  }

  const rows: OutboxRows = {
    byId,
    count: (status) => counts.get(status) ?? 0,
    add(row) {
      byId.set(row.id, row)
      counted(row.status, 1)
      enter(row)
    },
    move(row, status, at) {
      if (row.status === status) return
      counted(row.status, -1)
      counted(status, 1)
      levels[row.priority]!.delete(row)
      if (row.status === 'scheduled') scheduled.splice(scheduled.indexOf(row), 1)
      if (status !== 'parked') row.behind = undefined
      row.status = status
      row.movedAt = at
      enter(row)
      if (status === 'pending') unsorted.add(row.priority)
    },
    free(row, at) {
      for (const other of rows.ofKey(row.keyId)) if (other.behind === row) rows.move(other, 'pending', at)
    },
    ofKey: (keyId) => keys.get(keyId) ?? [],
    wake(now, admits) {
      for (let at = scheduled.length - 1; at >= 0 && scheduled[at]!.scheduledFor <= now; at--) {
        const row = scheduled[at]!
        if (admits(row)) rows.move(row, 'pending', now)
      }
    },
    wakes: (now) => scheduled.length > 0 && scheduled.at(-1)!.scheduledFor <= now,
    sweep(publishedBefore, skippedBefore, limit) {
      let count = 0
      for (const row of finished) {
        if (count >= limit) break
        if (row.movedAt > (row.status === 'skipped' ? skippedBefore : publishedBefore)) continue
        forget(row)
        count++
      }
      return count
    },
    oldestPendingAt() {
      const oldest = sorted().flatMap((level) => first(level)?.createdAt ?? [])
      return oldest.length === 0 ? undefined : Math.min(...oldest)
    },
    due: (now, limit, admits) => pickDue(sorted(), keys, now, limit, admits),
  }
  return rows
}

/** Where a time belongs in a list whose latest comes first. */
function placeOf(scheduled: readonly Row[], time: number): number {
  let low = 0
  let high = scheduled.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (scheduled[middle]!.scheduledFor > time) low = middle + 1
    else high = middle
  }
  return low
}

/** Refuses what would not fit. @throws WaybillError `QUEUE_FULL` */
export function assertRoom(size: number, more: number, max: number, where: string): void {
  if (size + more <= max) return
  throw new WaybillError('QUEUE_FULL', `${where} is full`, { got: size, allowed: `at most ${max}`, where: 'memory storage' })
}

/** Whether a filter lets a row pass; its limit is the caller's. */
export function matches(row: Row, filter: OutboxFilter, now: number): boolean {
  const { status, eventType, topic, key, rowIds, olderThanMs, error } = filter
  return (
    (status === undefined || status === row.status) &&
    (eventType === undefined || eventType === row.entry.eventType) &&
    (topic === undefined || topic === row.entry.message.topic) &&
    (key === undefined || key === row.entry.message.key) &&
    (rowIds === undefined || rowIds.includes(String(row.id))) &&
    (olderThanMs === undefined || row.createdAt <= now - olderThanMs) &&
    (error === undefined || row.lastError?.toLowerCase().includes(error.toLowerCase()) === true)
  )
}

function first<T>(values: Iterable<T>): T | undefined {
  for (const value of values) return value
  return undefined
}
