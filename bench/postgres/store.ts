import type pg from 'pg'
import type { OutboxEntry, Storage } from 'waybill'
import { entriesOf, inBatches } from '../events.ts'
import type { Contender, Fact, Row } from '../harness.ts'
import { BUSINESS, inTransaction, insertMany, insertOne, NOTE } from './floor.ts'
import type { Peer } from './peer.ts'
import { pipelinedClient, type Server } from './server.ts'

const BATCH = 200
const WRITERS = 24

/** What the rows of a server share. */
export interface Stage {
  readonly server: Server
  readonly storage: Storage
  readonly peers: readonly Peer[]
  /** Empties the tables of Waybill and of the floors, and tidies them up. */
  readonly clear: () => Promise<void>
}

/** Hands each contender entries of its own, made before the clock starts. */
export function withEntries(stage: Stage, clear: () => Promise<unknown>, keys?: number) {
  let entries: readonly OutboxEntry[] = []
  return {
    entries: () => entries,
    async prepare(count: number): Promise<void> {
      await clear()
      await stage.clear()
      entries = entriesOf(count, keys)
    },
  }
}

async function oneByOne(entries: readonly OutboxEntry[], store: (entry: OutboxEntry) => Promise<unknown>): Promise<void> {
  for (const entry of entries) await store(entry)
}

/** F-store-1: one event in the caller's transaction. */
export async function storeOneRow(stack: AsyncDisposableStack, stage: Stage): Promise<Row> {
  const { server, storage, peers } = stage
  const own = withEntries(stage, async () => {})
  const client = await pipelinedClient(stack, server)
  const simple = (name: string, role: Contender['role'], store: (entry: OutboxEntry) => Promise<unknown>): Contender => ({
    name,
    role,
    prepare: own.prepare,
    run: () => oneByOne(own.entries(), store),
  })
  return {
    id: 'F-store-1',
    title: 'store one event in the caller’s transaction',
    operations: 400,
    rounds: 5,
    warmups: 1,
    contenders: [
      simple('waybill', 'toolkit', (entry) =>
        storage.database.transaction(async (sql) => {
          await sql.query(BUSINESS, [NOTE])
          await storage.outbox.append(sql, [entry])
        }),
      ),
      simple('waybill, pipelined', 'toolkit', (entry) =>
        Promise.all([
          client.query('begin'),
          client.query(BUSINESS, [NOTE]),
          storage.outbox.append({ query: (text, params = []) => client.query(text, [...params]) as never }, [entry]),
          client.query('commit'),
        ]),
      ),
      simple('by hand', 'floor', (entry) =>
        inTransaction(server.pool, async (sql) => {
          await sql.query(BUSINESS, [NOTE])
          await insertOne(sql, entry)
        }),
      ),
      simple('by hand, pipelined', 'floor', (entry) =>
        Promise.all([client.query('begin'), client.query(BUSINESS, [NOTE]), insertOne(client, entry), client.query('commit')]),
      ),
      simple('no event at all', 'floor', () => inTransaction(server.pool, (sql) => sql.query(BUSINESS, [NOTE]))),
      ...peers.map((peer) => simple(peer.name, 'peer', peer.storeOne)),
    ],
    targets: [{ of: 'waybill, pipelined', against: 'by hand', atLeast: 1.5 }],
    facts: () => statementsOf(stage),
    note: 'BEGIN, a business row, the event, COMMIT: each awaited, but for the pipelined ones. An event costs the one statement that writes it.',
  }
}

/** How many statements a transaction with one event takes, beside those of one without. */
async function statementsOf({ server, storage }: Stage): Promise<readonly Fact[]> {
  const [entry] = entriesOf(1)
  let statements = 0
  await inTransaction(server.pool, (client) =>
    storage.outbox.append(
      {
        query: (text, params = []) => {
          statements++
          return client.query(text, [...params]) as never
        },
      },
      [entry!],
    ),
  )
  return [{ name: 'statements (trips) that an event adds', value: String(statements), target: '≤ 1', met: statements <= 1 }]
}

