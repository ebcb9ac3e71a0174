import { frequent } from './prepared-names.ts'
import type { Tables } from './tables.ts'

/** The statements of a claim. */
export interface ClaimSql {
  /**
   * Claims: $1 relay, $2 busy keys, $3 limit, $4 destinations to leave alone, $5 shards to leave alone, $6 rows in flight; for `ahead` $7, how many rows to
   * give the numbers of, and for `known` $7, the only rows of default priority to take. Gives back {@link ClaimColumns}, the summary last.
   */
  claim(source: ClaimSource, parts: ClaimParts): string
  /** Makes scheduled rows pending whose time has come. $1 relay. */
  readonly wake: string
  /**
   * Lets rows of other priorities overtake that have nothing of another priority before them in their key, nor anything parked. $1 relay, $2 destinations to
   * leave alone; it looks at some, in the order of priority, then number, that come after $3, $4. Gives back {@link ClearColumns}.
   */
  readonly clear: string
  /** Parks what waits behind parked rows, up to row $4: $1 relay, $2 busy keys, $3 shards to leave alone, $5 rows in flight. */
  readonly follow: string
}

/** Where rows of default priority come from: all that wait; the same, with a look ahead; those known from a look ahead. */
export type ClaimSource = 'all' | 'ahead' | 'known'

/**
 * Which of the unusual a claim reckons with, as a sum of what follows; `usual`: with nothing of it. Planning is what a claim costs most, so each asks only
 * what it must, and says in its summary what there was: where it was not reckoned with, what was claimed does not count.
 */
export type ClaimParts = number | 'usual'
/** Rows that are parked or held. */
export const BLOCKED = 1
/** Rows of other than default priority. */
export const PRIORITIES = 2
/** Relays that died with rows in flight. */
export const SUSPECTS = 4
export const ALL_PARTS = BLOCKED | PRIORITIES | SUSPECTS
/** Said in the summary alone: there is something unusual at all; scheduled rows whose time has come; rows of which is not known whether they may overtake. */
export const UNUSUAL = 8
export const SCHEDULED = 16
export const UNCLEAR = 32

/** What a claim gives back of a row; of the summary, whose `row_id` is null, see {@link claimSql}. */
export interface ClaimColumns {
  row_id: string | null
  event_id: string
  destination: string
  topic: string
  key: string
  headers: string
  body: string
  attempts: number
  shard: number
  suspect: boolean
}

/** How many rows were let overtake; after which one to go on, null where there was nothing more to look at. */
export interface ClearColumns {
  n: number
  priority: number | null
  row_id: string | null
}

/** Scheduled rows that one claim makes pending; followers that one parks; rows of other priorities that one lets overtake. */
const WAKE_MAX = 1_000
const FOLLOW_MAX = 20_000
const CLEAR_MAX = 20_000

// A limit that the planner can't see, which it takes for a small part, keeps it from sorting the whole backlog, also where it has no statistics (PGlite
// never gathers any). `is true` keeps a question from becoming a join.
const HIDDEN = '(select 9223372036854775807)'
const DEFAULT_PRIORITY = 5
/**
 * Rows of another priority that wait. As the indexes on them say, and so that no other index can answer: where statistics say that hardly anything waits,
 * the planner would walk over all that waits instead.
 */
export const OTHER_PRIORITY = `case when status = 'pending' and priority <> ${DEFAULT_PRIORITY} then 'other' end = 'other'`
const KEY_ORDER = 'x.topic, x.key, x.id'
/** What a usual claim need not know more of. As the index on it says. */
export const UNUSUAL_ROW = `status in ('parked', 'scheduled') or hold_until is not null or priority <> ${DEFAULT_PRIORITY}`

/** When a scheduled row is due, as the index on it says. One that somebody gave no time is due at once. */
export const SCHEDULED_AT = `coalesce(available_at, '-infinity'::timestamptz)`
/** Scheduled rows whose time has come. */
export const DUE_SCHEDULED = `x.status = 'scheduled' and ${SCHEDULED_AT} <= (select clock_timestamp())`

