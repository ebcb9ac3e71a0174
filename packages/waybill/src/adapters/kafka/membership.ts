import { monotonicOf } from '../../core/clock.ts'
import { WaybillError } from '../../core/errors.ts'
import { type KafkaAdminLike, type KafkaAssignment, type KafkaConsumerLike, type KafkaJoined, cutConnections } from './client.ts'
import { isMembershipError, isOutage } from './errors.ts'
import type { Health } from './health.ts'
import type { CheckedKafkaOptions } from './options.ts'
import { createPace } from './pace.ts'

export interface MembershipOptions {
  readonly consumer: KafkaConsumerLike
  readonly admin: KafkaAdminLike
  readonly group: string
  readonly options: CheckedKafkaOptions
  readonly heartbeatMs: number
  readonly health: Health
  readonly toError: (error: unknown, what: string) => WaybillError
  /** Before each attempt to join: topics that must exist. Rejects where that can't be. */
  prepare(): Promise<void>
  /** The group has given us these; false from `isCurrent` means that it has taken them away again. Rejects where they can't be begun. */
  onAssigned(assignments: readonly KafkaAssignment[], generation: string, isCurrent: () => boolean): Promise<void>
  /** All that was given is lost, now, before anybody else can have it: what may be committed must be sent in this call. */
  onLost(): void
  /** Joining again will not help. */
  onFatal(error: WaybillError): void
}

/** A member of a group, kept alive: it joins, and joins again whatever happens, until it is told to leave. */
export interface Membership {
  /** Joins again, so that the group divides its partitions anew. */
  rejoin(because: WaybillError): void
  /** Leaves the group; resolves when the broker was told, or could not be within `limitMs`. */
  leave(limitMs: number): Promise<void>
}

export function createMembership(given: MembershipOptions): Membership {
  const { consumer, admin, group, options, heartbeatMs, health, toError } = given
  const now = monotonicOf(options.clock)
  const leaving = new AbortController()
  const pace = createPace(options.clock)
  let epoch = 0
  let isHeld = false
  let beatSentMs = now()
  let beatMs = now()
  let breakUp: (error: unknown) => void = () => {}

  function lose(): void {
    epoch++
    if (!isHeld) return
    isHeld = false
    given.onLost()
  }

  function joined({ memberId, generationId, assignments = [] }: KafkaJoined): void {
    // Whatever we held was of an older generation.
    lose()
    beatMs = now()
    isHeld = true
    const mine = epoch
    const isCurrent = (): boolean => mine === epoch && !leaving.signal.aborted
    given.onAssigned(assignments, `${memberId}/${generationId}`, isCurrent).then(
      () => {
        if (!isCurrent()) return
        pace.reset()
        health.up()
      },
      (error: unknown) => {
        if (isCurrent()) breakUp(error)
      },
    )
  }

  consumer.on('consumer:group:join', joined)
  consumer.on('error', (error) => breakUp(error))
  consumer.on('consumer:group:rebalance', lose)
  // The last moment before any JoinGroup is sent: what is written in it goes out first, on the same connection.
  consumer.on('client:performWithRetry', (operation) => {
    if (operation === 'joinGroup') lose()
  })
  consumer.on('consumer:heartbeat:start', () => {
    beatSentMs = now()
  })
  consumer.on('consumer:heartbeat:end', () => {
    beatMs = beatSentMs
  })

  // By our own clock, since a broker that can't reach us gives our partitions to others without a word.
  const watch = setInterval(() => {
    if (isHeld && now() - beatMs > options.sessionTimeoutMs) {
      cutConnections(consumer)
      breakUp(new WaybillError('LEASE_LOST', 'the group was not reached for longer than a session lasts', { where: group }))
    }
  }, heartbeatMs)

  async function stay(): Promise<void> {
    while (!leaving.signal.aborted) {
      const broken = new Promise<unknown>((resolve) => {
        breakUp = resolve
      })
      try {
        await given.prepare()
        if (leaving.signal.aborted) break
        await consumer.joinGroup({})
        throw await broken
      } catch (error) {
        lose()
        if (leaving.signal.aborted) break
        const failure = toError(error, `group ${group}`)
        if (!failure.retryable && failure.code !== 'CLOSED') return given.onFatal(failure)
        if (failure.code === 'TRANSPORT_UNAVAILABLE') {
          if (isOutage(error)) health.down(failure)
          await pace.rest(leaving.signal)
        } else if (failure.code === 'LEASE_LOST') await pace.rest(leaving.signal)
      }
    }
  }
  const staying = stay()

  /** By a connection of its own: on that of the member, the broker answers a JoinGroup first, which may take long. */
  async function tellGroup(memberId: string | null): Promise<void> {
    if (memberId === null || memberId === '') return
    await admin.removeMembersFromConsumerGroup({ groupId: group, members: [{ memberId, reason: 'leaves' }] })
  }

  return {
    rejoin: (because) => breakUp(because),
    async leave(limitMs) {
      const limit = new AbortController()
      const { memberId } = consumer
      leaving.abort()
      clearInterval(watch)
      breakUp(new WaybillError('CLOSED', 'the subscription ended'))
      lose()
      // First, or a heartbeat that hears of the leave would join again.
      cutConnections(consumer)
      const closing = consumer.close(true).catch(() => undefined)
      try {
        await Promise.race([tellGroup(memberId), options.clock.sleep(limitMs, limit.signal)])
      } catch (error) {
        if (!isMembershipError(error))
          options.observe({ type: 'transport.failed', transport: 'kafka', error: toError(error, `leaving group ${group}`) })
      }
      await Promise.race([Promise.all([closing, staying]), options.clock.sleep(LAST_MS, limit.signal)])
      limit.abort()
    },
  }
}

/** What a close of the library's may take once its connections are cut. */
const LAST_MS = 500
