import type { Clock } from '../../core/clock.ts'
import { checkInteger } from '../../core/options.ts'
import type { OutboxFilter, OutboxRecord, OutboxStore, StuckKey } from '../../core/stores.ts'
import { type OutboxRows, type Row, matches } from './outbox-rows.ts'

const LIMIT_MAX = 10_000
const STUCK_MAX = 1_000
const FOLLOWERS_MAX = 1_000
const SKIPPED_KEEP_MS = 7 * 24 * 3_600_000

/** What a person asks of the outbox and does to it. `assertOpen` is called first, each time. */
export function createMemoryOperator(
  rows: OutboxRows,
  clock: Clock,
  assertOpen: () => void,
): Pick<OutboxStore, 'retry' | 'skip' | 'suspend' | 'list' | 'show' | 'stuckKeys' | 'stats' | 'sweep'> {
  function select(filter: OutboxFilter, also: (row: Row, now: number) => boolean = () => true): Row[] {
    assertOpen()
    const limit = checkInteger(filter.limit ?? 100, 'limit', 1, LIMIT_MAX)
    const now = clock.now()
    const chosen: Row[] = []
    for (const row of rows.byId.values()) {
      if (chosen.length >= limit) break
      if (matches(row, filter, now) && also(row, now)) chosen.push(row)
    }
    return chosen.toSorted((a, b) => a.id - b.id)
  }

  const isHead = (row: Row): boolean => row.status === 'parked' && row.behind === undefined

  return {
    async retry(filter) {
      const chosen = select(
        filter,
        (row, now) => isHead(row) || row.status === 'skipped' || (row.status === 'pending' && row.heldUntil > now),
      )
      for (const row of chosen) {
        row.heldUntil = 0
        row.attempts = 0
        // A row that is not due yet goes back to wait.
        rows.move(row, row.scheduledFor > clock.now() ? 'scheduled' : 'pending', clock.now())
        rows.free(row, clock.now())
      }
      return chosen.length
    },
    async skip(filter) {
      const chosen = select(filter, isHead)
      for (const row of chosen) {
        rows.move(row, 'skipped', clock.now())
        rows.free(row, clock.now())
      }
      return chosen.length
    },
    async suspend(filter, reason) {
      const chosen = select(filter, (row) => row.status === 'pending' || row.status === 'scheduled')
      for (const row of chosen) {
        row.heldUntil = 0
        row.lastError = reason
        rows.move(row, 'parked', clock.now())
      }
      return chosen.length
    },
    list: async (filter) => select(filter).map((row) => recordOf(row, clock.now())),
    async show(rowId) {
      assertOpen()
      const row = rows.byId.get(Number(rowId))
      if (row === undefined) return undefined
      const { headers, body } = row.entry.message
      return { ...recordOf(row, clock.now()), headers, body }
    },
    async stuckKeys(limit) {
      assertOpen()
      checkInteger(limit, 'limit', 1, STUCK_MAX)
      const now = clock.now()
      const stuck = new Map<string, Row>()
      for (const row of rows.byId.values()) {
        const stops = isHead(row) || (row.status === 'pending' && row.heldUntil > now && row.lastError !== undefined)
        const known = stuck.get(row.keyId)
        if (stops && (known === undefined || known.id > row.id)) stuck.set(row.keyId, row)
      }
      return [...stuck.values()]
        .toSorted((a, b) => a.createdAt - b.createdAt || a.id - b.id)
        .slice(0, limit)
        .map((row) => stuckKeyOf(row, rows.ofKey(row.keyId), now))
    },
    async stats() {
      assertOpen()
      const oldest = rows.oldestPendingAt()
      return {
        pending: rows.count('pending'),
        scheduled: rows.count('scheduled'),
        parked: rows.count('parked'),
        oldestPendingMs: oldest === undefined ? 0 : Math.max(0, clock.now() - oldest),
      }
    },
    async sweep(keepMs, limit) {
      assertOpen()
      return rows.sweep(clock.now() - keepMs, clock.now() - Math.max(keepMs, SKIPPED_KEEP_MS), limit)
    },
  }
}

function stuckKeyOf(row: Row, ofKey: Iterable<Row>, now: number): StuckKey {
  let followers = 0
  for (const other of ofKey) {
    if (followers >= FOLLOWERS_MAX) break
    if (other.id > row.id && other.status !== 'scheduled') followers++
  }
  return {
    topic: row.entry.message.topic,
    key: row.entry.message.key,
    rowId: String(row.id),
    status: row.status === 'parked' ? 'parked' : 'held',
    attempts: row.attempts,
    lastError: row.lastError,
    followers,
    ageMs: now - row.createdAt,
  }
}

function recordOf(row: Row, now: number): OutboxRecord {
  const dueAt = Math.max(row.scheduledFor, row.heldUntil)
  const waits = row.status === 'pending' || row.status === 'scheduled'
  return {
    rowId: String(row.id),
    eventId: row.entry.message.id,
    eventType: row.entry.eventType,
    destination: row.destination,
    topic: row.entry.message.topic,
    key: row.entry.message.key,
    status: row.status,
    attempts: row.attempts,
    priority: row.priority,
    createdAt: new Date(row.createdAt),
    dueAt: waits && dueAt > now ? new Date(dueAt) : undefined,
    lastError: row.lastError,
    behind: row.behind === undefined ? undefined : String(row.behind.id),
  }
}
