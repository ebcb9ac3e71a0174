import { isWaybillError, WaybillError } from '../core/errors.ts'
import type { ClaimedRow } from '../core/stores.ts'
import type { PublishOutcome } from '../core/transport.ts'

/** A (topic, key) pair. */
export interface Key {
  readonly topic: string
  readonly key: string
}

/** The text by which a (topic, key) is told from others. */
export const keyIdOf = ({ topic, key }: Key): string => `${topic}\0${key}`

/** Rows by what `nameOf` says of them, in order. */
export function groupBy<Row extends ClaimedRow>(rows: readonly Row[], nameOf: (row: Row) => string): Map<string, Row[]> {
  const groups = new Map<string, Row[]>()
  for (const row of rows) {
    const name = nameOf(row)
    const group = groups.get(name)
    if (group === undefined) groups.set(name, [row])
    else group.push(row)
  }
  return groups
}

/**
 * The calls that rows of one destination are sent in: one for all, or, where a slow key takes its time, one per key of at most `perKeyMax` rows. What
 * exceeds it is claimed again later: a few keys that fail must not fill what may be in flight, or all others would wait for them.
 */
export function callsOf(rows: readonly ClaimedRow[], perKeyMax: number | undefined): readonly (readonly ClaimedRow[])[] {
  if (rows.length === 0) return []
  if (perKeyMax === undefined) return [rows]
  return [...groupBy(rows, (row) => keyIdOf(row.message)).values()].map((group) => group.slice(0, perKeyMax))
}

/** Rows in waves of at most one per key: what is sent where a transport does not stop a key at its failure. */
export function wavesOf<Row extends ClaimedRow>(rows: readonly Row[]): readonly (readonly Row[])[] {
  const waves: Row[][] = []
  const nextWave = new Map<string, number>()
  for (const row of rows) {
    const keyId = keyIdOf(row.message)
    const wave = nextWave.get(keyId) ?? 0
    nextWave.set(keyId, wave + 1)
    if (waves[wave] === undefined) waves[wave] = [row]
    else waves[wave].push(row)
  }
  return waves
}

/**
 * Rows that may go with others, and rows that must go alone: of a key that begins with suspects those up to the first that is none, in order. A
 * suspect behind others of its key, and what follows it, is in neither: it is claimed again when the key is free.
 */
export function splitSuspects(
  rows: readonly ClaimedRow[],
  isSuspect: (row: ClaimedRow) => boolean,
): { readonly together: readonly ClaimedRow[]; readonly alone: readonly (readonly ClaimedRow[])[] } {
  const together = new Set<ClaimedRow>()
  const alone: ClaimedRow[][] = []
  for (const group of groupBy(rows, (row) => keyIdOf(row.message)).values()) {
    const suspectFirst = isSuspect(group[0]!)
    const end = group.findIndex((row) => isSuspect(row) !== suspectFirst)
    const run = end === -1 ? group : group.slice(0, end)
    if (suspectFirst) alone.push(run)
    else for (const row of run) together.add(row)
  }
  // Back in the order of the claim: across keys that is the order of priorities.
  return { together: rows.filter((row) => together.has(row)), alone }
}

/** What became of rows that were sent together. */
export interface Verdict {
  readonly published: readonly ClaimedRow[]
  /** Refused by their content: each counts an attempt. */
  readonly refused: readonly { readonly row: ClaimedRow; readonly error: WaybillError }[]
  /** The destination's fault: nobody's attempts are spent. The first of each key. */
  readonly deferred: readonly { readonly row: ClaimedRow; readonly error: WaybillError }[]
  /** May have arrived, and will be sent again. */
  readonly unsure: readonly ClaimedRow[]
}

/** A key stops at its first failure: whatever is said of the rows behind it, they stay as they are. */
export function judge(rows: readonly ClaimedRow[], outcomes: readonly PublishOutcome[]): Verdict {
  const passes = outcomes.some((outcome) => outcome?.kind === 'stored')
  const stopped = new Set<string>()
  const published: ClaimedRow[] = []
  const refused: { row: ClaimedRow; error: WaybillError }[] = []
  const deferred: { row: ClaimedRow; error: WaybillError }[] = []
  const unsure: ClaimedRow[] = []
  for (const [index, row] of rows.entries()) {
    const outcome = known(outcomes[index])
    const keyId = keyIdOf(row.message)
    if (stopped.has(keyId)) {
      if (outcome.kind !== 'rejected') unsure.push(row)
      continue
    }
    if (outcome.kind === 'stored') {
      published.push(row)
      continue
    }
    stopped.add(keyId)
    if (outcome.kind === 'unknown') unsure.push(row)
    if (outcome.kind === 'rejected' && isContentError(outcome.error, passes)) refused.push({ row, error: outcome.error })
    else deferred.push({ row, error: outcome.error })
  }
  return { published, refused, deferred, unsure }
}

/** What is said of a message that a transport has forgotten. */
export const NO_ANSWER: PublishOutcome = {
  kind: 'unknown',
  error: new WaybillError('UNKNOWN_OUTCOME', 'the transport gave no outcome for this message'),
}

/** A transport is somebody else's code: what it says that is no outcome is taken for unknown. */
function known(outcome: PublishOutcome | undefined): PublishOutcome {
  if (outcome?.kind === 'stored') return outcome
  if (outcome?.kind !== 'rejected' && outcome?.kind !== 'unknown') return NO_ANSWER
  return outcome.error === undefined ? { kind: outcome.kind, error: NO_REASON } : outcome
}

const NO_REASON = new WaybillError('TRANSPORT_UNAVAILABLE', 'the transport gave no reason')

/** Final for the caller until somebody mends the destination; they say nothing about the message, which waits. */
const OF_THE_DESTINATION: ReadonlySet<string> = new Set(['CLOSED', 'PEER_MISSING', 'ACCESS_DENIED', 'TOPIC_MISSING', 'DECLARATION_DIFFERS'])

/** Whether the message itself is at fault. An error that is not ours says so only where others pass in the same call. */
function isContentError(error: unknown, passes: boolean): boolean {
  if (!isWaybillError(error)) return passes
  return !error.retryable && !OF_THE_DESTINATION.has(error.code)
}
