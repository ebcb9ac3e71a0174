/** The parts of `@platformatic/kafka` that this adapter calls; any look-alike will do. */
export interface KafkaLike {
  readonly Producer: new (options: KafkaClientOptions) => KafkaProducerLike
  readonly Consumer: new (options: KafkaClientOptions & KafkaGroupOptions) => KafkaConsumerLike
  readonly Admin: new (options: KafkaClientOptions) => KafkaAdminLike
}

/** What every client of the library is made with. Times in milliseconds. */
export interface KafkaClientOptions {
  readonly clientId: string
  readonly bootstrapBrokers: string[]
  readonly connectTimeout: number
  readonly requestTimeout: number
  /** How long a broker may take over what it is asked. */
  readonly timeout: number
  readonly retries: number
  readonly retryDelay: number
  readonly metadataMaxAge: number
  readonly autocreateTopics: boolean
  readonly tls?: Record<string, unknown>
  readonly tlsServerName?: boolean
  readonly sasl?: { readonly mechanism: KafkaSaslMechanism; readonly username: string; readonly password: string }
  readonly idempotent?: boolean
}

/** What a consumer is made with. */
export interface KafkaGroupOptions {
  readonly groupId: string
  readonly sessionTimeout: number
  readonly rebalanceTimeout: number
  readonly heartbeatInterval: number
  readonly maxWaitTime: number
  readonly minBytes: number
  readonly maxBytes: number
  readonly autocommit: false
  readonly partitionAssigner: KafkaAssigner
}

/** How a client proves who it is. */
export type KafkaSaslMechanism = 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512'

/** Topics, their ids and who leads their partitions. */
export interface KafkaMetadata {
  readonly topics: ReadonlyMap<
    string,
    { readonly id: string; readonly partitionsCount: number; readonly partitions: readonly { readonly leader: number }[] }
  >
  readonly brokers: ReadonlyMap<number, { readonly host: string; readonly port: number }>
}

/** What all clients of the library can do. */
export interface KafkaBaseLike {
  /** Its connections, by address. */
  readonly connections: Iterable<readonly [string, { readonly socket?: { destroy(): unknown } }]>
  metadata(options: { topics: string[]; forceUpdate?: boolean }): Promise<KafkaMetadata>
  /** Forgets metadata, so that the next use asks anew. */
  clearMetadata(): void
}

/** A producer. */
export interface KafkaProducerLike extends KafkaBaseLike {
  send(options: { messages: KafkaRecordOut[]; acks: number }): Promise<unknown>
  close(force?: boolean): Promise<void>
}

/** A record on its way out. */
export interface KafkaRecordOut {
  topic: string
  partition: number
  key: Buffer
  value: Buffer
  headers: Map<Buffer, Buffer>
}

/** A record as it came. */
export interface KafkaRecordIn {
  readonly offsetDelta: number
  readonly key: Buffer | null
  readonly value: Buffer | null
  readonly headers: readonly (readonly [Buffer | null, Buffer | null])[]
}

/** Records of one partition that were written together. */
export interface KafkaBatch {
  readonly firstOffset: bigint
  readonly lastOffsetDelta: number
  readonly length: number
  readonly attributes: number
  readonly records: readonly KafkaRecordIn[]
}

/** What a fetch brings. */
export interface KafkaFetchResponse {
  readonly responses: readonly {
    readonly topicId: string
    readonly partitions: readonly {
      readonly partitionIndex: number
      readonly errorCode: number
      readonly highWatermark: bigint
      readonly logStartOffset: bigint
      readonly records?: readonly KafkaBatch[] | null
    }[]
  }[]
}

/** What a fetch asks of one partition. */
export interface KafkaFetchPartition {
  partition: number
  currentLeaderEpoch: number
  fetchOffset: bigint
  lastFetchedEpoch: number
  partitionMaxBytes: number
}

/** Partitions that a member was given. */
export interface KafkaAssignment {
  topic: string
  partitions: number[]
}

/** Divides the partitions of a group among its members. */
export type KafkaAssigner = (
  current: string,
  members: Map<string, { memberId: string; topics?: string[] }>,
  topics: Set<string>,
  metadata: KafkaMetadata,
) => { memberId: string; assignments: Map<string, KafkaAssignment> }[]

/** What a member hears when it has joined. */
export interface KafkaJoined {
  readonly memberId: string
  readonly generationId?: number
  readonly assignments?: readonly KafkaAssignment[]
}

/** A consumer: a member of a group, or somebody who just fetches. */
export interface KafkaConsumerLike extends KafkaBaseLike {
  readonly memberId: string | null
  readonly generationId: number
  readonly topics: { track(topic: string): boolean }
  joinGroup(options: object): Promise<string>
  commit(options: { offsets: { topic: string; partition: number; offset: bigint; leaderEpoch: number }[] }): Promise<void>
  listCommittedOffsets(options: { topics: KafkaAssignment[] }): Promise<Map<string, bigint[]>>
  fetch(options: {
    node: number
    maxWaitTime: number
    topics: { topicId: string; partitions: KafkaFetchPartition[] }[]
  }): Promise<KafkaFetchResponse>
  on(event: 'consumer:group:join', listener: (joined: KafkaJoined) => void): unknown
  on(event: 'client:performWithRetry', listener: (operation: string) => void): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
  on(
    event: 'consumer:group:rebalance' | 'consumer:heartbeat:start' | 'consumer:heartbeat:end' | 'client:broker:connect',
    listener: () => void,
  ): unknown
  close(force?: boolean): Promise<void>
}

/** An administrator's client. */
export interface KafkaAdminLike extends KafkaBaseLike {
  createTopics(options: {
    topics: { topic: string; partitions: number; replicas: number }[]
    configs: { name: string; value: string }[]
  }): Promise<unknown>
  listTopics(options?: object): Promise<string[]>
  listGroups(options?: object): Promise<Map<string, { readonly id: string; readonly protocolType: string }>>
  describeGroups(options: {
    groups: string[]
  }): Promise<
    Map<
      string,
      { readonly state: string; readonly members: ReadonlyMap<string, { readonly metadata?: { readonly topics?: readonly string[] } }> }
    >
  >
  listConsumerGroupOffsets(options: { groups: string[] }): Promise<
    readonly {
      readonly groupId: string
      readonly topics: readonly {
        readonly name: string
        readonly partitions: readonly { readonly partitionIndex: number; readonly committedOffset: bigint }[]
      }[]
    }[]
  >
  listOffsets(options: {
    topics: { name: string; partitions: { partitionIndex: number; timestamp: bigint }[] }[]
  }): Promise<
    readonly { readonly name: string; readonly partitions: readonly { readonly partitionIndex: number; readonly offset: bigint }[] }[]
  >
  describeConfigs(options: { resources: { resourceType: 2 | 4; resourceName: string; configurationKeys: string[] }[] }): Promise<
    readonly {
      readonly resourceName: string
      readonly configs: readonly { readonly name: string; readonly value?: string | null | undefined }[]
    }[]
  >
  removeMembersFromConsumerGroup(options: { groupId: string; members: { memberId: string; reason: string }[] }): Promise<void>
  listApis(): Promise<readonly { readonly name: string; readonly maxVersion: number }[]>
  close(): Promise<void>
}

/** Ends the connections of a client now; whatever waits for an answer gets an error. A close of the library's own may wait for ever on a dead line. */
export function cutConnections(client: KafkaBaseLike): void {
  for (const [, connection] of client.connections) connection.socket?.destroy()
}
