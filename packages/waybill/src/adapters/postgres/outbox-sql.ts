import { type ClaimSql, DUE_SCHEDULED, SCHEDULED_AT, claimSql, someOf } from './outbox-claim-sql.ts'
import { hintCondition } from './hint-sql.ts'
import { frequent } from './prepared-names.ts'
import { ADVISORY_CLASS, SHARDS, slotOf } from './slots.ts'
import type { Tables } from './tables.ts'

/** The outbox's statements, but for those of operators. The same for PGlite and PostgreSQL. */
export interface OutboxSql extends ClaimSql {
  /** At least two rows; $1 to $10: columns, each with its values joined by {@link SEPARATOR}; the last two null where none has any. */
  readonly append: string
  readonly appendOne: string
  readonly lockSlots: string
  readonly acquire: string
  readonly relays: string
  readonly relinquish: string
  readonly markPublished: string
  readonly charge: string
  readonly hold: string
  readonly park: string
  readonly retire: string
  readonly release: string
}

/** What joins the values of a column in {@link OutboxSql.append}. */
export const SEPARATOR = '\u001f'
const SEPARATOR_SQL = `E'\\x1f'`

/** `keep`: published rows stay, marked, until they are swept. */
export function outboxSql(tables: Tables, keep: boolean): OutboxSql {
  return { ...appending(tables), ...leasing(tables), ...claimSql(tables), ...settling(tables, keep) }
}

// Each column comes as one text, its values joined by a character that none of them contains: a third of what JSON or an array costs the server, less than
// half of what an array costs PGlite, and every driver sends a text alike. Bytes travel as base64 both ways: PGlite takes five times as long to read a bytea.
function appending(tables: Tables) {
  const { outbox, outboxIds } = tables
  const hinted = `(select ${hintCondition(tables)})`
  const target = `${outbox} (id, event_id, event_type, destination, topic, key, shard, priority, headers, body, hold_until, available_at, status)`
  const status = (availableAt: string): string => `case when ${availableAt} > clock_timestamp() then 'scheduled' else 'pending' end`
  // Counting the locks takes them all, in order, before the join can give its first row, and only then are numbers drawn.
  const locked = `locked as materialized (
    select count(pg_advisory_xact_lock(${ADVISORY_CLASS}, s.slot)) as n from (select distinct i.slot from input i order by i.slot) s)`
  return {
    append: frequent(
      'append',
      `
      with input as materialized (
        select e.*, ${slotOf('e.topic', 'e.key')} as slot
        from unnest(${[1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((n) => `string_to_array($${n}::text, ${SEPARATOR_SQL})`).join(', ')})
          with ordinality as e (event_id, event_type, destination, topic, key, priority, headers, body, hold_ms, available_at, n)
      ), ${locked}
      insert into ${target}
      select nextval(${outboxIds}), r.event_id, r.event_type, r.destination, r.topic, r.key, r.slot % ${SHARDS}, r.priority::smallint, r.headers,
        decode(r.body, 'base64'), clock_timestamp() + nullif(r.hold_ms, '')::float8 * interval '1 millisecond', nullif(r.available_at, '')::timestamptz,
        ${status(`nullif(r.available_at, '')::timestamptz`)}
      from (select i.* from input i cross join locked l where l.n > 0 and ${hinted} order by i.n) r
      returning id::text as row_id`,
    ),
    // The usual case: as the one above, with less to plan.
    appendOne: frequent(
      'append one',
      `
      with locked as materialized (
        select count(pg_advisory_xact_lock(${ADVISORY_CLASS}, s.slot)) as n, max(s.slot) as slot
        from (select ${slotOf('$4::text', '$5::text')} as slot offset 0) s
      )
      insert into ${target}
      select nextval(${outboxIds}), $1::text, $2::text, $3::text, $4::text, $5::text, l.slot % ${SHARDS}, $6::smallint, $7::text,
        decode($8::text, 'base64'), clock_timestamp() + $9::float8 * interval '1 millisecond', $10::timestamptz, ${status('$10::timestamptz')}
      from locked l where l.n > 0 and ${hinted}
      returning id::text as row_id`,
    ),
    lockSlots: `
      with input as materialized (
        select ${slotOf('e.topic', 'e.key')} as slot from json_to_recordset($1::text::json) as e (topic text, key text)
      ), ${locked}
      select n::int as n from locked`,
  }
}

