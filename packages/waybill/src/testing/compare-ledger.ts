/** An event whose transaction was committed, with the version that its key's business row had then: versions are the order of commits. */
export interface Committed {
  readonly key: string
  readonly version: number
}

/** What came out, compared with what was committed. */
export interface Comparison {
  readonly committed: number
  /** Committed, and never arrived. */
  readonly lost: number
  /** Arrived, and never committed. */
  readonly unexpected: number
  /** Arrivals beyond the first of each event: the price of at-least-once. */
  readonly repeats: number
  /** First arrivals that came after a later one of their key. */
  readonly orderViolations: number
}

/** `arrived`: ids of events, in the order of their arrival. */
export function compareLedger(committed: ReadonlyMap<string, Committed>, arrived: readonly string[]): Comparison {
  const seen = new Set<string>()
  const highest = new Map<string, number>()
  let unexpected = 0
  let orderViolations = 0
  for (const id of arrived) {
    if (seen.has(id)) continue
    seen.add(id)
    const event = committed.get(id)
    if (event === undefined) {
      unexpected++
      continue
    }
    if (event.version < (highest.get(event.key) ?? 0)) orderViolations++
    else highest.set(event.key, event.version)
  }
  const lost = [...committed.keys()].filter((id) => !seen.has(id)).length
  return { committed: committed.size, lost, unexpected, repeats: arrived.length - seen.size, orderViolations }
}
