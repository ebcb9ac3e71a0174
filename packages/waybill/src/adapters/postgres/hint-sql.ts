import { createHash } from 'node:crypto'
import { ADVISORY_CLASS } from './slots.ts'
import type { Tables } from './tables.ts'

// Longest name of a channel, in bytes: a longer one is refused by NOTIFY and cut, silently, by LISTEN.
const CHANNEL_MAX = 63

/** The channel on which those who append wake relays that sleep. One per set of tables: others in the same database stay asleep. */
export function hintChannel({ names: { schema, prefix } }: Tables): string {
  const name = `${schema}.${prefix}hint`
  return name.length <= CHANNEL_MAX ? name : `waybill_hint_${digestOf(name).toString('hex', 0, 16)}`
}

/**
 * Wakes a relay that sleeps, as a condition that is always true: `... and ${hintCondition(tables)}`, or `select` it. While every relay is awake
 * it is one look at a table of a few rows. Of all that commit at once while one is asleep, whoever gets the lock notifies: NOTIFY lets transactions
 * commit one by one, so that a burst of them must not.
 */
export function hintCondition(tables: Tables): string {
  // `case` and not `and`: the lock must not be tried, let alone held to the end of the transaction, where nobody sleeps.
  return `case when exists (select 1 from ${tables.relay} z where z.asleep and z.expires_at > clock_timestamp())
      then case when pg_try_advisory_xact_lock(${ADVISORY_CLASS}, ${hintGate(tables)}) then pg_notify('${hintChannel(tables)}', '') is not null else true end
      else true end`
}

/** Second key of the lock of {@link hintCondition}: below -1, so that it is neither a slot's nor that of a migration. */
function hintGate({ names: { schema, prefix } }: Tables): number {
  return -2 - (digestOf(`${schema}.${prefix}`).readUInt32BE(0) >>> 2)
}

function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
