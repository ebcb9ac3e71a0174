import { WaybillError } from '../../core/errors.ts'
import { checkGroup, checkTopic } from '../../core/names.ts'
import type { Member } from '../../core/member.ts'
import { requirePeer } from '../../core/peer.ts'
import { checkSource } from '../../core/source.ts'
import type { Capabilities, Transport } from '../../core/transport.ts'
import { createKafkaAdmin } from './admin.ts'
import { type KafkaLike, cutConnections } from './client.ts'
import { createErrors } from './errors.ts'
import { createHealth } from './health.ts'
import { type KafkaTransportOptions, checkKafkaOptions } from './options.ts'
import { createKafkaPublisher } from './publish.ts'
import { type SubscriptionContext, subscribeGroup } from './subscription.ts'
import { subscribeTail } from './tail.ts'
import { createTopics } from './topics.ts'

const CAPABILITIES: Capabilities = Object.freeze({
  ordering: 'key',
  stopsKeyAtFailure: true,
  acknowledges: 'stored',
  delay: true,
  startsAtTime: true,
})
const PACKAGE = '@platformatic/kafka'

/**
 * A transport over Apache Kafka 3.1 or newer. Topics are Kafka's topics, a key chooses the partition as Java's clients do, a group is a consumer group.
 * The broker need not be there yet: it connects with the first use, and again by itself whenever it was lost.
 * Acks are committed in the background, within about 20 ms, and wait for that once 200 messages do; leaving commits first. So a crash repeats few.
 * @throws WaybillError `INVALID_OPTION` | `PEER_MISSING`
 */
export async function kafkaTransport(given: KafkaTransportOptions): Promise<Transport> {
  const options = checkKafkaOptions(given)
  const kafka: KafkaLike = given.library ?? (await requirePeer(PACKAGE, () => import('@platformatic/kafka')))
  const { clock, observe } = options
  const toError = createErrors(options.address, options.hasCredentials)
  const health = createHealth(observe)
  const admin = new kafka.Admin(options.client)
  const topics = createTopics(admin, options, toError)
  const settling = new Set<Promise<unknown>>()
  const members = new Set<Member<bigint>>()
  const context: SubscriptionContext = {
    kafka,
    admin,
    options,
    topics,
    health,
    toError,
    await(promise) {
      settling.add(promise)
      const gone = (): void => void settling.delete(promise)
      promise.then(gone, gone)
    },
  }
  const queue = createKafkaPublisher({
    kafka,
    options,
    topics,
    health,
    toError,
    async settled() {
      if (settling.size > 0) await Promise.race([Promise.allSettled(settling), clock.sleep(options.requestTimeoutMs)])
    },
  })
  let closing: Promise<void> | undefined

  function assertOpen(): void {
    if (closing !== undefined) throw new WaybillError('CLOSED', 'the transport is closed', { where: 'kafka transport' })
  }

  async function close(): Promise<void> {
    const limit = AbortSignal.timeout(Math.ceil(options.closeTimeoutMs / 2))
    await Promise.all([queue.close(limit), ...[...members].map((member) => member.end())])
    cutConnections(admin)
    await Promise.race([admin.close().catch(() => undefined), clock.sleep(options.closeTimeoutMs / 10)])
  }

  return {
    name: 'kafka',
    capabilities: CAPABILITIES,
    publish: queue.publish,
    subscribe(source, signal) {
      assertOpen()
      const checked = checkSource(source, true)
      const onAbort = (): void => void member.end()
      const onEnded = (): void => {
        members.delete(member)
        signal.removeEventListener('abort', onAbort)
      }
      const member =
        checked.group === undefined ? subscribeTail(context, checked, onEnded) : subscribeGroup(context, checked, checked.group, onEnded)
      members.add(member)
      signal.addEventListener('abort', onAbort, { once: true })
      if (signal.aborted) onAbort()
      return member.deliveries()
    },
    async declareGroups(groups) {
      assertOpen()
      for (const { group } of groups) checkGroup(group)
      await Promise.all([...new Set(groups.map(({ topic }) => checkTopic(topic)))].map((topic) => topics.ensure(topic)))
    },
    admin: createKafkaAdmin({ admin, options, health, toError }),
    close: () => (closing ??= close()),
  }
}
