import type { Clock } from '../../core/clock.ts'
import type { KafkaConsumerLike } from './client.ts'
import { isMembershipError } from './errors.ts'
import type { Lane } from './lane.ts'
import { createPace } from './pace.ts'

/** What a commit says: everything before `committable` is settled. */
export interface Settled {
  readonly topic: string
  readonly partition: number
  readonly committable: bigint
}

/** Tells the broker how far the lanes are settled: one commit on its way at a time, the latest offsets win. */
export interface Committer {
  /**
   * So many more messages of this lane may be committed; they will be, soon. Resolves at once while few wait for that, else when they are committed
   * or their partition is lost: so a crash repeats few.
   */
  mark(lane: Lane, count: number): Promise<void>
  /** Forgets what was marked of a lane: its partition is another one now. */
  unmark(lane: Lane): void
  /** Commits offsets now. Rejects with what the library throws. */
  commit(settled: readonly Settled[]): Promise<void>
  /** Sends what is marked at once, beside whatever is on its way, and forgets it: for the moment before the lanes are lost. */
  sendLast(): void
  /** Resolves when everything marked is committed, or could not be. */
  flush(): Promise<void>
}

/** Between two commits nobody waits for, so that a slow member does not ask for one per message. */
const PAUSE_MS = 20
/** Acked messages that may wait for their commit before acks do. */
const UNCOMMITTED_MAX = 200
const HURRY = 'somebody waits'
const AT_ONCE = Promise.resolve()

export function createCommitter(consumer: KafkaConsumerLike, clock: Clock, onError: (error: unknown) => void): Committer {
  let marked = new Set<Lane>()
  let uncommitted = 0
  let waiting: { readonly promise: Promise<void>; readonly resolve: () => void } | undefined
  let hurry = new AbortController()
  const stopped = new AbortController()
  const pace = createPace(clock)
  let running: Promise<void> | undefined

  function commit(settled: readonly Settled[]): Promise<void> {
    if (settled.length === 0) return Promise.resolve()
    return consumer.commit({
      offsets: settled.map(({ topic, partition, committable }) => ({ topic, partition, offset: committable, leaderEpoch: -1 })),
    })
  }

  function release(count: number): void {
    uncommitted = Math.max(0, uncommitted - count)
    if (uncommitted > UNCOMMITTED_MAX) return
    waiting?.resolve()
    waiting = undefined
  }

  /** One attempt; what fails for a while is marked again, what fails for good is for the next owner. */
  async function round(): Promise<boolean> {
    const lanes = [...marked]
    const count = uncommitted
    marked = new Set()
    hurry = new AbortController()
    try {
      await commit(lanes)
      pace.reset()
      release(count)
      return true
    } catch (error) {
      onError(error)
      if (isMembershipError(error)) {
        release(count)
        return true
      }
      for (const lane of lanes) if (!lane.holding.assignment.signal.aborted) marked.add(lane)
      return false
    }
  }

  async function run(): Promise<void> {
    while (marked.size > 0 && !stopped.signal.aborted) {
      if (!(await round())) await pace.rest(stopped.signal)
      else if (waiting === undefined) await clock.sleep(PAUSE_MS, hurry.signal)
    }
    running = undefined
  }

  return {
    mark(lane, count) {
      marked.add(lane)
      uncommitted += count
      if (stopped.signal.aborted) return AT_ONCE
      running ??= AT_ONCE.then(run)
      if (uncommitted <= UNCOMMITTED_MAX) return AT_ONCE
      // With a reason, since a default one is made with its stack each time.
      if (waiting === undefined) hurry.abort(HURRY)
      return (waiting ??= Promise.withResolvers<void>()).promise
    },
    unmark: (lane) => void marked.delete(lane),
    commit,
    sendLast() {
      const lanes = [...marked]
      marked = new Set()
      commit(lanes).catch(onError)
      release(uncommitted)
    },
    async flush() {
      stopped.abort()
      hurry.abort(HURRY)
      release(uncommitted)
      await running
      if (marked.size > 0) await round()
    },
  }
}
