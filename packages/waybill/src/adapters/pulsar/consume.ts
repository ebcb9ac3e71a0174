import { fullJitterMs } from '../../core/backoff.ts'
import type { Clock } from '../../core/clock.ts'
import { WaybillError } from '../../core/errors.ts'
import type { Arrival, Holding, Member } from '../../core/member.ts'
import { receivedMessage } from '../../core/received.ts'
import type { CheckedSource } from '../../core/source.ts'
import { clientError } from './connect-errors.ts'
import type { Health } from './health.ts'
import { sequenceOf } from './message-id.ts'
import { subscriptionName } from './names.ts'
import type { PulsarOptions } from './options.ts'
import type {
  PulsarClientSubscriptionType,
  PulsarConsumerLike,
  PulsarIncomingLike,
  PulsarLike,
  PulsarMessageIdLike,
} from './pulsar-like.ts'
import { ID_PROPERTY } from './publisher.ts'
import { type PulsarTopics, isFinal } from './topics.ts'

/** What the parts of a transport that receive share. */
export interface ReceivingOptions {
  readonly options: PulsarOptions
  readonly client: () => Promise<PulsarLike>
  readonly topics: PulsarTopics
  readonly health: Health
  nextId(): string
}

/** One topic or partition that a member of a group reads. */
export interface Part {
  readonly topic: string
  /** Its name at the broker. */
  readonly name: string
}

export const BACKOFF = { baseMs: 100, maxMs: 5_000 }

const CLIENT_TYPE: Readonly<Record<PulsarOptions['subscriptionType'], PulsarClientSubscriptionType>> = {
  Key_Shared: 'KeyShared',
  Shared: 'Shared',
  Failover: 'Failover',
  Exclusive: 'Exclusive',
}

/** Tries until `signal` aborts or a failure is final, which it rejects with; a try that was good for something begins the pauses anew. */
export async function persist(
  clock: Clock,
  signal: AbortSignal,
  once: (good: () => void) => Promise<void>,
  onFailed: (error: unknown) => void,
): Promise<void> {
  for (let failures = 0; !signal.aborted;) {
    try {
      await once(() => {
        failures = 0
      })
      return
    } catch (cause) {
      if (signal.aborted) return
      const error = clientError(cause, 'TRANSPORT_UNAVAILABLE')
      if (isFinal(error)) throw error
      onFailed(error)
      failures++
      await clock.sleep(BACKOFF.baseMs / 2 + fullJitterMs(BACKOFF, failures, Math.random), signal)
    }
  }
}

/**
 * Reads one part for a group until `signal` aborts; each connection is a holding of its own, since what is unsettled goes to others when it ends.
 * `joined` is called once the group has a position.
 */
