/** Durations in buckets that grow by a constant factor: a fixed amount of memory, whatever is added. */
export interface Histogram {
  add(ms: number): void
  merge(other: Histogram): void
  /** Zero where nothing was added. */
  average(): number
  /** An upper bound of the duration that `part` (0 to 1) of what was added does not exceed, at most 9 % above it. Zero where nothing was added. */
  percentile(part: number): number
  clear(): void
  /** The counts behind it. */
  readonly counts: Readonly<Float64Array>
  readonly sumMs: number
  readonly maxMs: number
}

// Eight buckets per doubling, from a hundredth of a millisecond to half an hour.
const SMALLEST_MS = 0.01
const PER_DOUBLING = 8
const BUCKETS = 220

export function createHistogram(): Histogram {
  const counts = new Float64Array(BUCKETS)
  let sumMs = 0
  let maxMs = 0

  function total(): number {
    return counts.reduce((sum, count) => sum + count, 0)
  }

  return {
    add(ms) {
      // A clock that was set back would give less than nothing.
      const value = ms > 0 ? ms : 0
      counts[bucketOf(value)]!++
      sumMs += value
      maxMs = Math.max(maxMs, value)
    },
    merge(other) {
      for (let i = 0; i < BUCKETS; i++) counts[i]! += other.counts[i]!
      sumMs += other.sumMs
      maxMs = Math.max(maxMs, other.maxMs)
    },
    average() {
      const n = total()
      return n === 0 ? 0 : sumMs / n
    },
    percentile(part) {
      let left = Math.max(1, Math.ceil(total() * part))
      for (let i = 0; i < BUCKETS; i++) {
        left -= counts[i]!
        if (left <= 0) return Math.min(SMALLEST_MS * 2 ** (i / PER_DOUBLING), maxMs)
      }
      return maxMs
    },
    clear() {
      counts.fill(0)
      sumMs = 0
      maxMs = 0
    },
    counts,
    get sumMs() {
      return sumMs
    },
    get maxMs() {
      return maxMs
    },
  }
}

function bucketOf(ms: number): number {
  if (ms <= SMALLEST_MS) return 0
  return Math.min(BUCKETS - 1, Math.ceil(Math.log2(ms / SMALLEST_MS) * PER_DOUBLING))
}
