import type { OutboxEntry } from 'waybill'

/** Another outbox or queue on the same server, used as its documentation says, tuned where it can be. */
export interface Peer {
  readonly name: string
  /** One business row and one event in a transaction, in whatever way it joins one. */
  readonly storeOne: (entry: OutboxEntry) => Promise<unknown>
  /** Many events in a transaction, by its bulk call where it has one. */
  readonly storeMany: (entries: readonly OutboxEntry[]) => Promise<unknown>
  /** Puts events there for {@link drain}. */
  readonly fill: (entries: readonly OutboxEntry[]) => Promise<unknown>
  /** Starts working, hands `count` events to a handler that does nothing, and has them marked. */
  readonly drain: (count: number) => Promise<void>
  /** Forgets all events. */
  readonly clear: () => Promise<unknown>
  /** Handles events until stopped, as it would in service: `onEvent` for each. */
  readonly serve: (onEvent: () => void) => Promise<() => Promise<void>>
}

/** The body as the object that it was made of: these peers take objects. */
export const objectOf = ({ message }: OutboxEntry): object => JSON.parse(Buffer.from(message.body).toString()) as object

/** Counts to `count`. */
export function countdown(count: number): { readonly one: () => void; readonly done: Promise<void> } {
  const { promise, resolve } = Promise.withResolvers<void>()
  let left = count
  return {
    one() {
      if (--left === 0) resolve()
    },
    done: promise,
  }
}

const CHECK_MS = 2

/** Waits until `reached` says so: for what a peer writes behind its back. */
export async function until(reached: () => Promise<boolean>): Promise<void> {
  while (!(await reached())) await new Promise((resolve) => setTimeout(resolve, CHECK_MS))
}
