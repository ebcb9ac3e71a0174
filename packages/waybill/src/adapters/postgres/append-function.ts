import { hintCondition } from './hint-sql.ts'
import { ADVISORY_CLASS, SHARDS, slotOf } from './slots.ts'
import type { Tables } from './tables.ts'

// What TypeScript allows (core/names.ts, codecs/attributes.ts), in SQL, so that whatever is written here is read there.
const NAME = '^[A-Za-z0-9][A-Za-z0-9_-]*([.][A-Za-z0-9][A-Za-z0-9_-]*)*$'
const UNSAFE = '[\\u0001-\\u001f\\u007f-\\u009f\\u2028\\u2029\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\ufeff]'
// Nanoseconds only in UTC, where nothing has to be reckoned: PostgreSQL's own times end at microseconds.
const TIME =
  '^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,6}([0-9]{1,3}(?=Z|[+-]00:00))?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)$'
const UTC_TIME = '^[^ ]*(Z|[+-]00:00)$'
const SAFE_INTEGER = '9007199254740991'
const BODY_MAX_BYTES = 1_048_576
const LEVELS_MAX = 64
const TEXT_MAX_BYTES = 4096
const OPTIONS = [
  'aggregate_version',
  'available_at',
  'bounded_context',
  'causation_id',
  'correlation_id',
  'destination',
  'event_id',
  'metadata',
  'occurred_at',
  'priority',
  'source',
  'trace_id',
  'version',
] as const

/** The statements that make `waybill_append` (with the prefix of the tables) and what it calls; safe to run again. */
export function appendFunction(tables: Tables): readonly string[] {
  return [refuse(tables), checkText(tables), checkPayload(tables), spanOf(tables), append(tables), comment(tables)]
}

const nameOf = ({ schema, names: { prefix } }: Tables, part: string): string => `${schema}."${prefix}${part}"`

// The caller's rights, and nobody's own idea of what `lower` or `||` means. With the digits set, a double comes back from text as it went. The helpers
// inherit both: setting them costs more than all that they do.
const HELPER = 'language plpgsql security invoker'
const SETTINGS = `${HELPER} set search_path = pg_catalog, pg_temp set extra_float_digits = 1`

/** Ends the call with what was wrong, what was got and what is allowed: on one line, whatever was got. */
function refuse(tables: Tables): string {
  return `
    create or replace function ${nameOf(tables, 'append_refuse')}(what text, got jsonb, allowed text) returns void
    ${HELPER} as $waybill$
    declare
      shown text := coalesce(left(got::text, 80) || case when length(got::text) > 80 then '...' else '' end, 'null');
    begin
      raise exception using errcode = '22023',
        message = '${tables.names.prefix}append: ' || what || ' (got ' || regexp_replace(shown, '${UNSAFE}', '?', 'g') || '; allowed: ' || allowed || ')';
    end $waybill$`
}

/** One text of the call: a name, a key or just some text. */
function checkText(tables: Tables): string {
  const refused = nameOf(tables, 'append_refuse')
  return `
    create or replace function ${nameOf(tables, 'append_check')}(kind text, what text, value text) returns void
    ${HELPER} as $waybill$
    begin
      if kind = 'name' then
        if value is null or length(value) > 200 or value collate "C" !~ '${NAME}' then
          perform ${refused}(what || ' is not a usable name', to_jsonb(value), '1 to 200 characters: segments of letters, digits, "_" and "-", joined by dots');
        end if;
      elsif value is null or value = '' or value collate "C" ~ '${UNSAFE}'
        or octet_length(value) > (case kind when 'id' then 128 when 'key' then 512 else ${TEXT_MAX_BYTES} end) then
        perform ${refused}(what || ' is not usable', to_jsonb(value), '1 to ' || case kind when 'id' then 128 when 'key' then 512 else ${TEXT_MAX_BYTES} end
          || ' bytes of text without control or invisible characters');
      end if;
    end $waybill$`
}

/** What JSON of PostgreSQL can hold and a reader elsewhere can't: refused, since it would be altered or never be read. */
function checkPayload(tables: Tables): string {
  const refused = nameOf(tables, 'append_refuse')
  return `
    create or replace function ${nameOf(tables, 'append_check_payload')}(payload jsonb) returns void
    ${HELPER} as $waybill$
    declare
      number numeric;
    begin
      if payload is null then
        perform ${refused}('payload is missing', null, 'any JSON value, also ''null''::jsonb');
      end if;
      if jsonb_typeof(payload) in ('object', 'array') then
        if jsonb_path_exists(payload, 'strict $.**{${LEVELS_MAX} to last} ? (@.type() == "object" || @.type() == "array")') then
          perform ${refused}('payload is nested too deeply', '"more than ${LEVELS_MAX} levels"', 'at most ${LEVELS_MAX} levels of objects and arrays');
        end if;
        if jsonb_path_exists(payload, 'lax $.** ? (exists (@."__proto__"))') then
          perform ${refused}('a property of payload is called __proto__', '"__proto__"', 'any other name');
        end if;
      end if;
      for number in select n.value::text::numeric from jsonb_path_query(payload, 'strict $.** ? (@.type() == "number")') as n (value) loop
        -- Readers take numbers for doubles. Asked in two steps: the cast of what is out of a double's range fails.
        if number <> 0 and abs(number) not between 1e-307 and 1.7e308 then
          perform ${refused}('a number in payload is out of range', to_jsonb(number), 'what a double holds, or text');
        elsif number::float8::text::numeric <> number then
          perform ${refused}('a number in payload would lose digits', to_jsonb(number), 'what a double holds without loss, or text');
        end if;
      end loop;
    end $waybill$`
}

