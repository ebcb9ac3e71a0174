import { WaybillError } from '../../core/errors.ts'
import type { Holding, Member } from '../../core/member.ts'
import type { CheckedSource } from '../../core/source.ts'
import { type Part, type ReceivingOptions, arrivals, persist } from './consume.ts'
import { type LedgerPlace, encodeMessageId } from './message-id.ts'
import type { PulsarMessageIdLike, PulsarMessageIdsLike } from './pulsar-like.ts'

/** Reads one part without a group: goes on where it was after a cut, settles nothing, leaves nothing at the broker. */
export async function tailPart(
  { options, client, topics, health, nextId }: ReceivingOptions,
  messageIds: PulsarMessageIdsLike | undefined,
  { topic, name }: Part,
  start: CheckedSource['start'],
  member: Member<PulsarMessageIdLike>,
  signal: AbortSignal,
  joined: () => void,
): Promise<void> {
  if (messageIds === undefined)
    throw new WaybillError('UNSUPPORTED', 'a client of your own needs `messageIds` to read without a group', { where: 'pulsar transport' })
  const ids = messageIds
  let last: PulsarMessageIdLike | undefined
  let holding: Holding<PulsarMessageIdLike> | undefined

  const idOf = (place: LedgerPlace): PulsarMessageIdLike => (place.ledgerId < 0n ? ids.earliest() : ids.deserialize(encodeMessageId(place)))

  async function once(good: () => void): Promise<void> {
    await topics.parts(topic)
    last ??= idOf(await topics.placeBefore(name, start, signal))
    // From here on nothing is missed: the reader begins at a place, whenever it comes to it.
    joined()
    const reader = await (await client()).createReader({ topic: name, startMessageId: last, receiverQueueSize: options.prefetchMax })
    holding ??= member.hold({ id: nextId(), partition: name })
    const { assignment } = holding
    health.up()
    good()
    const lost = new Promise<void>((resolve) => assignment.signal.addEventListener('abort', () => resolve(), { once: true }))
    try {
      for (;;) {
        await holding.room()
        const read = reader.readBatch?.() ?? reader.readNext().then((one) => [one])
        // Where it is lost first, what the reader says later is nobody's.
        read.catch(() => undefined)
        const incoming = assignment.signal.aborted ? undefined : await Promise.race([read, lost])
        if (incoming === undefined) return
        holding.add(arrivals(incoming, topic, name))
        last = incoming.at(-1)?.getMessageId() ?? last
      }
    } finally {
      await reader.close().catch(() => undefined)
    }
  }

  await persist(options.clock, signal, once, (error) => health.failed(error))
}
