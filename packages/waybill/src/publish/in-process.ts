import { type Clock, systemClock } from '../core/clock.ts'
import { WaybillError, isWaybillError } from '../core/errors.ts'
import type { DomainEvent } from '../core/event.ts'
import type { Observe } from '../core/observe.ts'
import { type Scope, runInScope } from '../core/scope.ts'
import type { Receipt } from '../core/unit.ts'
import type { CircuitBreaker } from './circuit-breaker.ts'

/** What came of running an event's handlers. */
export type Outcome =
  | { readonly kind: 'confirmed' }
  | { readonly kind: 'unconfirmed'; readonly because: NonNullable<Receipt['unconfirmedBecause']>; readonly error: WaybillError }

/** One function to run, under the name by which it is observed. */
export interface Call {
  readonly name: string
  readonly run: (event: DomainEvent, signal: AbortSignal) => void | Promise<void>
}

/** Runs handlers in this process. */
export interface InProcessPath {
  /**
   * Starts all `calls` at once and waits for them, at most `timeoutMs`; confirmed when there was at least one and all succeeded. Never rejects. A
   * call that goes on after its time has its signal aborted, and is observed to the end. `mustTry`: there is no other path, so an open breaker does
   * not refuse.
   */
  run(event: DomainEvent, calls: readonly Call[], timeoutMs: number, mustTry?: boolean): Promise<Outcome>
  /** Aborts the signals of all that runs. */
  abort(): void
}

/** Milliseconds from some beginning, for durations: finer than `now()` where the clock is the machine's own. */
export function ticksOf(clock: Clock): () => number {
  return clock === systemClock ? () => performance.now() : () => clock.now()
}

// Aborting without a reason makes an error with its stack, which costs more than a publish.
const ENDED = 'ended'
const CONFIRMED: Outcome = Object.freeze({ kind: 'confirmed' })

export function createInProcessPath({
  breaker,
  clock,
  observe,
}: {
  readonly breaker: CircuitBreaker
  readonly clock: Clock
  readonly observe: Observe
}): InProcessPath {
  const ticks = ticksOf(clock)
  const running = new Set<AbortController>()

  /** Resolves to what went wrong, if anything. */
  async function attempt(call: Call, event: DomainEvent, signal: AbortSignal): Promise<WaybillError | undefined> {
    const startedAt = ticks()
    try {
      await call.run(event, signal)
      observe({ type: 'delivery.handled', handler: call.name, eventType: event.type, count: 1, durationMs: ticks() - startedAt })
      return undefined
    } catch (error) {
      observe({ type: 'delivery.failed', handler: call.name, eventId: event.id, attempt: 1, error })
      return isWaybillError(error, 'HANDLER_FAILED')
        ? error
        : new WaybillError('HANDLER_FAILED', 'a handler failed', { cause: error, where: call.name })
    }
  }

  /** Resolves to the errors, or to `undefined` when time ran out first. */
  async function withinTime(
    event: DomainEvent,
    calls: readonly Call[],
    timeoutMs: number,
    controller: AbortController,
  ): Promise<readonly WaybillError[] | undefined> {
    const ended = runInScope(scopeOf(event), () => Promise.all(calls.map((call) => attempt(call, event, controller.signal))))
    const timer = new AbortController()
    const results = await Promise.race([ended, clock.sleep(timeoutMs, timer.signal).then(() => undefined)])
    timer.abort(ENDED)
    return results?.filter((error) => error !== undefined)
  }

  async function run(event: DomainEvent, calls: readonly Call[], timeoutMs: number, mustTry = false): Promise<Outcome> {
    if (calls.length === 0)
      return unconfirmed('no handler', new WaybillError('NO_HANDLER', 'no handler of this process takes the event', { where: event.type }))
    const permit = breaker.tryAcquire()
    if (permit === undefined && !mustTry)
      return unconfirmed(
        'breaker open',
        new WaybillError(
          'CIRCUIT_OPEN',
          'the in-process path failed several times in a row and is left alone for a while; nothing was run',
          { where: event.type },
        ),
      )
    const controller = new AbortController()
    running.add(controller)
    const errors = await withinTime(event, calls, timeoutMs, controller)
    running.delete(controller)
    if (errors?.length === 0) {
      permit?.succeeded()
      return CONFIRMED
    }
    permit?.failed()
    if (errors !== undefined) return unconfirmed('failed', errors.length === 1 ? errors[0]! : severalFailed(errors, event.type))
    const error = new WaybillError('TIMEOUT', `the handlers did not end within ${timeoutMs} ms; what they do may still happen`, {
      where: event.type,
    })
    controller.abort(error)
    return unconfirmed('timeout', error)
  }

  return {
    run,
    abort() {
      for (const controller of running) controller.abort(new WaybillError('CLOSED', 'the bus was stopped', { where: 'stop' }))
    },
  }
}

function unconfirmed(because: NonNullable<Receipt['unconfirmedBecause']>, error: WaybillError): Outcome {
  return { kind: 'unconfirmed', because, error }
}

function severalFailed(errors: readonly WaybillError[], where: string): WaybillError {
  return new WaybillError('HANDLER_FAILED', `${errors.length} handlers failed`, { cause: new AggregateError(errors), where })
}

/** What handlers publish belongs to the event that they handle, and to no unit of work: the publisher's has ended, and each handler has its own. */
function scopeOf(event: DomainEvent): Scope {
  const { correlationId, traceId, metadata } = event
  return { correlationId, causationId: event.id, metadata, ...(traceId === undefined ? {} : { traceId }) }
}
