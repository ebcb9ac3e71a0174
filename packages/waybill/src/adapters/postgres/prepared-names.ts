import { createHash } from 'node:crypto'
import { sqlStateOf } from './statements.ts'

const MARK = '/* waybill: '
// Each of a few dozen statements, for each place of the tables.
const NAMES_MAX = 1_000

/** Marks a statement that runs so often that planning it anew each time would be most of what it costs. `what` is seen in the server's statistics. */
export function frequent(what: string, text: string): string {
  return `${MARK}${what} */${text}`
}

/** Names under which frequent statements are kept prepared in each session. */
export interface PreparedNames {
  /** None for other statements, and for all once {@link PreparedNames.giveUp} was called. */
  of(text: string): string | undefined
  /** Sessions here don't keep what is prepared in them: from now on nothing is. */
  giveUp(): void
}

export function createPreparedNames(): PreparedNames {
  const names = new Map<string, string>()
  let givenUp = false
  return {
    of(text) {
      if (givenUp || !text.startsWith(MARK)) return undefined
      const known = names.get(text)
      if (known !== undefined || names.size >= NAMES_MAX) return known
      const name = `waybill_${createHash('sha256').update(text).digest('hex').slice(0, 16)}`
      names.set(text, name)
      return name
    },
    giveUp() {
      givenUp = true
      names.clear()
    },
  }
}

/**
 * Whether a statement failed, before it did anything, only because it was prepared: in a session that has lost it, as behind a pooler that gives each
 * transaction another one, or for tables that were changed since.
 */
export function failedAsPrepared(error: unknown): boolean {
  const state = sqlStateOf(error)
  if (state === '26000' || state === '42P05') return true
  return state === '0A000' && (error as { routine?: unknown }).routine === 'RevalidateCachedQuery'
}
