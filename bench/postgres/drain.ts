import { createRelay, type Storage } from 'waybill'
import type pg from 'pg'
import { inBatches } from '../events.ts'
import type { Contender, Row } from '../harness.ts'
import { claimFrom, DELETE, insertMany, SELECT_AFTER } from './floor.ts'
import { nowhere } from './nowhere.ts'
import { pipelinedClient } from './server.ts'
import { type Stage, withCleared, withEntries } from './store.ts'

const BATCH = 200
const FILL = 1_000
/** Who claims where no relay does. */
export const BENCH_RELAY = 'bench'
const TOTAL = 20_000

interface FloorRow {
  readonly id: string
  readonly topic: string
  readonly key: string
  readonly headers: string
  readonly body: Buffer
}

const fillWaybill = (storage: Storage, entries: Parameters<typeof insertMany>[1]): Promise<void> =>
  inBatches(entries, FILL, (batch) => storage.database.transaction((sql) => storage.outbox.append(sql, batch)))

/** Marks the last batch and selects the next one in one trip, at least once, for one relay alone. */
async function drainPipelined(client: pg.Client, total: number, publish: (rows: readonly FloorRow[]) => Promise<unknown>): Promise<void> {
  let previous: readonly FloorRow[] = []
  for (let done = 0; done < total || previous.length > 0;) {
    const [, { rows }] = await Promise.all([
      client.query(DELETE, [previous.map(({ id }) => id)]),
      client.query<FloorRow>(SELECT_AFTER, [BATCH, previous.at(-1)?.id ?? '0']),
    ])
    if (rows.length > 0) await publish(rows)
    done += rows.length
    previous = rows
  }
}

/** F-claim: claim and mark at least once, no broker. */
export async function claimRow(stack: AsyncDisposableStack, stage: Stage): Promise<Row> {
  const { server, storage } = stage
  const { outbox } = storage
  const own = withEntries(stage, async () => {})
  const client = await pipelinedClient(stack, server)
  const fill = async (count: number): Promise<void> => {
    await own.prepare(count)
    await fillWaybill(storage, own.entries())
    await server.pool.query('analyze waybill_outbox')
    await outbox.acquire(BENCH_RELAY, 3_600_000)
  }
  const fillFloor = async (count: number): Promise<void> => {
    await own.prepare(count)
    await inBatches(own.entries(), FILL, (batch) => insertMany(server.pool, batch))
    await server.pool.query('analyze floor_outbox')
  }
  const claim = (busy: readonly { topic: string; key: string }[], inFlight: readonly string[]) =>
    outbox.claim(BENCH_RELAY, { limit: BATCH, busy, inFlight })
  return {
    id: 'F-claim',
    title: `claim ${BATCH} and mark, at least once, no broker`,
    operations: TOTAL,
    rounds: 5,
    warmups: 1,
    contenders: [
      {
        name: 'waybill',
        role: 'toolkit',
        prepare: fill,
        // As its relay does: a batch is marked while the next one, of other keys, is claimed.
        async run(total) {
          let rows = await claim([], [])
          for (let done = 0; done < total;) {
            const ids = rows.map(({ rowId }) => rowId)
            const [marked, next] = await Promise.all([
              outbox.markPublished(BENCH_RELAY, ids),
              claim(
                rows.map(({ message: { topic, key } }) => ({ topic, key })),
                ids,
              ),
            ])
            done += marked
            rows = next.length > 0 || done >= total ? next : await claim([], [])
          }
        },
      },
      {
        name: 'waybill, one after the other',
        role: 'toolkit',
        prepare: fill,
        async run(total) {
          for (let done = 0; done < total;) {
            const rows = await claim([], [])
            done += await outbox.markPublished(
              BENCH_RELAY,
              rows.map(({ rowId }) => rowId),
            )
          }
        },
      },
      {
        name: 'UPDATE SKIP LOCKED, same table',
        role: 'floor',
        prepare: fill,
        async run(total) {
          const statement = claimFrom('waybill_outbox')
          for (let done = 0; done < total;) done += (await server.pool.query(statement, [BATCH])).rows.length
        },
      },
      {
        name: 'SELECT and DELETE, pipelined',
        role: 'floor',
        prepare: fillFloor,
        run: (total) => drainPipelined(client, total, async () => {}),
      },
    ],
    targets: [
      { against: 'UPDATE SKIP LOCKED, same table', atLeast: 1.2 },
      { against: 'SELECT and DELETE, pipelined', atLeast: 0.8 },
    ],
    note: 'UPDATE claims only, and loses what it had claimed when it dies. The pipelined floor is for one relay alone, and knows no held or parked keys.',
  }
}

