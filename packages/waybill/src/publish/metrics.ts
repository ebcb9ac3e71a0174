import { type Clock, systemClock } from '../core/clock.ts'
import type { Observe, WaybillEvent } from '../core/observe.ts'
import { checkInteger } from '../core/options.ts'
import type { PublishStrategy } from '../core/publish-config.ts'
import type { BreakerState } from './circuit-breaker.ts'
import { createHistogram } from './latency-histogram.ts'

/** Something that wants somebody's attention. */
export interface MetricAlert {
  readonly name: AlertName
  readonly level: 'alert' | 'warning'
  readonly value: number
  readonly threshold: number
  readonly advice: string
}

/** What was published, how it went, and where the bus stands. */
export interface PublishMetrics extends PublishCounts {
  /** Publishes, and work after a commit, that have not ended yet. */
  readonly in_flight: number
  readonly circuit_breakers: { readonly in_process: BreakerState['kind']; readonly outbox: BreakerState['kind'] }
}

/** What was published, and how it went. Counts are since the start unless they say `window`. */
export interface PublishCounts {
  /** Publishes that ended well: handled, or safe in the outbox. */
  readonly published: number
  /** Publishes that ended with neither. */
  readonly failed: number
  /** 0 to 1: the part of the window's publishes that failed. */
  readonly failure_rate: number
  /** Events that HYBRID_FAST could not deliver in process, so that the outbox had to. */
  readonly hybrid_fast_fallbacks: number
  /** How often a circuit breaker opened. */
  readonly circuit_breaker_trips: number
  /** Mean duration of the window's publishes. */
  readonly average_latency_ms: number
  /** Durations of the window's publishes, to within 9 %. */
  readonly latency_percentiles_ms: { readonly p50: number; readonly p95: number; readonly p99: number }
  readonly by_strategy: Readonly<Record<PublishStrategy, number>>
  /** By event type; those beyond the first 1,000 types together, as `(other)`. */
  readonly by_event_type: Readonly<Record<string, number>>
  readonly window: {
    readonly ms: number
    readonly published: number
    readonly failed: number
    readonly hybrid_fast_fallbacks: number
    readonly circuit_breaker_trips: number
  }
  /** Which of {@link ALERT_THRESHOLDS} the window exceeds. */
  readonly alerts: readonly MetricAlert[]
}

/** The thresholds that ship with the bus: exceeded means more than `threshold`, within the window. */
export const ALERT_THRESHOLDS = Object.freeze({
  failure_rate: {
    level: 'alert',
    threshold: 0.05,
    advice: 'publishes are failing: look at the errors that publish rejects with, and at the outbox database',
  },
  circuit_breaker_trips: {
    level: 'alert',
    threshold: 0,
    advice: 'a circuit breaker opened: the path that it guards failed several times in a row',
  },
  average_latency_ms: {
    level: 'warning',
    threshold: 500,
    advice: 'publishing is slow: look at the handlers that run in process, or publish ASYNC_ONLY',
  },
  hybrid_fast_fallbacks: { level: 'alert', threshold: 50, advice: 'the in-process path does not keep up: publish these events ASYNC_ONLY' },
} as const) satisfies Readonly<Record<string, Pick<MetricAlert, 'level' | 'threshold' | 'advice'>>>

export type AlertName = keyof typeof ALERT_THRESHOLDS

export interface PublishMetricsOptions {
  readonly clock?: Clock
  /** How far back rates, latencies and alerts look, to within a twelfth; 1,000 to 86,400,000. @default 60000 */
  readonly windowMs?: number
}

const SLICES = 12
const EVENT_TYPES_MAX = 1_000
const OTHER = '(other)'

/** A twelfth of the window. */
interface Slice {
  index: number
  published: number
  failed: number
  fallbacks: number
  trips: number
  readonly latency: ReturnType<typeof createHistogram>
}

/**
 * Counts what the bus tells it; its memory does not grow.
 * @throws WaybillError `INVALID_OPTION`
 */
