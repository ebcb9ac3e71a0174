import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { createFakeClock, type FakeClock } from '../testing/fake-clock.ts'
import { systemClock } from './clock.ts'
import { type Arrival, type Holding, type LeftOver, type Member, type MemberOptions, createMember } from './member.ts'
import type { Delivery } from './transport.ts'

const arrival = (place: number, bytes = 1, key = 'a'): Arrival<number> => ({
  message: { id: `id-${place}`, topic: 'orders', key, headers: {}, body: new Uint8Array(bytes) },
  sequence: BigInt(place),
  redelivered: 'no',
  place,
})
const arrivals = (...places: number[]): Arrival<number>[] => places.map((place) => arrival(place))
const placeOf = ({ position }: Delivery): number => Number(position.sequence)
const placesOf = (deliveries: readonly Delivery[]): number[] => deliveries.map(placeOf)

interface Started {
  readonly member: Member<number>
  readonly stream: AsyncGenerator<readonly Delivery[], void, undefined>
  readonly acked: number[][]
  readonly left: (readonly LeftOver<number>[])[]
  hold(partition?: string, id?: string): Holding<number>
  pull(): Promise<readonly Delivery[]>
}

function start(options: Partial<MemberOptions<number>> = {}, ack?: (places: readonly number[]) => Promise<void>): Started {
  const acked: number[][] = []
  const left: (readonly LeftOver<number>[])[] = []
  const member = createMember<number>({
    batchMax: 100,
    clock: systemClock,
    prefetchMax: 10,
    prefetchMaxBytes: 1000,
    async onEnd(rest) {
      left.push(rest)
    },
    ...options,
  })
  const stream = member.deliveries()
  return {
    member,
    stream,
    acked,
    left,
    hold: (partition = 'p', id = partition) =>
      member.hold({
        id,
        partition,
        ack(places) {
          acked.push([...places])
          return ack?.(places) ?? Promise.resolve()
        },
      }),
    pull: async () => (await stream.next()).value ?? [],
  }
}

