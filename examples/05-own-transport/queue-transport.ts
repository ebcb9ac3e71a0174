// A transport for a broker that Waybill has never heard of, as somebody outside the project would write it: only what `waybill` exports.
import {
  WaybillError,
  checkGroup,
  checkSource,
  checkTopic,
  createMember,
  createPublishQueue,
  fullJitterMs,
  newId,
  observeAll,
  receivedMessage,
  systemClock,
} from 'waybill'
import type { Arrival, Capabilities, Holding, Member, Message, Observe, PublishOutcome, Transport } from 'waybill'
import type { QueueMessage, QueueService } from './queue-service.ts'

/** What is called of the service's client. Each call ends by itself, as those of a cloud's client do. */
export type QueueClient = Pick<QueueService, 'sendBatch' | 'createQueue' | 'deleteQueue' | 'receive' | 'deleteBatch' | 'changeVisibility'>

export interface QueueTransportOptions {
  /** How long a message that nobody holds any more stays invisible: after a crash others wait so long for its key. @default 30000 */
  readonly visibilityMs?: number
  /** Told of what failed and is tried again. */
  readonly observe?: Observe
}

/** What a message is settled by. */
type Receipt = string

/** A queue that a member reads. */
interface QueueSource {
  readonly topic: string
  readonly name: string
  /** Where the queue begins, if there is none yet. */
  readonly from: Date | undefined
  /** A tail's queue is its own: it keeps nothing that was received. */
  readonly tail: boolean
}

const WHERE = 'queue transport'
const BATCH_MAX = 10
const BODY_MAX_BYTES = 262_144
const CLOSE_MS = 5_000
const POLL_MS = 1_000

const CAPABILITIES: Capabilities = Object.freeze({
  ordering: 'key',
  stopsKeyAtFailure: true,
  acknowledges: 'stored',
  delay: true,
  startsAtTime: true,
  deduplicates: true,
  // This stand-in for a service lives and dies with the process. Over the real one it would be true.
  survives: false,
})

/** The service takes letters, digits, `-` and `_`: `_` is escaped, so that two names never become one. */
export const escapeName = (name: string): string => name.replaceAll('_', '__').replaceAll('.', '_d').replaceAll('/', '_s')
const queueName = (topic: string, group: string): string => `${escapeName(checkTopic(topic))}_g${escapeName(checkGroup(group))}`