export function claimSql(tables: Tables): ClaimSql {
  const made = new Map<string, string>()
  // A look ahead is what a claim does that takes long, and a plan that no longer fits the tables makes it so: it is planned each time.
  const named = (name: string, text: string): string => (name.startsWith('ahead') ? text : frequent(`claim ${name}`, text))
  return {
    claim(source, parts) {
      const name = `${source} ${parts}`
      const text = made.get(name) ?? named(name, claiming(tables, source, parts))
      made.set(name, text)
      return text
    },
    wake: waking(tables),
    clear: clearing(tables),
    follow: following(tables),
  }
}

const heldBy = ({ lease }: Tables, leaving: string): string =>
  `select l.shard from ${lease} l where l.owner = $1::text and l.expires_at > clock_timestamp() and l.shard <> all (${leaving}::smallint[])`

const busyKeys = `select b.topic, b.key from json_to_recordset($2::text::json) as b (topic text, key text)`
const columns = 'o.id, o.priority, o.shard, o.event_id, o.destination, o.topic, o.key, o.headers, o.body, o.attempts'

const notLeftAlone = (names: string): string =>
  `o.destination not in (select d.name from json_array_elements_text(${names}::text::json) as d (name))`

/** The questions that every row is asked, behind `where`. */
function due({ outbox }: Tables, blocked: boolean): string {
  const question = `o.status = 'pending' and o.shard = any (array(select h.shard from held h))
        and (o.available_at is null or o.available_at <= (select clock_timestamp()))
        and (o.topic, o.key) not in (${busyKeys})
        and ${notLeftAlone('$4')}`
  if (!blocked) return question
  return `${question}
        and not ${someOfKey(outbox, '<=', `(x.status = 'parked' or (x.status = 'pending' and x.hold_until > (select clock_timestamp())))`)}`
}

/**
 * Whether there is such a row in the key of row `o`, up to it. Asked as a range, of which one row is wanted: as equality, the planner would walk over the
 * whole table where most of it is of one key.
 */
function someOfKey(outbox: string, upTo: '<' | '<=', where: string): string {
  return someOf(
    outbox,
    `(x.topic, x.key) >= (o.topic, o.key) and (x.topic, x.key, x.id) ${upTo} (o.topic, o.key, o.id) and ${where}`,
    KEY_ORDER,
  )
}

function claiming(tables: Tables, source: ClaimSource, parts: ClaimParts): string {
  const { outbox, relay } = tables
  const has = (part: number): boolean => parts !== 'usual' && (parts & part) > 0
  const asked = due(tables, has(BLOCKED))
  // A row of default priority waits for one of another that is before it in its key.
  const usualAsked = has(PRIORITIES)
    ? `o.priority = ${DEFAULT_PRIORITY} and ${asked} and not ${someOfKey(outbox, '<', OTHER_PRIORITY)}`
    : asked
  // Along the index of what is pending: rows that are parked or scheduled, a million of them too, are not walked over.
  const from = source === 'known' ? 'w.id = any ($7::bigint[])' : `w.status = 'pending'`
  const waiting = `(select w.* from ${outbox} w where ${from} order by w.id limit ${HIDDEN}) o`
  const usual =
    source === 'ahead'
      ? `select n.id, n.place, ${carried} from (
        select ${columns}, row_number() over (order by o.id) as place from ${waiting} where ${usualAsked} order by o.id limit $7::int
      ) n`
      : `select ${columns} from ${waiting} where ${usualAsked} order by o.id limit $3::int`
  return `
    with held as materialized (
      ${heldBy(tables, '$5')}
    ), usual as materialized (
      ${usual}
    ), picked as materialized (
      ${has(PRIORITIES) ? ranked(tables, asked, source === 'ahead') : `select ${columns} from usual o ${source === 'ahead' ? 'where o.place <= $3::int' : ''}`}
    ), noted as (
      update ${relay} r set claimed = m.ids, asleep = r.asleep and m.n = 0
      from (select coalesce(array_agg(p.id), '{}') || $6::bigint[] as ids, count(*) as n from picked p) m
      where r.id = $1::text and (r.claimed <> m.ids or (r.asleep and m.n > 0))
    )
    select p.id::text as row_id, p.event_id, p.destination, p.topic, p.key, p.headers, encode(p.body, 'base64') as body, p.attempts, p.shard::int as shard,
      ${
        has(SUSPECTS)
          ? `p.id in (select unnest(case when r.id <> $1::text and r.expires_at <= clock_timestamp() then r.claimed || r.suspects else r.suspects end) from ${relay} r)`
          : 'false'
      } as suspect
    from picked p
    union all
    select null, '', '', '', '', ${source === 'ahead' ? `coalesce((select string_agg(u.id::text, ',' order by u.place) from usual u), '')` : `''`}, '',
      ${summary(tables, parts)}, 0, false`
}

