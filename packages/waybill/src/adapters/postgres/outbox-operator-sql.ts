import { WaybillError } from '../../core/errors.ts'
import { checkInteger } from '../../core/options.ts'
import type { OutboxFilter, OutboxRecord } from '../../core/stores.ts'
import { idList, storable } from './statements.ts'
import type { Tables } from './tables.ts'

/** Followers are counted so far, and among so many of the rows that wait: a look, not a census. */
export const FOLLOWERS_MAX = 1_000
const FOLLOWERS_AMONG = 20_000
/** Rows are counted one by one so far; beyond it the planner's estimate is near enough. */
export const COUNT_MAX = 100_000
/** Skipped rows stay at least so long, for somebody to change their mind. */
export const SKIPPED_KEEP_MS = 7 * 86_400_000
export const ROW_ID_MIN = '-9223372036854775808'
// Heads that one look asks whether they are still parked.
const HEADS_MAX = 10_000

/** A statement with its parameters. */
export interface Statement {
  readonly text: string
  readonly params: readonly unknown[]
}

/**
 * Indexes of what operators look for. All are empty while nothing is parked, skipped or scheduled, and cost an append nothing but the question.
 * Safe to run again.
 */
export function operatorIndexes({ outbox, names: { prefix } }: Tables): readonly string[] {
  return [
    `create index if not exists "${prefix}outbox_stopped" on ${outbox} (id) where status = 'parked' and behind is null`,
    `create index if not exists "${prefix}outbox_behind" on ${outbox} (behind, id) where behind is not null`,
    `create index if not exists "${prefix}outbox_skipped" on ${outbox} (published_at) where status = 'skipped'`,
  ]
}

/** What operators ask of the outbox and do to it. The same for PGlite and PostgreSQL. */
export interface OperatorSql {
  /** Locks what matches, changes it, and gives back the numbers. {@link OperatorSql.free} follows in the same transaction. */
  retry(filter: OutboxFilter): Statement
  skip(filter: OutboxFilter): Statement
  suspend(filter: OutboxFilter, reason: string): Statement
  /** Lets go what is parked behind the rows of `$1`. */
  readonly free: string
  list(filter: OutboxFilter): Statement
  /** `$1` row number. */
  readonly show: string
  /** `$1` limit. */
  readonly stuckKeys: string
  readonly stats: string
  /** The planner's idea of how many rows have a status. */
  estimate(status: string): string
  readonly leases: string
  /** `$1` milliseconds, `$2` limit. */
  readonly sweepPublished: string
  readonly sweepSkipped: string
  /** Lets go what is parked behind rows that are no longer. Looks at some heads from `$1` on; gives back after which to go on, null at the end. */
  readonly healOrphans: string
}

const ms = (column: string): string => `floor(extract(epoch from ${column}) * 1000)::float8`
// Each by itself, since a difference with 'infinity' is an error in older versions.
const age = (column: string): string => `(extract(epoch from clock_timestamp())::float8 - extract(epoch from ${column})::float8) * 1000`
const HELD = `o.status = 'pending' and o.hold_until > clock_timestamp()`
// A row that is not due yet goes back to wait.
const WAITING = `case when o.available_at > clock_timestamp() then 'scheduled' else 'pending' end`
const HEAD = `o.status = 'parked' and o.behind is null`

export function operatorSql(tables: Tables): OperatorSql {
  const { outbox } = tables
  return {
    retry: (filter) =>
      changing(
        outbox,
        filter,
        [HEAD, HELD, `o.status = 'skipped'`],
        () => `status = ${WAITING}, behind = null, hold_until = null, attempts = 0, published_at = null`,
      ),
    skip: (filter) => changing(outbox, filter, [HEAD], () => `status = 'skipped', hold_until = null, published_at = clock_timestamp()`),
    suspend: (filter, reason) =>
      changing(
        outbox,
        filter,
        [`o.status = 'pending'`, `o.status = 'scheduled'`],
        (param) => `status = 'parked', behind = null, hold_until = null, last_error = ${param(storable(reason, 4096))}::text`,
      ),
    free: `
      update ${outbox} o set status = ${WAITING}, behind = null where o.behind = any ($1::bigint[]) and o.status = 'parked'`,
    list: (filter) => listing(outbox, filter),
    show: `select ${columns}, o.headers, encode(o.body, 'base64') as body from ${outbox} o where o.id = $1::bigint`,
    ...counting(outbox),
    leases: `
      select r.id, (select count(*) from ${tables.lease} l where l.owner = r.id)::int as shards,
        extract(epoch from r.expires_at - clock_timestamp())::float8 * 1000 as expires_ms
      from ${tables.relay} r order by r.id limit 10000`,
    ...sweeping(outbox),
  }
}

