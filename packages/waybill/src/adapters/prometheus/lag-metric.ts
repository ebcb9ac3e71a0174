import { WaybillError } from '../../core/errors.ts'
import type { TopicReport, Transport, TransportAdmin } from '../../core/transport.ts'
import { OTHER, createBoundedLabels } from './bounded-labels.ts'
import { inTime } from './in-time.ts'
import type { PromGaugeLike } from './prom-client.ts'

const FRESH_MS = 5_000

export interface LagMetricOptions {
  readonly gauge: PromGaugeLike
  readonly timeoutMs: number
  /** Different pairs of topic and group. */
  readonly pairsMax: number
  /** Told of each broker that was asked whether it answered. */
  onAnswer(transport: string, isUp: boolean): void
  readonly now?: () => number
}

/** What groups have not settled, as the brokers say. */
export interface LagMetric {
  watch(transport: Pick<Transport, 'name' | 'admin'>): void
  /** Brings the gauge up to date; asks at most every 5 s, and never twice at a time. Rejects where a broker does not answer; then the gauge says nothing. */
  read(): Promise<void>
}

interface Series {
  readonly topic: string
  readonly group: string
  lag: number
}

/** A gauge with a series for each topic and group. */
export function createLagMetric({ gauge, timeoutMs, pairsMax, onAnswer, now = () => performance.now() }: LagMetricOptions): LagMetric {
  const watching = new Set<Pick<Transport, 'name' | 'admin'>>()
  const bounded = createBoundedLabels(pairsMax)
  let shown: readonly Series[] = []
  let freshUntil = -Infinity
  let asked: Promise<readonly Series[]> | undefined

  async function askAll(): Promise<readonly Series[]> {
    const signal = AbortSignal.timeout(timeoutMs)
    const all = new Map<string, Series>()
    for (const { name, admin } of watching) {
      if (admin === undefined) continue
      const own = new Map<string, Series>()
      for (const { topic, groups } of await answerOf(name, admin, signal)) {
        for (const { group, lag } of groups) if (lag !== undefined) add(own, seriesOf(topic, group, lag))
      }
      // Two transports of one broker say the same twice.
      for (const [id, series] of own) if ((all.get(id)?.lag ?? -1) < series.lag) all.set(id, series)
    }
    return [...all.values()]
  }

  async function answerOf(name: string, admin: TransportAdmin, signal: AbortSignal): Promise<readonly TopicReport[]> {
    try {
      const reports = await admin.topics(undefined, signal)
      onAnswer(name, true)
      return reports
    } catch (error) {
      if (signal.aborted || (error instanceof WaybillError && error.code === 'TRANSPORT_UNAVAILABLE')) onAnswer(name, false)
      throw error
    }
  }

  function seriesOf(topic: string, group: string, lag: number): Series {
    return bounded(`${topic}\n${group}`) === OTHER ? { topic: OTHER, group: OTHER, lag } : { topic, group, lag }
  }

  function show(series: readonly Series[]): void {
    for (const { topic, group } of shown) gauge.remove({ topic, group })
    for (const { topic, group, lag } of series) gauge.set({ topic, group }, lag)
    shown = series
  }

  return {
    watch(transport) {
      watching.add(transport)
      freshUntil = -Infinity
    },
    async read() {
      if (now() < freshUntil) return
      try {
        // Also where an adapter does not heed its signal.
        show(await inTime((asked ??= askAll().finally(() => (asked = undefined))), timeoutMs, 'the broker'))
        freshUntil = now() + FRESH_MS
      } catch (error) {
        // Nobody can vouch for the last values any more.
        show([])
        throw error
      }
    },
  }
}

function add(series: Map<string, Series>, one: Series): void {
  const id = `${one.topic}\n${one.group}`
  const before = series.get(id)
  if (before === undefined) series.set(id, one)
  else before.lag += one.lag
}
