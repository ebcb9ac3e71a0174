import { once } from 'node:events'
import { createRelay, createWaybill, defineContext, defineEvent, on, type RelayOptions, type Storage } from 'waybill'
import { postgresStorage } from 'waybill/postgres'
import pg from 'pg'
import { nowhere } from './nowhere.ts'

/** What a process beside the bench is to do, until the bench lets go of it. */
export type ChildJob = { readonly url: string } & (
  | { readonly kind: 'handle' | 'relay'; readonly listen: boolean; readonly notified?: boolean }
  | { readonly kind: 'raw' }
)

export type ChildReport =
  | { readonly kind: 'ready' }
  /** By a clock that all processes of a machine share. */
  | { readonly kind: 'handled'; readonly at: string }
  | { readonly kind: 'drained'; readonly rows: number; readonly ms: number; readonly rssMaxMb: number }

export const RAW_CHANNEL = 'bench_raw'

export const Pinged = defineEvent<{ readonly id: string }>('bench.Pinged', { key: ({ id }) => id })

export const pingContext = (onPing: () => void) =>
  defineContext('bench', {
    events: [Pinged],
    handlers: { ping: on([Pinged], async () => onPing(), { ordered: true }) },
    publish: 'INTER_BC_RELIABLE',
  })

const report = (message: ChildReport): void => void process.send!(message)
const handled = (): void => report({ kind: 'handled', at: String(process.hrtime.bigint()) })
const untilLetGo = (): Promise<unknown> => once(process, 'disconnect')

/** A relay, told of commits or left to look. */
async function relay(storage: Storage, listen: boolean): Promise<void> {
  const stop = new AbortController()
  const options: RelayOptions = { store: storage.outbox, publishers: new Map([['default', nowhere]]), listen }
  const running = createRelay(options).run(stop.signal)
  report({ kind: 'ready' })
  await untilLetGo()
  stop.abort()
  await running
}

/** Handlers, with inbox. */
async function handle(storage: Storage, listen: boolean): Promise<void> {
  const options = { contexts: [pingContext(handled)], database: storage, relay: { listen } }
  const waybill = await createWaybill(options)
  await waybill.start()
  report({ kind: 'ready' })
  await untilLetGo()
  await waybill.stop()
}

/** `LISTEN` by hand: told of a commit, it takes what is there and hands it on. */
async function raw(url: string): Promise<void> {
  const client = new pg.Client(url)
  await client.connect()
  client.on('notification', () => {
    void client.query(`delete from floor_outbox where status = 'pending' returning id, headers, body`).then(({ rows }) => {
      for (const _ of rows) handled()
    })
  })
  await client.query(`listen ${RAW_CHANNEL}`)
  report({ kind: 'ready' })
  await untilLetGo()
  await client.end()
}

async function main(job: ChildJob): Promise<void> {
  if (job.kind === 'raw') return raw(job.url)
  const storage = await postgresStorage(job.url, { listen: 'listen' in job && job.listen })
  // Somebody must listen, or notifications cost nothing.
  const listener = 'notified' in job && job.notified === true ? new pg.Client(job.url) : undefined
  await listener?.connect()
  await listener?.query(`listen ${RAW_CHANNEL}`)
  if (job.kind === 'handle') await handle(storage, job.listen)
  if (job.kind === 'relay') await relay(storage, job.listen)
  await listener?.end()
  await storage.close()
}

if (process.argv[1] === import.meta.filename) await main(JSON.parse(process.argv[2]!) as ChildJob)
