import { WaybillError } from '../../core/errors.ts'
import { createMember } from '../../core/member.ts'
import type { CheckedSource } from '../../core/source.ts'
import type { Delivery } from '../../core/transport.ts'
import { type ReceivingOptions, consumePart, persist } from './consume.ts'
import { withinMs } from './within.ts'
import type { PulsarMessageIdLike, PulsarMessageIdsLike } from './pulsar-like.ts'
import { tailPart } from './tail.ts'

/** One call of `subscribe`. */
export interface Subscription {
  deliveries(): AsyncGenerator<readonly Delivery[], void, undefined>
  /** Resolves when all of the topic's parts have begun, or it has ended. */
  readonly joined: Promise<void>
  end(error?: unknown): Promise<void>
}

/** Joins at once. */
export function createSubscription(
  shared: ReceivingOptions,
  messageIds: PulsarMessageIdsLike | undefined,
  source: CheckedSource,
): Subscription {
  const { options, topics, health } = shared
  const { clock } = options
  const stop = new AbortController()
  const running = new Set<Promise<void>>()
  const begun = Promise.withResolvers<void>()
  let left = source.topics.length

  const member = createMember<PulsarMessageIdLike>({
    batchMax: source.batchMax,
    clock,
    prefetchMax: options.prefetchMax,
    prefetchMaxBytes: options.prefetchMaxBytes,
    // What is unsettled comes to others as the connections end.
    async onEnd() {
      stop.abort()
      begun.resolve()
      await withinMs(clock, options.closeTimeoutMs, Promise.allSettled(running))
    },
  })

  function run(work: Promise<void>): void {
    const watched = work.catch((error: unknown) => void member.end(error))
    running.add(watched)
    void watched.then(() => running.delete(watched))
  }

  async function begin(topic: string): Promise<void> {
    let names: readonly string[] = []
    const find = async (): Promise<void> => {
      names = await topics.parts(topic)
    }
    await persist(clock, stop.signal, find, (error) => health.failed(error))
    let waiting = names.length
    const joined = (): void => {
      if (--waiting === 0 && --left === 0) begun.resolve()
    }
    for (const name of names) runPart(topic, name, joined)
    // A topic without partitions stays so; one with some may get more.
    if (names.length > 1) run(watchParts(topic, new Set(names)))
  }

  function runPart(topic: string, name: string, joined: () => void): void {
    let told = false
    const once = (): void => {
      if (!told) joined()
      told = true
    }
    const { group, start } = source
    run(
      group === undefined
        ? tailPart(shared, messageIds, { topic, name }, start, member, stop.signal, once)
        : consumePart(shared, { topic, name }, group, start, member, stop.signal, once),
    )
  }

  async function watchParts(topic: string, known: Set<string>): Promise<void> {
    while (!stop.signal.aborted) {
      await clock.sleep(options.watchIntervalMs, stop.signal)
      if (stop.signal.aborted) return
      topics.forget(topic)
      // A broker that is away is told of by the parts.
      const names = await topics.parts(topic).catch(() => [])
      for (const name of names) {
        if (known.has(name)) continue
        known.add(name)
        runPart(topic, name, () => {})
      }
    }
  }

  for (const topic of source.topics) run(begin(topic))

  return {
    deliveries: () => member.deliveries(),
    joined: begun.promise,
    end(error) {
      return member.end(error)
    },
  }
}

/** The error of a transport that was closed. */
export const closedError = (): WaybillError => new WaybillError('CLOSED', 'the transport is closed', { where: 'pulsar transport' })
