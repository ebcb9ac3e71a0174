import { isWaybillError } from 'waybill'
import { messageOf } from '../cli/printable.ts'
import { type Check, type Finding, oneRow, tableName } from './finding.ts'

const RIGHTS: Readonly<Record<string, readonly string[]>> = {
  outbox: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  lease: ['SELECT', 'UPDATE'],
  relay: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  inbox: ['SELECT', 'INSERT', 'DELETE'],
  inbox_attempt: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
  dead_letter: ['SELECT', 'INSERT', 'UPDATE'],
  migration: ['SELECT'],
}
// Autovacuum begins at a fifth of the table; far beyond that it doesn't come after it, or is off.
const DEAD_WARN = 100_000

type Found = Omit<Finding, 'check'>

/** Whether the tables are there, of this version, and whole. */
export const migrationsCheck: Check = {
  name: 'migrations',
  async run(input) {
    try {
      await input.storage.check()
    } catch (error) {
      if (isWaybillError(error, 'NOT_MIGRATED')) return [missing(messageOf(error))]
      if (isWaybillError(error, 'SCHEMA_TOO_NEW'))
        return [{ level: 'error', found: messageOf(error), advice: 'update waybill here: a newer one has been at work on this database' }]
      throw error
    }
    const { version } = await oneRow<{ version: number }>(input, `select max(version) as version from ${tableName(input, 'migration')}`)
    return [{ level: 'ok', found: `the tables are of version ${version}, which is that of this command` }]
  },
}

function missing(found: string): Found {
  const halfDone = found.includes('incomplete')
  return {
    level: 'error',
    // What to do stands in the advice.
    found: found.replace(': run `waybill migrate`', ''),
    advice: halfDone ? 'restore the tables from a backup, or move what is left aside and run "waybill migrate"' : 'run "waybill migrate"',
  }
}

/** Whether this user may do what a process of Waybill does. */
export const rightsCheck: Check = {
  name: 'rights',
  async run(input) {
    const wanted = Object.entries(RIGHTS).flatMap(([table, rights]) => rights.map((right) => ({ name: tableName(input, table), right })))
    const { rows } = await input.storage.database.query<{ name: string; right: string }>(
      `select w.name, w."right" from json_to_recordset($1::text::json) as w (name text, "right" text)
       where not pg_catalog.has_table_privilege(w.name, w."right")`,
      [JSON.stringify(wanted)],
    )
    const { user, sequence } = await oneRow<{ user: string; sequence: boolean }>(
      input,
      `select current_user as user, pg_catalog.has_sequence_privilege($1::text, 'USAGE') as sequence`,
      [tableName(input, 'outbox_ids')],
    )
    if (rows.length === 0 && sequence) return [{ level: 'ok', found: `user ${user} has all rights that are needed` }]
    const byTable = Map.groupBy(rows, ({ name }) => name)
    const grants = [...byTable].map(
      ([name, lacking]) => `grant ${lacking.map(({ right }) => right.toLowerCase()).join(', ')} on ${name} to ${user}`,
    )
    if (!sequence) grants.push(`grant usage on sequence ${tableName(input, 'outbox_ids')} to ${user}`)
    return grants.map((grant) => ({ level: 'error', found: `user ${user} lacks a right`, advice: grant }))
  },
}

/** A session that draws numbers ahead would use them after others have committed higher ones: order would be lost. */
const sequenceCheck: Check = {
  name: 'sequence',
  async run(input) {
    const { cache, step, cycles } = await oneRow<{ cache: string; step: string; cycles: boolean }>(
      input,
      `select seqcache::text as cache, seqincrement::text as step, seqcycle as cycles from pg_catalog.pg_sequence
       where seqrelid = pg_catalog.to_regclass($1::text)`,
      [tableName(input, 'outbox_ids')],
    )
    if (cache === '1' && Number(step) > 0 && !cycles) return [{ level: 'ok', found: 'row numbers are drawn one at a time' }]
    return [
      {
        level: 'error',
        found: `the sequence of row numbers was changed (cache ${cache}, increment ${step}${cycles ? ', cycle' : ''}): the order of keys is not kept`,
        advice: `alter sequence ${tableName(input, 'outbox_ids')} cache 1 increment by 1 no cycle`,
      },
    ]
  },
}

const vacuumCheck: Check = {
  name: 'vacuum',
  serverOnly: true,
  async run(input) {
    const outbox = tableName(input, 'outbox')
    const { live, dead, last, options } = await oneRow<{ live: number; dead: number; last: string | null; options: string[] | null }>(
      input,
      `select s.n_live_tup::float8 as live, s.n_dead_tup::float8 as dead, greatest(s.last_autovacuum, s.last_vacuum)::text as last, c.reloptions as options
       from pg_catalog.pg_stat_user_tables s join pg_catalog.pg_class c on c.oid = s.relid where s.relid = pg_catalog.to_regclass($1::text)`,
      [outbox],
    )
    if (options?.some((option) => /^autovacuum_enabled=(off|false|0|no)$/i.test(option)) === true)
      return [
        {
          level: 'warn',
          found: 'autovacuum is off for the outbox: deleted rows pile up, and each look at it steps over them',
          advice: `alter table ${outbox} reset (autovacuum_enabled)`,
        },
      ]
    const seen = `${dead} dead rows beside ${live} live ones${last === null ? '' : `; last vacuumed ${last.slice(0, 19)}`}`
    if (dead < DEAD_WARN || dead < live) return [{ level: 'ok', found: seen }]
    return [
      {
        level: 'warn',
        found: `${seen}: autovacuum does not keep up`,
        advice: `vacuum ${outbox}; and look for old transactions, which keep it from removing rows`,
      },
    ]
  },
}

/** In the order in which they are read, after {@link migrationsCheck}. */
export const TABLE_CHECKS: readonly Check[] = [rightsCheck, sequenceCheck, vacuumCheck]
