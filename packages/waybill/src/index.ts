export { createWaybill } from './waybill.ts'
export type { EventNames, Waybill, WaybillOptions } from './waybill.ts'
export { MESSAGE_BUS_TYPES, messageBusType, transportFromEnvironment } from './transport-factory.ts'
export type { MessageBusType, TransportFromEnvironmentOptions } from './transport-factory.ts'
export { defineContext, on, onBatch } from './context.ts'
export type {
  BatchHandlerOptions,
  BoundedContext,
  ContextOptions,
  EventOf,
  HandlerContext,
  HandlerDefinition,
  HandlerOptions,
} from './context.ts'

export { DomainEvent, defineEvent, receivedEvent } from './core/event.ts'
export type { EventAttributes, EventOptions, EventType, PayloadOf } from './core/event.ts'
export { envelopeOf } from './core/envelope.ts'
export type { MessageEnvelope } from './core/envelope.ts'
export { WaybillError, isWaybillError } from './core/errors.ts'
export type { WaybillErrorCode, WaybillErrorDetails } from './core/errors.ts'
export { EventScope, PublishStrategies, PublishStrategy } from './core/publish-config.ts'
export type { PublishConfig, PublishPreset } from './core/publish-config.ts'
export { currentScope, withScope } from './core/scope.ts'
export type { Scope } from './core/scope.ts'
export { newId } from './core/ids.ts'
export type { Environment } from './core/environment.ts'
export { systemClock } from './core/clock.ts'
export type { Clock, Random } from './core/clock.ts'
export { DEFAULT_RETRY, fullJitterMs } from './core/backoff.ts'
export type { RetryPolicy } from './core/backoff.ts'
export { createWatermark } from './core/watermark.ts'
export type { Watermark } from './core/watermark.ts'
export type { SchemaLike } from './core/schema.ts'
export type { Codec, EncodedEnvelope } from './core/codec.ts'
export type { Database, SqlExecutor } from './core/database.ts'
export type {
  Assignment,
  BrokerReport,
  Capabilities,
  Delivery,
  Message,
  Position,
  PublishOutcome,
  Publisher,
  Source,
  Subscriber,
  TopicReport,
  Transport,
  TransportAdmin,
} from './core/transport.ts'
// For whoever writes a transport.
export { createPublishQueue } from './core/publish-queue.ts'
export type { PublishQueue, PublishQueueOptions } from './core/publish-queue.ts'
export { createMember } from './core/member.ts'
export type { Arrival, Holding, HoldingOptions, LeftOver, Member, MemberOptions } from './core/member.ts'
export { receivedMessage } from './core/received.ts'
export type { ReceivedParts } from './core/received.ts'
export { checkSource } from './core/source.ts'
export type { CheckedSource } from './core/source.ts'
export { checkGroup, checkTopic } from './core/names.ts'
export type {
  ClaimedRow,
  DeadLetter,
  DeadLetterStore,
  HeldShards,
  InboxStore,
  OutboxDetail,
  OutboxEntry,
  OutboxFilter,
  OutboxHints,
  OutboxRecord,
  OutboxStats,
  OutboxStore,
  RelayLease,
  RowFailure,
  Storage,
  StuckKey,
} from './core/stores.ts'
export { compose } from './core/handler.ts'
export type { Handler, Invocation, Middleware, RegisteredHandler } from './core/handler.ts'
export type { RaisesEvents, Receipt, RunUnit, UnitOfWork, UnitResult, UnitScope } from './core/unit.ts'
export { observeAll } from './core/observe.ts'
export type { Observe, WaybillEvent } from './core/observe.ts'
export { createRegistry } from './core/registry.ts'
export type { EventRegistry } from './core/registry.ts'

export { jsonCodec } from './codecs/json.ts'
export { memoryStorage } from './adapters/memory/storage.ts'
export { memoryTransport } from './adapters/memory/transport.ts'

export { createCircuitBreaker } from './publish/circuit-breaker.ts'
export { createCommandBus, createQueryBus, defineCommand, defineQuery } from './publish/command-bus.ts'
export { createEventBus } from './publish/event-bus.ts'
export { Aggregate } from './outbox/aggregate.ts'
export { createRelay } from './outbox/relay.ts'
export type { Relay, RelayOptions, RelayStats } from './outbox/relay.ts'
export { createKeyedPool } from './consume/keyed-pool.ts'
export { createConsumer } from './consume/consumer.ts'
