import { WaybillError } from '../core/errors.ts'
import type { DomainEvent } from '../core/event.ts'
import type { RaisesEvents } from '../core/unit.ts'

const RAISED_MAX = 10_000

/** A base for business objects that raise events. Nothing asks for it: whatever has `pullEvents` can be tracked. */
export abstract class Aggregate implements RaisesEvents {
  #raised: DomainEvent[] = []

  /** Remembers an event for the unit of work that tracks this object. @throws WaybillError `QUEUE_FULL` where 10,000 wait to be pulled */
  protected raise(event: DomainEvent): void {
    if (this.#raised.length >= RAISED_MAX)
      throw new WaybillError('QUEUE_FULL', 'an aggregate holds too many events', {
        got: RAISED_MAX,
        allowed: 'a unit of work that tracks it',
        where: this.constructor.name,
      })
    this.#raised.push(event)
  }

  pullEvents(): readonly DomainEvent[] {
    const raised = this.#raised
    this.#raised = []
    return raised
  }
}
