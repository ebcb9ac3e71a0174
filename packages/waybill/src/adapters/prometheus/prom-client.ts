import { WaybillError } from '../../core/errors.ts'

/** A counter of `prom-client`, as far as it is used here. */
export interface PromCounterLike {
  inc(labels: Record<string, string>, value?: number): void
}

/** A gauge of `prom-client`, as far as it is used here. */
export interface PromGaugeLike {
  set(labels: Record<string, string>, value: number): void
  remove(labels: Record<string, string>): void
}

/** A histogram of `prom-client`, as far as it is used here. */
export interface PromHistogramLike {
  observe(labels: Record<string, string>, value: number): void
}

/** A registry of `prom-client`: what `GET /metrics` prints. */
export interface PromRegistryLike {
  /** All metrics in the text format of Prometheus. */
  metrics(): Promise<string>
  readonly contentType: string
}

/** The part of the package `prom-client` (14 or 15) that is used here. */
export interface PromClientLike {
  // What the constructors take is the package's own business: any of its versions must fit here.
  readonly Counter: new (options: never) => PromCounterLike
  readonly Gauge: new (options: never) => PromGaugeLike
  readonly Histogram: new (options: never) => PromHistogramLike
  readonly register: PromRegistryLike
}

interface MetricOptions {
  readonly name: string
  readonly help: string
  readonly labelNames?: readonly string[]
  readonly registers: readonly PromRegistryLike[]
  readonly buckets?: readonly number[]
  /** Called when the metric is about to be read. */
  readonly collect?: () => Promise<void>
}

/** Makes metrics whose names begin with `waybill_`, in one registry. */
export function createFactory(client: PromClientLike, register: PromRegistryLike) {
  const complete = (name: string, help: string, more: Partial<MetricOptions>): never => {
    const options: MetricOptions = { ...more, name: `waybill_${name}`, help, registers: [register] }
    return options as never
  }
  return {
    counter: (name: string, help: string, more: Partial<MetricOptions> = {}): PromCounterLike =>
      new client.Counter(complete(name, help, more)),
    gauge: (name: string, help: string, more: Partial<MetricOptions> = {}): PromGaugeLike => new client.Gauge(complete(name, help, more)),
    histogram: (name: string, help: string, more: Partial<MetricOptions> = {}): PromHistogramLike =>
      new client.Histogram(complete(name, help, more)),
  }
}

/** Loads the package, late. @throws WaybillError `PEER_MISSING` */
export async function loadPromClient(): Promise<PromClientLike> {
  try {
    const { default: client } = await import('prom-client')
    return client
  } catch (cause) {
    throw new WaybillError(
      'PEER_MISSING',
      'metrics need the package "prom-client": install it with `npm install prom-client`, or hand it in as `client`',
      { where: 'prom-client', cause },
    )
  }
}
