import type { Delivery, Source, Transport } from '../core/transport.ts'
import { memoryTransport } from '../adapters/memory/transport.ts'

/**
 * Transports that are wrong in the ways in which transports are wrong. They stay, to prove that the contract notices: each must fail it.
 */
export interface BrokenTransport {
  readonly make: () => Transport
  /** The checks that must notice, by a part of their names; others may too. */
  readonly noticedBy: readonly string[]
}

const settleNothing = async (): Promise<void> => {}

/** A memory transport whose subscriptions are changed by `change`. */
function withSubscribe(
  change: (inner: Transport, source: Source, signal: AbortSignal) => AsyncIterable<readonly Delivery[]>,
): () => Transport {
  return () => {
    const inner = memoryTransport()
    return { ...inner, capabilities: inner.capabilities, subscribe: (source, signal) => change(inner, source, signal) }
  }
}

/** Settles each message as soon as it is handed out: what a crash interrupts is gone. */
async function* settleBeforeHandling(inner: Transport, source: Source, signal: AbortSignal): AsyncIterable<readonly Delivery[]> {
  for await (const deliveries of inner.subscribe(source, signal)) {
    for (const delivery of deliveries) await delivery.ack()
    yield deliveries.map((delivery): Delivery => ({ ...delivery, ack: settleNothing, release: settleNothing, retry: settleNothing }))
  }
}

/** Settles what is unsettled when a member leaves, like a client that commits its position on closing. */
async function* settleOnLeave(inner: Transport, source: Source, signal: AbortSignal): AsyncIterable<readonly Delivery[]> {
  const held = new Set<Delivery>()
  const stop = new AbortController()
  const leave = (): void => {
    for (const delivery of held) void delivery.ack()
    stop.abort()
  }
  signal.addEventListener('abort', leave, { once: true })
  for await (const deliveries of inner.subscribe(source, stop.signal)) {
    for (const delivery of deliveries) held.add(delivery)
    yield deliveries.map((delivery): Delivery => ({
      ...delivery,
      release() {
        held.delete(delivery)
        return delivery.release()
      },
    }))
  }
}

/** Hands the messages of a group to its members in turn, whatever their keys: two members work on one key at once. */
function createWithoutAffinity(): Transport {
  const inner = memoryTransport()
  const groups = new Map<string, AsyncIterator<readonly Delivery[]>>()
  const stop = new AbortController()
  return {
    ...inner,
    capabilities: inner.capabilities,
    subscribe(source, signal) {
      if (source.group === undefined) return inner.subscribe(source, signal)
      const id = `${source.topics.join()} ${source.group}`
      const shared = groups.get(id) ?? inner.subscribe({ ...source, batchMax: 1 }, stop.signal)[Symbol.asyncIterator]()
      groups.set(id, shared)
      return takeTurns(shared, signal)
    },
    async close() {
      stop.abort()
      await inner.close()
    },
  }
}

async function* takeTurns(shared: AsyncIterator<readonly Delivery[]>, signal: AbortSignal): AsyncIterable<readonly Delivery[]> {
  const left = new Promise<undefined>((resolve) => signal.addEventListener('abort', () => resolve(undefined), { once: true }))
  while (!signal.aborted) {
    const next = await Promise.race([shared.next(), left])
    if (next === undefined || next.done === true) return
    yield next.value
  }
}

/** Gives released messages back at the end of their key instead of in their place. */
async function* releaseToTheEnd(inner: Transport, source: Source, signal: AbortSignal): AsyncIterable<readonly Delivery[]> {
  for await (const deliveries of inner.subscribe(source, signal)) {
    yield deliveries.map((delivery): Delivery => ({
      ...delivery,
      async release() {
        await delivery.ack()
        await inner.publish([{ ...delivery.message, resent: true }], signal)
      },
    }))
  }
}

/** Lets a late settle of a member that has left count for whoever holds the message now. */
function createWithoutFence(): Transport {
  const inner = memoryTransport()
  const present = new Map<string, Delivery>()
  return {
    ...inner,
    capabilities: inner.capabilities,
    async *subscribe(source, signal) {
      for await (const deliveries of inner.subscribe(source, signal)) {
        for (const delivery of deliveries) present.set(delivery.message.id, delivery)
        yield deliveries.map((delivery): Delivery => ({ ...delivery, ack: () => present.get(delivery.message.id)!.ack() }))
      }
    },
  }
}

/** Says that it acknowledges what is handled, and answers once a message is stored. */
function createAnsweringEarly(): Transport {
  const inner = memoryTransport()
  return { ...inner, capabilities: { ...inner.capabilities, acknowledges: 'handled' } }
}

/** Leaves a refused message out and goes on with those after it. */
function createPassingRefused(): Transport {
  const inner = memoryTransport()
  return {
    ...inner,
    capabilities: inner.capabilities,
    async publish(messages, signal) {
      // One call each, one after the other: no message of the call knows of the one before.
      const outcomes = []
      for (const message of messages) outcomes.push(...(await inner.publish([message], signal)))
      return outcomes
    },
  }
}

export const BROKEN_TRANSPORTS: Readonly<Record<string, BrokenTransport>> = {
  'settles before handling': {
    make: withSubscribe(settleBeforeHandling),
    noticedBy: ['what was not settled when a member left', 'released messages come again', 'settling out of order'],
  },
  'settles on leaving': {
    make: withSubscribe(settleOnLeave),
    noticedBy: ['what was not settled when a member left', 'when a member leaves, others go on'],
  },
  'has no key affinity': { make: createWithoutAffinity, noticedBy: ['a key is never with two members'] },
  'releases to the end': { make: withSubscribe(releaseToTheEnd), noticedBy: ['released messages come again, in their place'] },
  'has no fence': { make: createWithoutFence, noticedBy: ['a late settle of a member that has left'] },
  'answers before it is handled': { make: createAnsweringEarly, noticedBy: ['stored is said once each declared group has settled'] },
  'lets messages pass a refused one': { make: createPassingRefused, noticedBy: ['nothing of a key passes its refused one'] },
}
