// The public face of "waybill/prometheus".
export { prometheusMetrics } from './adapters/prometheus/prometheus-metrics.ts'
export type { PrometheusMetrics, PrometheusMetricsOptions } from './adapters/prometheus/prometheus-metrics.ts'
export type {
  PromClientLike,
  PromCounterLike,
  PromGaugeLike,
  PromHistogramLike,
  PromRegistryLike,
} from './adapters/prometheus/prom-client.ts'
export type { Watched } from './adapters/prometheus/scraped-metrics.ts'
