import type { Holding, Member } from '../../core/member.ts'
import { isWaybillError, WaybillError } from '../../core/errors.ts'
import { arrivalsOf, largestOf, type RawEntry } from './entries.ts'
import { type Fetcher, SCRIPT_MOST } from './fetcher.ts'
import { type GapWatch, createGapWatch, stateOf } from './gap-watch.ts'
import type { Link } from './link.ts'
import type { RedisKeys } from './names.ts'
import { ACK, CLAIM, RELEASE, RENEW } from './scripts.ts'
import { compareIds, idBefore } from './stream-id.ts'
import type { Waker } from './waker.ts'

/** What the leases of one group and topic have in common. */
export interface LeaseContext {
  readonly link: Link
  readonly fetcher: Fetcher
  readonly waker: Waker
  readonly keys: RedisKeys
  readonly member: Member<string>
  readonly topic: string
  readonly group: string
  readonly leaseMs: number
  /** Told once of each lease that is held no more. `resumeId`: everything after it is unsettled or unread. */
  onLost(lease: Lease, resumeId: string): void
  onGap(partition: number, missing: number | undefined, why: string): void
  /** What can't be mended. */
  onFatal(error: WaybillError): void
  onFailure(error: WaybillError): void
}

/** The right to read one partition for the group, while it lasts. */
export interface Lease {
  readonly partition: number
  readonly partitionName: string
  /** Whether it is being given back. */
  readonly isLeaving: boolean
  /** Extends it, looks for gaps, and tells the server again what it has not heard yet. Never rejects. */
  renew(): Promise<void>
  /** Ends it where it could not be extended and will not be in `marginMs`: others may hold it then. */
  expire(marginMs: number): void
  /** Reads no more, lets what is in hand be settled for a while, and gives it back. Never rejects. */
  giveBack(waitMs: number): Promise<void>
  /** Gives it back now, and resolves when the server was told. Never rejects. */
  release(): Promise<void>
}

const ACK_MAX = 1000
const FETCH_MAX = 128
/** What a fetch of many may have where these are as large as the largest that came lately. */
const FETCH_MAX_BYTES = 1024 * 1024
/** How much of the largest size is still expected after each fetch. */
const FORGETTING = 0.9
const PAUSE_MS = 200
const POLL_MS = 5
const UNHEARD_MAX = 100_000

export interface AcquiredLease {
  readonly partition: number
  readonly token: string
  /** When it was asked for, by this process' clock. */
  readonly sinceMs: number
  readonly state: readonly unknown[]
}

let leases = 0

