import { setTimeout as delay } from 'node:timers/promises'
import { isWaybillError } from '../../src/core/errors.ts'
import type { Storage } from '../../src/core/stores.ts'
import { isConnectionError } from '../../src/adapters/postgres/pg-errors.ts'
import { readBrokerFile } from './broker-file.ts'

/** The consumer's side: reads the broker while it fills, and gives each event its effect, through the inbox. */
export interface Effects {
  /** Reads to the end; then resolves what there is. Events in the order of their effects. */
  finish(): Promise<{ readonly arrived: readonly string[]; readonly effects: readonly string[] }>
  /** Reads no more, for a run that is given up: what went on reading would keep the process from its end. Nothing after `finish`. */
  stop(): void
}

const HANDLER = 'ledger/effect'
const POLL_MS = 20
const AFTER_FAILURE_MS = 20
/** Tries of one batch before the run is given up: an outage lasts seconds. */
const TRIES_MAX = 1_000

export async function createEffectsTable({ database }: Storage): Promise<void> {
  await database.query('create table ledger_effects (seq bigint generated always as identity, event_id text not null)')
}

export function applyEffects(storage: Storage, broker: string): Effects {
  const reader = readBrokerFile(broker)
  const arrived: string[] = []
  let isEnding = false
  let isStopped = false
  const applying = apply()
  // Awaited in `finish`; until then a failure must not count as unhandled.
  applying.catch(() => {})

  async function apply(): Promise<void> {
    try {
      while (!isStopped) {
        const wasEnding = isEnding
        const sent = reader.next()
        const byKey = Map.groupBy(sent, ({ key }) => key)
        arrived.push(...sent.map(({ eventId }) => eventId))
        await Promise.all(
          [...byKey.values()].map((ofKey) =>
            handle(
              storage,
              ofKey.map(({ eventId }) => eventId),
            ),
          ),
        )
        if (wasEnding && sent.length === 0) return
        if (sent.length === 0) await delay(POLL_MS)
      }
    } finally {
      reader.close()
    }
  }

  return {
    stop() {
      isStopped = true
    },
    async finish() {
      isEnding = true
      await applying
      const { rows } = await storage.database.query<{ event_id: string }>('select event_id from ledger_effects order by seq')
      return { arrived, effects: rows.map(({ event_id }) => event_id) }
    },
  }
}

/** The effect and the inbox record in one transaction: both, or neither. Run again where it may not have happened. */
async function handle({ database, inbox }: Storage, eventIds: readonly string[]): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await database.transaction(async (sql) => {
        const fresh = await inbox.record(sql, HANDLER, eventIds)
        const left = new Set(fresh)
        const effective = eventIds.filter((eventId) => left.delete(eventId))
        if (effective.length === 0) return
        await sql.query(
          'insert into ledger_effects (event_id) select e.id from json_array_elements_text($1::text::json) with ordinality as e (id, n) order by e.n',
          [JSON.stringify(effective)],
        )
      })
      return
    } catch (error) {
      if (tries === TRIES_MAX || !(isConnectionError(error) || isWaybillError(error, 'UNKNOWN_OUTCOME'))) throw error
      await delay(AFTER_FAILURE_MS)
    }
  }
}