/** Whether a promise is settled after a turn. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false
  const settle = (): void => void (settled = true)
  promise.then(settle, settle)
  await turn()
  return settled
}

suite('handing out', () => {
  test('what a partition brings comes in its order, at most `batchMax` at once, with its place and assignment', async () => {
    const { hold, pull } = start({ batchMax: 2 })
    const holding = hold('orders-0', 'a-1')
    holding.add(arrivals(1, 2, 3))
    const first = await pull()
    assert.deepEqual(placesOf(first), [1, 2])
    assert.deepEqual(placesOf(await pull()), [3])
    assert.deepEqual(first[0]!.position, { partition: 'orders-0', sequence: 1n })
    assert.equal(first[0]!.assignment, holding.assignment)
    assert.equal(holding.assignment.id, 'a-1')
    assert.equal(first[0]!.redelivered, 'no')
  })

  test('a reader that waits is woken by what comes', async () => {
    const { hold, pull } = start()
    const waiting = pull()
    assert.equal(await isSettled(waiting), false)
    hold().add(arrivals(1))
    assert.deepEqual(placesOf(await waiting), [1])
  })

  test('a message without a place in a sequence has none', async () => {
    const { hold, pull } = start()
    const { message, place } = arrival(1)
    hold().add([{ message, place, redelivered: 'unknown' }])
    const [delivery] = await pull()
    assert.deepEqual(delivery!.position, { partition: 'p' })
    assert.equal(delivery!.redelivered, 'unknown')
  })

  test('partitions take turns at being first', async () => {
    const { hold, pull } = start({ batchMax: 1 })
    for (const partition of ['p', 'q']) hold(partition).add(arrivals(1, 2, 3))
    const from: string[] = []
    for (let at = 0; at < 4; at++) from.push((await pull())[0]!.position.partition)
    assert.equal(new Set(from.slice(0, 2)).size, 2)
    assert.equal(new Set(from.slice(2)).size, 2)
  })

  test('tens of thousands of messages that wait keep their order', async () => {
    const { hold, pull } = start({ batchMax: 1000 })
    const holding = hold()
    const all = Array.from({ length: 20_000 }, (_, place) => place)
    holding.add(arrivals(...all.slice(0, 12_000)))
    const seen: number[] = []
    for (let at = 0; at < 6; at++) seen.push(...placesOf(await pull()))
    holding.add(arrivals(...all.slice(12_000)))
    while (seen.length < all.length) seen.push(...placesOf(await pull()))
    assert.deepEqual(seen, all)
  })
})

suite('settling', () => {
  test('what is acked is told to the broker once, and not unsettled any more', async () => {
    const { hold, pull, acked } = start()
    const holding = hold()
    holding.add(arrivals(1, 2))
    const [one, two] = await pull()
    assert.equal(holding.unsettled, 2)
    await one!.ack()
    await one!.ack()
    await one!.release()
    await one!.retry(0)
    assert.deepEqual(acked, [[1]])
    assert.deepEqual(holding.places(), [2])
    await two!.ack()
    assert.deepEqual([holding.unsettled, acked], [0, [[1], [2]]])
  })

  test('acks of one turn go to the broker together', async () => {
    const { hold, pull, acked } = start()
    hold().add(arrivals(1, 2, 3))
    await Promise.all((await pull()).toReversed().map((delivery) => delivery.ack()))
    assert.deepEqual(acked, [[3, 2, 1]])
  })

  test('an ack resolves when the broker was told, and rejects with what telling it rejects with', async () => {
    const broker = Promise.withResolvers<void>()
    const { hold, pull } = start({}, () => broker.promise)
    hold().add(arrivals(1, 2))
    const acks = (await pull()).map((delivery) => delivery.ack())
    assert.equal(await isSettled(acks[0]!), false)
    broker.reject(new Error('connection reset'))
    for (const ack of acks) await assert.rejects(ack, /connection reset/)
  })

  test('an adapter whose `ack` throws makes the acks reject', async () => {
    const { hold, pull } = start({}, () => {
      throw new Error('a bug')
    })
    hold().add(arrivals(1))
    await assert.rejects((await pull())[0]!.ack(), /a bug/)
  })

  test('a tail has nobody to tell: its acks are done at once, and what it never settles is not kept', async () => {
    const { member, pull } = start()
    const tail = member.hold({ id: 'tail', partition: 'p' })
    tail.add(arrivals(1, 2, 3))
    assert.equal(tail.unsettled, 3)
    const [one, two] = await pull()
    assert.equal(tail.unsettled, 0)
    await one!.ack()
    await two!.release()
    await one!.release()
    assert.deepEqual(placesOf(await pull()), [2])
  })

  test('what is released comes again before younger ones, in its place, as a repeat', async () => {
    const { hold, pull } = start({ batchMax: 3 })
    const holding = hold()
    holding.add(arrivals(1, 2, 3, 4))
    const [one, two, three] = await pull()
    await three!.release()
    await one!.release()
    await two!.ack()
    const again = await pull()
    assert.deepEqual(placesOf(again), [1, 3, 4])
    assert.deepEqual(
      again.map(({ redelivered }) => redelivered),
      ['yes', 'yes', 'no'],
    )
    assert.deepEqual(holding.places(), [1, 3, 4])
  })

  test('a settle of an older hand-out does nothing', async () => {
    const { hold, pull, acked } = start()
    const holding = hold()
    holding.add(arrivals(1))
    const [old] = await pull()
    await old!.release()
    const [now] = await pull()
    await old!.ack()
    await old!.release()
    assert.deepEqual(acked, [])
    await now!.ack()
    assert.deepEqual(acked, [[1]])
  })

  test('what is put off comes again in its time, before younger ones that still wait, and is unsettled until then', async () => {
    const clock = createFakeClock()
    const { hold, pull } = start({ clock, batchMax: 1 })
    const holding = hold()
    holding.add(arrivals(1, 2, 3))
    await (await pull())[0]!.retry(5000)
    assert.deepEqual(placesOf(await pull()), [2])
    await clock.advance(4999)
    assert.deepEqual(holding.places(), [1, 2, 3])
    await clock.advance(1)
    const [again] = await pull()
    assert.deepEqual([placeOf(again!), again!.redelivered], [1, 'yes'])
  })

  test('a delay out of range is refused, and the message can still be settled', async () => {
    const { hold, pull, acked } = start()
    hold().add(arrivals(1))
    const [delivery] = await pull()
    for (const wrong of [-1, 1.5, Number.NaN, 604_800_001]) await assert.rejects(delivery!.retry(wrong), { code: 'INVALID_OPTION' })
    await delivery!.ack()
    assert.deepEqual(acked, [[1]])
  })
})

suite('room', () => {
  test('is there until `prefetchMax` messages wait, and again when some were handed out', async () => {
    const { hold, pull } = start({ prefetchMax: 3, batchMax: 2 })
    const holding = hold()
    holding.add(arrivals(1, 2))
    await holding.room()
    holding.add(arrivals(3, 4))
    const both = [holding.room(), holding.room()]
    assert.equal(await isSettled(both[0]!), false)
    await pull()
    await Promise.all(both)
  })

  test('is there until `prefetchMaxBytes` bytes wait, though that is one message', async () => {
    const { hold, pull } = start({ prefetchMaxBytes: 100, batchMax: 1 })
    const holding = hold()
    holding.add([arrival(1, 99)])
    await holding.room()
    holding.add([arrival(2, 1)])
    const room = holding.room()
    assert.equal(await isSettled(room), false)
    await pull()
    await room
  })

  test('is not there any more for a waiter, where it was taken before the waiter could use it', async () => {
    const { hold, pull } = start({ prefetchMax: 2 })
    const holding = hold()
    holding.add(arrivals(1, 2))
    const room = holding.room()
    await pull()
    const waiting = pull()
    holding.add(arrivals(3, 4, 5))
    assert.deepEqual(placesOf(await waiting), [3, 4, 5])
    await room
    holding.add(arrivals(6, 7))
    const next = holding.room()
    const pulling = pull()
    holding.add(arrivals(8, 9))
    assert.deepEqual(placesOf(await pulling), [6, 7])
    assert.equal(await isSettled(next), false)
    await pull()
    await next
  })

  test('is taken by what was put off, until its time has come', async () => {
    const clock = createFakeClock()
    const { hold, pull } = start({ prefetchMax: 2, clock })
    const holding = hold()
    holding.add(arrivals(1, 2))
    for (const delivery of await pull()) await delivery.retry(1000)
    const room = holding.room()
    assert.equal(await isSettled(room), false)
    await clock.advance(1000)
    await room
  })

  test('is for nobody to wait for when the partition is lost', async () => {
    const { hold } = start({ prefetchMax: 1 })
    const holding = hold()
    holding.add(arrivals(1))
    const both = [holding.room(), holding.room()]
    holding.lose()
    await Promise.all([...both, holding.room()])
  })
})

suite('a partition that is lost', () => {
  test('aborts its assignment with LEASE_LOST, hands out nothing more, and ignores settles', async () => {
    const clock = createFakeClock()
    const { member, hold, pull, acked } = start({ clock, batchMax: 3 })
    const holding = hold()
    const other = hold('q')
    holding.add(arrivals(1, 2, 3, 4))
    const [one, two, three] = await pull()
    await three!.retry(1000)
    holding.lose()
    holding.lose()
    assert.equal((holding.assignment.signal.reason as { code: string }).code, 'LEASE_LOST')
    await one!.ack()
    await two!.release()
    holding.add(arrivals(5))
    await clock.advance(1000)
    assert.equal(clock.pending, 0)
    assert.deepEqual([acked, holding.unsettled, holding.places()], [[], 0, []])
    assert.deepEqual([...member.holdings], [other])
    other.add(arrivals(10))
    assert.deepEqual(placesOf(await pull()), [10])
  })

  test('still gets told what was acked just before', async () => {
    const { hold, pull, acked } = start()
    const holding = hold()
    holding.add(arrivals(1))
    const [delivery] = await pull()
    const ack = delivery!.ack()
    holding.lose()
    await ack
    assert.deepEqual(acked, [[1]])
  })
})

suite('the end', () => {
  test('loses all partitions at once, waits for acks that are on their way, gives back the rest once, and ends the stream', async () => {
    const broker = Promise.withResolvers<void>()
    const { member, hold, pull, left, stream } = start({ batchMax: 2 }, () => broker.promise)
    const holding = hold()
    const other = hold('q')
    hold('lost').lose()
    holding.add(arrivals(1, 2, 3))
    const [one, two] = await pull()
    const ack = one!.ack()
    const next = stream.next()
    assert.deepEqual(placesOf((await next).value!), [3])
    const waiting = stream.next()
    const ending = member.end()
    assert.equal(holding.assignment.signal.aborted && other.assignment.signal.aborted, true)
    assert.equal(member.holdings.size, 0)
    await two!.release()
    assert.equal(await isSettled(ending), false)
    assert.deepEqual(left, [])
    broker.resolve()
    await Promise.all([ack, ending, member.end()])
    assert.deepEqual(left, [
      [
        { partition: 'p', places: [2, 3] },
        { partition: 'q', places: [] },
      ],
    ])
    assert.equal((await waiting).done, true)
    assert.equal((await stream.next()).done, true)
  })

  test('with an error is the end of the stream with that error; the first one counts', async () => {
    const { member, stream } = start()
    const waiting = stream.next()
    const first = new Error('first')
    await Promise.all([member.end(first), member.end(new Error('second'))])
    await assert.rejects(waiting, first)
    assert.equal((await stream.next()).done, true)
  })

  test('an ack that fails meanwhile does not keep it from giving back the rest', async () => {
    const { member, hold, pull, left } = start({}, () => Promise.reject(new Error('connection reset')))
    hold().add(arrivals(1, 2))
    const failed = assert.rejects((await pull())[0]!.ack(), /connection reset/)
    await member.end()
    await failed
    assert.deepEqual(left, [[{ partition: 'p', places: [2] }]])
  })

  test('what giving back rejects with ends the stream, unless it ended with an error before', async () => {
    const onEnd = (): Promise<void> => Promise.reject(new Error('not given back'))
    const quiet = start({ onEnd })
    await quiet.member.end()
    await assert.rejects(quiet.stream.next(), /not given back/)
    const failed = start({ onEnd })
    await failed.member.end(new Error('why it ended'))
    await assert.rejects(failed.stream.next(), /why it ended/)
  })

  test('whoever leaves the stream ends the member', async () => {
    const { member, hold, stream, left } = start()
    const holding = hold()
    holding.add(arrivals(1, 2))
    for await (const deliveries of stream) {
      await deliveries[0]!.ack()
      break
    }
    assert.deepEqual(left, [[{ partition: 'p', places: [2] }]])
    assert.equal(holding.assignment.signal.aborted, true)
    assert.equal(member.holdings.size, 0)
  })

  test('may be asked for by whoever hears that a partition is lost: it still comes once', async () => {
    const { member, hold, left } = start()
    const holding = hold()
    hold('q')
    holding.assignment.signal.addEventListener('abort', () => void member.end())
    await member.end()
    assert.deepEqual(
      left.map((rest) => rest.map(({ partition }) => partition)),
      [['p', 'q']],
    )
  })

  test('a partition that is held afterwards is lost at once', async () => {
    const { member, hold } = start()
    await member.end()
    const late = hold()
    late.add(arrivals(1))
    assert.deepEqual([late.assignment.signal.aborted, late.unsettled, member.holdings.size], [true, 0, 0])
    await late.room()
  })
})

type State = 'fresh' | 'again' | 'out' | 'aside' | 'done'

/** One message in the model. */
interface Entry {
  readonly place: number
  readonly bytes: number
  state: State
  repeated: boolean
  dueMs: number
  delivery?: Delivery
}

