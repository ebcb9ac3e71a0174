import { randomUUID } from 'node:crypto'
import { WaybillError, isWaybillError } from '../../core/errors.ts'
import type { CheckedSource } from '../../core/source.ts'
import { isBusy, refusedBy } from './connect-errors.ts'
import { EARLIEST, type LedgerPlace } from './message-id.ts'
import { partitionName, pulsarTopicName } from './names.ts'
import type { PulsarOptions } from './options.ts'
import type { PulsarRest } from './rest.ts'
import { pathOf } from './web-socket-client.ts'

/** What stands at the broker, made where it is missing. */
export interface PulsarTopics {
  /** Names at the broker: of the topic itself, or of its partitions. @throws WaybillError `TOPIC_MISSING` where it may not be made */
  parts(topic: string): Promise<readonly string[]>
  /** Whether a topic that is missing may be left to the broker to make. */
  readonly brokerMakes: boolean
  /** Forgets what is known of a topic. */
  forget(topic: string): void
  /** The subscription of one part, begun at `start` where there is none. What tells it from a later one of its name, and whether it was made now. */
  subscription(
    part: string,
    name: string,
    start: CheckedSource['start'],
    signal?: AbortSignal,
  ): Promise<{ readonly birth: string; readonly isNew: boolean }>
  /** How the subscription stands: undefined where it is missing. */
  look(
    part: string,
    name: string,
    signal?: AbortSignal,
  ): Promise<{ readonly birth: string | undefined; readonly expired: number } | undefined>
  /** The place after which a tail begins. */
  placeBefore(part: string, start: CheckedSource['start'], signal?: AbortSignal): Promise<LedgerPlace>
}

/** The property that tells a subscription from one that was made later under its name. */
const BIRTH = 'waybill.birth'
const KNOWN_MAX = 10_000
const BUSY_TRIES_MAX = 20
const BUSY_PAUSE_MS = 100
const LATEST = '{"ledgerId":9223372036854775807,"entryId":9223372036854775807,"partitionIndex":-1'
const FIRST = '{"ledgerId":-1,"entryId":-1,"partitionIndex":-1'

