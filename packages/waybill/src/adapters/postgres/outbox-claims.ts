import type { ClaimedRow, OutboxStore, RowFailure } from '../../core/stores.ts'
import {
  ALL_PARTS,
  BLOCKED,
  type ClaimColumns,
  type ClaimParts,
  type ClaimSource,
  type ClearColumns,
  SCHEDULED,
  UNCLEAR,
  UNUSUAL,
} from './outbox-claim-sql.ts'
import type { OutboxSql } from './outbox-sql.ts'
import { type Run, idList, parseHeaders } from './statements.ts'

type ClaimOptions = Parameters<OutboxStore['claim']>[1]

// How far a look looks ahead, in claims, and how long that may be used.
const LOOK_AHEAD_CLAIMS = 50
const LOOK_AHEAD_MAX = 20_000
const LOOK_AGAIN_MS = 500
// From when on it is worth it: longer than this, and so many times longer than looks have taken of late.
const LONG_LOOK_MS = 10
const LONG_LOOK = 3
const QUICKEST_FORGETS = 1.02
// What only a walk over the backlog can tell takes at most a fifth of the time where it takes long.
const WALK_SHORT_MS = 20
const REST_PER_WALK = 4

/** What is known of a relay's rows from one claim to the next. */
interface Memory {
  parts: ClaimParts
  /** Rows that were due in one look, in order, of which none has been settled. */
  ahead: { readonly rowIds: Set<string>; readonly until: number } | undefined
  /** How long a look takes where there is little to walk over. */
  quickestMs: number
  lastMs: number
  /** After which row to go on asking what may overtake: those before may have to wait for long. */
  clearFrom: { readonly priority: number; readonly rowId: string }
}

const CLEAR_START: Memory['clearFrom'] = { priority: 32_768, rowId: '0' }

interface Found {
  readonly rows: readonly ClaimColumns[]
  readonly ahead: readonly string[]
  readonly flags: number
}

export interface Claims {
  claim(
    relayId: string,
    options: ClaimOptions,
  ): Promise<{ readonly claimed: readonly ClaimedRow[]; readonly broken: readonly RowFailure[] }>
  /** These rows don't come again. */
  settled(relayId: string, rowIds: readonly string[]): void
  forget(relayId: string): void
}

/**
 * Claims, with what is remembered between them. Rows that were deleted before the first one that waits are walked over by each look until they are
 * vacuumed away, which an old transaction can put off for hours; where looks take long, one of them therefore notes the numbers of many rows, for the
 * claims that follow. They were due in one snapshot, and stay noted until they are settled: so the first of a key is always among them, and whatever is not
 * has come later. Each is asked again whether it may go.
 */