/** F-relay: the whole relay, into nothing. */
export async function relayRow(stack: AsyncDisposableStack, stage: Stage): Promise<Row> {
  const { server, storage, peers } = stage
  const own = withEntries(stage, async () => {})
  const client = await pipelinedClient(stack, server)
  const fill = async (count: number): Promise<void> => {
    await own.prepare(count)
    await fillWaybill(storage, own.entries())
    await server.pool.query('analyze waybill_outbox')
  }
  const fillFloor = async (count: number): Promise<void> => {
    await own.prepare(count)
    await inBatches(own.entries(), FILL, (batch) => insertMany(server.pool, batch))
    await server.pool.query('analyze floor_outbox')
  }
  const publish = (rows: readonly FloorRow[]): Promise<unknown> =>
    nowhere.publish(
      rows.map(({ id, topic, key, headers, body }) => ({ id, topic, key, headers: JSON.parse(headers) as Record<string, string>, body })),
      new AbortController().signal,
    )
  const claimLoop = (size: number) => async (total: number) => {
    const statement = claimFrom('floor_outbox')
    for (let done = 0; done < total;) {
      const { rows } = await server.pool.query<FloorRow>(statement, [size])
      await publish(rows)
      await server.pool.query(DELETE, [rows.map(({ id }) => id)])
      done += rows.length
    }
  }
  return {
    id: 'F-relay',
    title: 'the whole relay, PostgreSQL to a transport that stores in memory',
    operations: TOTAL,
    rounds: 5,
    warmups: 1,
    contenders: [
      {
        name: 'waybill',
        role: 'toolkit',
        prepare: fill,
        async run(total) {
          const relay = createRelay({ store: storage.outbox, publishers: new Map([['default', nowhere]]) })
          const published = await relay.publishAllPending()
          if (published !== total) throw new Error(`${published} of ${total} rows were published`)
        },
      },
      { name: 'claim, publish, delete by hand', role: 'floor', prepare: fillFloor, run: claimLoop(BATCH) },
      { name: 'in order by hand, pipelined', role: 'floor', prepare: fillFloor, run: (total) => drainPipelined(client, total, publish) },
      { name: 'one by one', role: 'floor', prepare: fillFloor, operations: 1_000, rounds: 3, run: claimLoop(1) },
      ...peers.map((peer): Contender => ({
        name: peer.name,
        role: 'peer',
        prepare: async (count) => {
          await withCleared(own.prepare, peer)(count)
          await peer.fill(own.entries())
        },
        run: (total) => peer.drain(total),
        ...(peer.name.includes('outbox') ? { operations: 1_000, rounds: 2 } : {}),
      })),
    ],
    targets: [
      { against: 'claim, publish, delete by hand', atLeast: 0.85 },
      { against: 'in order by hand, pipelined', atLeast: 0.85 },
      { against: 'one by one', atLeast: 25 },
      ...(peers.some(({ name }) => name === 'graphile-worker') ? [{ against: 'graphile-worker', atLeast: 2 }] : []),
    ],
    note: 'Keys in order, leases, parked and held keys are Waybill’s; retries, schedules and a state per job are the queues’. pg-transactional-outbox by polling is timed to 95 of 100 messages: the last ones wait 5 s for their lock.',
  }
}
