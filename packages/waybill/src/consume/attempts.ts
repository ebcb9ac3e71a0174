import type { Clock } from '../core/clock.ts'
import { WaybillError } from '../core/errors.ts'
import type { DomainEvent } from '../core/event.ts'
import type { RegisteredHandler } from '../core/handler.ts'
import { runInScope, type Scope } from '../core/scope.ts'
import type { Delivery } from '../core/transport.ts'
import { createDeadlines } from './deadlines.ts'

/** How an attempt ended. */
export type Attempt =
  | { readonly kind: 'done' }
  | {
      readonly kind: 'failed'
      readonly error: unknown
      /** After a timeout: resolves when the handler, whose result no longer counts, has ended. */
      readonly late?: Promise<void>
    }

export interface Attempts {
  /** Calls the handler once, with the events of `deliveries`. Never rejects. */
  run(events: readonly DomainEvent[], deliveries: readonly Delivery[], attempt: number): Promise<Attempt>
  /** After a timeout: waits for the handler to end after all, but no longer than one more timeout, or until `stop`. */
  outlast(attempt: Attempt, stop: AbortSignal): Promise<void>
  /** Aborts the signal of everything that runs, or of what runs for one assignment. */
  abort(assignmentId?: string): void
  /** No call is timed any more. */
  close(): void
}

const DONE: Attempt = { kind: 'done' }

/** `timeoutMs` bounds one call; a call that exceeds it counts as failed at once, whatever the handler goes on to do. */
export function createAttempts(handler: RegisteredHandler, timeoutMs: number, clock: Clock): Attempts {
  const deadlines = createDeadlines(clock, timeoutMs)
  const running = new Map<AbortController, readonly Delivery[]>()

  async function call(events: readonly DomainEvent[], signal: AbortSignal, attempt: number): Promise<Attempt> {
    try {
      await runInScope(scopeOf(events), () => handler.once({ events, signal, attempt }))
      return DONE
    } catch (error) {
      return { kind: 'failed', error }
    }
  }

  return {
    async run(events, deliveries, attempt) {
      const controller = new AbortController()
      running.set(controller, deliveries)
      const calling = call(events, controller.signal, attempt)
      const outcome = await new Promise<Attempt | undefined>((resolve) => {
        const callOff = deadlines.start(() => resolve(undefined))
        void calling.then((ended) => {
          callOff()
          resolve(ended)
        })
      })
      running.delete(controller)
      if (outcome !== undefined) return outcome
      const error = new WaybillError('TIMEOUT', 'the handler took too long', { allowed: `at most ${timeoutMs} ms`, where: handler.name })
      controller.abort(error)
      return { kind: 'failed', error, late: calling.then(() => undefined) }
    },
    async outlast(attempt, stop) {
      if (attempt.kind === 'done' || attempt.late === undefined) return
      const ended = new AbortController()
      await Promise.race([attempt.late, clock.sleep(timeoutMs, AbortSignal.any([stop, ended.signal]))])
      ended.abort()
    },
    abort(assignmentId) {
      for (const [controller, deliveries] of running) {
        if (assignmentId === undefined || deliveries.some(({ assignment }) => assignment.id === assignmentId))
          controller.abort(new WaybillError('LEASE_LOST', 'the message is no longer ours', { where: handler.name }))
      }
    },
    close: () => deadlines.close(),
  }
}

/** What the handler publishes follows from the event; several at once have no common cause, so a batch handler names it itself. */
function scopeOf(events: readonly DomainEvent[]): Scope {
  const [event] = events
  if (event === undefined || events.length > 1) return {}
  return {
    correlationId: event.correlationId,
    causationId: event.id,
    metadata: event.metadata,
    ...(event.traceId === undefined ? {} : { traceId: event.traceId }),
  }
}
