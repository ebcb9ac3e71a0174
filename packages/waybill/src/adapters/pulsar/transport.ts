import { WaybillError } from '../../core/errors.ts'
import { checkGroup, checkTopic } from '../../core/names.ts'
import { requirePeer } from '../../core/peer.ts'
import { createPublishQueue } from '../../core/publish-queue.ts'
import { checkSource } from '../../core/source.ts'
import type { Capabilities, Transport } from '../../core/transport.ts'
import { createPulsarAdmin } from './admin.ts'
import type { ReceivingOptions } from './consume.ts'
import type { MessageAddress } from './reachable.ts'
import { createHealth } from './health.ts'
import { webSocketMessageIds } from './message-id.ts'
import { subscriptionName } from './names.ts'
import { type PulsarPackageLike, createNativeClient, loadNativePackage } from './native-client.ts'
import { type PulsarOptions, type PulsarTransportOptions, resolvePulsarOptions } from './options.ts'
import { createPublisher } from './publisher.ts'
import type { PulsarLike, PulsarMessageIdsLike } from './pulsar-like.ts'
import { createRest } from './rest.ts'
import { type Subscription, closedError, createSubscription } from './subscription.ts'
import { createTopics } from './topics.ts'
import { createWebSocketClient } from './web-socket-client.ts'
import { withinMs } from './within.ts'

const WEB_SOCKET_BODY_MAX = 512 * 1024
const BODY_MAX = 1024 * 1024
const BATCH_MAX = 200
const BATCH_MAX_BYTES = 1024 * 1024
const IN_FLIGHT_MAX = 32

/**
 * A transport over Apache Pulsar 4: by the package `pulsar-client` where it is installed, else over Pulsar's WebSocket API. It connects with the first use, and
 * again by itself. `stored` is the broker's receipt. Order holds per (topic, key) unless the subscription type is `Shared`.
 * @throws WaybillError `INVALID_OPTION` | `INVALID_FILE` | `PEER_MISSING`
 */
export async function pulsarTransport(options: PulsarTransportOptions = {}): Promise<Transport> {
  const resolved = resolvePulsarOptions(options)
  return assemble(resolved, await chooseProvider(resolved))
}

interface Provider {
  readonly messageIds: PulsarMessageIdsLike | undefined
  readonly bodyMax: number
  /** Whether we close what it makes. */
  readonly owned: boolean
  /** Where it connects to, so far as we know. */
  readonly messagesBy?: MessageAddress
  make(): PulsarLike
}

async function chooseProvider(options: PulsarOptions): Promise<Provider> {
  const { client, provider, webSocketAsked } = options
  if (client !== undefined) return { messageIds: options.messageIds, bodyMax: BODY_MAX, owned: false, make: () => client }
  if (provider === 'native') return nativeProvider(await requirePeer('pulsar-client', loadNativePackage), options)
  if (provider === undefined && !webSocketAsked) {
    // Not there, or not made for this machine: then the other one.
    const found = await loadNativePackage().catch(() => undefined)
    if (found !== undefined) return nativeProvider(found, options)
  }
  const { WebSocket } = await requirePeer('ws', () => import('ws'))
  return {
    messageIds: webSocketMessageIds,
    bodyMax: WEB_SOCKET_BODY_MAX,
    owned: true,
    messagesBy: 'webSocketUrl',
    make: () => createWebSocketClient(WebSocket, options),
  }
}

function nativeProvider(found: PulsarPackageLike, options: PulsarOptions): Provider {
  return {
    messageIds: found.MessageId,
    bodyMax: BODY_MAX,
    owned: true,
    messagesBy: 'serviceUrl',
    make: () => createNativeClient(found, options),
  }
}

function assemble(options: PulsarOptions, provider: Provider): Transport {
  const { observe, closeTimeoutMs, subscriptionType } = options
  const capabilities: Capabilities = Object.freeze({
    ordering: subscriptionType === 'Shared' ? 'none' : 'key',
    stopsKeyAtFailure: true,
    acknowledges: 'stored',
    delay: true,
    keeps: options.home.persistence === 'persistent',
    startsAtTime: true,
  })
  const rest = createRest(options)
  const topics = createTopics(rest, options)
  const health = createHealth('pulsar', observe)
  const subscriptions = new Set<Subscription>()
  /** By topic: what begins to be read, and must not miss what is published after its call. */
  const joining = new Map<string, Set<Promise<void>>>()
  let made: PulsarLike | undefined
  let ids = 0
  let closing: Promise<void> | undefined

  const client = async (): Promise<PulsarLike> => (made ??= provider.make())
  const publisher = createPublisher({ options, client, topics, health, joined })
  const queue = createPublishQueue({
    where: 'pulsar transport',
    messageMaxBytes: options.messageMaxBytes ?? provider.bodyMax,
    send: (messages) => publisher.send(messages),
    // One that fails does not keep later ones of its connection from being stored.
    keysTogether: false,
    batchMax: BATCH_MAX,
    batchMaxBytes: BATCH_MAX_BYTES,
    inFlightMax: IN_FLIGHT_MAX,
  })
  const receiving: ReceivingOptions = { options, client, topics, health, nextId: () => `pulsar-${process.pid}-${++ids}` }

  function joined(topic: string): Promise<void> | undefined {
    const begun = joining.get(topic)
    if (begun === undefined) return undefined
    return withinMs(options.clock, options.requestTimeoutMs, Promise.all(begun))
  }

  function noteJoining({ joined: begun }: Subscription, names: readonly string[]): void {
    for (const name of names) {
      const all = joining.get(name) ?? new Set()
      joining.set(name, all.add(begun))
      void begun.then(() => {
        all.delete(begun)
        if (all.size === 0) joining.delete(name)
      })
    }
  }

  return {
    name: 'pulsar',
    capabilities,
    publish: (messages, signal) => queue.publish(messages, signal),
    subscribe(asked, signal) {
      if (closing !== undefined) throw closedError()
      const source = checkSource(asked, true)
      const subscription = createSubscription(receiving, provider.messageIds, source)
      subscriptions.add(subscription)
      if (source.start !== 'earliest') noteJoining(subscription, source.topics)
      const end = (): void => void subscription.end().then(() => subscriptions.delete(subscription))
      signal.addEventListener('abort', end, { once: true })
      if (signal.aborted) end()
      return subscription.deliveries()
    },
    async declareGroups(groups) {
      if (closing !== undefined) throw closedError()
      for (const { topic, group } of groups) {
        checkTopic(topic)
        const name = subscriptionName(checkGroup(group))
        for (const part of await topics.parts(topic)) await topics.subscription(part, name, 'earliest')
      }
    },
    admin: createPulsarAdmin(rest, options, health, provider.messagesBy),
    close() {
      return (closing ??= shut())
    },
  }

  async function shut(): Promise<void> {
    const late = AbortSignal.timeout(closeTimeoutMs)
    const done = Promise.all([
      queue.close(AbortSignal.timeout(closeTimeoutMs / 2)).then(() => publisher.close()),
      ...[...subscriptions].map((subscription) => subscription.end()),
    ]).then(async () => {
      if (provider.owned) await made?.close()
    })
    try {
      await Promise.race([done, new Promise((resolve) => late.addEventListener('abort', resolve, { once: true }))])
    } catch (error) {
      observe({
        type: 'transport.failed',
        transport: 'pulsar',
        error: new WaybillError('CLOSED', 'the transport did not end in order', { cause: error }),
      })
    } finally {
      rest.close()
    }
  }
}