export function createPublishMetrics(options: PublishMetricsOptions = {}): { readonly observe: Observe; getMetrics(): PublishCounts } {
  const { clock = systemClock } = options
  const windowMs = checkInteger(options.windowMs ?? 60_000, 'windowMs', 1_000, 86_400_000)
  const sliceMs = windowMs / SLICES
  const slices = Array.from({ length: SLICES }, (): Slice => ({
    index: -1,
    published: 0,
    failed: 0,
    fallbacks: 0,
    trips: 0,
    latency: createHistogram(),
  }))
  const byStrategy: Record<PublishStrategy, number> = { SYNC_ONLY: 0, ASYNC_ONLY: 0, HYBRID_FAST: 0, HYBRID_RELIABLE: 0 }
  const byEventType = new Map<string, number>()
  const totals = { published: 0, failed: 0, fallbacks: 0, trips: 0 }

  /** The slice of this moment, emptied where its last turn is over. */
  function currentSlice(): Slice {
    const index = Math.floor(clock.now() / sliceMs)
    const slice = slices[((index % SLICES) + SLICES) % SLICES]!
    if (slice.index !== index) {
      Object.assign(slice, { index, published: 0, failed: 0, fallbacks: 0, trips: 0 })
      slice.latency.clear()
    }
    return slice
  }

  function count(name: 'published' | 'failed' | 'fallbacks' | 'trips'): Slice {
    const slice = currentSlice()
    slice[name]++
    totals[name]++
    return slice
  }

  function observe(event: WaybillEvent): void {
    if (event.type === 'publish.settled') {
      count(event.outcome === 'failed' ? 'failed' : 'published').latency.add(event.durationMs)
      byStrategy[event.strategy]++
      const name = byEventType.has(event.eventType) || byEventType.size < EVENT_TYPES_MAX ? event.eventType : OTHER
      byEventType.set(name, (byEventType.get(name) ?? 0) + 1)
    } else if (event.type === 'publish.fell-back') count('fallbacks')
    else if (event.type === 'breaker.changed' && event.to === 'open') count('trips')
  }

  function getMetrics(): PublishCounts {
    const now = currentSlice().index
    const recent = slices.filter(({ index }) => index > now - SLICES && index <= now)
    const sum = (name: 'published' | 'failed' | 'fallbacks' | 'trips'): number => recent.reduce((total, slice) => total + slice[name], 0)
    const latency = createHistogram()
    for (const slice of recent) latency.merge(slice.latency)
    const window = {
      ms: windowMs,
      published: sum('published'),
      failed: sum('failed'),
      hybrid_fast_fallbacks: sum('fallbacks'),
      circuit_breaker_trips: sum('trips'),
    }
    const settled = window.published + window.failed
    const failureRate = settled === 0 ? 0 : window.failed / settled
    return {
      published: totals.published,
      failed: totals.failed,
      failure_rate: failureRate,
      hybrid_fast_fallbacks: totals.fallbacks,
      circuit_breaker_trips: totals.trips,
      average_latency_ms: latency.average(),
      latency_percentiles_ms: { p50: latency.percentile(0.5), p95: latency.percentile(0.95), p99: latency.percentile(0.99) },
      by_strategy: { ...byStrategy },
      by_event_type: Object.fromEntries(byEventType),
      window,
      alerts: alertsFor({
        failure_rate: failureRate,
        circuit_breaker_trips: window.circuit_breaker_trips,
        average_latency_ms: latency.average(),
        hybrid_fast_fallbacks: window.hybrid_fast_fallbacks,
      }),
    }
  }

  return { observe, getMetrics }
}

function alertsFor(values: Readonly<Record<AlertName, number>>): readonly MetricAlert[] {
  const names = Object.keys(ALERT_THRESHOLDS) as AlertName[]
  return names
    .filter((name) => values[name] > ALERT_THRESHOLDS[name].threshold)
    .map((name) => ({ name, value: values[name], ...ALERT_THRESHOLDS[name] }))
}