/** The span id of an event in its \`traceparent\`: the end of a UUID, else FNV-1a over UTF-16 units, twice. */
function spanOf(tables: Tables): string {
  return `
    create or replace function ${nameOf(tables, 'append_span')}(event_id text) returns text
    ${HELPER} immutable as $waybill$
    declare
      span text := '';
      seed bigint;
      hash bigint;
      point int;
      unit int;
    begin
      if event_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then
        span := substr(event_id, 20, 4) || substr(event_id, 25);
      else
        foreach seed in array array[2166136261, 2654435769]::bigint[] loop
          hash := seed;
          for place in 1 .. length(event_id) loop
            point := ascii(substr(event_id, place, 1));
            foreach unit in array case when point < 65536 then array[point] else array[55296 + ((point - 65536) >> 10), 56320 + ((point - 65536) & 1023)] end loop
              hash := ((hash # unit) * 16777619) & 4294967295;
            end loop;
          end loop;
          span := span || lpad(to_hex(hash), 8, '0');
        end loop;
      end if;
      return case when span = '0000000000000000' then '0000000000000001' else span end;
    end $waybill$`
}

function append(tables: Tables): string {
  const refused = nameOf(tables, 'append_refuse')
  const checked = nameOf(tables, 'append_check')
  return `
    create or replace function ${nameOf(tables, 'append')}(
      event_type text, payload jsonb, aggregate_id text default null, aggregate_type text default null,
      topic text default null, key text default null, options jsonb default '{}'
    ) returns text ${SETTINGS} as $waybill$
    #variable_conflict use_variable
    declare
      name text;
      event_id text;
      occurred_at text;
      available_at timestamptz;
      headers jsonb;
      fields text;
      body bytea;
      place int;
    begin
      options := coalesce(options, '{}'::jsonb);
      if jsonb_typeof(options) <> 'object' then
        perform ${refused}('options is no object', options, 'a JSON object');
      end if;
      for name in select jsonb_object_keys(options) loop
        if name not in (${OPTIONS.map((option) => `'${option}'`).join(', ')}) then
          perform ${refused}('unknown option', to_jsonb(name), '${OPTIONS.join(', ')}');
        elsif name not in ('version', 'aggregate_version', 'priority', 'metadata') and jsonb_typeof(options -> name) not in ('string', 'null') then
          perform ${refused}('option ' || name || ' is no text', options -> name, 'a JSON string');
        end if;
      end loop;
      -- As on the wire, an optional one that is null is absent.
      options := (select coalesce(jsonb_object_agg(o.key, o.value), '{}'::jsonb) from jsonb_each(options) o where o.value <> 'null'::jsonb);
      perform ${nameOf(tables, 'append_check_payload')}(payload);
      ${defaults()}
      ${checks(refused, checked)}
      ${encoding(tables)}
      -- The lock first, the number after it and in a statement of its own: within a key the order of numbers is the order of commits.
      place := ${slotOf('topic', 'key')};
      perform pg_advisory_xact_lock(${ADVISORY_CLASS}, place);
      insert into ${tables.outbox} (event_id, event_type, destination, topic, key, shard, priority, headers, body, status, available_at)
      values (event_id, event_type, coalesce(options ->> 'destination', 'default'), topic, key, place % ${SHARDS},
        coalesce((options ->> 'priority')::numeric::int, 5), headers::text, body,
        case when available_at > clock_timestamp() then 'scheduled' else 'pending' end, available_at);
      perform ${hintCondition(tables)};
      return event_id;
    end $waybill$`
}

function defaults(): string {
  return `
      event_id := coalesce(options ->> 'event_id', (
        -- A version 7 UUID, also where the server has no function for it.
        select (lpad(to_hex(floor(extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') || '7' || substr(r.hex, 14))::uuid::text
        from (select replace(gen_random_uuid()::text, '-', '') as hex) r));
      topic := coalesce(topic, event_type);
      key := coalesce(key, aggregate_id, event_id);
      options := jsonb_build_object('source', 'sql', 'correlation_id', event_id, 'version', 1) || options;`
}