// Of the rows ahead only the numbers: what they carry would be kept for nothing.
const carried = ['event_id', 'destination', 'topic', 'key', 'headers', 'body', 'attempts', 'shard', 'priority']
  .map((column) => `case when n.place <= $3::int then n.${column} end as ${column}`)
  .join(', ')

// The rows are locked, so they stay as they were found. Asked again for their status, the planner would walk over all that is scheduled.
function waking(tables: Tables): string {
  const { outbox } = tables
  return `
    with held as materialized (
      ${heldBy(tables, `'{}'`)}
    ), woken as (
      update ${outbox} o set status = 'pending'
      where o.id = any (array(
        select x.id from ${outbox} x
        where ${DUE_SCHEDULED} and x.shard = any (array(select h.shard from held h))
        order by ${SCHEDULED_AT} limit ${WAKE_MAX} for update skip locked))
      returning 1
    )
    select count(*)::int as n from woken`
}

/** High priorities first, then the default one; what is left of the limit goes to low ones. */
function ranked({ outbox }: Tables, asked: string, isAhead: boolean): string {
  const band = (range: string): string => `
        (select ${columns}
        from (
          select w.* from ${outbox} w where ${OTHER_PRIORITY} and w.clear and w.priority ${range}
          order by w.priority desc, w.id limit ${HIDDEN}) o
        where ${asked}
        order by o.priority desc, o.id limit $3::int)`
  // Lazily one after the other: low priorities are walked only where the limit was not reached before.
  return `select q.* from (
        ${band(`> ${DEFAULT_PRIORITY}`)}
        union all (select ${columns} from usual o ${isAhead ? 'where o.place <= $3::int' : ''})
        union all ${band(`< ${DEFAULT_PRIORITY}`)}
      ) q limit $3::int`
}

function summary({ outbox, relay }: Tables, parts: ClaimParts): string {
  const flag = (what: number, found: string): string => `case when ${found} then ${what} else 0 end`
  const flags = [
    flag(
      SUSPECTS,
      `exists (select 1 from ${relay} x where x.suspects <> '{}' or (x.id <> $1::text and x.expires_at <= clock_timestamp()))`,
    ),
    flag(UNUSUAL, someOf(outbox, `x.${UNUSUAL_ROW.replaceAll(' or ', ' or x.')}`, 'x.shard, x.id')),
  ]
  if (parts !== 'usual') {
    flags.push(
      flag(BLOCKED, someOf(outbox, `x.status = 'parked' or x.hold_until is not null`, KEY_ORDER)),
      flag(PRIORITIES, someOf(outbox, OTHER_PRIORITY, KEY_ORDER)),
      flag(SCHEDULED, someOf(outbox, DUE_SCHEDULED, SCHEDULED_AT)),
      flag(UNCLEAR, someOf(outbox, `${OTHER_PRIORITY} and not x.clear`, 'x.priority desc, x.id')),
    )
  }
  return flags.join(' + ')
}

/** Whether there is such a row. In an order that only the index on these rows has: without statistics, anything else may be taken for cheaper. */
export function someOf(outbox: string, where: string, order: string): string {
  return `(select count(*) > 0 from (select 1 from ${outbox} x where ${where} order by ${order} limit 1) y)`
}

