import { setMaxListeners } from 'node:events'
import { fullJitterMs, type RetryPolicy } from '../core/backoff.ts'
import type { Clock, Random } from '../core/clock.ts'
import { crashpoint } from '../core/crashpoint.ts'
import { messageOf, WaybillError } from '../core/errors.ts'
import type { Observe } from '../core/observe.ts'
import type { ClaimedRow, OutboxStore } from '../core/stores.ts'
import type { Message, Publisher, PublishOutcome } from '../core/transport.ts'
import type { RecentRows } from './recent-rows.ts'
import { createMarks, isFatal, persist } from './relay-marks.ts'
import { groupBy, judge, keyIdOf, type Verdict, wavesOf } from './relay-plan.ts'

/** What a relay has done since it was made. */
export interface RelayCounters {
  published: number
  held: number
  parked: number
  /** Failures of the database. */
  failures: number
}

export interface SenderOptions {
  readonly store: OutboxStore
  readonly relayId: string
  readonly retry: RetryPolicy
  readonly clock: Clock
  readonly random: Random
  readonly observe: Observe
  readonly counters: RelayCounters
  /** Rows that may have been sent before. */
  readonly sentBefore: RecentRows
}

/** Sends rows and writes down what became of them. Rejects only with a bug, or where the database can't be worked with at all. */
export interface Sender {
  /** `judged` is told of each call's outcome before it is written. */
  send(publisher: Publisher, rows: readonly ClaimedRow[], judged: (verdict: Verdict) => void): Promise<void>
  /** Counts an attempt of a suspect, then sends it. */
  sendSuspect(publisher: Publisher, row: ClaimedRow, judged: (verdict: Verdict) => void): Promise<void>
  /** Counts an attempt of each row, and holds it, or parks it where its attempts are spent. */
  setBack(failures: readonly { readonly row: ClaimedRow; readonly error: string }[]): Promise<void>
  /** Cuts the calls under way short; what they report is still written. */
  abort(): void
  /** Gives up writing. */
  abandon(): void
}

export function createSender(options: SenderOptions): Sender {
  const { store, relayId, retry, clock, random, observe, counters, sentBefore } = options
  const aborted = new AbortController()
  const abandoned = new AbortController()
  // Every call in flight listens to them: more than Node takes for a leak.
  setMaxListeners(0, aborted.signal, abandoned.signal)

  const write = <T>(run: () => Promise<T>): Promise<T | undefined> =>
    persist(run, {
      clock,
      random,
      signal: abandoned.signal,
      failed(error) {
        if (isFatal(error)) throw error
        counters.failures++
        observe({ type: 'relay.failed', error })
      },
    })

  const marks = createMarks(async (rowIds, startedAt) => {
    const count = await write(() => store.markPublished(relayId, rowIds))
    if (count === undefined) return
    crashpoint('relay.afterMark')
    for (const rowId of rowIds) sentBefore.delete(rowId)
    counters.published += count
    if (count > 0) observe({ type: 'relay.published', count, durationMs: clock.now() - startedAt })
  })

  const messageOfRow = (row: ClaimedRow): Message =>
    row.suspect || sentBefore.has(row.rowId) ? { ...row.message, resent: true } : row.message

  async function send(publisher: Publisher, rows: readonly ClaimedRow[], judged: (verdict: Verdict) => void): Promise<void> {
    const startedAt = clock.now()
    let open = new Set(rows.map((row) => keyIdOf(row.message)))
    for (const wave of publisher.capabilities.stopsKeyAtFailure ? [rows] : wavesOf(rows)) {
      const sendable = wave.filter((row) => open.has(keyIdOf(row.message)))
      if (sendable.length === 0 || aborted.signal.aborted) return
      const outcomes = await publishSafely(publisher, sendable.map(messageOfRow), aborted.signal)
      crashpoint('relay.afterPublish')
      const verdict = judge(sendable, outcomes)
      // What our own stopping has cut off says nothing about the destination.
      if (!aborted.signal.aborted) judged(verdict)
      await settle(verdict, startedAt)
      open = new Set(verdict.published.map((row) => keyIdOf(row.message)))
    }
  }

  async function settle({ published, refused, deferred, unsure }: Verdict, startedAt: number): Promise<void> {
    for (const row of unsure) sentBefore.add(row.rowId)
    // A suspect that has been through a call which we survived is one no more.
    for (const { row } of deferred) if (row.suspect) sentBefore.add(row.rowId)
    // After the transport's answer, never before: a crash in between sends twice, which inboxes absorb; the other order would lose the message.
    if (published.length > 0)
      await marks.add(
        published.map((row) => row.rowId),
        startedAt,
      )
    if (refused.length > 0) await setBack(refused.map(({ row, error }) => ({ row, error: messageOf(error) })))
  }

  async function setBack(failures: readonly { readonly row: ClaimedRow; readonly error: string }[]): Promise<void> {
    const errors = new Map(failures.map(({ row, error }) => [row.rowId, error]))
    for (const rows of groupBy(
      failures.map(({ row }) => row),
      (row) => String(row.attempts),
    ).values())
      await setBackAlike(rows, errors)
  }

  /** The rows have the same number of attempts. */
  async function setBackAlike(rows: readonly ClaimedRow[], errors: ReadonlyMap<string, string>): Promise<void> {
    const attempts = rows[0]!.attempts + 1
    const failures = rows.map(({ rowId }) => ({ rowId, error: errors.get(rowId)! }))
    const isSpent = attempts >= retry.attemptsMax
    const holdMs = isSpent ? 0 : fullJitterMs(retry, attempts, random)
    await write(() => (isSpent ? store.park(relayId, failures) : store.hold(relayId, failures, holdMs)))
    if (abandoned.signal.aborted) return
    counters[isSpent ? 'parked' : 'held'] += rows.length
    for (const { rowId, message } of rows) {
      const about = { rowId, topic: message.topic, key: message.key, error: errors.get(rowId)! }
      observe(isSpent ? { type: 'relay.parked', ...about } : { type: 'relay.held', holdMs, ...about })
      if (isSpent) sentBefore.delete(rowId)
      else sentBefore.add(rowId)
    }
  }

  return {
    send,
    async sendSuspect(publisher, row, judged) {
      if (row.attempts >= retry.attemptsMax) return setBack([{ row, error: `in flight ${row.attempts} times when its relay died` }])
      await write(() => store.charge(relayId, row.rowId))
      if (!abandoned.signal.aborted) await send(publisher, [{ ...row, attempts: row.attempts + 1 }], judged)
    },
    setBack,
    abort: () => aborted.abort(),
    abandon: () => abandoned.abort(),
  }
}

async function publishSafely(publisher: Publisher, messages: readonly Message[], signal: AbortSignal): Promise<readonly PublishOutcome[]> {
  try {
    return await publisher.publish(messages, signal)
  } catch (cause) {
    const error = new WaybillError('TRANSPORT_UNAVAILABLE', `the transport failed: ${messageOf(cause)}`, { cause })
    return messages.map(() => ({ kind: 'rejected', error }))
  }
}