/** Keys are message groups, headers attributes, ids deduplication ids; each (topic, group) has a queue of its own, a tail one that goes with it. */
export function queueTransport(client: QueueClient, { visibilityMs = 30_000, observe }: QueueTransportOptions = {}): Transport {
  if (!Number.isInteger(visibilityMs) || visibilityMs < 100 || visibilityMs > 43_200_000)
    throw new WaybillError('INVALID_OPTION', 'visibilityMs is out of range', {
      got: visibilityMs,
      allowed: '100 to 43200000 ms',
      where: WHERE,
    })
  const tell = observeAll(observe === undefined ? [] : [observe])
  const failed = (error: unknown): void => tell({ type: 'transport.failed', transport: 'queue', error })
  const closing = new AbortController()
  const members = new Set<Member<Receipt>>()
  const queue = createPublishQueue({
    where: WHERE,
    send,
    messageMaxBytes: BODY_MAX_BYTES,
    keysTogether: false,
    batchMax: BATCH_MAX,
    batchMaxBytes: BODY_MAX_BYTES,
    inFlightMax: 8,
  })

  /** One call for each topic of the batch. What a call rejects with is unknown: the service may have stored all of it. */
  async function send(messages: readonly Message[]): Promise<readonly PublishOutcome[]> {
    const outcomes = new Map<Message, PublishOutcome>()
    await Promise.all(
      [...Map.groupBy(messages, ({ topic }) => topic)].map(async ([topic, group]) => {
        const entries = group.map(({ id, key, headers, body }) => ({ id, group: key, attributes: headers, body }))
        const failures = await client.sendBatch(escapeName(topic), entries).catch((cause: unknown) => {
          const denied = deniedOf(cause)
          if (denied === undefined) throw cause
          return group.map(() => denied)
        })
        for (const [index, message] of group.entries()) outcomes.set(message, outcomeOf(failures[index]))
      }),
    )
    return messages.map((message) => outcomes.get(message)!)
  }

  /** Receives from one queue until the member ends. Whoever finds that it holds something no more begins anew, with a new assignment. */
  async function work(member: Member<Receipt>, { topic, name, from, tail }: QueueSource, ended: AbortSignal): Promise<void> {
    const ack = async (receipts: readonly Receipt[]): Promise<void> => void (await inTens(receipts, (ten) => client.deleteBatch(name, ten)))
    for (let failures = 0; !ended.aborted;) {
      const holding = member.hold({ id: newId(), partition: name, ...(tail ? {} : { ack }) })
      const { id: receiver, signal } = holding.assignment
      const extending = tail ? undefined : extend(name, holding)
      try {
        await client.createQueue(name, escapeName(topic), from)
        while (!signal.aborted) {
          await holding.room()
          const messages = await client.receive(name, { receiver, max: BATCH_MAX, waitMs: POLL_MS, visibilityMs }, signal)
          failures = 0
          holding.add(messages.map((message) => arrivalOf(topic, name, message)))
          if (tail) await ack(messages.map(({ receipt }) => receipt))
          else if (signal.aborted)
            await giveBack(
              name,
              messages.map(({ receipt }) => receipt),
            )
        }
      } catch (error) {
        const denied = deniedOf(error)
        if (denied !== undefined) throw denied
        failed(error)
        await systemClock.sleep(fullJitterMs({ baseMs: 100, maxMs: 10_000 }, ++failures, Math.random), ended)
      }
      await drop(name, holding)
      await extending
    }
  }

  /** Keeps what is unsettled invisible to others, until some of it is not ours any more: by what the service says, or because it could not be asked. */
  async function extend(name: string, holding: Holding<Receipt>): Promise<void> {
    const { signal } = holding.assignment
    for (let saidAtMs = performance.now(); !signal.aborted;) {
      await systemClock.sleep(visibilityMs / 3, signal)
      const askedAtMs = performance.now()
      const gone = await change(name, holding.places(), visibilityMs)
      if (gone !== undefined) saidAtMs = askedAtMs
      const places = new Set(holding.places())
      if (gone?.some((receipt) => places.has(receipt)) === true || performance.now() - saidAtMs >= visibilityMs) await drop(name, holding)
    }
  }

  async function drop(name: string, holding: Holding<Receipt>): Promise<void> {
    const left = holding.places()
    holding.lose()
    await giveBack(name, left)
  }

  /** The receipts that do not count any more. Undefined where it failed: there is time for another try, or the messages become visible in time. */
  async function change(name: string, receipts: readonly Receipt[], ms: number): Promise<readonly Receipt[] | undefined> {
    try {
      return await inTens(receipts, (ten) => client.changeVisibility(name, ten, ms))
    } catch (error) {
      failed(error)
      return undefined
    }
  }

  /** Visible to others at once. */
  const giveBack = (name: string, receipts: readonly Receipt[]): Promise<unknown> => change(name, receipts, 0)

  function assertOpen(): void {
    if (closing.signal.aborted) throw new WaybillError('CLOSED', 'the transport is closed', { where: WHERE })
  }

  return {
    name: 'queue',
    capabilities: CAPABILITIES,
    publish: queue.publish,
    async declareGroups(groups) {
      assertOpen()
      await Promise.all(groups.map(({ topic, group }) => client.createQueue(queueName(topic, group), escapeName(topic), new Date(0))))
    },
    subscribe(source, signal) {
      assertOpen()
      const { topics, group, start, batchMax } = checkSource(source, true)
      const from = start === 'latest' ? undefined : start === 'earliest' ? new Date(0) : start.at
      const tail = group === undefined ? `tail/${newId()}` : undefined
      const sources = topics.map((topic) => ({ topic, name: queueName(topic, tail ?? group!), from, tail: tail !== undefined }))
      const ended = AbortSignal.any([signal, closing.signal])
      const stop = new AbortController()
      const member = createMember<Receipt>({
        batchMax,
        clock: systemClock,
        prefetchMax: 100,
        prefetchMaxBytes: 16 * 1024 * 1024,
        async onEnd(left) {
          stop.abort()
          members.delete(member)
          if (tail === undefined) await Promise.all(left.map(({ partition, places }) => giveBack(partition, places)))
          await working
          if (tail !== undefined) await Promise.all(sources.map(({ name }) => client.deleteQueue(name)))
        },
      })
      members.add(member)
      const working = Promise.all(sources.map((each) => work(member, each, stop.signal).catch((error: unknown) => void member.end(error))))
      ended.addEventListener('abort', () => void member.end(), { once: true })
      if (ended.aborted) void member.end()
      return member.deliveries()
    },
    async close() {
      closing.abort()
      await Promise.all([queue.close(AbortSignal.timeout(CLOSE_MS)), ...[...members].map((member) => member.end())])
    },
  }
}

/** The service takes ten at once. Gives back the receipts that do not count any more. */
async function inTens(
  receipts: readonly Receipt[],
  call: (ten: readonly Receipt[]) => Promise<readonly Receipt[]>,
): Promise<readonly Receipt[]> {
  const gone: Receipt[] = []
  for (let at = 0; at < receipts.length; at += BATCH_MAX) gone.push(...(await call(receipts.slice(at, at + BATCH_MAX))))
  return gone
}

function outcomeOf(failure: string | WaybillError | undefined): PublishOutcome {
  if (failure === undefined) return { kind: 'stored' }
  const error = failure instanceof WaybillError ? failure : new WaybillError('MESSAGE_REJECTED', failure, { where: WHERE })
  return { kind: 'rejected', error }
}

/** What no second try makes better. */
function deniedOf(cause: unknown): WaybillError | undefined {
  if (!(cause instanceof Error) || cause.name !== 'AccessDenied') return undefined
  return new WaybillError('ACCESS_DENIED', 'the service refused the credentials', { cause, where: WHERE })
}

/** Others may have sent it, by the service's own client: whatever it is, it becomes a message. */
function arrivalOf(
  topic: string,
  name: string,
  { id, group, attributes, body, sequence, receiveCount, receipt }: QueueMessage,
): Arrival<Receipt> {
  const place = (): string => `queue:${name}:${sequence}`
  const message = receivedMessage({ topic, place, id, key: group, headers: Object.entries(attributes), body })
  return { message, sequence, redelivered: receiveCount > 1 ? 'yes' : 'no', place: receipt }
}