// All that is committed before a row of its key is seen with it, so what is true of it stays true: what comes later has a higher number. What comes back
// (a scheduled row, a skipped one that is retried) has lost its place by its nature; a held row counts as waiting. Behind a parked
// row nothing is let overtake: what is parked with it is not looked at, and comes back once it goes on.
function clearing(tables: Tables): string {
  const { outbox } = tables
  return `
    with held as materialized (
      ${heldBy(tables, `'{}'`)}
    ), unclear as materialized (
      select o.id, o.priority, o.topic, o.key from ${outbox} o
      where ${OTHER_PRIORITY} and not o.clear and o.shard = any (array(select h.shard from held h))
        and ${notLeftAlone('$2')}
        and o.priority <= $3::int and (o.priority < $3::int or o.id > $4::bigint)
      order by o.priority desc, o.id limit ${CLEAR_MAX}
    ), placed as materialized (
      select w.id, w.unclear, min(w.priority) over so_far = max(w.priority) over so_far and not bool_or(w.stops) over so_far as alike from (
        (select w.id, w.topic, w.key, w.priority, w.priority <> ${DEFAULT_PRIORITY} and not w.clear as unclear, false as stops from ${outbox} w
         where w.status = 'pending' and w.id <= (select max(x.id) from unclear x) order by w.id limit ${HIDDEN})
        union all
        (select p.id, p.topic, p.key, p.priority, false, true
         from (select distinct u.topic, u.key from unclear u) k
         cross join lateral (
           select x.* from ${outbox} x
           where (x.topic, x.key) >= (k.topic, k.key) and (x.topic, x.key) <= (k.topic, k.key) and x.status = 'parked'
           order by ${KEY_ORDER} limit 1) p)
      ) w where ((w.topic, w.key) in (select u.topic, u.key from unclear u)) is true
      window so_far as (partition by w.topic, w.key order by w.id)
    ), cleared as (
      update ${outbox} o set clear = true
      where o.id = any (array(select p.id from placed p where p.unclear and p.alike)) and o.status = 'pending' and not o.clear
      returning 1
    ), last as (
      select u.priority, u.id from unclear u order by u.priority desc, u.id offset ${CLEAR_MAX - 1}
    )
    select (select count(*) from cleared)::int as n, (select l.priority from last l) as priority, (select l.id::text from last l) as row_id`
}

// Never a join of what waits with what stands still, which without statistics would be as many looks as one times the other: `||` hides the index of what
// waits.
// The head is locked, as by whoever retries or skips it: either this finds it locked or no longer parked, or what frees the followers sees these. It does
// not wait for the lock: freeing a million followers takes a minute.
function following(tables: Tables): string {
  const { outbox } = tables
  return `
    with held as materialized (
      ${heldBy(tables, '$3')}
    ), heads as materialized (
      select h.topic, h.key, min(h.id) as id from (
        select b.id, b.topic, b.key from ${outbox} b
        where b.status = 'parked' and b.behind is null and b.shard = any (array(select h.shard from held h))
        order by b.id limit ${FOLLOW_MAX}
      ) h where (h.topic, h.key) not in (${busyKeys})
      group by h.topic, h.key
    ), met as materialized (
      select m.id, m.head from (
        select x.id, x.waits, min(x.id) filter (where not x.waits) over (partition by x.topic, x.key) as head from (
          (select w.id, w.topic, w.key, true as waits from (
             select o.id, o.topic, o.key from ${outbox} o
             where o.status = 'pending' and o.id > (select min(h.id) from heads h) and ($4::bigint is null or o.id <= $4::bigint)
             order by o.id limit ${HIDDEN}) w
           where ((w.topic, w.key) in (select h.topic, h.key from heads h)) is true and w.id <> all ($5::bigint[])
           limit ${FOLLOW_MAX})
          union all
          select h.id, h.topic, h.key, false from heads h
        ) x
      ) m where m.waits and m.id > m.head
    ), locked as materialized (
      select h.id from ${outbox} h
      where h.id = any (array(select distinct m.head from met m)) and h.status = 'parked' and h.behind is null
      order by h.id for update skip locked
    ), followed as (
      update ${outbox} o set status = 'parked', behind = m.head from met m
      where o.id = m.id and o.status || '' = 'pending' and (m.head in (select l.id from locked l)) is true
      returning 1
    )
    select count(*)::int as n from followed`
}
