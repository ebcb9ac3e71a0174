import { fullJitterMs, type RetryPolicy } from '../core/backoff.ts'
import { type Clock, monotonicOf, type Random } from '../core/clock.ts'
import { crashpoint } from '../core/crashpoint.ts'
import { messageOf } from '../core/errors.ts'
import type { Observe } from '../core/observe.ts'
import type { ClaimedRow, OutboxStore } from '../core/stores.ts'
import type { Message, Publisher } from '../core/transport.ts'
import type { RecentRows } from './recent-rows.ts'
import { createCaller } from './relay-call.ts'
import { createMarks, isFatal, persist } from './relay-marks.ts'
import { groupBy, judge, keyIdOf, type Verdict, wavesOf } from './relay-plan.ts'
import type { Tenure } from './relay-shards.ts'

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
  readonly publishTimeoutMs: number
  readonly clock: Clock
  readonly random: Random
  readonly observe: Observe
  readonly counters: RelayCounters
  /** Rows that may have been sent before. */
  readonly sentBefore: RecentRows
}

/** What to send, to whom, and what to be told of it. */
export interface Sending {
  readonly publisher: Publisher
  /** Where it does not hold any more, what was not sent yet is left: whoever holds the shard now claims it. */
  readonly mine: Tenure
  /** Told of each call's outcome before it is written. */
  readonly judged: (verdict: Verdict) => void
}

/** A row whose attempt may have been counted before it was sent. */
type SentRow = ClaimedRow & { readonly charged?: true }

/** Sends rows and writes down what became of them. Rejects only with a bug, or where the database can't be worked with at all. */
export interface Sender {
  send(rows: readonly ClaimedRow[], sending: Sending): Promise<void>
  /** Counts an attempt of a suspect, then sends it. */
  sendSuspect(row: ClaimedRow, sending: Sending): Promise<void>
  /** Counts an attempt of each row, and holds it, or parks it where its attempts are spent. */
  setBack(failures: readonly { readonly row: ClaimedRow; readonly error: string }[]): Promise<void>
  /** Cuts the calls under way short; what they report is still written. */
  abort(): void
  /** Gives up writing. */
  abandon(): void
}

export function createSender(options: SenderOptions): Sender {
  const { store, relayId, retry, clock, random, observe, counters, sentBefore } = options
  const monotonic = monotonicOf(clock)
  const caller = createCaller(options)
  const abandoned = new AbortController()

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
    if (count > 0) observe({ type: 'relay.published', count, durationMs: monotonic() - startedAt })
  })

  const messageOfRow = (row: ClaimedRow): Message =>
    row.suspect || sentBefore.has(row.rowId) ? { ...row.message, resent: true } : row.message

  async function send(rows: readonly SentRow[], { publisher, mine, judged }: Sending): Promise<void> {
    const startedAt = monotonic()
    let open = new Set(rows.map((row) => keyIdOf(row.message)))
    for (const wave of publisher.capabilities.stopsKeyAtFailure ? [rows] : wavesOf(rows)) {
      const sendable = wave.filter((row) => open.has(keyIdOf(row.message)))
      // Who was frozen until the lease ran out must not begin to send what another relay is at work on.
      if (sendable.length === 0 || caller.aborted || !mine()) return
      const outcomes = await caller.call(publisher, sendable.map(messageOfRow), mine)
      const verdict = judge(sendable, outcomes)
      // What our own stopping has cut off says nothing about the destination.
      if (!caller.aborted) judged(verdict)
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

  async function setBack(failures: readonly { readonly row: SentRow; readonly error: string }[]): Promise<void> {
    const errors = new Map(failures.map(({ row, error }) => [row.rowId, error]))
    for (const rows of groupBy(
      failures.map(({ row }) => row),
      (row) => String(attemptsWith(row)),
    ).values())
      await setBackAlike(rows, errors)
  }

  /** The rows have the same number of attempts, this one included. */
  async function setBackAlike(rows: readonly SentRow[], errors: ReadonlyMap<string, string>): Promise<void> {
    const attempts = attemptsWith(rows[0]!)
    const failures = rows.map(({ rowId, charged }) => ({
      rowId,
      error: errors.get(rowId)!,
      ...(charged === undefined ? {} : { charged }),
    }))
    const isSpent = attempts >= retry.attemptsMax
    const holdMs = isSpent ? 0 : fullJitterMs(retry, attempts, random)
    await write(() => (isSpent ? store.park(relayId, failures) : store.hold(relayId, failures, holdMs)))
    if (abandoned.signal.aborted) return
    crashpoint(isSpent ? 'relay.afterPark' : 'relay.afterHold')
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
    async sendSuspect(row, sending) {
      if (row.attempts >= retry.attemptsMax) return setBack([{ row, error: `in flight ${row.attempts} times when its relay died` }])
      if (!sending.mine()) return
      await write(() => store.charge(relayId, row.rowId))
      crashpoint('relay.afterCharge')
      if (!abandoned.signal.aborted) await send([{ ...row, attempts: row.attempts + 1, charged: true }], sending)
    },
    setBack,
    abort: () => caller.abort(),
    abandon: () => abandoned.abort(),
  }
}

const attemptsWith = (row: SentRow): number => (row.charged === true ? row.attempts : row.attempts + 1)
