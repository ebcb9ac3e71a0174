import { type Effort, median } from './harness.ts'
import { type Bench, named, type Report, yesNo } from './report.ts'

/** One way from a commit to a handler. */
export interface LatencyContender {
  readonly name: string
  readonly role: 'toolkit' | 'peer' | 'floor'
  /** Of a round. */
  readonly samples: number
  /** Starts what handles. `sample` writes one event and gives back the milliseconds from before its BEGIN until its handler was called. */
  readonly open: () => Promise<{ readonly sample: () => Promise<number>; readonly close: () => Promise<unknown> }>
}

export interface LatencyTarget {
  readonly of: string
  readonly against: string
  /** Median of `of` ÷ median of `against`, at most. */
  readonly atMost: number
}

export interface LatencyRow {
  readonly id: string
  readonly title: string
  readonly contenders: readonly LatencyContender[]
  readonly targets: readonly LatencyTarget[]
  readonly rounds: number
  readonly note: string
}

// Random, so that no sample falls into step with somebody's timer; and long enough for all to fall asleep in between.
const GAP_MIN_MS = 30
const GAP_MAX_MS = 330
const SETTLE_MS = 800
const SAMPLE_MAX_MS = 15_000

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!
}

async function limited(sample: Promise<number>, name: string): Promise<number> {
  const timer = new AbortController()
  const late = new Promise<never>((_, reject) => {
    const timeout = setTimeout(() => reject(new Error(`${name} did not handle an event in ${SAMPLE_MAX_MS} ms`)), SAMPLE_MAX_MS)
    timer.signal.addEventListener('abort', () => clearTimeout(timeout))
  })
  try {
    return await Promise.race([sample, late])
  } finally {
    timer.abort()
  }
}

async function samplesOf({ name, open, samples }: LatencyContender, effort: Effort): Promise<readonly number[]> {
  const { sample, close } = await open()
  const taken: number[] = []
  try {
    // The first ones prepare connections and plans.
    for (let i = 0; i < 3; i++) await limited(sample(), name)
    await pause(SETTLE_MS)
    for (let i = 0; i < (effort === 'quick' ? Math.ceil(samples / 10) : samples); i++) {
      await pause(GAP_MIN_MS + Math.random() * (GAP_MAX_MS - GAP_MIN_MS))
      taken.push(await limited(sample(), name))
    }
  } finally {
    await close()
  }
  return taken
}

export function latencyBench(row: LatencyRow): Bench {
  return {
    id: row.id,
    async run(effort): Promise<Report> {
      const taken = new Map<string, number[]>(row.contenders.map(({ name }) => [name, []]))
      for (let round = 0; round < (effort === 'quick' ? 1 : row.rounds); round++)
        for (let i = 0; i < row.contenders.length; i++) {
          const contender = row.contenders[(i + round) % row.contenders.length]!
          taken.get(contender.name)!.push(...(await samplesOf(contender, effort)))
        }
      const of = (name: string): number => median(taken.get(name)!)
      const ms = (value: number): string => `${value.toFixed(value < 10 ? 2 : 0)} ms`
      const judged = row.targets.map((target) => {
        const ratio = of(target.of) / of(target.against)
        return { ...target, ratio, met: ratio <= target.atMost }
      })
      return {
        id: row.id,
        title: row.title,
        columns: ['', 'p50', 'p99', 'samples', 'ratio of p50', 'target', 'met'],
        lines: [
          ...row.contenders.map(({ name, role }) => {
            const all = taken.get(name)!
            return [named(name, role), ms(median(all)), ms(quantile(all, 0.99)), String(all.length), '', '', '']
          }),
          ...judged.map(({ of: own, against, ratio, atMost, met }) => {
            const digits = ratio < 0.1 ? ratio.toFixed(3) : ratio.toFixed(2)
            return [
              `${own} ÷ ${against}`,
              '',
              '',
              '',
              `${digits} ×`,
              `≤ ${atMost < 0.1 ? String(atMost) : atMost.toFixed(2)} ×`,
              yesNo(met),
            ]
          }),
        ],
        met: judged.map(({ met }) => met),
        note: row.note,
      }
    },
  }
}
