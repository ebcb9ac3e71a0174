import { WaybillError } from '../../core/errors.ts'
import { OUTBOX_SHARDS, OUTBOX_SLOTS, type OutboxEntry, type OutboxFilter, type OutboxRecord } from '../../core/stores.ts'

/** A row of the memory outbox. */
export interface Row {
  readonly id: number
  readonly entry: OutboxEntry
  readonly keyId: string
  readonly shard: number
  readonly destination: string
  readonly priority: number
  readonly createdAt: number
  /** Not due before; followers don't wait for it. */
  scheduledFor: number
  /** Its key waits until then. */
  heldUntil: number
  status: OutboxRecord['status']
  attempts: number
  suspect: boolean
  lastError: string | undefined
  publishedAt: number
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
  readonly pending: number
  readonly parked: number
  add(row: Row): void
  /** Not needed any more: kept for a while, for whoever lists it. */
  publish(row: Row, at: number): void
  setParked(row: Row, parked: boolean): void
  /** Deletes published rows from before `until`, at most `limit`; gives back how many. */
  sweep(until: number, limit: number): number
  oldestPendingAt(): number | undefined
  /** Due rows in the order in which they are to be sent: by priority across keys, by number within a key. */
  due(now: number, limit: number, admits: (row: Row) => boolean): Row[]
}

/** `publishedMax` bounds how many published rows are kept. */
export function createOutboxRows(publishedMax: number): OutboxRows {
  const byId = new Map<number, Row>()
  const published = new Set<Row>()
  // What is not published, by priority, in the order of commits.
  const levels: readonly Set<Row>[] = Array.from({ length: PRIORITIES }, () => new Set<Row>())
  // What is not published, by key, in the order of numbers: within a key, rows are added in the order of commits, which is the same.
  const keys = new Map<string, Set<Row>>()
  let pending = 0
  let parked = 0

  const leaveKey = (row: Row): void => {
    const rows = keys.get(row.keyId)
    rows?.delete(row)
    if (rows?.size === 0) keys.delete(row.keyId)
  }

  const forget = (row: Row): void => {
    published.delete(row)
    byId.delete(row.id)
  }

  return {
    byId,
    get pending() {
      return pending
    },
    get parked() {
      return parked
    },
    add(row) {
      byId.set(row.id, row)
      levels[row.priority]!.add(row)
      const rows = keys.get(row.keyId)
      if (rows === undefined) keys.set(row.keyId, new Set([row]))
      else rows.add(row)
      pending++
    },
    publish(row, at) {
      if (row.status === 'published') return
      if (row.status === 'pending') pending--
      else parked--
      row.status = 'published'
      row.publishedAt = at
      levels[row.priority]!.delete(row)
      leaveKey(row)
      published.add(row)
      if (published.size > publishedMax) forget(first(published)!)
    },
    setParked(row, toParked) {
      if (row.status !== (toParked ? 'pending' : 'parked')) return
      row.status = toParked ? 'parked' : 'pending'
      parked += toParked ? 1 : -1
      pending += toParked ? -1 : 1
    },
    sweep(until, limit) {
      let count = 0
      for (const row of published) {
        if (count >= limit) break
        if (row.publishedAt > until) continue
        forget(row)
        count++
      }
      return count
    },
    oldestPendingAt() {
      const oldest = levels.flatMap((level) => first(level, (row) => row.status === 'pending')?.createdAt ?? [])
      return oldest.length === 0 ? undefined : Math.min(...oldest)
    },
    due: (now, limit, admits) => pickDue(levels, keys, now, limit, admits),
  }
}

function pickDue(
  levels: readonly Set<Row>[],
  keys: ReadonlyMap<string, Set<Row>>,
  now: number,
  limit: number,
  admits: (row: Row) => boolean,
): Row[] {
  const picked: Row[] = []
  const cursors = new Map<string, KeyCursor>()
  for (let priority = levels.length - 1; priority >= 0; priority--) {
    for (const row of levels[priority]!) {
      if (picked.length >= limit) return picked
      if (row.status !== 'pending' || row.scheduledFor > now || !admits(row)) continue
      const cursor = cursors.get(row.keyId) ?? openCursor(keys.get(row.keyId)!, now, admits)
      cursors.set(row.keyId, cursor)
      if (cursor.head !== row) continue
      picked.push(row)
      cursor.advance()
      // Rows of a higher priority that had to wait for this one of their key.
      while (cursor.head !== undefined && cursor.head.priority > priority && picked.length < limit) {
        picked.push(cursor.head)
        cursor.advance()
      }
    }
  }
  return picked
}

interface KeyCursor {
  /** The next row of the key that may be sent; none where the key is blocked or used up. */
  readonly head: Row | undefined
  advance(): void
}

function openCursor(rows: Iterable<Row>, now: number, admits: (row: Row) => boolean): KeyCursor {
  const iterator = rows[Symbol.iterator]()
  const next = (): Row | undefined => {
    for (;;) {
      const { value: row, done } = iterator.next()
      if (done === true) return undefined
      if (row.status === 'pending' && row.scheduledFor > now) continue
      return row.status === 'parked' || row.heldUntil > now || !admits(row) ? undefined : row
    }
  }
  let head = next()
  return {
    get head() {
      return head
    },
    advance() {
      head = next()
    },
  }
}

/** A row as it is listed. */
export function recordOf(row: Row, now: number): OutboxRecord {
  const dueAt = Math.max(row.scheduledFor, row.heldUntil)
  return {
    rowId: String(row.id),
    eventId: row.entry.message.id,
    eventType: row.entry.eventType,
    topic: row.entry.message.topic,
    key: row.entry.message.key,
    status: row.status,
    attempts: row.attempts,
    priority: row.priority,
    createdAt: new Date(row.createdAt),
    dueAt: row.status === 'pending' && dueAt > now ? new Date(dueAt) : undefined,
    lastError: row.lastError,
  }
}

/** Whether a filter lets a row pass; its limit is the caller's. */
export function matches(row: Row, filter: OutboxFilter): boolean {
  return (
    (filter.status === undefined || filter.status === row.status) &&
    (filter.eventType === undefined || filter.eventType === row.entry.eventType) &&
    (filter.key === undefined || filter.key === row.entry.message.key) &&
    (filter.rowIds === undefined || filter.rowIds.includes(String(row.id)))
  )
}

/** Refuses what would not fit. @throws WaybillError `QUEUE_FULL` */
export function assertRoom(size: number, more: number, max: number, where: string): void {
  if (size + more <= max) return
  throw new WaybillError('QUEUE_FULL', `${where} is full`, { got: size, allowed: `at most ${max}`, where: 'memory storage' })
}

function first<T>(values: Iterable<T>, wanted: (value: T) => boolean = () => true): T | undefined {
  for (const value of values) if (wanted(value)) return value
  return undefined
}