export function createClaims(run: Run, sql: OutboxSql): Claims {
  const memories = new Map<string, Memory>()
  const clear = createRested(async (relayId: string, memory: Memory, without: readonly string[]) => {
    const [row] = await run<ClearColumns>(sql.clear, [relayId, JSON.stringify(without), memory.clearFrom.priority, memory.clearFrom.rowId])
    memory.clearFrom = typeof row?.row_id === 'string' ? { priority: Number(row.priority), rowId: row.row_id } : CLEAR_START
    return Number(row?.n ?? 0)
  })
  const follow = createRested(async (relayId: string, { busy, leaving = [], inFlight = [] }: ClaimOptions, upTo: string | null) =>
    countOf(await run(sql.follow, [relayId, keysText(busy), idList(leaving.map(String)), upTo, idList(inFlight)])),
  )

  function memoryOf(relayId: string): Memory {
    const known = memories.get(relayId) ?? { parts: 'usual', ahead: undefined, quickestMs: Infinity, lastMs: 0, clearFrom: CLEAR_START }
    memories.set(relayId, known)
    return known
  }

  async function ask(
    source: ClaimSource,
    memory: Memory,
    relayId: string,
    options: ClaimOptions,
    more: readonly unknown[],
  ): Promise<Found> {
    const { limit, busy, without = [], leaving = [], inFlight = [] } = options
    const params = [relayId, keysText(busy), limit, JSON.stringify(without), idList(leaving.map(String)), idList(inFlight), ...more]
    for (;;) {
      const { parts } = memory
      const answer = await run<ClaimColumns>(sql.claim(source, parts), params)
      const flags = Number(answer.at(-1)!.attempts)
      const seen = flags & ALL_PARTS
      const needed = (flags & UNUSUAL) > 0 || seen > 0
      // What was not reckoned with may stand before what was found. Everything is reckoned with the second time, so there is no third.
      const complete = parts === 'usual' ? !needed : (seen & ~parts) === 0
      memory.parts = complete ? (needed ? seen : 'usual') : ALL_PARTS
      if (!complete) continue
      const { headers } = answer.at(-1)!
      return { rows: answer.slice(0, -1), ahead: headers === '' ? [] : headers.split(','), flags }
    }
  }

  async function look(memory: Memory, relayId: string, options: ClaimOptions): Promise<Found> {
    const started = performance.now()
    const looksAhead = memory.lastMs > LONG_LOOK_MS && memory.lastMs > memory.quickestMs * LONG_LOOK
    const aheadMax = Math.min(LOOK_AHEAD_MAX, options.limit * LOOK_AHEAD_CLAIMS)
    const found = await ask(looksAhead ? 'ahead' : 'all', memory, relayId, options, looksAhead ? [aheadMax] : [])
    const tookMs = performance.now() - started
    memory.lastMs = tookMs
    if (!looksAhead) memory.quickestMs = Math.min(memory.quickestMs * QUICKEST_FORGETS, tookMs)
    memory.ahead =
      found.ahead.length > options.limit
        ? { rowIds: new Set(found.ahead), until: started + tookMs + Math.max(LOOK_AGAIN_MS, tookMs * REST_PER_WALK) }
        : undefined
    if ((found.flags & BLOCKED) > 0) await follow(relayId, options, lastMet(found, options.limit, looksAhead ? aheadMax : options.limit))
    return found
  }

  async function remembered(memory: Memory, relayId: string, options: ClaimOptions): Promise<Found | undefined> {
    if (memory.ahead === undefined || performance.now() >= memory.ahead.until) return undefined
    const next: string[] = []
    const nextMax = options.limit * 2 + (options.inFlight?.length ?? 0)
    for (const rowId of memory.ahead.rowIds) {
      if (next.length >= nextMax) break
      next.push(rowId)
    }
    if (next.length < options.limit) return undefined
    const found = await ask('known', memory, relayId, options, [idList(next)])
    // One that is not full says nothing: what is due may have come since.
    return found.rows.length >= options.limit ? found : undefined
  }

  return {
    async claim(relayId, options) {
      const memory = memoryOf(relayId)
      let found = (await remembered(memory, relayId, options)) ?? (await look(memory, relayId, options))
      const woken = (found.flags & SCHEDULED) > 0 ? countOf(await run(sql.wake, [relayId])) : 0
      const changed = ((found.flags & UNCLEAR) > 0 && (await clear(relayId, memory, options.without ?? [])) > 0) || woken > 0
      // What has become due within this claim is seen by the next statement only.
      if (changed) found = await look(memory, relayId, options)
      return readClaimed(found.rows)
    },
    settled(relayId, rowIds) {
      const ahead = memories.get(relayId)?.ahead
      if (ahead !== undefined) for (const rowId of rowIds) ahead.rowIds.delete(rowId)
    },
    forget(relayId) {
      memories.delete(relayId)
    },
  }
}

/** The row up to which a look has walked; null where it has walked over all that waits. */
function lastMet({ rows, ahead }: Found, limit: number, rowsMax: number): string | null {
  if (ahead.length > 0) return ahead.length < rowsMax ? null : ahead.at(-1)!
  if (rows.length < limit) return null
  return rows.map(({ row_id }) => row_id!).reduce((a, b) => (a.length > b.length || (a.length === b.length && a > b) ? a : b))
}

/** Runs `walk`, unless it took so long the last time that it has to rest. */
function createRested<Params extends unknown[]>(walk: (...params: Params) => Promise<number>): (...params: Params) => Promise<number> {
  let notBefore = 0
  return async (...params) => {
    const started = performance.now()
    if (started < notBefore) return 0
    const count = await walk(...params)
    const took = performance.now() - started
    notBefore = took < WALK_SHORT_MS ? 0 : started + took * (1 + REST_PER_WALK)
    return count
  }
}

/** Rows that somebody has edited into nonsense are parked, and their followers wait, so that the others go on. */
function readClaimed(rows: readonly ClaimColumns[]): { claimed: ClaimedRow[]; broken: RowFailure[] } {
  const claimed: ClaimedRow[] = []
  const broken: RowFailure[] = []
  const stopped = new Set<string>()
  for (const { row_id, event_id: id, destination, topic, key, headers: text, body, attempts, suspect, shard } of rows) {
    const rowId = row_id!
    if (stopped.size > 0 && stopped.has(`${topic}\n${key}`)) continue
    const headers = parseHeaders(text)
    if (headers === undefined) {
      stopped.add(`${topic}\n${key}`)
      broken.push({ rowId, error: 'the headers of this row are not a JSON object of strings' })
    } else {
      const message = { id, topic, key, headers, body: Buffer.from(body, 'base64') }
      claimed.push({ rowId, destination, message, attempts: Number(attempts), suspect, shard: Number(shard) })
    }
  }
  return { claimed, broken }
}

function keysText(keys: readonly { readonly topic: string; readonly key: string }[]): string {
  return JSON.stringify(keys.map(({ topic, key }) => ({ topic, key })))
}

function countOf(rows: readonly { n: number }[]): number {
  return Number(rows[0]?.n ?? 0)
}
