import { crashpoint } from './crashpoint.ts'
import type { Handler, Invocation, Middleware } from './handler.ts'
import type { InboxStore } from './stores.ts'
import type { RunUnit, UnitScope } from './unit.ts'

/**
 * Handles each event's effect once: what was handled is recorded in the transaction in which the handler works, so both are there or neither.
 * A concurrent duplicate waits for that transaction and then finds the record.
 */
export function inboxOnce(inbox: InboxStore, runUnit: RunUnit, handler: string): Middleware {
  return (next) => async (invocation) => {
    await runAbortable(runUnit, next, invocation, async (unit, call) => {
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
      await call({ ...invocation, events, unit })
      crashpoint('inbox.beforeCommit')
    })
    crashpoint('inbox.afterCommit')
  }
}

/** Gives the handler a transaction of its own and records nothing: for events that have no second copy. */
export function inTransaction(runUnit: RunUnit): Middleware {
  return (next) => async (invocation) => {
    await runAbortable(runUnit, next, invocation, (unit, call) => call({ ...invocation, unit }))
  }
}

/**
 * Runs `work` in a transaction that lasts no longer than until the invocation's signal aborts: then it is rolled back, whatever the handler goes on to
 * do. One that never ends would hold the only session of an embedded database, or a connection of the pool, for ever. Rejects only once the handler
 * itself has ended, so that whoever tries again can wait for that.
 */
async function runAbortable(
  runUnit: RunUnit,
  next: Handler,
  { signal }: Invocation,
  work: (unit: UnitScope, call: Handler) => Promise<void>,
): Promise<void> {
  let handling: Promise<void> | undefined
  const call: Handler = async (invocation) => {
    // Its time may have passed while it waited for the session.
    signal.throwIfAborted()
    handling = next(invocation)
    await untilAborted(handling, signal)
  }
  try {
    await runUnit((unit) => work(unit, call))
  } catch (error) {
    // Where the handler fails after its time, with what it fails with: that would be heard of nowhere else.
    await handling
    throw error
  }
}

function untilAborted(handling: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    // The reason as it is: whoever aborted knows it again.
    const onAbort = (): void => reject(signal.reason as Error)
    handling.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
    signal.addEventListener('abort', onAbort, { once: true })
    if (signal.aborted) onAbort()
  })
}
