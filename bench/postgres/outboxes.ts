import 'reflect-metadata'
import { OutboxModule, TransactionalEventEmitter, TransactionalEventEmitterOperations } from '@fullstackhouse/nestjs-outbox'
import {
  OutboxTransportEventMigrations,
  TypeORMDatabaseDriverFactory,
  TypeOrmOutboxTransportEvent,
} from '@fullstackhouse/nestjs-outbox-typeorm-driver'
import { type INestApplicationContext, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import {
  DatabaseSetup,
  DatabaseSetupExporter,
  getDisabledLogger,
  initializeMessageStorage,
  initializePollingMessageListener,
  initializeReplicationMessageListener,
  type TransactionalMessage,
} from 'pg-transactional-outbox'
import { DataSource, EntitySchema } from 'typeorm'
import type { OutboxEntry } from 'waybill'
import { inBatches } from '../events.ts'
import { BUSINESS, inTransaction, NOTE } from './floor.ts'
import { countdown, objectOf, type Peer, until } from './peer.ts'
import type { Server } from './server.ts'

const SCHEMA = 'pgto'
const TABLE = 'outbox'
const PUBLICATION = 'pgto_publication'
const SLOT = 'pgto_slot'
const FILL = 200
// The documentation of one has 500 ms, that of the other 30 s: both look as often as the first.
const POLL_MS = 500
const BUSY_POLL_MS = 20
const NEVER_MS = 86_400_000

/**
 * pg-transactional-outbox, by its polling listener or by logical replication. A message whose lock meets the poll is retried only after `lockMs`,
 * so the last ones come late: a drain by polling ends when 95 of 100 are processed.
 */
export async function pgTransactionalOutbox(
  stack: AsyncDisposableStack,
  { url, pool }: Server,
  how: 'polling' | 'replication',
): Promise<Peer> {
  const logger = getDisabledLogger()
  const dbHandlerConfig = { connectionString: url }
  const settings = {
    dbSchema: SCHEMA,
    dbTable: TABLE,
    dbPublication: PUBLICATION,
    dbReplicationSlot: SLOT,
    nextMessagesFunctionSchema: SCHEMA,
    nextMessagesFunctionName: 'next_outbox_messages',
    nextMessagesBatchSize: 200,
    nextMessagesPollingIntervalInMs: POLL_MS,
    enableMaxAttemptsProtection: false,
    enablePoisonousMessageProtection: false,
  }
  const config = { outboxOrInbox: 'outbox', dbHandlerConfig, dbListenerConfig: dbHandlerConfig, settings } as const
  const setup = {
    outboxOrInbox: 'outbox',
    database: 'postgres',
    schema: SCHEMA,
    table: TABLE,
    listenerRole: 'postgres',
    handlerRole: 'postgres',
    publication: PUBLICATION,
    replicationSlot: SLOT,
    nextMessagesSchema: SCHEMA,
    nextMessagesName: 'next_outbox_messages',
  } as const
  const store = initializeMessageStorage(config, logger)
  const dropSlot = async (): Promise<void> => {
    await until(
      async () => (await pool.query('select 1 from pg_replication_slots where slot_name = $1 and active', [SLOT])).rows.length === 0,
    )
    await pool.query('select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1', [SLOT])
  }
  const clear = async (): Promise<void> => {
    await dropSlot()
    if (how === 'polling') return void (await pool.query(DatabaseSetupExporter.createPollingScript(setup, true)))
    await pool.query([DatabaseSetup.dropAndCreateTable(setup), DatabaseSetup.setupReplicationCore(setup)].join('\n'))
    // Not in one transaction with what writes.
    await pool.query(DatabaseSetup.setupReplicationSlot(setup))
  }
  stack.defer(dropSlot)

  const start = (onEvent: () => void): (() => Promise<void>) => {
    const handler = { handle: async () => onEvent() }
    const [shutdown] =
      how === 'polling'
        ? initializePollingMessageListener(config, handler, logger, { batchSizeStrategy: async () => settings.nextMessagesBatchSize })
        : initializeReplicationMessageListener(config, handler, logger)
    return shutdown
  }
  const storeMany = (entries: readonly OutboxEntry[]): Promise<void> =>
    inTransaction(pool, async (client) => {
      for (const entry of entries) await store(messageOf(entry), client)
    })
  await pool.query(`create schema if not exists ${SCHEMA}`)
  await clear()
  // Without its slot, while others are measured: it would have the whole log decoded.
  await dropSlot()

  return {
    name: `pg-transactional-outbox, ${how}`,
    storeOne: (entry) =>
      inTransaction(pool, async (client) => {
        await client.query(BUSINESS, [NOTE])
        await store(messageOf(entry), client)
      }),
    storeMany,
    fill: (entries) => inBatches(entries, FILL, storeMany),
    async drain(count) {
      const wanted = how === 'polling' ? Math.ceil(count * 0.95) : count
      const shutdown = start(() => {})
      await until(async () => {
        const { rows } = await pool.query<{ n: string }>(`select count(*) as n from ${SCHEMA}.${TABLE} where processed_at is not null`)
        return Number(rows[0]!.n) >= wanted
      })
      await shutdown()
      await dropSlot()
    },
    clear,
    async serve(onEvent) {
      await clear()
      return start(onEvent)
    },
  }
}

const messageOf = (entry: OutboxEntry): TransactionalMessage => ({
  id: entry.message.id,
  aggregateType: entry.message.topic,
  aggregateId: entry.message.key,
  messageType: entry.eventType,
  segment: entry.message.key,
  concurrency: 'parallel',
  payload: objectOf(entry),
})

class OrderPlaced {
  readonly name = 'OrderPlaced'
  readonly envelope: object

  constructor(envelope: object) {
    this.envelope = envelope
  }
}

class Business {
  readonly id?: string
  readonly note = NOTE
}

const BusinessSchema = new EntitySchema<Business>({
  name: 'business',
  target: Business,
  tableName: 'business',
  columns: { id: { type: 'bigint', primary: true, generated: true }, note: { type: 'text' } },
})

/** `@fullstackhouse/nestjs-outbox` with its TypeORM driver: the best kept outbox for Nest that the registry has. It has no bulk call. */
export async function nestOutbox(stack: AsyncDisposableStack, { url, pool }: Server): Promise<Peer> {
  const dataSource = new DataSource({
    type: 'postgres',
    url,
    entities: [TypeOrmOutboxTransportEvent, BusinessSchema],
    extra: { max: 20 },
  })
  await dataSource.initialize()
  stack.defer(() => dataSource.destroy())
  const { tableName } = dataSource.getMetadata(TypeOrmOutboxTransportEvent)
  // Run by hand: TypeORM refuses the names that these classes have.
  const runner = dataSource.createQueryRunner()
  for (const Migration of OutboxTransportEventMigrations) await new Migration().up(runner)
  await runner.release()
  const idle = await openNest(dataSource, () => {}, NEVER_MS)
  stack.defer(() => idle.close())
  const emitter = idle.get(TransactionalEventEmitter)
  const storeOne: Peer['storeOne'] = (entry) =>
    emitter.emit(new OrderPlaced(objectOf(entry)), [{ operation: TransactionalEventEmitterOperations.persist, entity: new Business() }])
  const storeMany: Peer['storeMany'] = async (entries) => {
    for (const entry of entries) await emitter.emit(new OrderPlaced(objectOf(entry)))
  }
  return {
    name: 'nestjs-outbox',
    storeOne,
    storeMany,
    fill: storeMany,
    async drain(count) {
      const { one, done } = countdown(count)
      const app = await openNest(dataSource, one, BUSY_POLL_MS)
      await done
      await until(async () => (await pool.query(`select 1 from "${tableName}" limit 1`)).rows.length === 0)
      await app.close()
    },
    clear: () => pool.query(`truncate "${tableName}"`),
    async serve(onEvent) {
      const app = await openNest(dataSource, onEvent, POLL_MS)
      return () => app.close()
    },
  }
}

async function openNest(dataSource: DataSource, onEvent: () => void, pollingInterval: number): Promise<INestApplicationContext> {
  class App {}
  Module({
    imports: [
      OutboxModule.registerAsync({
        imports: [],
        useFactory: () => ({
          driverFactory: new TypeORMDatabaseDriverFactory(dataSource),
          events: [{ name: 'OrderPlaced', listeners: { retentionPeriod: 86_400_000, maxExecutionTime: 15_000, maxRetries: 5 } }],
          pollingInterval,
          maxEventsPerPoll: 200,
        }),
        enableDefaultMiddlewares: false,
      }),
    ],
  })(App)
  const app = await NestFactory.createApplicationContext(App, { logger: false })
  app.get(TransactionalEventEmitter).addListener('OrderPlaced', { getName: () => 'bench', handle: async () => onEvent() })
  return app
}
