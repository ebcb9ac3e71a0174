import { crashpoint } from './crashpoint.ts'
import type { Middleware } from './handler.ts'
import type { InboxStore } from './stores.ts'
import type { RunUnit } from './unit.ts'

/**
 * Handles each event's effect once: what was handled is recorded in the transaction in which the handler works, so both are there or neither.
 * A concurrent duplicate waits for that transaction and then finds the record.
 */
export function inboxOnce(inbox: InboxStore, runUnit: RunUnit, handler: string): Middleware {
  return (next) => async (invocation) => {
    await runUnit(async (unit) => {
      const fresh = await inbox.record(
        unit.sql,
        handler,
        invocation.events.map((event) => event.id),
      )
      // The first of each: an event may come twice in one batch too.
      const left = new Set(fresh)
      const events = invocation.events.filter((event) => left.delete(event.id))
      if (events.length === 0) return
      crashpoint('inbox.beforeHandler')
      await next({ ...invocation, events, unit })
      crashpoint('inbox.beforeCommit')
    })
    crashpoint('inbox.afterCommit')
  }
}

/** Gives the handler a transaction of its own and records nothing: for events that have no second copy. */
export function inTransaction(runUnit: RunUnit): Middleware {
  return (next) => async (invocation) => {
    await runUnit((unit) => next({ ...invocation, unit }))
  }
}
