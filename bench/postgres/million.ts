import { median } from '../harness.ts'
import { type Bench, perSecond, type Report, times, yesNo } from '../report.ts'
import { startDrain } from './child.ts'
import { BENCH_RELAY } from './drain.ts'
import type { Stage } from './store.ts'

const SMALL = 20_000
const MILLION = 1_000_000
const RSS_MAX_MB = 200
const RATE_MIN = 0.8
const CLAIMS = 7
const BATCH = 200
// As `waybill relay` starts.
const YOUNG = '--max-semi-space-size=16'

// As `append` writes them, but by the server itself: a million through a client would take minutes.
const FILL = `
  insert into waybill_outbox (event_id, event_type, destination, topic, key, shard, priority, headers, body)
  select gen_random_uuid()::text, 'order.OrderPlaced', 'default', 'order', k.key,
    (('x' || substr(md5('order' || E'\\n' || k.key), 1, 3))::bit(12)::int) % 64, 5,
    '{"event_id":"00000000-0000-0000-0000-000000000000","event_type":"order.OrderPlaced","content_type":"application/json"}',
    convert_to('{"event_id":"00000000-0000-0000-0000-000000000000","event_type":"order.OrderPlaced","payload":{"note":"' || repeat('x', 200) || '"}}', 'utf8')
  from generate_series(1, $1::int) g cross join lateral (select 'customer-' || g % 5000 as key) k`

async function fill({ server, clear }: Stage, rows: number): Promise<void> {
  await clear()
  await server.pool.query(FILL, [rows])
  await server.pool.query('vacuum (analyze) waybill_outbox')
}

/** Drains what is there by a relay in a process of its own. */
async function drained(
  { server }: Stage,
  rows: number,
  flags: readonly string[] = [],
): Promise<{ readonly rate: number; readonly rssMaxMb: number }> {
  const child = await startDrain(server.url, flags)
  const { rows: published, ms, rssMaxMb } = await child.next('drained')
  await child.stop()
  if (published !== rows) throw new Error(`${published} of ${rows} rows were published`)
  return { rate: (rows / ms) * 1000, rssMaxMb }
}

/** What one claim takes, in milliseconds. */
async function claimMs({ storage: { outbox } }: Stage): Promise<number> {
  await outbox.acquire(BENCH_RELAY, 3_600_000)
  const taken: number[] = []
  for (let i = 0; i < CLAIMS; i++) {
    const startedAt = performance.now()
    const rows = await outbox.claim(BENCH_RELAY, { limit: BATCH, busy: [] })
    taken.push(performance.now() - startedAt)
    if (rows.length !== BATCH) throw new Error(`${rows.length} rows could be claimed`)
  }
  await outbox.relinquish(BENCH_RELAY)
  return median(taken)
}

/** F-million: a backlog must not make the relay slow or big. */
export function millionBench(stage: Stage): Bench {
  return {
    id: 'F-million',
    async run(effort): Promise<Report> {
      const many = effort === 'quick' ? MILLION / 10 : MILLION
      const small: number[] = []
      const measureSmall = async (): Promise<void> => {
        await fill(stage, SMALL)
        small.push((await drained(stage, SMALL, [YOUNG])).rate)
      }
      await measureSmall()
      small.length = 0
      for (let i = 0; i < 3; i++) await measureSmall()
      await fill(stage, SMALL)
      const claimOfSmall = await claimMs(stage)
      await fill(stage, many)
      const claimOfMany = await claimMs(stage)
      const big = await drained(stage, many, [YOUNG])
      for (let i = 0; i < 2; i++) await measureSmall()
      await fill(stage, MILLION / 10)
      const unlimited = await drained(stage, MILLION / 10)
      await stage.clear()
      const ratio = big.rate / median(small)
      const slower = claimOfMany / claimOfSmall
      const count = many.toLocaleString('en')
      return {
        id: 'F-million',
        title: `a backlog of ${count} rows, drained by a relay in a process of its own`,
        columns: ['', 'figure', 'target', 'met'],
        lines: [
          [`**${count} rows**`, perSecond(big.rate), '', ''],
          [`_${SMALL.toLocaleString('en')} rows_ (median of ${small.length})`, perSecond(median(small)), '', ''],
          ['the million ÷ the small table', times(ratio), `≥ ${times(RATE_MIN)}`, yesNo(ratio >= RATE_MIN)],
          [
            'largest memory of the relay’s process (RSS)',
            `${big.rssMaxMb.toFixed(0)} MB`,
            `≤ ${RSS_MAX_MB} MB`,
            yesNo(big.rssMaxMb <= RSS_MAX_MB),
          ],
          [
            `the same, started without ${YOUNG}, ${(MILLION / 10).toLocaleString('en')} rows`,
            `${unlimited.rssMaxMb.toFixed(0)} MB`,
            '',
            '',
          ],
          [`one claim of ${BATCH} rows, small table`, `${claimOfSmall.toFixed(2)} ms`, '', ''],
          [`one claim of ${BATCH} rows, ${count} pending`, `${claimOfMany.toFixed(2)} ms`, '≤ 1.50 ×', yesNo(slower <= 1.5)],
        ],
        met: [ratio >= RATE_MIN, big.rssMaxMb <= RSS_MAX_MB, slower <= 1.5],
        note: 'The relay is the compiled library, as shipped. Most of its memory is V8’s young generation, which grows with any traffic, whatever is in use: the flag, which `waybill relay` gives itself, limits it. The small table’s time holds more of the start.',
      }
    },
  }
}
