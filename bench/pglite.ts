import { createWaybill, defineContext, defineEvent, on, type OutboxEntry, type Storage } from 'waybill'
import { pgliteStorage } from 'waybill/postgres'
import { entriesOf, inBatches } from './events.ts'
import type { Row } from './harness.ts'

// The floors are what one writes by hand for the same job on the same database: a table of the same columns and index, and the best statement known.

const FLOOR_TABLES = [
  `create table floor_outbox (
     id bigint generated always as identity primary key, event_id text not null, event_type text not null, topic text not null, key text not null,
     priority int not null, headers text not null, body bytea not null, status text not null default 'pending',
     created_at timestamptz not null default clock_timestamp()
   )`,
  `create index on floor_outbox (id) where status = 'pending'`,
  'create table floor_inbox (event_id text primary key)',
]
const FLOOR_INSERT = `
  insert into floor_outbox (event_id, event_type, topic, key, priority, headers, body)
  select event_id, event_type, topic, key, priority, headers, decode(body, 'base64')
  from json_to_recordset($1::json) as r(event_id text, event_type text, topic text, key text, priority int, headers text, body text)`
const FLOOR_CLAIM = `
  update floor_outbox set status = 'claimed' where id in (
    select o.id from floor_outbox o where o.status = 'pending' order by o.id limit $1::int for update skip locked
  ) returning id, topic, key, headers, body`

const FLOOR_SELECT = `select o.id, o.topic, o.key, o.headers, o.body from floor_outbox o where o.status = 'pending' order by o.id limit $1::int`
const FLOOR_DELETE = 'delete from floor_outbox where id = any($1::bigint[])'

const INSERT_BATCH = 200
const CLAIM_BATCH = 1_000
const RELAY = 'bench'

async function insertByHand(storage: Storage, entries: readonly OutboxEntry[]): Promise<void> {
  const rows = entries.map(({ eventType, message: { id, topic, key, headers, body } }) => ({
    event_id: id,
    event_type: eventType,
    topic,
    key,
    priority: 5,
    headers: JSON.stringify(headers),
    body: Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('base64'),
  }))
  await storage.database.transaction((sql) => sql.query(FLOOR_INSERT, [JSON.stringify(rows)]))
}

const insert = (storage: Storage, entries: readonly OutboxEntry[]): Promise<unknown> =>
  storage.database.transaction((sql) => storage.outbox.append(sql, entries))

/** Commit to handler, one event at a time. */
async function latencyContenders(stack: AsyncDisposableStack, storage: Storage) {
  const Pinged = defineEvent<{ readonly id: string }>('bench.Pinged', { key: ({ id }) => id })
  let arrived: (() => void) | undefined
  const context = defineContext('bench', {
    events: [Pinged],
    handlers: { ping: on([Pinged], async () => arrived?.(), { ordered: true }) },
    publish: 'INTER_BC_RELIABLE',
  })
  const own = await pgliteStorage('memory://')
  await own.migrate()
  const waybill = stack.use(await createWaybill({ contexts: [context], database: own }))
  await waybill.start()
  return {
    async toolkit(operations: number): Promise<void> {
      for (let i = 0; i < operations; i++) {
        const handled = new Promise<void>((resolve) => (arrived = resolve))
        await waybill.unitOfWork((unit) => unit.publish(Pinged({ id: `k-${i % 1_000}` })))
        await handled
      }
    },
    async floor(operations: number): Promise<void> {
      for (const entry of entriesOf(operations)) {
        await insertByHand(storage, [entry])
        const { rows } = await storage.database.query<{ id: unknown }>(FLOOR_CLAIM, [CLAIM_BATCH])
        await storage.database.transaction((sql) =>
          sql.query('insert into floor_inbox values ($1) on conflict do nothing returning event_id', [entry.message.id]),
        )
        await storage.database.query(FLOOR_DELETE, [rows.map(({ id }) => String(id))])
      }
    },
  }
}