interface Partition {
  readonly name: string
  readonly holding: Holding<number>
  readonly entries: Entry[]
  lost: boolean
  readonly rooms: { expected: boolean; done: boolean }[]
}

const LIMITS = { batchMax: 4, prefetchMax: 3, prefetchMaxBytes: 10 }

const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant('add' as const),
      which: fc.nat(1),
      bytes: fc.array(fc.constantFrom(1, 1, 4, 12), { minLength: 1, maxLength: 4 }),
    }),
  },
  { weight: 6, arbitrary: fc.record({ type: fc.constant('pull' as const) }) },
  {
    weight: 8,
    arbitrary: fc.record({
      type: fc.constant('settle' as const),
      verb: fc.constantFrom('ack' as const, 'ack' as const, 'release' as const, 'retry' as const),
      /** Several at once: bits. */
      which: fc.nat(255),
      afterMs: fc.constantFrom(0, 10, 50),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('settle again' as const),
      verb: fc.constantFrom('ack' as const, 'release' as const, 'retry' as const),
      which: fc.nat(50),
    }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('advance' as const), ms: fc.constantFrom(5, 10, 40) }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('answer' as const), fails: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('room' as const), which: fc.nat(1) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('lose' as const), which: fc.nat(1) }) },
)
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never

/** A member beside a model of it; after each step both must say the same. */
function createModel(clock: FakeClock) {
  const left: (readonly LeftOver<number>[])[] = []
  const told: { places: readonly number[]; settle: PromiseWithResolvers<void>; over: boolean }[] = []
  /** Acks that were asked for: those of one step, in their order. */
  const askedFor: { places: number[]; fails: boolean | undefined; results: Promise<PromiseSettledResult<void>[]> }[] = []
  const spent: Delivery[] = []
  const member = createMember<number>({
    ...LIMITS,
    clock,
    async onEnd(rest) {
      left.push(rest)
    },
  })
  const stream = member.deliveries()
  let places = 0
  let held = 0
  let comingBack = false
  const violations: unknown[] = []
  let pulling: Promise<void> | undefined
  let ended: { readonly error: unknown } | 'well' | undefined
  const slots: Partition[] = [hold(0), hold(1)]

  function hold(slot: number): Partition {
    const name = `p${slot}`
    const holding = member.hold({
      id: `${name}-${++held}`,
      partition: name,
      ack(acked) {
        const settle = Promise.withResolvers<void>()
        told.push({ places: [...acked], settle, over: false })
        return settle.promise
      },
    })
    return { name, holding, entries: [], lost: false, rooms: [] }
  }

  const inState = ({ entries }: Partition, state: State): Entry[] => entries.filter((entry) => entry.state === state)
  const hasRoom = (partition: Partition): boolean => {
    const kept = [...inState(partition, 'fresh'), ...inState(partition, 'aside')]
    return partition.lost || (kept.length < LIMITS.prefetchMax && kept.reduce((sum, { bytes }) => sum + bytes, 0) < LIMITS.prefetchMaxBytes)
  }

  function handedOut(deliveries: readonly Delivery[]): void {
    assert.ok(deliveries.length > 0 && deliveries.length <= LIMITS.batchMax, 'size of a batch')
    for (const partition of slots) {
      const mine = deliveries.filter(({ position }) => position.partition === partition.name)
      // What was put off comes back one by one.
      const back = partition.entries.filter(
        ({ state, dueMs, place }) => state === 'aside' && dueMs <= clock.now() && placesOf(mine).includes(place),
      )
      for (const entry of back) Object.assign(entry, { state: 'again', repeated: true })
      const ready = [...inState(partition, 'again'), ...inState(partition, 'fresh')]
      assert.deepEqual(
        placesOf(mine),
        ready.slice(0, mine.length).map(({ place }) => place),
        'order of a partition',
      )
      if (deliveries.length < LIMITS.batchMax && !comingBack) assert.equal(mine.length, ready.length, 'something was held back')
      for (const [index, delivery] of mine.entries()) {
        const entry = ready[index]!
        assert.equal(delivery.assignment, partition.holding.assignment)
        assert.equal(delivery.redelivered, entry.repeated ? 'yes' : 'no')
        if (entry.delivery !== undefined) spent.push(entry.delivery)
        Object.assign(entry, { state: 'out', delivery })
      }
    }
  }

  function pull(): void {
    pulling ??= stream.next().then(
      ({ value, done }) => {
        pulling = undefined
        if (done === true) ended ??= 'well'
        else {
          try {
            handedOut(value)
          } catch (error) {
            violations.push(error)
          }
        }
      },
      (error: unknown) => {
        pulling = undefined
        ended = { error }
      },
    )
  }

  function settle(verb: 'ack' | 'release' | 'retry', bits: number, afterMs: number): void {
    for (const partition of slots) {
      const chosen = inState(partition, 'out').filter((_, index) => ((bits >> index) & 1) === 1)
      const acks: Promise<void>[] = []
      for (const entry of chosen) {
        const delivery = entry.delivery!
        if (verb === 'ack') {
          entry.state = 'done'
          acks.push(delivery.ack())
        } else if (verb === 'release') {
          Object.assign(entry, { state: 'again', repeated: true })
          void delivery.release()
        } else {
          Object.assign(entry, { state: 'aside', dueMs: clock.now() + afterMs })
          void delivery.retry(afterMs)
        }
        spent.push(delivery)
      }
      if (acks.length > 0) askedFor.push({ places: chosen.map(({ place }) => place), fails: undefined, results: Promise.allSettled(acks) })
    }
  }

  async function settleAgain(verb: 'ack' | 'release' | 'retry', which: number): Promise<void> {
    const delivery = spent[which % Math.max(spent.length, 1)]
    if (verb === 'retry') await delivery?.retry(0)
    else await delivery?.[verb]()
  }

  function answer(fails: boolean): void {
    const index = told.findIndex(({ over }) => !over)
    const open = told[index]
    if (open === undefined) return
    open.over = true
    askedFor[index]!.fails = fails
    if (fails) open.settle.reject(new Error('not told'))
    else open.settle.resolve()
  }

  function room(partition: Partition): void {
    const waiter = { expected: hasRoom(partition), done: false }
    partition.rooms.push(waiter)
    void partition.holding.room().then(() => (waiter.done = true))
  }

  function lose(slot: number): void {
    const partition = slots[slot]!
    partition.holding.lose()
    forget(partition)
    slots[slot] = Object.assign(hold(slot), { rooms: partition.rooms })
  }

  function forget(partition: Partition): void {
    partition.lost = true
    for (const { delivery } of partition.entries) if (delivery !== undefined) spent.push(delivery)
    for (const waiter of partition.rooms) waiter.expected = true
    assert.equal(partition.holding.assignment.signal.aborted, true)
    assert.deepEqual([partition.holding.unsettled, partition.holding.places()], [0, []])
  }

  async function run(each: Step): Promise<void> {
    comingBack = each.type === 'advance' || (each.type === 'settle' && each.verb === 'retry')
    const partition = 'which' in each ? slots[each.which % 2]! : slots[0]!
    if (each.type === 'add') {
      const added = each.bytes.map((bytes): Entry => ({ place: ++places, bytes, state: 'fresh', repeated: false, dueMs: 0 }))
      partition.entries.push(...added)
      partition.holding.add(added.map(({ place, bytes }) => arrival(place, bytes)))
    } else if (each.type === 'pull') pull()
    else if (each.type === 'settle') settle(each.verb, each.which, each.afterMs)
    else if (each.type === 'settle again') await settleAgain(each.verb, each.which)
    else if (each.type === 'advance') await clock.advance(each.ms)
    else if (each.type === 'answer') answer(each.fails)
    else if (each.type === 'room') room(partition)
    else lose(each.which)
    // A sleep of no time takes a turn, what it wakes another one.
    for (let turns = 0; turns < 3; turns++) await turn()
    comingBack = false
    for (const { entries } of slots)
      for (const entry of entries)
        if (entry.state === 'aside' && entry.dueMs <= clock.now()) Object.assign(entry, { state: 'again', repeated: true })
    check()
  }

  function check(): void {
    if (violations.length > 0) throw violations[0]
    assert.deepEqual(
      told.map((call) => call.places),
      askedFor.map((call) => call.places),
      'acks of a turn come together',
    )
    for (const partition of slots) {
      const unsettled = partition.entries.filter(({ state }) => state !== 'done').map(({ place }) => place)
      if (!partition.lost) assert.deepEqual([partition.holding.places(), partition.holding.unsettled], [unsettled, unsettled.length])
      for (const waiter of partition.rooms) {
        waiter.expected ||= hasRoom(partition)
        assert.equal(waiter.done, waiter.expected, 'room')
      }
    }
  }

  /** Pulls until nothing that is held is left to be handed out. */
  async function drain(): Promise<void> {
    await run({ type: 'advance', ms: 100 } as unknown as Step)
    for (;;) {
      await run({ type: 'pull' })
      if (pulling !== undefined) break
    }
    for (const partition of slots)
      assert.deepEqual([...inState(partition, 'fresh'), ...inState(partition, 'again'), ...inState(partition, 'aside')], [])
  }

  async function end(error: unknown): Promise<void> {
    const expected = slots.map(({ name, holding }) => ({ partition: name, places: holding.places() }))
    let over = false
    const ending = member.end(error).then(() => (over = true))
    for (const partition of slots) forget(partition)
    await turn()
    assert.equal(
      over,
      told.every((call) => call.over),
    )
    assert.equal(left.length, over ? 1 : 0)
    while (told.some((call) => !call.over)) answer(true)
    await ending
    assert.deepEqual(
      left.map((rest) => rest.toSorted((a, b) => (a.partition < b.partition ? -1 : 1))),
      [expected],
    )
    await Promise.all(spent.map(async (delivery) => Promise.all([delivery.ack(), delivery.release(), delivery.retry(5)])))
    pull()
    for (let turns = 0; turns < 3; turns++) await turn()
    check()
    assert.deepEqual(ended, error === undefined ? 'well' : { error })
    assert.equal(pulling, undefined, 'a reader still waits')
    assert.deepEqual([member.holdings.size, clock.pending], [0, 0])
    for (const { fails, results } of askedFor)
      for (const { status } of await results) assert.equal(status, fails === true ? 'rejected' : 'fulfilled')
  }

  return { run, drain, end }
}

test('property: whatever comes, is settled, put off and lost, in any order, nothing that is held is lost, comes twice or out of its place', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 50 }), fc.boolean(), fc.boolean(), async (steps, drained, failing) => {
      const model = createModel(createFakeClock())
      for (const each of steps) await model.run(each)
      if (drained) await model.drain()
      await model.end(failing ? new Error('the broker has gone') : undefined)
    }),
    { numRuns: 400 },
  )
})
