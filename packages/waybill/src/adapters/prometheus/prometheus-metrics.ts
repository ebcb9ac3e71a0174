import { WaybillError } from '../../core/errors.ts'
import { type Observe, observeAll } from '../../core/observe.ts'
import { checkInteger } from '../../core/options.ts'
import { createEventMetrics } from './event-metrics.ts'
import { type PromClientLike, type PromRegistryLike, loadPromClient } from './prom-client.ts'
import { type Watched, createScrapedMetrics } from './scraped-metrics.ts'

export interface PrometheusMetricsOptions {
  /** Where the metrics are registered; a registry takes them once. @default the default registry of `client` */
  readonly register?: PromRegistryLike
  /** The package `prom-client`, or a look-alike. @default the installed one */
  readonly client?: PromClientLike
  /** Different event types, handlers, breakers, transports, and pairs of topic and group, 1 to 10,000 each; what comes later is counted as `other`. @default 500 */
  readonly labelValuesMax?: number
  /** How long the database, and the broker, may take to answer when metrics are read, 1 to 60,000. @default 3000 */
  readonly scrapeTimeoutMs?: number
}

/** Waybill's metrics in a registry of `prom-client`. */
export interface PrometheusMetrics {
  /** Hand this to `createWaybill`: counters and histograms follow it. */
  readonly observe: Observe
  /**
   * Asks `watched` for the gauges of outbox, dead letters and relay whenever metrics are read: give it the `Waybill`. What several say is added up.
   * Give it `{ transport }` too for the lag of the groups at its broker, which is asked for at most every 5 s.
   */
  watch(watched: Watched): void
}

/**
 * Metrics for Prometheus, over what is observed. Their names are stable.
 * @throws WaybillError `PEER_MISSING` where `prom-client` is not installed; `DUPLICATE` where the registry has such metrics; `INVALID_OPTION`
 */
export async function prometheusMetrics(options: PrometheusMetricsOptions = {}): Promise<PrometheusMetrics> {
  const labelValuesMax = checkInteger(options.labelValuesMax ?? 500, 'labelValuesMax', 1, 10_000)
  const timeoutMs = checkInteger(options.scrapeTimeoutMs ?? 3_000, 'scrapeTimeoutMs', 1, 60_000)
  const client = options.client ?? (await loadPromClient())
  const register = options.register ?? client.register
  try {
    const observe = createEventMetrics({ client, register, labelValuesMax })
    const { watch, observe: observeTransports } = createScrapedMetrics({ client, register, timeoutMs, labelValuesMax })
    // A metric that refuses a value must not stop the road.
    return { observe: observeAll([observe, observeTransports]), watch }
  } catch (cause) {
    throw new WaybillError('DUPLICATE', 'this registry has metrics of these names', {
      allowed: 'one prometheusMetrics() for each registry',
      where: 'register',
      cause,
    })
  }
}
