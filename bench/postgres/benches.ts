import { postgresStorage } from 'waybill/postgres'
import { latencyBench } from '../latency.ts'
import { type Bench, benchOf } from '../report.ts'
import { BENCH_RELAY, claimRow, relayRow } from './drain.ts'
import { makeFloorTables } from './floor.ts'
import { idleRow, wakeRow } from './idle.ts'
import { millionBench } from './million.ts'
import { nestOutbox, pgTransactionalOutbox } from './outboxes.ts'
import type { Peer } from './peer.ts'
import { graphileWorker, pgBoss } from './queues.ts'
import { startServer } from './server.ts'
import { keyLockRow, type Stage, storeManyRow, storeOneRow } from './store.ts'

const IDS = ['F-store-1', 'F-store-200', 'F-claim', 'F-relay', 'F-idle', 'F-wake', 'F-million', 'F-keylock']

/** Rows F on a PostgreSQL server that is started for them. */
export async function postgresBenches(
  stack: AsyncDisposableStack,
  wanted: (id: string) => boolean,
): Promise<{ readonly benches: readonly Bench[]; readonly about?: string }> {
  if (!IDS.some(wanted)) return { benches: [] }
  const server = await startServer()
  stack.defer(() => server.stop())
  await makeFloorTables(server.pool)
  const storage = await postgresStorage(server.url, { poolMax: 30 })
  stack.defer(() => storage.close())
  await storage.migrate()
  const polling = await pgTransactionalOutbox(stack, server, 'polling')
  const nest = await nestOutbox(stack, server)
  const peers: readonly Peer[] = [await graphileWorker(stack, server), await pgBoss(stack, server), polling, nest]
  const replication = await pgTransactionalOutbox(stack, server, 'replication')
  const stage: Stage = {
    server,
    storage,
    peers,
    async clear() {
      await storage.outbox.relinquish(BENCH_RELAY)
      await server.pool.query('truncate waybill_outbox, floor_outbox, business')
    },
  }
  const makers: readonly [string, () => Promise<Bench> | Bench][] = [
    ['F-store-1', async () => benchOf(await storeOneRow(stack, stage))],
    ['F-store-200', () => benchOf(storeManyRow(stage))],
    ['F-claim', async () => benchOf(await claimRow(stack, stage))],
    ['F-relay', async () => benchOf(await relayRow(stack, { ...stage, peers: [...peers, replication] }))],
    ['F-idle', () => latencyBench(idleRow(stage))],
    ['F-wake', () => benchOf(wakeRow(stage))],
    ['F-million', () => millionBench(stage)],
    ['F-keylock', () => benchOf(keyLockRow(stage))],
  ]
  const benches: Bench[] = []
  for (const [id, make] of makers) if (wanted(id)) benches.push(await make())
  return { benches, about: server.description }
}
