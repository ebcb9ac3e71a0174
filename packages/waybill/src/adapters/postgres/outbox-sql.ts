import { ADVISORY_CLASS, SHARDS, slotOf } from './slots.ts'
import type { Tables } from './tables.ts'

/** The outbox's statements. The same for PGlite and PostgreSQL. */
export interface OutboxSql {
  readonly append: string
  readonly appendOne: string
  readonly lockSlots: string
  readonly acquire: string
  readonly relays: string
  readonly relinquish: string
  readonly claim: string
  readonly markPublished: string
  readonly charge: string
  readonly hold: string
  readonly park: string
  readonly retire: string
  readonly release: string
  readonly retry: string
  readonly list: string
  readonly stats: string
  readonly sweep: string
}

/** `keep`: published rows stay, marked, until they are swept. */
export function outboxSql(tables: Tables, keep: boolean): OutboxSql {
  return { ...appending(tables), ...leasing(tables), claim: claiming(tables), ...settling(tables, keep), ...looking(tables) }
}

// Rows come as one JSON text: three times as fast on PGlite as arrays, as fast on a server, and any driver can send it. Bytes travel as base64 both ways:
// PGlite takes five times as long to read a bytea.
function appending({ outbox, outboxIds }: Tables) {
  // Counting the locks takes them all, in order, before the join can give its first row, and only then are numbers drawn.
  const locked = `locked as materialized (
    select count(pg_advisory_xact_lock(${ADVISORY_CLASS}, s.slot)) as n from (select distinct i.slot from input i order by i.slot) s)`
  return {
    append: `
      with input as materialized (
        select e.*, ${slotOf('e.topic', 'e.key')} as slot
        from rows from (json_to_recordset($1::text::json) as (event_id text, event_type text, destination text, topic text, key text,
          priority smallint, headers text, body text, hold_ms float8, available_at timestamptz))
          with ordinality as e (event_id, event_type, destination, topic, key, priority, headers, body, hold_ms, available_at, n)
      ), ${locked}
      insert into ${outbox} (id, event_id, event_type, destination, topic, key, shard, priority, headers, body, hold_until, available_at)
      select nextval(${outboxIds}), r.event_id, r.event_type, r.destination, r.topic, r.key, r.slot % ${SHARDS}, r.priority, r.headers,
        decode(r.body, 'base64'), clock_timestamp() + r.hold_ms * interval '1 millisecond', r.available_at
      from (select i.* from input i cross join locked l where l.n > 0 order by i.n) r
      returning id::text as row_id`,
    // The usual case: as the one above, with less to plan.
    appendOne: `
      with locked as materialized (
        select count(pg_advisory_xact_lock(${ADVISORY_CLASS}, s.slot)) as n, max(s.slot) as slot
        from (select ${slotOf('$4::text', '$5::text')} as slot offset 0) s
      )
      insert into ${outbox} (id, event_id, event_type, destination, topic, key, shard, priority, headers, body, hold_until, available_at)
      select nextval(${outboxIds}), $1::text, $2::text, $3::text, $4::text, $5::text, l.slot % ${SHARDS}, $6::smallint, $7::text,
        decode($8::text, 'base64'), clock_timestamp() + $9::float8 * interval '1 millisecond', $10::timestamptz
      from locked l where l.n > 0
      returning id::text as row_id`,
    lockSlots: `
      with input as materialized (
        select ${slotOf('e.topic', 'e.key')} as slot from json_to_recordset($1::text::json) as e (topic text, key text)
      ), ${locked}
      select n::int as n from locked`,
  }
}