function leasing({ lease, relay, outbox }: Tables) {
  const stranger = `($3::bool and r.id not in (select a.id from alive a))`
  const free = `(l.owner is null or l.expires_at <= c.t or ($3::bool and l.owner not in (select a.id from alive a)))`
  const waits = (ids: string): string => `(select 1 from ${outbox} o where o.id = any (${ids}) and o.status = 'pending' offset 0)`
  return {
    // $1 relay, $2 lease in ms, $3 whether every owner outside $4 is known to be dead, $5 whether this relay is new to its process: then what it had in
    // flight was a dead namesake's. $6 shards in use.
    acquire: `
      with clock as materialized (
        select clock_timestamp() as t, clock_timestamp() + $2::float8 * interval '1 millisecond' as until
      ), alive as materialized (
        select k.id from json_array_elements_text($4::text::json) as k (id)
      ), registered as (
        insert into ${relay} as r (id, expires_at) select $1::text, c.until from clock c
        on conflict (id) do update set expires_at = excluded.expires_at,
          claimed = case when $5::bool then '{}' else r.claimed end,
          suspects = case when $5::bool or r.suspects <> '{}'
            then array(select distinct s.id from unnest(case when $5::bool then r.suspects || r.claimed else r.suspects end) as s (id)
              where exists ${waits('array[s.id]')})
            else r.suspects end,
          asleep = r.asleep and not $5::bool
      ), forgotten as (
        delete from ${relay} r using clock c
        where r.id <> $1::text and (r.expires_at <= c.t or ${stranger}) and not exists (select 1 from ${lease} l where l.owner = r.id)
          and not exists ${waits('r.claimed || r.suspects')}
        returning r.id
      ), buried as (
        update ${relay} r set expires_at = c.t from clock c
        where r.id <> $1::text and r.expires_at > c.t and ${stranger}
          and (exists (select 1 from ${lease} l where l.owner = r.id) or exists ${waits('r.claimed || r.suspects')})
      ), others as materialized (
        select r.id from ${relay} r, clock c where r.id <> $1::text and r.expires_at > c.t and not ${stranger}
      ), fair as materialized (
        select ${SHARDS} / x.n + case when x.rank < ${SHARDS} % x.n then 1 else 0 end as n
        from (select (1 + count(*))::int as n, (count(*) filter (where o.id collate "C" < $1::text collate "C"))::int as rank from others o) x
      ), mine as materialized (
        select l.shard, l.shard = any ($6::smallint[]) as used, row_number() over (order by l.shard) as place
        from ${lease} l where l.owner = $1::text
      ), taken as materialized (
        select l.shard from ${lease} l, clock c
        where l.owner is distinct from $1::text and ${free}
        order by l.shard limit greatest(0, (select f.n from fair f) - (select count(*) from mine))
        for update of l skip locked
      ), changed as (
        update ${lease} l set owner = case when p.keep then $1::text end, expires_at = case when p.keep then c.until end
        from (
          select m.shard, m.place <= f.n or m.used as keep, m.place > f.n as leaving from mine m, fair f
          union all select t.shard, true, false from taken t
        ) p, clock c
        where l.shard = p.shard and (l.owner = $1::text or ${free})
        returning l.shard, l.owner, p.leaving
      )
      select coalesce((select string_agg(ch.shard::text, ',' order by ch.shard) from changed ch where ch.owner is not null), '') as shards,
        coalesce((select string_agg(ch.shard::text, ',' order by ch.shard) from changed ch where ch.owner is not null and ch.leaving), '') as leaving,
        ${someOf(outbox, `x.status = 'pending'`, 'x.id')}
          or ${someOf(outbox, DUE_SCHEDULED, SCHEDULED_AT)} as pending`,
    relays: `select r.id from ${relay} r where r.expires_at > clock_timestamp() order by r.id`,
    // What was a namesake's before stays suspect, whoever takes it next.
    relinquish: `
      with gone as (
        delete from ${relay} r where r.id = $1::text and r.suspects = '{}'
      ), kept as (
        update ${relay} r set expires_at = clock_timestamp(), claimed = '{}', asleep = false where r.id = $1::text and r.suspects <> '{}'
      )
      update ${lease} l set owner = null, expires_at = null where l.owner = $1::text`,
  }
}

// The lease is asked for in the very statement that settles, once for all its rows: a join with the leases takes five times as long.
function settling({ outbox, lease }: Tables, keep: boolean) {
  const leased = `o.shard = any (array(select l.shard from ${lease} l where l.owner = $1::text and l.expires_at > clock_timestamp()))`
  const done = (where: string) =>
    keep
      ? `update ${outbox} o set status = 'published', published_at = clock_timestamp(), hold_until = null, behind = null where ${where}`
      : `delete from ${outbox} o where ${where}`
  // The numbers twice: for a join alone, the planner may walk over all that waits, where it takes that for little.
  const failed = (set: string) => `
    update ${outbox} o set ${set}, attempts = least(o.attempts, 2147483646) + case when f.charged then 0 else 1 end, last_error = f.error
    from json_to_recordset($2::text::json) as f (id bigint, error text, charged bool)
    where o.id = f.id and o.id = any (array(select i.id from json_to_recordset($2::text::json) as i (id bigint))) and o.status = 'pending' and ${leased}`
  const marked = done(`o.id = any ($2::bigint[]) and o.status = 'pending' and ${leased}`)
  return {
    markPublished: frequent('mark', `with done as (${marked} returning 1) select count(*)::int as n from done`),
    charge: `update ${outbox} o set attempts = least(o.attempts, 2147483646) + 1 where o.id = $2::bigint and o.status = 'pending' and ${leased}`,
    hold: failed(`hold_until = clock_timestamp() + $3::float8 * interval '1 millisecond'`),
    park: failed(`status = 'parked', hold_until = null`),
    retire: frequent('retire', done(`o.id = any ($1::bigint[]) and o.status <> 'published'`)),
    release: frequent(
      'release',
      `update ${outbox} o set hold_until = null where o.id = any ($1::bigint[]) and o.status in ('pending', 'scheduled', 'parked') and o.hold_until is not null`,
    ),
  }
}