/** One condition for each thing that is asked for; what isn't asked costs nothing and hides no index from the planner. */
function conditions(filter: OutboxFilter): {
  readonly all: string[]
  readonly params: unknown[]
  readonly param: (value: unknown) => string
} {
  const params: unknown[] = []
  const param = (value: unknown): string => `$${params.push(value)}`
  const { status, eventType, topic, key, rowIds, olderThanMs, error } = filter
  const all: string[] = []
  // Written out, for the planner to see which partial index fits.
  if (status !== undefined) all.push(`o.status = '${checkStatus(status)}'`)
  if (eventType !== undefined) all.push(`o.event_type = ${param(storable(eventType))}::text`)
  if (topic !== undefined) all.push(`o.topic = ${param(storable(topic))}::text`)
  if (key !== undefined) all.push(`o.key = ${param(storable(key))}::text`)
  if (rowIds !== undefined) all.push(`o.id = any (${param(idList(rowIds))}::bigint[])`)
  if (olderThanMs !== undefined)
    all.push(
      `o.created_at <= clock_timestamp() - ${param(checkInteger(olderThanMs, 'olderThanMs', 0, Number.MAX_SAFE_INTEGER))}::float8 * interval '1 millisecond'`,
    )
  if (error !== undefined) all.push(`position(lower(${param(storable(error))}::text) in lower(o.last_error)) > 0`)
  return { all, params, param }
}

const STATUSES: readonly unknown[] = ['pending', 'scheduled', 'published', 'parked', 'skipped'] satisfies OutboxRecord['status'][]

function checkStatus(status: OutboxRecord['status']): string {
  if (STATUSES.includes(status)) return status
  throw new WaybillError('INVALID_OPTION', 'status is none of a row', { got: status, allowed: STATUSES.join(', '), where: 'status' })
}

// The heads are locked, lowest first, before they are changed: a claim that is parking a row behind one of them, and has its head locked `for share`,
// ends first and is seen by the statement that frees; one that comes later finds the head locked, or no longer parked, and leaves the row alone. A claim
// must skip what is locked, not wait: freeing a million followers takes a minute.
function changing(
  outbox: string,
  filter: OutboxFilter,
  states: readonly string[],
  set: (param: (value: unknown) => string) => string,
): Statement {
  const { all, params, param } = conditions(filter)
  const limit = param(checkInteger(filter.limit ?? 100, 'limit', 1, 10_000))
  const changes = set(param)
  // Each state by itself: each has its own index, and none has `or`.
  const found = states.map(
    (state) => `(select o.id from ${outbox} o where ${[state, ...all].join(' and ')} order by o.id limit ${limit}::int)`,
  )
  const text = `
    with found as materialized (
      ${found.join(' union ')}
    ), locked as materialized (
      select o.id from ${outbox} o
      where o.id = any (array(select f.id from found f order by f.id limit ${limit}::int)) and (${states.map((state) => `(${state})`).join(' or ')})
      order by o.id for update
    )
    update ${outbox} o set ${changes} from locked l where o.id = l.id returning o.id::text as row_id`
  return { text, params }
}

const columns = `o.id::text as row_id, o.event_id, o.event_type, o.destination, o.topic, o.key, o.status, o.attempts, o.priority,
  ${ms('o.created_at')} as created_ms,
  case when o.status = 'scheduled' then ${ms('o.available_at')} when ${HELD} then ${ms('o.hold_until')} end as due_ms,
  o.last_error, o.behind::text as behind`

function listing(outbox: string, filter: OutboxFilter): Statement {
  const { all, params, param } = conditions(filter)
  const limit = param(checkInteger(filter.limit ?? 100, 'limit', 1, 10_000))
  return { text: `select ${columns} from ${outbox} o where ${['true', ...all].join(' and ')} order by o.id limit ${limit}::int`, params }
}

