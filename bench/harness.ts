/** One way of doing the work of a row. */
export interface Contender {
  readonly name: string
  readonly role: 'toolkit' | 'peer' | 'floor'
  /** Does the work `operations` times, to the end. */
  readonly run: (operations: number) => void | Promise<void>
  /** Puts things in place for `operations`; not timed. */
  readonly prepare?: (operations: number) => void | Promise<void>
  /** Its own number, where the row's would take it too long: rates are compared all the same. @default the row's */
  readonly operations?: number
  /** Timed runs at most, for the slow ones. @default the row's */
  readonly rounds?: number
}

/** A ratio that the toolkit is held to, against another contender of the same run. */
export interface Target {
  /** Name of the toolkit's contender. @default the row's first toolkit contender */
  readonly of?: string
  readonly against: string
  /** Left out: printed, not judged. */
  readonly atLeast?: number
}

export interface Row {
  /** `A1`, `B2` ... */
  readonly id: string
  readonly title: string
  readonly contenders: readonly Contender[]
  readonly targets: readonly Target[]
  /** Operations of one timed run: fixed where they are part of the question, else found so that a run takes a tenth of a second. */
  readonly operations?: number
  /** Timed runs of each contender. @default 7 */
  readonly rounds?: number
  /** Untimed runs before, where `operations` is fixed. @default 2 */
  readonly warmups?: number
  /** Asked for once all have run. */
  readonly facts?: () => readonly Fact[] | Promise<readonly Fact[]>
  /** Only what `targets` names is compared: the contenders come in pairs. */
  readonly pairs?: boolean
  readonly note?: string
}

/** A figure that is no rate, and what it may be at most. */
export interface Fact {
  readonly name: string
  readonly value: string
  /** As text; judged by `met`. */
  readonly target?: string
  readonly met?: boolean
}

export interface Measured {
  readonly name: string
  readonly role: Contender['role']
  /** Operations per second, median of the rounds. */
  readonly perSecond: number
  /** Median absolute deviation, as a share of the median. */
  readonly spread: number
}

export interface Judged extends Target {
  readonly of: string
  /** Median of the ratios within each round: what drifts over a run drifts for both. */
  readonly ratio: number
  readonly met: boolean | undefined
}

export interface RowResult {
  readonly row: Row
  readonly measured: readonly Measured[]
  readonly judged: readonly Judged[]
  readonly facts: readonly Fact[]
}

/** How much of the work is done: all of it, or a tenth and twice, to see that it runs. */
export type Effort = 'full' | 'quick'

const RUN_MS = 100
const OPERATIONS_MAX = 20_000_000

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/**
 * Milliseconds that one run takes. Before it the garbage of the others goes; and since an engine forgets with it how to handle objects of which
 * none is left, and compiles that anew, the work is done once untimed, wherever it needs nothing put in place.
 */
async function time(contender: Contender, operations: number): Promise<number> {
  await contender.prepare?.(operations)
  globalThis.gc?.()
  if (contender.prepare === undefined) {
    await contender.run(operations)
    globalThis.gc?.({ type: 'minor' })
  }
  const started = performance.now()
  const running = contender.run(operations)
  if (running !== undefined) await running
  return performance.now() - started
}

/** How many operations take about `RUN_MS`; warms the contender up on the way. */
async function calibrate(contender: Contender, fixed: number | undefined, warmups: number): Promise<number> {
  if (fixed !== undefined) {
    for (let i = 0; i < warmups; i++) await time(contender, fixed)
    return fixed
  }
  let operations = 1
  for (;;) {
    const ms = await time(contender, operations)
    if (ms >= RUN_MS / 2 || operations >= OPERATIONS_MAX)
      return Math.min(OPERATIONS_MAX, Math.max(1, Math.round((operations * RUN_MS) / Math.max(ms, 0.001))))
    operations = Math.min(OPERATIONS_MAX, operations * (ms < 1 ? 10 : 2))
  }
}

/** Runs the contenders of a row in turn, in rounds, each round beginning with another one. */
export async function runRow(row: Row, effort: Effort): Promise<RowResult> {
  const rounds = effort === 'quick' ? 2 : (row.rounds ?? 7)
  const warmups = effort === 'quick' ? 1 : (row.warmups ?? 2)
  const operations = new Map<string, number>()
  for (const contender of row.contenders) {
    const fixed = contender.operations ?? row.operations
    const count = fixed === undefined || effort === 'full' ? fixed : Math.max(1, Math.round(fixed / 10))
    operations.set(contender.name, await calibrate(contender, count, warmups))
  }
  // By name and round; those with fewer rounds have gaps at the end.
  const rates = new Map<string, number[]>(row.contenders.map(({ name }) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < row.contenders.length; i++) {
      const contender = row.contenders[(i + round) % row.contenders.length]!
      if (round >= (contender.rounds ?? rounds)) continue
      const count = operations.get(contender.name)!
      rates.get(contender.name)!.push((count / (await time(contender, count))) * 1000)
    }
  }
  const measured = row.contenders.map(({ name, role }) => {
    const all = rates.get(name)!
    const perSecond = median(all)
    return { name, role, perSecond, spread: median(all.map((rate) => Math.abs(rate - perSecond))) / perSecond }
  })
  const toolkit = row.contenders.find(({ role }) => role === 'toolkit')!.name
  const judged = row.targets.map((target) => {
    const of = target.of ?? toolkit
    const others = rates.get(target.against)
    if (others === undefined) throw new Error(`row ${row.id} has no contender "${target.against}"`)
    const own = rates.get(of)!
    const ratio = median(own.slice(0, others.length).map((rate, round) => rate / others[round]!))
    return { ...target, of, ratio, met: target.atLeast === undefined ? undefined : ratio >= target.atLeast }
  })
  return { row, measured, judged, facts: (await row.facts?.()) ?? [] }
}