export function createTopics(rest: PulsarRest, { home, partitions, createTopics: mayCreate, clock }: PulsarOptions): PulsarTopics {
  const known = new Map<string, Promise<readonly string[]>>()

  async function find(name: string): Promise<number | undefined> {
    const { status, text } = await rest.call('GET', `/${pathOf(name)}/partitions`, { accept: [404] })
    if (status !== 404) return Number((JSON.parse(text) as { readonly partitions?: number }).partitions ?? 0)
    // The namespace, not the topic, is missing: nobody makes that for a program.
    if (/namespace|tenant/i.test(text))
      throw new WaybillError('TOPIC_MISSING', 'Pulsar has no such tenant or namespace', { got: name, where: 'pulsar transport' })
    return undefined
  }

  async function create(name: string): Promise<void> {
    const path = `/${pathOf(name)}`
    // 409: another one was faster.
    if (partitions > 0) await rest.call('PUT', `${path}/partitions`, { body: String(partitions), accept: [409] })
    else
      try {
        await rest.call('PUT', path, { accept: [409] })
      } catch (error) {
        // Who may only publish and consume can still have it made by the broker, by using it, where the broker does that.
        if (!isWaybillError(error, 'ACCESS_DENIED') || !(await isMadeByUse(path))) throw error
      }
  }

  async function isMadeByUse(path: string): Promise<boolean> {
    const { status } = await rest.call('GET', `${path}/partitions?checkAllowAutoCreation=true`, { accept: [404, 409, 412] })
    return status === 200
  }

  async function partsOf(topic: string): Promise<readonly string[]> {
    const name = pulsarTopicName(topic, home)
    let count = await find(name)
    if (count === undefined) {
      if (!mayCreate)
        throw new WaybillError('TOPIC_MISSING', 'the topic is missing at the broker, and createTopics is false', {
          got: name,
          where: 'pulsar transport',
        })
      await create(name)
      count = (await find(name)) ?? 0
    }
    return count === 0 ? [name] : Array.from({ length: count }, (_, index) => partitionName(name, index))
  }

  return {
    brokerMakes: mayCreate && partitions === 0,
    // By no caller's signal: others wait for the same answer.
    parts(topic) {
      let found = known.get(topic)
      if (found !== undefined) return found
      found = partsOf(topic)
      if (known.size >= KNOWN_MAX) known.clear()
      known.set(topic, found)
      found.catch(() => known.delete(topic))
      return found
    },
    forget: (topic) => void known.delete(topic),
    async subscription(part, name, start, signal) {
      const path = `/${pathOf(part)}/subscription/${encodeURIComponent(name)}`
      const birth = randomUUID()
      const at = await startOf(part, start, signal)
      const body = `${at},"properties":{"${BIRTH}":"${birth}"}}`
      if (await makeSubscription(path, body, signal)) return { birth, isNew: true }
      const properties = await readProperties(path, signal)
      const found = properties[BIRTH]
      if (found !== undefined) return { birth: found, isNew: false }
      // Somebody else has made it, without a mark. Two members may mark it at once: the one that stays counts.
      await rest.call('PUT', `${path}/properties`, { body: JSON.stringify({ ...properties, [BIRTH]: birth }), ...given(signal) })
      return { birth: (await readProperties(path, signal))[BIRTH] ?? birth, isNew: false }
    },
    async look(part, name, signal) {
      const { status, text } = await rest.call('GET', `/${pathOf(part)}/stats`, { accept: [404], ...given(signal) })
      if (status === 404) return undefined
      const found = (JSON.parse(text) as TopicStats).subscriptions?.[name]
      return found === undefined ? undefined : { birth: found.subscriptionProperties?.[BIRTH], expired: found.totalMsgExpired ?? 0 }
    },
    async placeBefore(part, start, signal) {
      if (start === 'earliest') return EARLIEST
      if (start === 'latest') return placeAt(`/${pathOf(part)}/lastMessageId`, signal)
      const first = await placeAt(`/${pathOf(part)}/messageid/${start.at.getTime()}`, signal)
      return first.ledgerId < 0n ? EARLIEST : { ledgerId: first.ledgerId, entryId: first.entryId - 1n }
    },
  }

  /** False where it is there already. Of two that make it at once the broker may refuse one, and know it a moment later. */
  async function makeSubscription(path: string, body: string, signal: AbortSignal | undefined): Promise<boolean> {
    for (let tries = 1; ; tries++) {
      const { status, text } = await rest.call('PUT', path, { body, accept: [409, 412], ...given(signal) })
      if (status !== 412) return status !== 409
      if (tries === BUSY_TRIES_MAX || !isBusy(text)) throw refusedBy(status, text, `PUT ${decodeURIComponent(path)}`, rest.address)
      await clock.sleep(BUSY_PAUSE_MS, signal)
    }
  }

  async function readProperties(path: string, signal: AbortSignal | undefined): Promise<Record<string, string>> {
    const { text } = await rest.call('GET', `${path}/properties`, given(signal))
    return (text === '' ? {} : (JSON.parse(text) as Record<string, string> | null)) ?? {}
  }

  async function startOf(part: string, start: CheckedSource['start'], signal: AbortSignal | undefined): Promise<string> {
    if (start === 'earliest') return FIRST
    if (start === 'latest') return LATEST
    const { ledgerId, entryId } = await placeAt(`/${pathOf(part)}/messageid/${start.at.getTime()}`, signal)
    return `{"ledgerId":${ledgerId},"entryId":${entryId},"partitionIndex":-1`
  }

  async function placeAt(path: string, signal: AbortSignal | undefined): Promise<LedgerPlace> {
    const { text } = await rest.call('GET', path, given(signal))
    const ledgerId = /"ledgerId"\s*:\s*(-?\d+)/.exec(text)?.[1]
    const entryId = /"entryId"\s*:\s*(-?\d+)/.exec(text)?.[1]
    if (ledgerId !== undefined && entryId !== undefined) return { ledgerId: BigInt(ledgerId), entryId: BigInt(entryId) }
    throw new WaybillError('TRANSPORT_UNAVAILABLE', 'the broker does not tell a place in the topic', {
      got: text,
      where: 'pulsar transport',
    })
  }
}

const given = (signal: AbortSignal | undefined): { readonly signal?: AbortSignal } => (signal === undefined ? {} : { signal })

/** What is read of a topic's statistics. */
export interface TopicStats {
  readonly subscriptions?: Readonly<
    Record<
      string,
      {
        readonly msgBacklog?: number
        readonly totalMsgExpired?: number
        readonly consumers?: readonly unknown[]
        readonly isDurable?: boolean
        readonly subscriptionProperties?: Readonly<Record<string, string>>
      }
    >
  >
}

/** Whether trying again can't help. */
export const isFinal = (error: unknown): boolean => !(isWaybillError(error) && error.retryable)
