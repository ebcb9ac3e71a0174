import type { OwnServer, ServiceName } from 'waybill-services'
import type { Clock } from '../../src/core/clock.ts'
import type { Observe } from '../../src/core/observe.ts'
import type { Transport } from '../../src/core/transport.ts'
import type { FaultProxy } from '../../src/testing/fault-proxy.ts'

/** Where a broker is, and how to get in: plain values, so that another process can be told. */
export type Target = Readonly<Record<string, string>>

/** A broker that a test has for itself, and may hurt. */
export interface OwnBroker {
  /** Leads through the proxy. */
  readonly target: Target
  readonly server: OwnServer
  readonly proxy: FaultProxy
  close(): Promise<void>
}

/** One broker and its adapter, as the tests see them. The module that exports it as `broker` also exports its `connect`, for other processes. */
export interface BrokerFixture {
  /** The column in the matrix, and the part of the names of its test files: `kafka`, `redis-pubsub` ... */
  readonly name: string
  readonly service: ServiceName
  /** The server that all tests share, or why there is none. */
  shared(): Promise<Target | { readonly skipped: string }>
  /** A transport of its own. Topics that it makes have 4 partitions, where there are any. */
  connect(target: Target, options?: { readonly observe?: Observe; readonly clock?: Clock }): Promise<Transport>
  startOwn(): Promise<OwnBroker>
  /** Largest body that `connect`'s transports take. */
  readonly messageMaxBytes: number
  /** What the matrix says beside the name: `Kafka 4.1.0, @platformatic/kafka 2.12.1`. */
  readonly versions: readonly string[]
}