/** F-store-200: batches. */
export function storeManyRow(stage: Stage): Row {
  const { server, storage, peers } = stage
  const own = withEntries(stage, async () => {})
  const least = new Map([
    ['graphile-worker', 2],
    ['pg-boss', 2],
    ['pg-transactional-outbox, polling', 12],
  ])
  return {
    id: 'F-store-200',
    title: `store ${BATCH} events in a transaction`,
    operations: 8_000,
    rounds: 5,
    warmups: 1,
    contenders: [
      {
        name: 'waybill',
        role: 'toolkit',
        prepare: own.prepare,
        run: () => inBatches(own.entries(), BATCH, (batch) => storage.database.transaction((sql) => storage.outbox.append(sql, batch))),
      },
      {
        name: 'UNNEST by hand',
        role: 'floor',
        prepare: own.prepare,
        run: () => inBatches(own.entries(), BATCH, (batch) => inTransaction(server.pool, (sql) => insertMany(sql, batch))),
      },
      ...peers.map((peer): Contender => {
        const isSlow = peer.name.includes('outbox')
        return {
          name: peer.name,
          role: 'peer',
          prepare: withCleared(own.prepare, peer),
          run: () => inBatches(own.entries(), BATCH, peer.storeMany),
          ...(isSlow ? { operations: 1_000, rounds: 3 } : {}),
        }
      }),
    ],
    targets: [
      { against: 'UNNEST by hand', atLeast: 0.9 },
      ...peers.flatMap(({ name }) => (least.has(name) ? [{ against: name, atLeast: least.get(name)! }] : [])),
    ],
    note: 'Waybill locks the slots of 200 keys, in order, before it numbers the rows; by hand nothing keeps the order. Where a peer has no bulk call its events go one by one, in one transaction where it lets them (nestjs-outbox: one transaction each).',
  }
}

export const withCleared =
  (prepare: (count: number) => Promise<void>, { clear }: Peer) =>
  async (count: number): Promise<void> => {
    await clear()
    await prepare(count)
  }

/** F-keylock: what the lock of a key costs where many write at once. */
export function keyLockRow(stage: Stage): Row {
  const { server, storage } = stage
  const writers = async (entries: readonly OutboxEntry[], store: (entry: OutboxEntry) => Promise<unknown>): Promise<void> => {
    const waiting = entries.values()
    await Promise.all(
      Array.from({ length: WRITERS }, async () => {
        for (const entry of waiting) await store(entry)
      }),
    )
  }
  const pairs = [1, 12, 5_000].map((keys) => {
    const own = withEntries(stage, async () => {}, keys)
    const label = `${keys.toLocaleString('en')} ${keys === 1 ? 'key' : 'keys'}`
    const ordered: Contender = {
      name: `ordered, ${label}`,
      role: 'toolkit',
      prepare: own.prepare,
      run: () => writers(own.entries(), (entry) => storage.database.transaction((sql) => storage.outbox.append(sql, [entry]))),
    }
    const bare: Contender = {
      name: `bare insert, ${label}`,
      role: 'floor',
      prepare: own.prepare,
      run: () => writers(own.entries(), (entry) => inTransaction(server.pool, (sql) => insertBare(sql, entry))),
    }
    return { ordered, bare }
  })
  return {
    id: 'F-keylock',
    pairs: true,
    title: `the price of the lock per key: ${WRITERS} writers, one event a transaction`,
    operations: 3_000,
    rounds: 3,
    warmups: 1,
    contenders: pairs.flatMap(({ ordered, bare }) => [ordered, bare]),
    targets: pairs.map(({ ordered, bare }) => ({ of: ordered.name, against: bare.name })),
    note: 'Both into the same table, BEGIN to COMMIT; the bare one takes no lock and keeps no order. Writers of one key wait for each other’s commit: that is the order. Ratios are the price; there is no target.',
  }
}

const INSERT_BARE = `
  insert into waybill_outbox (event_id, event_type, destination, topic, key, shard, headers, body)
  values ($1, $2, 'default', $3, $4, 0, $5, $6)`

const insertBare = (sql: pg.PoolClient, { eventType, message: { id, topic, key, headers, body } }: OutboxEntry): Promise<unknown> =>
  sql.query(INSERT_BARE, [id, eventType, topic, key, JSON.stringify(headers), Buffer.from(body.buffer, body.byteOffset, body.byteLength)])
