import { setMaxListeners } from 'node:events'
import type { Clock } from '../core/clock.ts'
import { crashpoint } from '../core/crashpoint.ts'
import { messageOf, WaybillError } from '../core/errors.ts'
import type { Message, Publisher, PublishOutcome } from '../core/transport.ts'

export interface CallerOptions {
  readonly clock: Clock
  /** How long a transport that reports `stored` may take. */
  readonly publishTimeoutMs: number
}

/** Calls transports, and always gets an answer. */
export interface Caller {
  /** {@link abort} was called. */
  readonly aborted: boolean
  /** One outcome per message, or fewer. Never rejects. */
  call(publisher: Publisher, messages: readonly Message[]): Promise<readonly PublishOutcome[]>
  /** Cuts the calls under way short. */
  abort(): void
}

/** How long a call that was cut off has for saying what it knows. */
export const ABORT_GRACE_MS = 1_000

export function createCaller({ clock, publishTimeoutMs }: CallerOptions): Caller {
  const stopped = new AbortController()
  // Every call in flight listens to it: more than Node takes for a leak.
  setMaxListeners(0, stopped.signal)

  /** What a transport that never answers leaves behind is unknown: it may have been stored, and is sent again. */
  async function timed(publisher: Publisher, messages: readonly Message[]): Promise<readonly PublishOutcome[]> {
    const cut = new AbortController()
    const answered = new AbortController()
    const onStop = (): void => cut.abort(stopped.signal.reason)
    if (stopped.signal.aborted) onStop()
    stopped.signal.addEventListener('abort', onStop, { once: true })
    const late = async (): Promise<readonly PublishOutcome[]> => {
      await clock.sleep(publishTimeoutMs, answered.signal)
      if (answered.signal.aborted) return []
      const error = new WaybillError('UNKNOWN_OUTCOME', 'the transport did not answer in time', {
        got: `nothing within ${publishTimeoutMs} ms`,
        where: 'relay.publishTimeoutMs',
      })
      cut.abort(error)
      await clock.sleep(ABORT_GRACE_MS, answered.signal)
      return messages.map(() => ({ kind: 'unknown', error }))
    }
    try {
      return await Promise.race([publishSafely(publisher, messages, cut.signal), late()])
    } finally {
      answered.abort('answered')
      stopped.signal.removeEventListener('abort', onStop)
    }
  }

  return {
    get aborted() {
      return stopped.signal.aborted
    },
    async call(publisher, messages) {
      crashpoint('relay.beforePublish')
      // Where handlers are waited for, theirs are the time limits.
      const outcomes =
        publisher.capabilities.acknowledges === 'handled'
          ? await publishSafely(publisher, messages, stopped.signal)
          : await timed(publisher, messages)
      crashpoint('relay.afterPublish')
      return outcomes
    },
    abort: () => stopped.abort(),
  }
}

async function publishSafely(publisher: Publisher, messages: readonly Message[], signal: AbortSignal): Promise<readonly PublishOutcome[]> {
  try {
    const outcomes: unknown = await publisher.publish(messages, signal)
    // One that forgets to answer leaves everything unknown, and must not end the relay.
    return Array.isArray(outcomes) ? (outcomes as readonly PublishOutcome[]) : []
  } catch (cause) {
    const error = new WaybillError('TRANSPORT_UNAVAILABLE', `the transport failed: ${messageOf(cause)}`, { cause })
    return messages.map(() => ({ kind: 'rejected', error }))
  }
}
