import type { Database, SqlExecutor } from '../../core/database.ts'
import { WaybillError } from '../../core/errors.ts'
import { joined, sqlStateOf } from './statements.ts'
import type { Tables } from './tables.ts'

const SERVER_MIN = 140_000

/** What the newest migration leaves behind. */
const COLUMNS: Readonly<Record<Exclude<keyof Tables, 'schema' | 'names' | 'outboxIds'>, readonly string[]>> = {
  outbox: words(
    `id event_id event_type destination topic key shard priority headers body status attempts
     hold_until available_at created_at published_at last_error behind clear`,
  ),
  lease: words('shard owner expires_at'),
  relay: words('id expires_at claimed suspects asleep'),
  inbox: words('event_id handler handled_at'),
  inboxAttempt: words('event_id handler attempts at'),
  deadLetter: words('id handler topic key event_id event_type headers body reason error attempts partition sequence status parked_at'),
  migration: words('version name applied_at'),
}

function words(text: string): readonly string[] {
  return text.split(/\s+/)
}

/** Whether the server is one that Waybill's statements are written for. @throws WaybillError `UNSUPPORTED` */
export async function checkServer(sql: SqlExecutor): Promise<void> {
  const { rows } = await sql.query<{ number: string; version: string }>(
    `select current_setting('server_version_num') as number, current_setting('server_version') as version`,
  )
  const number = Number(rows[0]?.number)
  if (Number.isNaN(number) || number >= SERVER_MIN) return
  throw new WaybillError('UNSUPPORTED', 'this PostgreSQL server is too old for Waybill', {
    got: rows[0]?.version,
    allowed: 'version 14 or newer',
    where: 'server_version',
  })
}

/**
 * Whether the tables are as complete as their version says: a restore or a person may have left out some.
 * @throws WaybillError `NOT_MIGRATED`
 */
export async function checkComplete(sql: SqlExecutor, tables: Tables): Promise<void> {
  const expected = Object.entries(COLUMNS).flatMap(([table, columns]) =>
    columns.map((column) => ({ relation: tables[table as keyof typeof COLUMNS], column })),
  )
  const missing = await joined(sql, tables)<{ relation: string; column: string; there: boolean }>(
    `select e.relation, e."column", pg_catalog.to_regclass(e.relation) is not null as there
     from json_to_recordset($1::text::json) as e (relation text, "column" text)
     where not exists (
       select 1 from pg_catalog.pg_attribute a
       where a.attrelid = pg_catalog.to_regclass(e.relation) and a.attname = e."column" and not a.attisdropped)`,
    [JSON.stringify(expected)],
  )
  if (missing.length === 0) return
  const names = new Set(missing.map(({ relation, column, there }) => (there ? `${relation}."${column}"` : relation)))
  throw new WaybillError('NOT_MIGRATED', "Waybill's tables are incomplete: their version is recorded, but not all of it is there", {
    got: `no ${[...names].slice(0, 3).join(', no ')}${names.size > 3 ? ` and ${names.size - 3} more` : ''}`,
    allowed: 'all tables restored from one backup, or another schema or prefix',
    where: tables.migration,
  })
}

// A table, schema, column or index that is there already.
const THERE_ALREADY: ReadonlySet<string> = new Set(['42P07', '42P06', '42701', '42710'])

/**
 * Migrates between two looks: at the server before, at what came of it after.
 * @throws WaybillError `UNSUPPORTED`; `NOT_MIGRATED` where tables are there, but no record of their version
 */
export async function checkedMigration(
  database: Database,
  tables: Tables,
  migrate: () => Promise<readonly string[]>,
): Promise<readonly string[]> {
  await checkServer(database)
  let applied: readonly string[]
  try {
    applied = await migrate()
  } catch (error) {
    if (!THERE_ALREADY.has(sqlStateOf(error) ?? '')) throw error
    throw new WaybillError(
      'NOT_MIGRATED',
      "some of Waybill's tables are there, but not the record that they were made; nothing was changed",
      {
        got: error instanceof Error ? error.message : undefined,
        allowed: `what ${tables.migration} said put back from a backup, or another schema or prefix`,
        where: `schema "${tables.names.schema}", prefix "${tables.names.prefix}"`,
        cause: error,
      },
    )
  }
  await checkComplete(database, tables)
  return applied
}