function counting(outbox: string): Pick<OperatorSql, 'stuckKeys' | 'stats' | 'estimate'> {
  const counted = (where: string) => `(select count(*) from (select 1 from ${outbox} o where ${where} limit ${COUNT_MAX + 1}) n)::float8`
  return {
    // A key's first blocking row stops it. What is not yet parked behind it is looked for in one walk over the rows that wait, for all keys together.
    stuckKeys: `
      with recursive ${orphaning(outbox, `'${ROW_ID_MIN}'::bigint`)}, stopping as materialized (
        select o.id, o.topic, o.key, o.status, o.attempts, o.last_error, o.created_at, o.behind from ${outbox} o where ${HEAD}
        union all
        select o.id, o.topic, o.key, o.status, o.attempts, o.last_error, o.created_at, o.behind from ${outbox} o where ${HELD} and o.attempts > 0
        union all
        select f.* from orphaning g cross join lateral (
          select o.id, o.topic, o.key, o.status, o.attempts, o.last_error, o.created_at, o.behind from ${outbox} o
          where o.behind = g.id and o.status = 'parked' order by o.id limit 1) f
      ), first as materialized (
        select distinct on (s.topic, s.key) s.* from stopping s order by s.topic, s.key, s.id
      ), stuck as materialized (
        select f.* from first f order by f.created_at, f.id limit $1::int
      ), waiting as materialized (
        select o.id, o.topic, o.key from ${outbox} o
        where o.status = 'pending' and o.id > (select min(s.id) from stuck s)
        order by o.id limit ${FOLLOWERS_AMONG}
      ), near as materialized (
        select s.id, count(*) as n from stuck s join waiting w on w.topic = s.topic and w.key = s.key and w.id > s.id group by s.id
      )
      select s.id::text as row_id, s.topic, s.key, case when s.status = 'parked' then 'parked' else 'held' end as status, s.attempts, s.last_error,
        least(${FOLLOWERS_MAX}, coalesce(n.n, 0) - case when s.behind is null then 0 else 1 end
          + (select count(*) from (select 1 from ${outbox} o where o.behind = coalesce(s.behind, s.id) limit ${FOLLOWERS_MAX} + 1) b))::int as followers,
        ${age('s.created_at')} as age_ms
      from stuck s left join near n on n.id = s.id order by s.created_at, s.id`,
    stats: `
      select ${counted(`o.status = 'pending'`)} as pending, ${counted(`o.status = 'scheduled'`)} as scheduled,
        ${counted(HEAD)} + ${counted('o.behind is not null')} as parked,
        coalesce((select ${age('o.created_at')} from ${outbox} o where o.status = 'pending' order by o.id limit 1), 0)::float8 as oldest_ms`,
    estimate: (status) => `explain (format json) select 1 from ${outbox} o where ${status}`,
  }
}

function sweeping(outbox: string): Pick<OperatorSql, 'sweepPublished' | 'sweepSkipped' | 'healOrphans'> {
  const sweep = (status: string): string => `
    with gone as (
      delete from ${outbox} o where o.id in (
        select s.id from ${outbox} s
        where s.status = '${status}' and s.published_at < clock_timestamp() - $1::float8 * interval '1 millisecond'
        order by s.published_at limit $2::int)
      returning 1)
    select count(*)::int as n from gone`
  return {
    sweepPublished: sweep('published'),
    sweepSkipped: sweep('skipped'),
    // All that is behind a head goes on at once, since half of it would be overtaken by what comes next.
    healOrphans: `
      with recursive ${orphaning(outbox, '$1::bigint')}, healed as (
        update ${outbox} o set status = case when o.status = 'parked' then ${WAITING} else o.status end, behind = null
        where o.id = any (array(
          select f.id from orphaning g cross join lateral (select x.id from ${outbox} x where x.behind = g.id order by x.behind, x.id offset 0) f))
      )
      select (select h.id::text from heads h where h.n = ${HEADS_MAX}) as row_id`,
  }
}

// The heads one by one, each by a look into the index: a million rows behind one are not walked.
function orphaning(outbox: string, from: string): string {
  return `
      heads (id, n) as (
        (select o.behind, 1 from ${outbox} o where o.behind >= ${from} order by o.behind limit 1)
        union all
        select (select o.behind from ${outbox} o where o.behind > h.id order by o.behind limit 1), h.n + 1 from heads h where h.id is not null and h.n < ${HEADS_MAX}
      ), orphaning as materialized (
        select h.id from heads h
        where h.id is not null and not exists (select 1 from ${outbox} o where o.id = h.id and ${HEAD} offset 0)
      )`
}
