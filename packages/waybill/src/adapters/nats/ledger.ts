/** What one owner has received of a partition, and what of it is unsettled. */
export interface Ledger {
  /** Notes a message that came. Gives back how many that were expected before it did not: the broker no longer has them. */
  take(sequence: number, bytes: number): number
  /** Whether a message is to be handed out: not where it was settled before. */
  isOpen(sequence: number): boolean
  settle(sequence: number): void
  /** Nothing of the partition is missing up to here. */
  advance(sequence: number): void
  readonly unsettled: number
  readonly unsettledBytes: number
  /** All up to here came, or is settled. */
  readonly received: number
  /** All up to `upTo` are settled, but for those of `open`. */
  position(): { readonly upTo: number; readonly open: number[] }
}

/** Longest list of unsettled messages below the highest settled one that is written down; what is above comes again after a crash. */
const OPEN_MAX = 2000

/** Goes on from where another owner was: all up to `upTo` are settled, but for those of `open`. */
export function createLedger(upTo: number, open: readonly number[]): Ledger {
  // Insertion order is sequence order.
  const unsettled = new Map<number, number>(open.map((sequence) => [sequence, 0]))
  const expected = [...open]
  const before = new Set(open)
  let bytes = 0
  let received = open.length === 0 ? upTo : open[0]! - 1
  let settled = upTo
  return {
    isOpen: (sequence) => sequence > upTo || before.has(sequence),
    take(sequence, size) {
      let gone = 0
      while (expected.length > 0 && expected[0]! < sequence) {
        unsettled.delete(expected.shift()!)
        gone++
      }
      if (expected[0] === sequence) expected.shift()
      unsettled.set(sequence, size)
      bytes += size
      received = sequence
      return gone
    },
    settle(sequence) {
      const size = unsettled.get(sequence)
      if (size === undefined) return
      unsettled.delete(sequence)
      bytes -= size
      if (sequence > settled) settled = sequence
    },
    advance(sequence) {
      if (unsettled.size > 0) return
      if (sequence > settled) settled = sequence
      if (sequence > received) received = sequence
    },
    get unsettled() {
      return unsettled.size
    },
    get unsettledBytes() {
      return bytes
    },
    get received() {
      return received
    },
    position() {
      const left: number[] = []
      for (const sequence of unsettled.keys()) {
        if (sequence > settled) break
        if (left.length === OPEN_MAX) return { upTo: sequence - 1, open: left }
        left.push(sequence)
      }
      return { upTo: settled, open: left }
    },
  }
}
