/**
 * The part of a Pulsar client that this transport calls, shaped like the package `pulsar-client`: its `Client` is one. What is optional here is what our
 * own client does beyond the package, for speed.
 */
export interface PulsarLike {
  createProducer(config: PulsarProducerConfig): Promise<PulsarProducerLike>
  subscribe(config: PulsarConsumerConfig): Promise<PulsarConsumerLike>
  createReader(config: PulsarReaderConfig): Promise<PulsarReaderLike>
  close(): Promise<unknown>
}

/** The statics of the package's `MessageId`. */
export interface PulsarMessageIdsLike {
  earliest(): PulsarMessageIdLike
  deserialize(data: Buffer): PulsarMessageIdLike
}

export interface PulsarMessageIdLike {
  serialize(): Buffer
}

export interface PulsarProducerConfig {
  readonly topic: string
  readonly sendTimeoutMs: number
  readonly maxPendingMessages: number
  readonly blockIfQueueFull: boolean
  readonly messageRoutingMode: 'UseSinglePartition'
  readonly hashingScheme: 'Murmur3_32Hash'
  readonly batchingEnabled: boolean
}

export interface PulsarOutgoing {
  data: Buffer
  properties: { [name: string]: string }
  partitionKey: string
}

export interface PulsarProducerLike {
  /** Rejects where the message was not stored, or nobody knows. */
  send(message: PulsarOutgoing): Promise<unknown>
  isConnected(): boolean
  close(): Promise<unknown>
}

export type PulsarClientSubscriptionType = 'Exclusive' | 'Shared' | 'KeyShared' | 'Failover'

export interface PulsarConsumerConfig {
  readonly topic: string
  readonly subscription: string
  readonly subscriptionType: PulsarClientSubscriptionType
  readonly subscriptionInitialPosition: 'Earliest'
  readonly receiverQueueSize: number
  readonly batchReceivePolicy: { readonly maxNumMessages: number; readonly maxNumBytes: number; readonly timeoutMs: number }
}

export interface PulsarConsumerLike {
  /** What has come, or nothing after a while. Rejects once the consumer has ended. */
  batchReceive(): Promise<PulsarIncomingLike[]>
  acknowledgeId(messageId: PulsarMessageIdLike): Promise<unknown>
  /** Many at once. */
  acknowledgeIds?(messageIds: readonly PulsarMessageIdLike[]): Promise<unknown>
  close(): Promise<unknown>
}

export interface PulsarReaderConfig {
  readonly topic: string
  /** The reader begins after it. */
  readonly startMessageId: PulsarMessageIdLike
  readonly receiverQueueSize: number
}

export interface PulsarReaderLike {
  readNext(): Promise<PulsarIncomingLike>
  /** What has come; at least one. */
  readBatch?(): Promise<PulsarIncomingLike[]>
  close(): Promise<unknown>
}

export interface PulsarIncomingLike {
  getProperties(): { [name: string]: string }
  getData(): Buffer
  getMessageId(): PulsarMessageIdLike
  getRedeliveryCount(): number
  /** Empty where there is none. */
  getPartitionKey(): string
}
