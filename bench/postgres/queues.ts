import { Logger, makeWorkerUtils, run, type Runner, WorkerPreset } from 'graphile-worker'
import type pg from 'pg'
import { PgBoss } from 'pg-boss'
import { inBatches } from '../events.ts'
import { BUSINESS, inTransaction, NOTE } from './floor.ts'
import { countdown, objectOf, type Peer, until } from './peer.ts'
import type { Server } from './server.ts'

const QUEUE = 'events'
const BULK = 500
const CONCURRENT_JOBS = 24

/** graphile-worker with all that its documentation gives for throughput: a local queue of 500, completions in batches. */
export async function graphileWorker(stack: AsyncDisposableStack, { url, pool }: Server): Promise<Peer> {
  const logger = new Logger(() => () => {})
  const utils = await makeWorkerUtils({ connectionString: url, logger })
  stack.defer(() => utils.release())
  await utils.migrate()
  const specs = (entries: Parameters<Peer['fill']>[0]) => entries.map((entry) => ({ identifier: QUEUE, payload: objectOf(entry) }))
  const count = async (): Promise<number> =>
    Number((await pool.query<{ n: string }>('select count(*) as n from graphile_worker._private_jobs')).rows[0]!.n)

  const start = (worker: GraphileConfig.WorkerOptions, onEvent: () => void): Promise<Runner> =>
    run({
      connectionString: url,
      logger,
      noHandleSignals: true,
      preset: { extends: [WorkerPreset], worker: { concurrentJobs: CONCURRENT_JOBS, ...worker } },
      taskList: { [QUEUE]: async () => onEvent() },
    })

  return {
    name: 'graphile-worker',
    storeOne: (entry) =>
      inTransaction(pool, async (client) => {
        await client.query(BUSINESS, [NOTE])
        await client.query('select graphile_worker.add_job($1, $2::json)', [QUEUE, JSON.stringify(objectOf(entry))])
      }),
    storeMany: (entries) => utils.addJobs(specs(entries)),
    fill: (entries) => inBatches(entries, BULK, (batch) => utils.addJobs(specs(batch))),
    async drain(total) {
      const { one, done } = countdown(total)
      const runner = await start({ localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }, one)
      await done
      await until(async () => (await count()) === 0)
      await runner.stop()
    },
    clear: () => pool.query('truncate graphile_worker._private_jobs'),
    async serve(onEvent) {
      const runner = await start({}, onEvent)
      return () => runner.stop()
    },
  }
}

/** pg-boss by its fetch loop, which is faster than its own workers. */
export async function pgBoss(stack: AsyncDisposableStack, { url, pool }: Server): Promise<Peer> {
  const boss = new PgBoss({ connectionString: url, max: 10, supervise: false, schedule: false, useListenNotify: true })
  boss.on('error', () => {})
  await boss.start()
  stack.defer(() => boss.stop({ graceful: false }))
  await boss.createQueue(QUEUE, { notify: true })
  const jobs = (entries: Parameters<Peer['fill']>[0]) => entries.map((entry) => ({ data: objectOf(entry) }))
  const executorOf = (client: pg.PoolClient) => ({
    executeSql: (text: string, values?: unknown[]) => client.query(text, values) as Promise<{ rows: unknown[] }>,
  })
  return {
    name: 'pg-boss',
    storeOne: (entry) =>
      inTransaction(pool, async (client) => {
        await client.query(BUSINESS, [NOTE])
        await boss.send(QUEUE, objectOf(entry), { db: executorOf(client) })
      }),
    storeMany: (entries) => boss.insert(QUEUE, jobs(entries)),
    fill: (entries) => inBatches(entries, BULK, (batch) => boss.insert(QUEUE, jobs(batch))),
    async drain(total) {
      const handle = async (_job: unknown): Promise<void> => {}
      for (let done = 0; done < total;) {
        const fetched = await boss.fetch(QUEUE, { batchSize: BULK })
        for (const job of fetched) await handle(job)
        if (fetched.length > 0)
          await boss.complete(
            QUEUE,
            fetched.map(({ id }) => id),
          )
        done += fetched.length
      }
    },
    clear: () => boss.deleteAllJobs(QUEUE),
    async serve(onEvent) {
      await boss.work(QUEUE, { pollingIntervalSeconds: 0.5 }, async () => onEvent())
      return () => boss.offWork(QUEUE)
    },
  }
}