/** Rows F on PGlite: store, claim, commit to handler. */
export async function pgliteRows(stack: AsyncDisposableStack): Promise<readonly Row[]> {
  const storage = await pgliteStorage('memory://')
  stack.defer(() => storage.close())
  await storage.migrate()
  for (const statement of FLOOR_TABLES) await storage.database.query(statement)
  await storage.outbox.acquire(RELAY, 3_600_000)
  // PGlite has no autovacuum: without this each round would walk the last one's dead rows.
  const clear = async (): Promise<void> => void (await storage.database.query('truncate waybill_outbox, floor_outbox, floor_inbox'))
  let entries: readonly OutboxEntry[] = []
  const fresh = async (count: number): Promise<void> => {
    await clear()
    entries = entriesOf(count)
  }
  const fillByHand = async (count: number): Promise<void> => {
    await fresh(count)
    await inBatches(entries, CLAIM_BATCH, (batch) => insertByHand(storage, batch))
  }
  const latency = await latencyContenders(stack, storage)
  return [
    {
      id: 'F1',
      title: `store, ${INSERT_BATCH} events a transaction (PGlite)`,
      operations: 5_000,
      rounds: 5,
      contenders: [
        {
          name: 'waybill',
          role: 'toolkit',
          prepare: fresh,
          run: () => inBatches(entries, INSERT_BATCH, (batch) => insert(storage, batch)),
        },
        {
          name: 'insert by hand',
          role: 'floor',
          prepare: fresh,
          run: () => inBatches(entries, INSERT_BATCH, (batch) => insertByHand(storage, batch)),
        },
      ],
      targets: [{ against: 'insert by hand', atLeast: 0.8 }],
      note: 'Waybill locks the keys before it numbers the rows, which is what keeps their order; by hand nothing keeps it.',
    },
    {
      id: 'F2',
      title: `claim ${CLAIM_BATCH} and mark (PGlite)`,
      operations: 5_000,
      rounds: 5,
      contenders: [
        {
          name: 'waybill',
          role: 'toolkit',
          prepare: async (count: number) => {
            await fresh(count)
            await inBatches(entries, CLAIM_BATCH, (batch) => insert(storage, batch))
          },
          async run(operations: number) {
            for (let done = 0; done < operations;) {
              const rows = await storage.outbox.claim(RELAY, { limit: CLAIM_BATCH, busy: [] })
              if (rows.length === 0) throw new Error(`${done} of ${operations} rows could be claimed`)
              done += await storage.outbox.markPublished(
                RELAY,
                rows.map(({ rowId }) => rowId),
              )
            }
          },
        },
        {
          name: 'UPDATE SKIP LOCKED',
          role: 'floor',
          prepare: fillByHand,
          async run(operations: number) {
            for (let done = 0; done < operations;) done += (await storage.database.query(FLOOR_CLAIM, [CLAIM_BATCH])).rows.length
          },
        },
        {
          name: 'SELECT and DELETE',
          role: 'floor',
          prepare: fillByHand,
          async run(operations: number) {
            for (let done = 0; done < operations;) {
              const { rows } = await storage.database.query<{ id: unknown }>(FLOOR_SELECT, [CLAIM_BATCH])
              await storage.database.query(FLOOR_DELETE, [rows.map(({ id }) => String(id))])
              done += rows.length
            }
          },
        },
      ],
      targets: [{ against: 'UPDATE SKIP LOCKED', atLeast: 0.8 }],
      note: 'Waybill claims, gives back the messages and marks them, per shard and in order of the keys; UPDATE claims only, and loses what it had claimed when it dies; SELECT and DELETE is for one relay alone.',
    },
    {
      id: 'F3',
      title: 'commit to handler, one at a time (PGlite)',
      operations: 300,
      rounds: 5,
      contenders: [
        { name: 'waybill', role: 'toolkit', prepare: clear, run: (operations: number) => latency.toolkit(operations) },
        { name: 'four statements by hand', role: 'floor', prepare: clear, run: (operations: number) => latency.floor(operations) },
      ],
      targets: [{ against: 'four statements by hand', atLeast: 0.8 }],
      note: 'By hand: insert, claim, record as handled, delete, each awaited.',
    },
  ]
}
