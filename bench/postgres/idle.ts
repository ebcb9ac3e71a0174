import { createWaybill, type OutboxEntry } from 'waybill'
import { postgresStorage } from 'waybill/postgres'
import { entriesOf } from '../events.ts'
import type { Contender, Row } from '../harness.ts'
import type { LatencyContender, LatencyRow } from '../latency.ts'
import { type Child, startChild } from './child.ts'
import { Pinged, pingContext, RAW_CHANNEL } from './child-process.ts'
import { inTransaction, insertOne } from './floor.ts'
import type { Peer } from './peer.ts'
import type { Stage } from './store.ts'

const SAMPLES = 40
const SAMPLES_OF_POLLERS = 10
const PRODUCERS = 10

const now = (): bigint => process.hrtime.bigint()
const msSince = (startedAt: bigint, at: bigint): number => Number(at - startedAt) / 1e6

/** Writes and handles in one process: the relay is woken by the unit of work. */
function ownProcess({ server }: Stage): LatencyContender {
  return {
    name: 'waybill, own process',
    role: 'toolkit',
    samples: SAMPLES,
    async open() {
      let arrived: (() => void) | undefined
      const database = await postgresStorage(server.url)
      const waybill = await createWaybill({ contexts: [pingContext(() => arrived?.())], database })
      await waybill.start()
      let i = 0
      return {
        async sample() {
          const handled = new Promise<bigint>((resolve) => (arrived = () => resolve(now())))
          const startedAt = now()
          await waybill.unitOfWork((unit) => unit.publish(Pinged({ id: `k-${i++ % 1_000}` })))
          return msSince(startedAt, await handled)
        },
        close: () => waybill.stop(),
      }
    },
  }
}

/** Writes here, handles there. */
function otherProcess({ server }: Stage, listen: boolean): LatencyContender {
  return {
    name: listen ? 'waybill, other process, hints' : 'waybill, other process, polling',
    role: 'toolkit',
    samples: listen ? SAMPLES : SAMPLES_OF_POLLERS,
    async open() {
      const child = await startChild({ kind: 'handle', url: server.url, listen })
      const database = await postgresStorage(server.url)
      // Never started: it only writes.
      const waybill = await createWaybill({ contexts: [pingContext(() => {})], database })
      let i = 0
      return {
        async sample() {
          const handled = child.next('handled')
          const startedAt = now()
          await waybill.unitOfWork((unit) => unit.publish(Pinged({ id: `k-${i++ % 1_000}` })))
          return msSince(startedAt, BigInt((await handled).at))
        },
        async close() {
          await child.stop()
          await waybill.stop()
        },
      }
    },
  }
}

/** `pg_notify` in the transaction, `LISTEN` in another process, one DELETE there. No order, no inbox, no lease. */
function rawNotify({ server }: Stage): LatencyContender {
  return {
    name: 'LISTEN and NOTIFY by hand',
    role: 'floor',
    samples: SAMPLES,
    async open() {
      const child = await startChild({ kind: 'raw', url: server.url })
      const [entry] = entriesOf(1)
      return {
        async sample() {
          const handled = child.next('handled')
          const startedAt = now()
          await inTransaction(server.pool, async (client) => {
            await insertOne(client, entry!)
            await client.query(`select pg_notify('${RAW_CHANNEL}', '')`)
          })
          return msSince(startedAt, BigInt((await handled).at))
        },
        close: () => child.stop(),
      }
    },
  }
}

function ofPeer(peer: Peer, samples: number): LatencyContender {
  return {
    name: peer.name,
    role: 'peer',
    samples,
    async open() {
      let arrived: (() => void) | undefined
      await peer.clear()
      const close = await peer.serve(() => arrived?.())
      return {
        async sample() {
          const handled = new Promise<bigint>((resolve) => (arrived = () => resolve(now())))
          const [entry] = entriesOf(1)
          const startedAt = now()
          await peer.storeOne(entry!)
          return msSince(startedAt, await handled)
        },
        close,
      }
    },
  }
}

/** F-idle: from before BEGIN until the handler is called, where nothing else happens. */
export function idleRow(stage: Stage): LatencyRow {
  const own = ownProcess(stage)
  const hinted = otherProcess(stage, true)
  const raw = rawNotify(stage)
  const peers = stage.peers.map((peer) => ofPeer(peer, peer.name.includes('outbox') ? SAMPLES_OF_POLLERS : SAMPLES))
  const listening = peers.filter(({ samples }) => samples === SAMPLES)
  const polling = peers.filter(({ samples }) => samples !== SAMPLES)
  return {
    id: 'F-idle',
    title: 'from commit to handler when idle',
    rounds: 2,
    contenders: [own, hinted, otherProcess(stage, false), raw, ...peers],
    targets: [
      { of: own.name, against: raw.name, atMost: 1.25 },
      { of: hinted.name, against: raw.name, atMost: 1.25 },
      ...listening.filter(({ name }) => name === 'graphile-worker').map(({ name }) => ({ of: hinted.name, against: name, atMost: 1 })),
      ...polling.map(({ name }) => ({ of: hinted.name, against: name, atMost: 0.01 })),
    ],
    note: 'Timed from before BEGIN; commits wait for the disk. Waybill’s handlers run through the inbox, in a transaction, in order of the keys; the peers’ run in the writer’s process. pg-boss listens too; pg-transactional-outbox and nestjs-outbox look each 500 ms.',
  }
}

/** F-wake: what telling relays costs those who write. */
export function wakeRow(stage: Stage): Row {
  const { server, storage } = stage
  let child: Child | undefined
  let entries: readonly OutboxEntry[] = []
  const contender = (name: string, role: Contender['role'], listen: boolean, notified: boolean): Contender => ({
    name,
    role,
    async prepare(count) {
      await child?.stop()
      await stage.clear()
      child = await startChild({ kind: 'relay', url: server.url, listen, notified })
      entries = entriesOf(count)
    },
    async run() {
      const waiting = entries.values()
      await Promise.all(
        Array.from({ length: PRODUCERS }, async () => {
          for (const entry of waiting)
            await storage.database.transaction(async (sql) => {
              await storage.outbox.append(sql, [entry])
              if (notified) await sql.query(`select pg_notify('${RAW_CHANNEL}', '')`)
            })
        }),
      )
    },
  })
  return {
    id: 'F-wake',
    title: `the cost of wake-ups to ${PRODUCERS} producers`,
    operations: 4_000,
    rounds: 5,
    warmups: 1,
    contenders: [
      contender('waybill, hints', 'toolkit', true, false),
      contender('no hints', 'floor', false, false),
      contender('NOTIFY at each commit', 'floor', false, true),
    ],
    targets: [{ against: 'no hints', atLeast: 0.95 }],
    async facts() {
      await child?.stop()
      child = undefined
      return []
    },
    note: 'One event a transaction; in all three a relay in another process drains what is written meanwhile.',
  }
}
