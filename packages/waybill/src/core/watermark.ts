import { WaybillError } from './errors.ts'

/** The contiguous prefix of finished positions of one partition: what may be committed. */
export interface Watermark {
  /** Notes that work on `sequence` began. Sequences rise; gaps are positions that hold no message. */
  begin(sequence: bigint): void
  /** Notes that it ended; gives back the highest sequence that may be committed, if it has moved. */
  finish(sequence: bigint): bigint | undefined
  /** How many began and have not been passed yet. */
  readonly size: number
}

/** `sizeMax` bounds how far work may run ahead of the oldest unfinished position. */
export function createWatermark(sizeMax = 100_000): Watermark {
  // Insertion order is sequence order, so the first entry is always the oldest.
  const finished = new Map<bigint, boolean>()
  let highest: bigint | undefined
  return {
    begin(sequence) {
      if (highest !== undefined && sequence <= highest)
        throw new WaybillError('INVALID_OPTION', 'positions of a partition must rise', {
          got: sequence,
          allowed: `more than ${highest}`,
          where: 'watermark',
        })
      if (finished.size >= sizeMax)
        throw new WaybillError('QUEUE_FULL', 'too much unfinished work in one partition', {
          got: finished.size,
          allowed: `at most ${sizeMax}`,
          where: 'watermark',
        })
      highest = sequence
      finished.set(sequence, false)
    },
    finish(sequence) {
      if (!finished.has(sequence)) return undefined
      finished.set(sequence, true)
      let committable: bigint | undefined
      for (const [at, done] of finished) {
        if (!done) break
        finished.delete(at)
        committable = at
      }
      return committable
    },
    get size() {
      return finished.size
    },
  }
}