export function createLease(context: LeaseContext, { partition, token, sinceMs, state }: AcquiredLease): Lease {
  const { link, fetcher, waker, keys, member, topic, group, leaseMs } = context
  const stream = keys.stream(topic, partition)
  const leaseKey = keys.lease(stream, group)
  const streamAndLease = [stream, leaseKey]
  const partitionName = `${topic}:${partition}`
  const first = stateOf(state)
  const watch: GapWatch = createGapWatch(first)
  /** The last id that was delivered to the group: here, or to those before. */
  let lastId = first.delivered
  /** The highest id that came here. */
  let cameId = '0-0'
  /** Where to claim from; undefined once all that others left is here. */
  let claimFrom: string | undefined = '0-0'
  /** How many to fetch next: more while as many came as were asked for. */
  let most = SCRIPT_MOST
  let largest = 1
  let renewedMs = sinceMs
  let isLeaving = false
  let isLost = false
  let released: Promise<void> | undefined
  let renewing: Promise<void> | undefined
  /** Settled, and not sent yet. */
  let settled: string[] = []
  let acking: Promise<void> | undefined
  let nextAck: Promise<void> | undefined
  /** Settled here, but the server was not there to be told. */
  let unheard: string[] = []
  const reading = new AbortController()

  const holding: Holding<string> = member.hold({ id: `${group}@${partitionName}#${token}/${++leases}`, partition: partitionName, ack })

  const lease: Lease = {
    partition,
    partitionName,
    get isLeaving() {
      return isLeaving
    },
    renew: () => (renewing ??= renew().finally(() => (renewing = undefined))),
    expire(marginMs) {
      if (performance.now() - renewedMs >= leaseMs - marginMs) lose()
    },
    giveBack,
    release,
  }
  holding.assignment.signal.addEventListener('abort', lose, { once: true })
  void read()
  return lease

  function lose(): void {
    if (isLost) return
    isLost = true
    isLeaving = true
    const [oldest] = holding.places()
    reading.abort()
    holding.lose()
    released = tellRelease()
    context.onLost(lease, oldest === undefined ? lastId : idBefore(oldest))
  }

  /** One call at a time: what is settled meanwhile goes together with the next one. */
  function ack(ids: readonly string[]): Promise<void> {
    for (const id of ids) settled.push(id)
    if (acking === undefined) return sendAcks()
    return (nextAck ??= acking.then(sendAcks, sendAcks))
  }

  function sendAcks(): Promise<void> {
    const ids = settled
    settled = []
    nextAck = undefined
    const sent = tellSettled(ids).finally(() => {
      if (acking === sent) acking = undefined
    })
    acking = sent
    return sent
  }

  async function tellSettled(ids: readonly string[]): Promise<void> {
    try {
      for (let at = 0; at < ids.length; at += ACK_MAX)
        await link.script(ACK, streamAndLease, [group, token, ...ids.slice(at, at + ACK_MAX)])
    } catch (error) {
      handle(error)
      // The message is not ours any more only where the lease is lost; else it must not stay pending for as long as we hold it.
      if (!isLost && unheard.length < UNHEARD_MAX) unheard.push(...ids)
      throw error
    }
  }

  async function tellUnheard(): Promise<void> {
    while (unheard.length > 0) {
      const ids = unheard.slice(0, ACK_MAX)
      await link.script(ACK, streamAndLease, [group, token, ...ids])
      unheard = unheard.slice(ids.length)
    }
  }

  async function renew(): Promise<void> {
    const askedMs = performance.now()
    try {
      const reply = await link.script(RENEW, streamAndLease, [group, token, String(leaseMs)])
      // The group is made anew by whoever takes the lease next, and knows that there had been one.
      if (!Array.isArray(reply)) return lose()
      renewedMs = askedMs
      const gap = watch.look(stateOf(reply), lastId)
      if (gap !== undefined) context.onGap(partition, gap.missing, gap.why)
      // What is pending is older too: it has to be claimed again.
      if (gap?.isOlder === true) return lose()
      await tellUnheard()
    } catch (error) {
      handle(error)
    }
  }

  /** What a call failed with, where it says something about the lease. */
  function handle(error: unknown): void {
    if (isLost) return
    if (isWaybillError(error, 'LEASE_LOST') || isWaybillError(error, 'POSITION_LOST')) lose()
    else if (isWaybillError(error) && !error.retryable && error.code !== 'CLOSED') context.onFatal(error)
    else if (isWaybillError(error)) context.onFailure(error)
    else context.onFailure(new WaybillError('UNKNOWN_OUTCOME', 'reading failed', { where: partitionName, cause: error }))
  }

  async function read(): Promise<void> {
    const { signal } = reading
    let wasWoken = false
    while (!signal.aborted) {
      await holding.room()
      if (signal.aborted) return
      try {
        if (claimFrom !== undefined) await claim(claimFrom)
        else if (await fetch()) wasWoken = false
        else if (!wasWoken || !(await catchUp())) {
          // Woken, and there is nothing: not again at once.
          if (wasWoken) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
          await waker.wait(stream, lastId, signal)
          wasWoken = true
        }
      } catch (error) {
        if (signal.aborted) return
        // It may have been carried out: then there are entries that count as delivered, and did not come.
        claimFrom = unreceived()
        most = SCRIPT_MOST
        watch.forget()
        handle(error)
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
      }
    }
  }

  /** Where somebody has read as one of the group without a lease: what it has not settled is claimed. Whether that was so. */
  async function catchUp(): Promise<boolean> {
    const reply = await link.script(RENEW, streamAndLease, [group, token, String(leaseMs)])
    if (!Array.isArray(reply)) return false
    const { delivered } = stateOf(reply)
    if (compareIds(delivered, lastId) <= 0) return false
    lastId = delivered
    claimFrom = unreceived()
    watch.forget()
    return true
  }

  /** Where to claim from what did not come here. */
  function unreceived(): string {
    return cameId === '0-0' ? cameId : `(${cameId}`
  }

  async function fetch(): Promise<boolean> {
    const entries = await fetcher.fetch({ stream, lease: leaseKey, token, group, most })
    largest = Math.max(largestOf(entries), largest * FORGETTING)
    const fitting = Math.min(FETCH_MAX, Math.floor(FETCH_MAX_BYTES / largest))
    most = entries.length < most ? SCRIPT_MOST : Math.max(SCRIPT_MOST, fitting)
    const arrivals = arrivalsOf(entries, { topic, partition, redelivered: 'no' })
    if (arrivals.length === 0) return false
    cameId = lastId = arrivals.at(-1)!.place
    watch.read(arrivals.length)
    holding.add(arrivals)
    return true
  }

  async function claim(from: string): Promise<void> {
    const reply = await link.script(CLAIM, streamAndLease, [group, token, String(FETCH_MAX), String(FETCH_MAX_BYTES), from], {
      bytes: true,
    })
    const [cursor, deleted, chunks] = reply as readonly [Buffer, number, readonly (readonly RawEntry[])[]]
    // Beyond what was delivered before there is only what a broken connection kept from coming here.
    const redelivered = compareIds(cameId, first.delivered) < 0 ? 'yes' : 'unknown'
    const entries = chunks.flat()
    largest = Math.max(largest, largestOf(entries))
    const arrivals = arrivalsOf(entries, { topic, partition, redelivered })
    const next = cursor.toString('latin1')
    claimFrom = next === '0-0' ? undefined : next
    if (deleted > 0) context.onGap(partition, deleted, 'messages that were not settled were deleted')
    const last = arrivals.at(-1)
    if (last !== undefined) {
      cameId = last.place
      if (compareIds(cameId, lastId) > 0) lastId = cameId
    }
    holding.add(arrivals)
  }

  async function giveBack(waitMs: number): Promise<void> {
    if (isLeaving || isLost) return
    isLeaving = true
    reading.abort()
    const untilMs = performance.now() + waitMs
    while (!isLost && holding.unsettled > 0 && performance.now() < untilMs) await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    await release()
  }

  async function release(): Promise<void> {
    lose()
    await released
  }

  async function tellRelease(): Promise<void> {
    // What was settled goes first.
    await new Promise((resolve) => setImmediate(resolve))
    while (acking !== undefined || nextAck !== undefined) await (nextAck ?? acking)?.catch(() => undefined)
    try {
      await link.script(RELEASE, streamAndLease, [group, token])
    } catch (error) {
      // It ends by itself then.
      if (isWaybillError(error) && error.code !== 'CLOSED') context.onFailure(error)
    }
  }
}
