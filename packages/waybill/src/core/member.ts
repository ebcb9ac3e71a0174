import type { Clock } from './clock.ts'
import { WaybillError } from './errors.ts'
import { checkInteger } from './options.ts'
import type { Assignment, Delivery, Message } from './transport.ts'

/** A message from the broker, on its way to be handed out. `Place` is what the adapter settles it by. */
export interface Arrival<Place> {
  readonly message: Message
  readonly sequence?: bigint
  readonly redelivered: 'yes' | 'no' | 'unknown'
  readonly place: Place
}

/** What one member holds of one partition, from its assignment until it is lost. */
export interface Holding<Place> {
  readonly assignment: Assignment
  /** Takes messages in, in the partition's order. Does nothing once the assignment is lost. */
  add(arrivals: readonly Arrival<Place>[]): void
  /** Resolves when few enough messages wait here to be handed out, or for their time, or the assignment is lost: then fetch more. */
  room(): Promise<void>
  /** Messages that came and are not settled, handed out or not. */
  readonly unsettled: number
  /** The places of these, in the partition's order: what to extend, or to give back. */
  places(): readonly Place[]
  /** Ends it: its signal aborts, what is queued is dropped, late settles are ignored. */
  lose(): void
}

export interface HoldingOptions<Place> {
  /** Unique in this process. */
  readonly id: string
  readonly partition: string
  /**
   * Tells the broker that these are done; several acks of one turn come together. What it rejects with, the acks reject with. Must come to an end by
   * itself: the member's end waits for it. Nothing: a tail, of which nothing is kept that was handed out.
   */
  readonly ack?: (places: readonly Place[]) => Promise<void>
}

/** One subscription to a broker: what several partitions bring, as one stream of deliveries. */
export interface Member<Place> {
  /** Begins to hold a partition. */
  hold(options: HoldingOptions<Place>): Holding<Place>
  readonly holdings: ReadonlySet<Holding<Place>>
  /**
   * Ends the stream, with `error` where one is given: loses all holdings now, waits for acks that are on their way, then calls `onEnd`. Resolves
   * after that. Idempotent; the first error counts.
   */
  end(error?: unknown): Promise<void>
  /** The stream, for one reader. Leaving it ends the member. */
  deliveries(): AsyncGenerator<readonly Delivery[], void, undefined>
}

/** What was not settled when a member left. */
export interface LeftOver<Place> {
  readonly partition: string
  readonly places: readonly Place[]
}

export interface MemberOptions<Place> {
  readonly batchMax: number
  readonly clock: Clock
  /** Messages of one partition that may wait to be handed out. */
  readonly prefetchMax: number
  /** Their bytes. */
  readonly prefetchMaxBytes: number
  /** Gives back what is left, and leaves the group. What it rejects with, the stream ends with. Must come to an end by itself. */
  onEnd(left: readonly LeftOver<Place>[]): Promise<void>
}

const RETRY_MAX_MS = 604_800_000
const DONE = Promise.resolve()

/**
 * The receiving half that adapters share: what is released comes again in its place, what is put off comes again in time, without asking the broker
 * for it, which still counts both as unsettled. When the process dies, it is the broker that delivers them again.
 */
export function createMember<Place>({ batchMax, clock, prefetchMax, prefetchMaxBytes, onEnd }: MemberOptions<Place>): Member<Place> {
  const lanes: Lane<Place>[] = []
  const holdings = new Set<Holding<Place>>()
  const acking = new Set<Promise<void>>()
  let ending: Promise<void> | undefined
  let failure: { readonly error: unknown } | undefined
  let wake = (): void => {}
  let turn = 0

  /** Partitions take turns at being first, so that a busy one does not keep the others waiting. */
  function take(): Delivery[] {
    const deliveries: Delivery[] = []
    turn++
    for (let at = 0; at < lanes.length && deliveries.length < batchMax; at++) {
      lanes[(turn + at) % lanes.length]!.take(batchMax - deliveries.length, deliveries)
    }
    return deliveries
  }

  return {
    holdings,
    hold(options) {
      const lane = createLane<Place>(options, { clock, prefetchMax, prefetchMaxBytes, acking, onReady: () => wake() }, () => {
        lanes.splice(lanes.indexOf(lane), 1)
        holdings.delete(lane.holding)
      })
      lanes.push(lane)
      holdings.add(lane.holding)
      if (ending !== undefined) lane.holding.lose()
      return lane.holding
    },
    end,
    async *deliveries() {
      try {
        while (ending === undefined) {
          const deliveries = take()
          if (deliveries.length > 0) {
            yield deliveries
            continue
          }
          await new Promise<void>((resolve) => {
            wake = resolve
          })
          wake = () => {}
        }
      } finally {
        await end()
      }
      if (failure !== undefined) throw failure.error
    },
  }

  function end(error?: unknown): Promise<void> {
    if (ending !== undefined) return ending
    if (error !== undefined) failure = { error }
    // Set first: whoever hears that a partition is lost may end the member, too.
    const { promise, resolve } = Promise.withResolvers<void>()
    ending = promise
    void leave().then(resolve)
    return promise
  }

  async function leave(): Promise<void> {
    const left = lanes.map(({ holding, partition }) => ({ partition, places: holding.places() }))
    for (const holding of holdings) holding.lose()
    wake()
    try {
      await Promise.allSettled(acking)
      await onEnd(left)
    } catch (error) {
      failure ??= { error }
    }
  }
}

interface Lane<Place> {
  readonly partition: string
  readonly holding: Holding<Place>
  take(max: number, into: Delivery[]): void
}

interface LaneLimits {
  readonly clock: Clock
  readonly prefetchMax: number
  readonly prefetchMaxBytes: number
  /** Acks that are on their way. */
  readonly acking: Set<Promise<void>>
  onReady(): void
}

