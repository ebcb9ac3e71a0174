import { newId } from '../../core/ids.ts'
import { WaybillError } from '../../core/errors.ts'
import type { Member } from '../../core/member.ts'
import { decodeMessage } from './headers.ts'
import { natsPartitionSubject, natsSubject } from './names.ts'
import type { AdapterParts, Start } from './partition.ts'
import { type ReadFrom, type Reader, createReader } from './reader.ts'

export interface TailOptions {
  readonly topic: string
  readonly start: Start
  readonly member: Member<number>
  onFailed(error: WaybillError): void
}

/** Reads a topic beside all groups. Resolves once it is certain where it begins. @throws WaybillError as `Streams.open` */
export async function openTail(parts: AdapterParts, options: TailOptions): Promise<Reader> {
  const { streams } = parts
  const { prefix, prefetchMax, observe } = parts.options
  const { topic, start, member } = options
  const stream = await streams.open(topic)
  const info = await streams.info(stream)
  const holding = member.hold({ id: newId(), partition: topic })

  const begin = (created: string, from: ReadFrom): Reader =>
    createReader(parts, {
      stream,
      created,
      subjects: [natsPartitionSubject(prefix, topic, 0).replace(/0$/, '*'), natsSubject(prefix, topic)],
      from,
      unread: 0,
      // What was handed out is not ours to count: nobody settles what a tail reads.
      room: () => prefetchMax - waiting,
      onMessages(messages) {
        waiting += messages.length
        holding.add(
          messages.map(({ message, sequence }) => ({
            message: decodeMessage(topic, () => `nats:${stream.name}:${sequence}`, message),
            sequence: BigInt(sequence),
            redelivered: 'no',
            place: sequence,
          })),
        )
        void holding.room().then(() => {
          waiting = 0
          current.pull()
        })
      },
      onCaughtUp() {},
      onGap: (error, missing) => gap(error, missing),
      onStreamChanged(error) {
        gap(error)
        void streams
          .info(stream)
          .then((again) => {
            if (!holding.assignment.signal.aborted) current = begin(again.created, { sequence: 1 })
          })
          .catch((cause: unknown) => options.onFailed(new WaybillError('POSITION_LOST', 'the stream is gone', { where: topic, cause })))
      },
      onFailed: options.onFailed,
    })

  const gap = (error: WaybillError, missing?: number): void =>
    observe({
      type: 'transport.gap',
      transport: 'nats',
      topic,
      group: '',
      partition: topic,
      error,
      ...(missing === undefined ? {} : { missing }),
    })

  let waiting = 0
  let current = begin(
    info.created,
    typeof start === 'object' ? { at: start.at.toISOString() } : { sequence: start === 'latest' ? info.state.last_seq + 1 : 1 },
  )
  holding.assignment.signal.addEventListener('abort', () => current.stop(), { once: true })
  if (holding.assignment.signal.aborted) current.stop()
  return {
    started: current.started,
    pull: () => current.pull(),
    check: () => current.check(),
    get unread() {
      return current.unread
    },
    stop: () => current.stop(),
  }
}
