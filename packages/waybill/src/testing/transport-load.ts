import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import type { Delivery, Message, Transport } from '../core/transport.ts'
import { type Committed, compareLedger } from './compare-ledger.ts'
import { numberOf } from './transport-tools.ts'

const CHUNK = 200
const AGAIN_MS = 50
const PUBLISH_MS = 60_000

/** What was published and what arrived, of one topic and group. */
export interface Ledger {
  /** Events that were reported stored, with their places within their keys. */
  readonly stored: Map<string, Committed>
  /** Ids in the order in which they were handled, repeats included: each effect comes of the first. */
  readonly arrived: string[]
  /** Publishes that had to be repeated, by how they had ended. */
  readonly repeated: { rejected: number; unknown: number }
}

export const createLedger = (): Ledger => ({ stored: new Map(), arrived: [], repeated: { rejected: 0, unknown: 0 } })

/** Publishes all of it in the order of the keys, and what was not stored again until it is, like a relay. */
export async function publishAll(transport: Transport, messages: readonly Message[], ledger: Ledger, signal: AbortSignal): Promise<void> {
  for (let at = 0; at < messages.length; at += CHUNK) {
    let left: readonly Message[] = messages.slice(at, at + CHUNK)
    while (left.length > 0) {
      signal.throwIfAborted()
      const now = transport.capabilities.stopsKeyAtFailure ? left : firstOfEachKey(left)
      const outcomes = await transport.publish(now, AbortSignal.any([signal, AbortSignal.timeout(PUBLISH_MS)]))
      const stored = new Set<Message>()
      for (const [index, outcome] of outcomes.entries()) {
        const each = now[index]!
        if (outcome.kind === 'stored') {
          stored.add(each)
          ledger.stored.set(each.id, { key: each.key, version: numberOf(each) + 1 })
        } else {
          assert.ok(outcome.error.retryable, `refused for good: ${outcome.error.message}`)
          ledger.repeated[outcome.kind]++
        }
      }
      left = left.filter((each) => !stored.has(each))
      if (stored.size < now.length) await delay(AGAIN_MS)
    }
  }
}

function firstOfEachKey(messages: readonly Message[]): readonly Message[] {
  const keys = new Set<string>()
  return messages.filter(({ key }) => !keys.has(key) && keys.add(key).size > 0)
}

/** A member that handles what it gets, one after the other, until it leaves. */
export interface Worker {
  leave(): Promise<void>
}

/** Joins a group. A member that has lost a partition drops what it holds of it, like every consumer. */
export function startWorker(
  transport: Transport,
  topic: string,
  group: string,
  handle: (delivery: Delivery) => void,
  batchMax = 50,
): Worker {
  const stop = new AbortController()
  const working = (async () => {
    for await (const deliveries of transport.subscribe({ topics: [topic], group, batchMax }, stop.signal)) {
      for (const delivery of deliveries) {
        if (delivery.assignment.signal.aborted) continue
        handle(delivery)
        // An ack that fails leaves the message to come again, which is what is tested.
        await delivery.ack().catch(() => undefined)
      }
      // Leaves room for whoever else works in this process.
      await delay(0)
    }
  })()
  // Whoever leaves is told; before that, the load would wait for what never comes, and says so.
  working.catch(() => undefined)
  return {
    async leave() {
      stop.abort()
      await working
    },
  }
}

/** Waits until all that was stored has arrived. */
export async function untilArrived(ledger: Ledger, deadlineMs: number): Promise<void> {
  const deadline = performance.now() + deadlineMs
  for (;;) {
    const arrived = new Set(ledger.arrived)
    const missing = [...ledger.stored.keys()].filter((id) => !arrived.has(id)).length
    if (missing === 0) return
    assert.ok(performance.now() < deadline, `${missing} of ${ledger.stored.size} messages did not arrive within ${deadlineMs} ms`)
    await delay(AGAIN_MS)
  }
}

/** Fails where something is lost or out of order; says how much was repeated. */
export function verdictOf({ stored, arrived, repeated }: Ledger, ordered: boolean): string {
  const { lost, repeats, orderViolations } = compareLedger(stored, arrived)
  assert.equal(lost, 0, 'messages that were reported stored are lost')
  if (ordered) assert.equal(orderViolations, 0, 'first arrivals are out of the order of their keys')
  return `${stored.size} messages, ${repeats} repeats, ${repeated.rejected} rejected and ${repeated.unknown} unknown publishes`
}