function leasing({ lease, relay }: Tables) {
  const free = `(l.owner is null or l.expires_at <= c.t or ($3::bool and l.owner not in (select a.id from alive a)))`
  return {
    // $1 relay, $2 lease in ms, $3 whether every owner outside $4 is known to be dead, $5 whether this relay is new to its process: then what it holds was
    // a dead namesake's.
    acquire: `
      with clock as materialized (
        select clock_timestamp() as t, clock_timestamp() + $2::float8 * interval '1 millisecond' as until
      ), alive as materialized (
        select k.id from json_array_elements_text($4::text::json) as k (id)
      ), registered as (
        insert into ${relay} as r (id, expires_at) select $1::text, c.until from clock c
        on conflict (id) do update set expires_at = excluded.expires_at
      ), forgotten as (
        delete from ${relay} r using clock c
        where r.id <> $1::text and r.expires_at <= c.t and not exists (select 1 from ${lease} l where l.owner = r.id)
      ), fair as materialized (
        select ceil(${SHARDS}.0 / (1 + (
          select count(*) from ${relay} r where r.id <> $1::text and r.expires_at > c.t and not ($3::bool and r.id not in (select a.id from alive a))
        )))::int as n from clock c
      ), mine as materialized (
        select l.shard, row_number() over (order by l.shard) as place from ${lease} l where l.owner = $1::text
      ), taken as materialized (
        select l.shard from ${lease} l, clock c
        where l.owner is distinct from $1::text and ${free}
        order by l.shard limit greatest(0, (select f.n from fair f) - (select count(*) from mine))
        for update of l skip locked
      ), changed as (
        update ${lease} l set
          owner = case when p.keep then $1::text end,
          expires_at = case when p.keep then c.until end,
          suspect_to = case when l.owner <> $1::text or $5::bool
            then greatest(l.suspect_to, (select r.claimed_to from ${relay} r where r.id = l.owner)) else l.suspect_to end
        from (select m.shard, m.place <= f.n as keep from mine m, fair f union all select t.shard, true from taken t) p, clock c
        where l.shard = p.shard and (l.owner = $1::text or ${free})
        returning l.shard, l.owner
      )
      select ch.shard::int as shard from changed ch where ch.owner is not null order by ch.shard`,
    relays: `select r.id from ${relay} r where r.expires_at > clock_timestamp() order by r.id`,
    relinquish: `
      with gone as (delete from ${relay} r where r.id = $1::text)
      update ${lease} l set owner = null, expires_at = null where l.owner = $1::text`,
  }
}

function claiming({ outbox, lease, relay }: Tables): string {
  // The rows are walked in order, and only where anything is blocked at all (an ordered look into an index that is nearly always empty) is each asked
  // whether something before it blocks it. Two things keep the planner from sorting the whole backlog instead, also where it has no statistics (PGlite
  // never gathers any): a limit that it can't see, which it takes for a small part, and `offset 0`, which keeps the question from becoming a join.
  return `
    with held as materialized (
      select l.shard, l.suspect_to from ${lease} l where l.owner = $1::text and l.expires_at > clock_timestamp()
    ), anything as materialized (
      select 1 from ${outbox} b where b.status = 'parked' or b.hold_until is not null order by b.topic, b.key, b.id limit 1
    ), picked as materialized (
      select o.id, o.shard, o.event_id, o.destination, o.topic, o.key, o.headers, o.body, o.attempts
      from (select w.* from ${outbox} w where w.status = 'pending' order by w.id limit (select 9223372036854775807)) o
      where o.shard = any (array(select h.shard from held h))
        and (o.available_at is null or o.available_at <= (select clock_timestamp()))
        and (o.topic, o.key) not in (select b.topic, b.key from json_to_recordset($2::text::json) as b (topic text, key text))
        and o.destination not in (select d.name from json_array_elements_text($4::text::json) as d (name))
        and (not (select count(*) > 0 from anything) or not exists (
          select 1 from ${outbox} b
          where b.topic = o.topic and b.key = o.key and b.id <= o.id
            and (b.status = 'parked' or (b.status = 'pending' and b.hold_until > (select clock_timestamp())))
          offset 0))
      order by o.id limit $3::int
    ), noted as (
      update ${relay} r set claimed_to = m.highest from (select max(p.id) as highest from picked p) m where r.id = $1::text and r.claimed_to < m.highest
    )
    select p.id::text as row_id, p.event_id, p.destination, p.topic, p.key, p.headers, encode(p.body, 'base64') as body, p.attempts,
      case when p.id > (select max(h.suspect_to) from held h) then false else p.id <= (select h.suspect_to from held h where h.shard = p.shard) end as suspect
    from picked p order by p.id`
}

