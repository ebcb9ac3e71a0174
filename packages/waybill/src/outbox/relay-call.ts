import { setMaxListeners } from 'node:events'
import type { Clock } from '../core/clock.ts'
import { crashpoint } from '../core/crashpoint.ts'
import { messageOf, WaybillError } from '../core/errors.ts'
import type { Message, Publisher, PublishOutcome } from '../core/transport.ts'
import { keyIdOf, NO_ANSWER } from './relay-plan.ts'

export interface CallerOptions {
  readonly clock: Clock
  /** How long a transport that reports `stored` may take. */
  readonly publishTimeoutMs: number
}

/** Calls transports, and always gets an answer. */
export interface Caller {
  /** {@link abort} was called. */
  readonly aborted: boolean
  /** One outcome per message, or fewer. Never rejects. Calls again only while `mine` holds. */
  call(publisher: Publisher, messages: readonly Message[], mine: () => boolean): Promise<readonly PublishOutcome[]>
  /** Cuts the calls under way short. */
  abort(): void
}

/** What a call has brought: outcomes, or what it threw. */
type Answer = { readonly outcomes: readonly PublishOutcome[] } | { readonly thrown: unknown }

/** How long a call that was cut off has for saying what it knows. */
export const ABORT_GRACE_MS = 1_000

export function createCaller({ clock, publishTimeoutMs }: CallerOptions): Caller {
  const stopped = new AbortController()
  // Every call in flight listens to it: more than Node takes for a leak.
  setMaxListeners(0, stopped.signal)

  /** What a transport that never answers leaves behind is unknown: it may have been stored, and is sent again. */
  async function timed(publisher: Publisher, messages: readonly Message[]): Promise<Answer> {
    const cut = new AbortController()
    const answered = new AbortController()
    const onStop = (): void => cut.abort(stopped.signal.reason)
    if (stopped.signal.aborted) onStop()
    stopped.signal.addEventListener('abort', onStop, { once: true })
    const late = async (): Promise<Answer> => {
      await clock.sleep(publishTimeoutMs, answered.signal)
      if (answered.signal.aborted) return { outcomes: [] }
      const error = new WaybillError('UNKNOWN_OUTCOME', 'the transport did not answer in time', {
        got: `nothing within ${publishTimeoutMs} ms`,
        where: 'relay.publishTimeoutMs',
      })
      cut.abort(error)
      await clock.sleep(ABORT_GRACE_MS, answered.signal)
      return { outcomes: messages.map(() => ({ kind: 'unknown', error })) }
    }
    try {
      return await Promise.race([answerOf(publisher, messages, cut.signal), late()])
    } finally {
      answered.abort('answered')
      stopped.signal.removeEventListener('abort', onStop)
    }
  }

  // Where handlers are waited for, theirs are the time limits.
  const ask = (publisher: Publisher, messages: readonly Message[]): Promise<Answer> =>
    publisher.capabilities.acknowledges === 'handled' ? answerOf(publisher, messages, stopped.signal) : timed(publisher, messages)

  /**
   * A transport that throws says nothing of any message. Often one of them is at fault, so that a throw must not hold up all others: halves of the keys
   * are sent on their own, and where the one passes and the other throws, its halves, until a key is left that throws alone. That one is refused.
   * Where both throw, it is the transport that is at fault.
   */
  async function apart(
    publisher: Publisher,
    messages: readonly Message[],
    thrown: unknown,
    mine: () => boolean,
  ): Promise<ReadonlyMap<Message, PublishOutcome>> {
    const keys = [...new Set(messages.map(keyIdOf))]
    const half = new Set(keys.slice(0, Math.ceil(keys.length / 2)))
    const parts = [messages.filter((message) => half.has(keyIdOf(message))), messages.filter((message) => !half.has(keyIdOf(message)))]
    const found = new Map<Message, PublishOutcome>()
    const failed: { readonly part: readonly Message[]; readonly thrown: unknown }[] = []
    for (const part of parts) {
      if (stopped.signal.aborted || !mine()) break
      const answer = await ask(publisher, part)
      if ('thrown' in answer) failed.push({ part, thrown: answer.thrown })
      else for (const [index, message] of part.entries()) found.set(message, answer.outcomes[index] ?? NO_ANSWER)
    }
    const [one] = failed
    const passes = [...found.values()].some(({ kind }) => kind === 'stored')
    // Where any passes, one half at most has thrown.
    if (one !== undefined && passes) {
      const inner =
        new Set(one.part.map(keyIdOf)).size > 1
          ? await apart(publisher, one.part, one.thrown, mine)
          : new Map(one.part.map((message) => [message, refused(one.thrown)]))
      for (const [message, outcome] of inner) found.set(message, outcome)
    }
    for (const message of messages) if (!found.has(message)) found.set(message, unavailable(thrown))
    return found
  }

  return {
    get aborted() {
      return stopped.signal.aborted
    },
    async call(publisher, messages, mine) {
      crashpoint('relay.beforePublish')
      const answer = await ask(publisher, messages)
      let outcomes: readonly PublishOutcome[]
      if ('outcomes' in answer) outcomes = answer.outcomes
      else if (messages.every((message) => keyIdOf(message) === keyIdOf(messages[0]!)))
        outcomes = messages.map(() => unavailable(answer.thrown))
      else {
        const found = await apart(publisher, messages, answer.thrown, mine)
        outcomes = messages.map((message) => found.get(message)!)
      }
      crashpoint('relay.afterPublish')
      return outcomes
    },
    abort: () => stopped.abort(),
  }
}

async function answerOf(publisher: Publisher, messages: readonly Message[], signal: AbortSignal): Promise<Answer> {
  try {
    const outcomes: unknown = await publisher.publish(messages, signal)
    // One that forgets to answer leaves everything unknown, and must not end the relay.
    return { outcomes: Array.isArray(outcomes) ? (outcomes as readonly PublishOutcome[]) : [] }
  } catch (thrown) {
    return { thrown }
  }
}

function unavailable(cause: unknown): PublishOutcome {
  return { kind: 'rejected', error: new WaybillError('TRANSPORT_UNAVAILABLE', `the transport failed: ${messageOf(cause)}`, { cause }) }
}

function refused(cause: unknown): PublishOutcome {
  return {
    kind: 'rejected',
    error: new WaybillError('MESSAGE_REJECTED', `the transport failed with this message alone: ${messageOf(cause)}`, { cause }),
  }
}
