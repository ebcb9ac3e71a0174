import type { Observe } from '../../core/observe.ts'
import type { DeadLetterStore, OutboxStore } from '../../core/stores.ts'
import type { Transport } from '../../core/transport.ts'
import { createBoundedLabels } from './bounded-labels.ts'
import { inTime } from './in-time.ts'
import { createLagMetric } from './lag-metric.ts'
import { type PromClientLike, type PromGaugeLike, type PromRegistryLike, createFactory } from './prom-client.ts'

/** What is asked when metrics are read: a `Waybill` is one, and so is an object with these parts of it. */
export interface Watched {
  readonly database?: { readonly outbox: Pick<OutboxStore, 'stats'>; readonly deadLetters: Pick<DeadLetterStore, 'count'> }
  readonly relayStats?: () => { readonly shards: number; readonly rowsInFlight: number; readonly keysResting: number }
  /** A transport with a broker behind it: asked for what its groups have not settled. */
  readonly transport?: Pick<Transport, 'name' | 'admin'>
}

export interface ScrapedMetricsOptions {
  readonly client: PromClientLike
  readonly register: PromRegistryLike
  readonly timeoutMs: number
  /** Different pairs of topic and group. */
  readonly labelValuesMax: number
}

export interface ScrapedMetrics {
  watch(watched: Watched): void
  readonly observe: Observe
}

type Values = ReadonlyMap<string, number>

const GAUGES: Readonly<Record<string, string>> = {
  outbox_pending: 'Rows that are due, held or in flight',
  outbox_oldest_pending_seconds: 'Age of the oldest pending row; 0 where nothing waits',
  outbox_parked: 'Rows that wait for somebody to retry or skip them, followers included',
  outbox_scheduled: 'Rows that are not due yet',
  dead_letters: 'Messages that handlers could not handle',
  relay_rows_in_flight: 'Rows that the relay of this process has handed to the transport',
  relay_keys_resting: 'Keys that wait after a failure',
}

/**
 * Gauges that are asked for when somebody reads the metrics. However many readers come at once, one question is under way; one that fails or takes
 * too long leaves its gauges out and is counted, and all other metrics are printed as ever.
 */
export function createScrapedMetrics({ client, register, timeoutMs, labelValuesMax }: ScrapedMetricsOptions): ScrapedMetrics {
  const watching = new Set<Watched>()
  let scraping: Promise<void> | undefined
  const sources: readonly Source[] = [
    source(watching, ['outbox_pending', 'outbox_oldest_pending_seconds', 'outbox_parked', 'outbox_scheduled'], async ({ database }) => {
      if (database === undefined) return undefined
      const { pending, oldestPendingMs, parked, scheduled } = await database.outbox.stats()
      return [pending, oldestPendingMs / 1000, parked, scheduled]
    }),
    source(watching, ['dead_letters'], async ({ database }) => (database === undefined ? undefined : [await database.deadLetters.count()])),
    source(watching, ['relay_rows_in_flight', 'relay_keys_resting'], async ({ relayStats }) => {
      if (relayStats === undefined) return undefined
      const { rowsInFlight, keysResting } = relayStats()
      return [rowsInFlight, keysResting]
    }),
  ]

  const collect = (): Promise<void> => (scraping ??= scrape().finally(() => (scraping = undefined)))
  const { counter, gauge } = createFactory(client, register)
  const gauges = new Map<string, PromGaugeLike>(Object.entries(GAUGES).map(([name, help]) => [name, gauge(name, help, { collect })]))
  const up = gauge('transport_up', '1 while the broker answers, 0 while it does not', { labelNames: ['transport'], collect })
  const transportName = createBoundedLabels(labelValuesMax)
  const tellUp = (transport: string, isUp: boolean): void => up.set({ transport: transportName(transport) }, isUp ? 1 : 0)
  const lag = createLagMetric({
    onAnswer: tellUp,
    gauge: gauge('consumer_lag', 'Messages that a group has not settled', { labelNames: ['topic', 'group'], collect }),
    timeoutMs,
    pairsMax: labelValuesMax,
  })
  const errors = counter('scrape_errors_total', 'Questions for these metrics that failed or took too long', { collect })

  async function scrape(): Promise<void> {
    await Promise.all([
      ...sources.map(async ({ names, read }) => {
        const values = (await counted(() => inTime(read(), timeoutMs, 'the database'))) ?? new Map<string, number>()
        for (const name of names) {
          const value = values.get(name)
          // A gauge that nobody can vouch for must not stand at its last value, or at 0 as if all were well.
          if (value === undefined) gauges.get(name)!.remove({})
          else gauges.get(name)!.set({}, value)
        }
      }),
      counted(() => lag.read()),
    ])
  }

  async function counted<T>(read: () => Promise<T>): Promise<T | undefined> {
    try {
      return await read()
    } catch {
      // Said by the counter: whoever reads metrics must get the others, and has no use for a stack.
      errors.inc({})
      return undefined
    }
  }

  return {
    watch(watched) {
      watching.add(watched)
      if (watched.transport !== undefined) lag.watch(watched.transport)
    },
    // What a transport says by itself: changes, while nobody asks.
    observe: (event) => {
      if (event.type === 'transport.changed') tellUp(event.transport, event.to === 'up')
    },
  }
}

interface Source {
  readonly names: readonly string[]
  readonly read: () => Promise<Values>
}

/**
 * Adds up what all that is watched says: several in one process are one system for whoever reads the metrics. A question that hangs is not asked
 * again before it has ended: readers must not use up the connections.
 */
function source(
  watching: ReadonlySet<Watched>,
  names: readonly string[],
  ask: (watched: Watched) => Promise<readonly number[] | undefined>,
): Source {
  let asked: Promise<Values> | undefined
  async function askAll(): Promise<Values> {
    const values = new Map<string, number>()
    for (const watched of watching) {
      for (const [index, value] of ((await ask(watched)) ?? []).entries()) {
        const name = names[index]!
        const before = values.get(name) ?? 0
        values.set(name, name.includes('oldest') ? Math.max(before, value) : before + value)
      }
    }
    return values
  }
  return { names, read: () => (asked ??= askAll().finally(() => (asked = undefined))) }
}