interface Held<Place> {
  readonly message: Message
  readonly sequence: bigint | undefined
  readonly redelivered: Arrival<Place>['redelivered']
  readonly place: Place
  readonly ordinal: number
  again: boolean
  /** How many times: settles of an earlier one no longer count. */
  handedOut: number
  /** Whether it can be handed out, is handed out, or waits for its time. */
  state: 'ready' | 'out' | 'aside' | 'done'
}

function createLane<Place>(
  { id, partition, ack }: HoldingOptions<Place>,
  { clock, prefetchMax, prefetchMaxBytes, acking, onReady }: LaneLimits,
  onLost: () => void,
): Lane<Place> {
  const lost = new AbortController()
  let isLost = false
  const assignment: Assignment = { id, signal: lost.signal }
  /** All that is unsettled, in the partition's order. */
  const held = new Map<number, Held<Place>>()
  /** Fresh from the broker; `again`: came back, sorted by their places. */
  let fresh: Held<Place>[] = []
  let freshAt = 0
  const again: Held<Place>[] = []
  let ordinals = 0
  let freshBytes = 0
  const onRoom: (() => void)[] = []
  let acks: { readonly places: Place[]; readonly sent: Promise<void> } | undefined

  const waiting = (): number => fresh.length - freshAt
  /** Messages that were put off, and their bytes: in memory like those that wait. */
  const aside = { count: 0, bytes: 0 }
  const hasRoom = (): boolean => waiting() + aside.count < prefetchMax && freshBytes + aside.bytes < prefetchMaxBytes

  function tellRoom(): void {
    if (onRoom.length > 0 && hasRoom()) for (const resolve of onRoom.splice(0)) resolve()
  }

  function insertAgain(entry: Held<Place>): void {
    entry.state = 'ready'
    entry.again = true
    let at = again.length
    while (at > 0 && again[at - 1]!.ordinal > entry.ordinal) at--
    again.splice(at, 0, entry)
    onReady()
  }

  function shiftFresh(): Held<Place> {
    const entry = fresh[freshAt]!
    freshAt++
    freshBytes -= entry.message.body.byteLength
    if (freshAt === fresh.length) {
      fresh = []
      freshAt = 0
    } else if (freshAt > 4096) {
      fresh = fresh.slice(freshAt)
      freshAt = 0
    }
    return entry
  }

  /** Acks that are asked for within one turn go to the broker together. */
  function sendAck(place: Place): Promise<void> {
    if (ack === undefined) return DONE
    if (acks !== undefined) {
      acks.places.push(place)
      return acks.sent
    }
    const places = [place]
    const sent = Promise.resolve().then(() => {
      acks = undefined
      return ack(places)
    })
    acks = { places, sent }
    acking.add(sent)
    const gone = (): void => void acking.delete(sent)
    sent.then(gone, gone)
    return sent
  }

  function deliveryOf(entry: Held<Place>): Delivery {
    const { message, sequence, redelivered, handedOut } = entry
    /** Whether the caller may settle it: once, while the partition is ours, and not where it has been handed out anew since. */
    const mine = (): boolean => entry.state === 'out' && entry.handedOut === handedOut && !isLost
    return {
      message,
      position: sequence === undefined ? { partition } : { partition, sequence },
      redelivered: entry.again ? 'yes' : redelivered,
      assignment,
      ack() {
        if (!mine()) return DONE
        entry.state = 'done'
        held.delete(entry.ordinal)
        return sendAck(entry.place)
      },
      async release() {
        if (mine()) insertAgain(entry)
      },
      async retry(afterMs) {
        checkInteger(afterMs, 'afterMs', 0, RETRY_MAX_MS)
        if (!mine()) return
        entry.state = 'aside'
        aside.count++
        aside.bytes += message.body.byteLength
        void clock.sleep(afterMs, lost.signal).then(() => {
          if (isLost) return
          aside.count--
          aside.bytes -= message.body.byteLength
          insertAgain(entry)
          tellRoom()
        })
      },
    }
  }

  const holding: Holding<Place> = {
    assignment,
    add(arrivals) {
      if (isLost || arrivals.length === 0) return
      for (const { message, sequence, redelivered, place } of arrivals) {
        const entry: Held<Place> = {
          message,
          sequence,
          redelivered,
          place,
          ordinal: ++ordinals,
          again: false,
          state: 'ready',
          handedOut: 0,
        }
        held.set(entry.ordinal, entry)
        fresh.push(entry)
        freshBytes += message.body.byteLength
      }
      onReady()
    },
    async room() {
      while (!hasRoom() && !isLost) {
        await new Promise<void>((resolve) => {
          onRoom.push(resolve)
        })
      }
    },
    get unsettled() {
      return held.size
    },
    places: () => [...held.values()].map(({ place }) => place),
    lose() {
      if (isLost) return
      isLost = true
      lost.abort(new WaybillError('LEASE_LOST', 'the partition is held by somebody else now', { where: partition }))
      held.clear()
      fresh = []
      freshAt = 0
      freshBytes = 0
      again.length = 0
      for (const resolve of onRoom.splice(0)) resolve()
      onLost()
    },
  }

  return {
    partition,
    holding,
    take(max, into) {
      for (let left = max; left > 0; left--) {
        const entry = again.length > 0 ? again.shift()! : waiting() > 0 ? shiftFresh() : undefined
        if (entry === undefined) break
        entry.state = 'out'
        entry.handedOut++
        // Nobody needs to know what a tail has not settled.
        if (ack === undefined) held.delete(entry.ordinal)
        into.push(deliveryOf(entry))
      }
      tellRoom()
    },
  }
}