function settling({ outbox, lease }: Tables, keep: boolean) {
  const leased = `l.shard = o.shard and l.owner = $1::text and l.expires_at > clock_timestamp()`
  const done = (where: string, using?: string) =>
    keep
      ? `update ${outbox} o set status = 'published', published_at = clock_timestamp(), hold_until = null ${using === undefined ? '' : `from ${using}`} where ${where}`
      : `delete from ${outbox} o ${using === undefined ? '' : `using ${using}`} where ${where}`
  const failed = (set: string) => `
    update ${outbox} o set ${set}, last_error = f.error
    from json_to_recordset($2::text::json) as f (id bigint, error text), ${lease} l
    where o.id = f.id and o.status = 'pending' and ${leased}`
  return {
    markPublished: `with done as (${done(`o.id = any ($2::bigint[]) and o.status = 'pending' and ${leased}`, `${lease} l`)} returning 1) select count(*)::int as n from done`,
    charge: `update ${outbox} o set attempts = o.attempts + 1 from ${lease} l where o.id = $2::bigint and o.status = 'pending' and ${leased}`,
    hold: failed(`attempts = o.attempts + 1, hold_until = clock_timestamp() + $3::float8 * interval '1 millisecond'`),
    park: failed(`status = 'parked', hold_until = null`),
    retire: done(`o.id = any ($1::bigint[]) and o.status <> 'published'`),
    release: `update ${outbox} o set hold_until = null where o.id = any ($1::bigint[]) and o.status = 'pending' and o.hold_until is not null`,
  }
}

function looking({ outbox }: Tables) {
  // $1 status, $2 event type, $3 key, $4 row numbers, $5 limit; null where it doesn't matter.
  const matches = `($1::text is null or o.status = $1::text) and ($2::text is null or o.event_type = $2::text)
    and ($3::text is null or o.key = $3::text) and ($4::bigint[] is null or o.id = any ($4::bigint[]))`
  const ms = (column: string) => `floor(extract(epoch from ${column}) * 1000)::float8`
  return {
    retry: `
      with chosen as (
        select o.id from ${outbox} o
        where (o.status = 'parked' or (o.status = 'pending' and o.hold_until > clock_timestamp())) and ${matches}
        order by o.id limit $5::int for update
      ), freed as (
        update ${outbox} o set status = 'pending', hold_until = null, attempts = 0 from chosen c where o.id = c.id returning 1
      )
      select count(*)::int as n from freed`,
    list: `
      select o.id::text as row_id, o.event_id, o.event_type, o.topic, o.key, o.status, o.attempts, o.priority, ${ms('o.created_at')} as created_ms,
        case when o.status = 'pending' and greatest(o.hold_until, o.available_at) > clock_timestamp() then ${ms('greatest(o.hold_until, o.available_at)')} end as due_ms,
        o.last_error
      from ${outbox} o where ${matches} order by o.id limit $5::int`,
    stats: `
      select (select count(*) from ${outbox} o where o.status = 'pending')::float8 as pending,
        (select count(*) from ${outbox} o where o.status = 'parked')::float8 as parked,
        coalesce((select extract(epoch from clock_timestamp() - o.created_at) * 1000 from ${outbox} o where o.status = 'pending' order by o.id limit 1), 0)::float8 as oldest_ms`,
    sweep: `
      with gone as (
        delete from ${outbox} o where o.id in (
          select s.id from ${outbox} s
          where s.status = 'published' and s.published_at < clock_timestamp() - $1::float8 * interval '1 millisecond'
          order by s.published_at limit $2::int)
        returning 1)
      select count(*)::int as n from gone`,
  }
}