function checks(refused: string, checked: string): string {
  const whole = (name: string, max: string): string => `
      if options ? '${name}' and (jsonb_typeof(options -> '${name}') <> 'number' or options ->> '${name}' !~ '^[0-9]{1,16}$' or (options ->> '${name}')::numeric > ${max}) then
        perform ${refused}('option ${name} is out of range', options -> '${name}', 'a whole number from 0 to ${max}');
      end if;`
  return `
      perform ${checked}('name', 'event_type', event_type);
      perform ${checked}('name', 'topic', topic);
      perform ${checked}('id', 'option event_id', event_id);
      perform ${checked}('key', 'key', key);
      if aggregate_id is not null then perform ${checked}('key', 'aggregate_id', aggregate_id); end if;
      if aggregate_type is not null then perform ${checked}('name', 'aggregate_type', aggregate_type); end if;
      foreach name in array array['source', 'bounded_context', 'destination'] loop
        if options ? name then perform ${checked}('name', 'option ' || name, options ->> name); end if;
      end loop;
      foreach name in array array['correlation_id', 'causation_id', 'trace_id'] loop
        if options ? name then perform ${checked}('text', 'option ' || name, options ->> name); end if;
      end loop;
      ${whole('priority', '9')}
      ${whole('aggregate_version', SAFE_INTEGER)}
      if not (case jsonb_typeof(options -> 'version')
        when 'number' then options ->> 'version' ~ '^[0-9]{1,16}$' and (options ->> 'version')::numeric <= ${SAFE_INTEGER}
        when 'string' then options ->> 'version' ~ '^[A-Za-z0-9._-]{1,32}$' else false end) then
        perform ${refused}('option version is not usable', options -> 'version', 'a whole number, or 1 to 32 letters, digits, ".", "_" and "-"');
      end if;
      if options ? 'metadata' and (jsonb_typeof(options -> 'metadata') <> 'object' or options -> 'metadata' ? '__proto__'
        or jsonb_path_exists(options -> 'metadata', 'strict $.* ? (@.type() != "string")')) then
        perform ${refused}('option metadata is not usable', options -> 'metadata', 'an object whose values are all text');
      end if;
      foreach name in array array['occurred_at', 'available_at'] loop
        if options ? name then
          begin
            if options ->> name !~ '${TIME}' then raise exception using errcode = '22007'; end if;
            perform (options ->> name)::timestamptz;
          exception when sqlstate '22007' or sqlstate '22008' or sqlstate '22009' then
            perform ${refused}('option ' || name || ' is no time', options -> name, 'a time with its offset, as in RFC 3339: 2024-05-17T09:30:00.000Z');
          end;
        end if;
      end loop;`
}

/** The same headers and body as the JSON codec's. */
function encoding(tables: Tables): string {
  const refused = nameOf(tables, 'append_refuse')
  return `
      available_at := (options ->> 'available_at')::timestamptz;
      -- Microseconds and UTC; one that is in UTC stays as it was written.
      occurred_at := case when options ->> 'occurred_at' ~ '${UTC_TIME}' then options ->> 'occurred_at' else
        to_char(coalesce((options ->> 'occurred_at')::timestamptz, clock_timestamp()) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') end;
      headers := jsonb_strip_nulls(jsonb_build_object('event_id', event_id, 'event_type', event_type, 'content_type', 'application/json',
        'occurred_at', occurred_at, 'source', options ->> 'source', 'version', options ->> 'version', 'aggregate_type', aggregate_type,
        'bounded_context', options ->> 'bounded_context', 'correlation_id', options ->> 'correlation_id', 'causation_id', options ->> 'causation_id',
        'aggregate_id', aggregate_id, 'aggregate_version', options ->> 'aggregate_version', 'trace_id', options ->> 'trace_id'));
      -- Everything in the body but the payload: its nulls are the caller's.
      fields := (headers - 'content_type' || jsonb_strip_nulls(jsonb_build_object('version', options -> 'version',
        'aggregate_version', options -> 'aggregate_version', 'metadata', nullif(options -> 'metadata', '{}'::jsonb))))::text;
      body := convert_to(left(fields, -1) || ', "payload": ' || payload::text || '}', 'UTF8');
      if octet_length(body) > ${BODY_MAX_BYTES} then
        perform ${refused}('the message is too large', to_jsonb(octet_length(body) || ' bytes'), 'at most ${BODY_MAX_BYTES} bytes');
      end if;
      if lower(options ->> 'trace_id') ~ '^[0-9a-f]{32}$' and options ->> 'trace_id' !~ '^0*$' then
        headers := headers || jsonb_build_object('traceparent', '00-' || lower(options ->> 'trace_id') || '-' || ${nameOf(tables, 'append_span')}(event_id) || '-01');
      end if;`
}

function comment(tables: Tables): string {
  return `
    comment on function ${nameOf(tables, 'append')}(text, jsonb, text, text, text, text, jsonb) is
      'Writes an event into ${tables.names.prefix}outbox in the transaction of the caller, and gives back its id. Call it last: the order of its key is locked until the end.'`
}