export async function consumePart(
  shared: ReceivingOptions,
  { topic, name }: Part,
  group: string,
  start: CheckedSource['start'],
  member: Member<PulsarMessageIdLike>,
  signal: AbortSignal,
  joined: () => void,
): Promise<void> {
  const { options, client, topics, health, nextId } = shared
  const { clock, observe, requestTimeoutMs } = options
  const subscription = subscriptionName(group)
  let birth: string | undefined

  const gap = (reason: string, missing?: number): void => {
    const error = new WaybillError('POSITION_LOST', reason, { where: name })
    observe({
      type: 'transport.gap',
      transport: 'pulsar',
      topic,
      group,
      partition: name,
      ...(missing === undefined ? {} : { missing }),
      error,
    })
  }

  /** What was lost with a subscription must come again where the topic still has it, so a later one begins at the first message. */
  async function settleBirth(): Promise<void> {
    await topics.parts(topic)
    const { birth: found } = await topics.subscription(name, subscription, birth === undefined ? start : 'earliest', signal)
    if (birth !== undefined && found !== birth) gap('the subscription was deleted, with the position of the group')
    birth = found
  }

  async function once(good: () => void): Promise<void> {
    await settleBirth()
    // The group has its position from here on, whenever its members come to read.
    joined()
    const consumer = await (
      await client()
    ).subscribe({
      topic: name,
      subscription,
      subscriptionType: CLIENT_TYPE[options.subscriptionType],
      // For a client that makes a deleted subscription anew by itself: rather twice than never.
      subscriptionInitialPosition: 'Earliest',
      receiverQueueSize: options.prefetchMax,
      batchReceivePolicy: { maxNumMessages: options.prefetchMax, maxNumBytes: options.prefetchMaxBytes, timeoutMs: 1_000 },
    })
    if (signal.aborted) return void (await consumer.close())
    const holding = member.hold({ id: nextId(), partition: name, ack: (places) => acknowledge(consumer, places, requestTimeoutMs) })
    health.up()
    good()
    observe({ type: 'transport.assigned', transport: 'pulsar', group, gained: [name], lost: [] })
    const ended = new AbortController()
    try {
      await Promise.race([pump(consumer, holding, topic, name), watch(ended.signal), untilLost(holding)])
    } finally {
      ended.abort()
      const wasOurs = !holding.assignment.signal.aborted
      holding.lose()
      if (wasOurs) observe({ type: 'transport.assigned', transport: 'pulsar', group, gained: [], lost: [name] })
      // A connection that is gone is closed enough.
      await consumer.close().catch(() => undefined)
    }
  }

  /** Rejects once the subscription is not the one that was joined. */
  async function watch(ended: AbortSignal): Promise<void> {
    const stop = AbortSignal.any([signal, ended])
    let expired: number | undefined
    while (!stop.aborted) {
      await clock.sleep(options.watchIntervalMs, stop)
      if (stop.aborted) return
      let seen
      try {
        seen = await topics.look(name, subscription, stop)
      } catch (error) {
        // The connection itself tells whether the broker is there; without rights to look, a loss shows at the next connection.
        if (!stop.aborted) observe({ type: 'transport.failed', transport: 'pulsar', error })
        continue
      }
      if (seen?.birth !== birth) {
        topics.forget(topic)
        throw new WaybillError('POSITION_LOST', 'the subscription was deleted while it was read', { where: name })
      }
      if (seen !== undefined && expired !== undefined && seen.expired > expired)
        gap('messages expired before the group had read them (messageTTL)', seen.expired - expired)
      expired = seen?.expired
    }
  }

  await persist(clock, signal, once, (error) => health.failed(error))
}

async function untilLost({ assignment }: Holding<unknown>): Promise<void> {
  if (assignment.signal.aborted) return
  await new Promise<void>((resolve) => assignment.signal.addEventListener('abort', () => resolve(), { once: true }))
}

/** Ends by rejecting, when the consumer has ended, or when the partition is lost. */
async function pump(consumer: PulsarConsumerLike, holding: Holding<PulsarMessageIdLike>, topic: string, name: string): Promise<void> {
  while (!holding.assignment.signal.aborted) {
    await holding.room()
    holding.add(arrivals(await consumer.batchReceive(), topic, name))
  }
}

/** What came, as what is handed out. */
export function arrivals(incoming: readonly PulsarIncomingLike[], topic: string, name: string): Arrival<PulsarMessageIdLike>[] {
  return incoming.map((each) => {
    const place = each.getMessageId()
    const bytes = place.serialize()
    const sequence = sequenceOf(bytes)
    const { [ID_PROPERTY]: id, ...headers } = each.getProperties()
    const key = each.getPartitionKey()
    const message = receivedMessage({
      topic,
      place: () => `pulsar:${name}:${sequence ?? bytes.toString('base64url')}`,
      id,
      key: key === '' ? undefined : key,
      headers: Object.entries(headers),
      body: each.getData(),
    })
    return {
      message,
      ...(sequence === undefined ? {} : { sequence }),
      redelivered: each.getRedeliveryCount() > 0 ? 'yes' : 'unknown',
      place,
    }
  })
}

/** Resolves when the broker was told, as far as its client says. */
async function acknowledge(consumer: PulsarConsumerLike, places: readonly PulsarMessageIdLike[], timeoutMs: number): Promise<void> {
  const told = consumer.acknowledgeIds?.(places) ?? Promise.all(places.map((place) => consumer.acknowledgeId(place)))
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(
    () => late.reject(new WaybillError('TIMEOUT', `no answer to an ack within ${timeoutMs} ms`, { where: 'pulsar transport' })),
    timeoutMs,
  )
  try {
    await Promise.race([told, late.promise])
  } finally {
    clearTimeout(timer)
  }
}
