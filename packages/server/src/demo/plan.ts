import { CRASHPOINTS, type Crashpoint } from 'waybill/testing'

/** When and where one process of the demo dies. */
export interface PlannedKill {
  readonly point: Crashpoint
  /** It dies when it comes to the point for this time, counted from `afterInvoices`. */
  readonly hit: number
  /** Invoices published, in all, before the point is armed. */
  readonly afterInvoices: number
}

const HIT_MAX = 5

// Leases are renewed every few seconds only, and given back once, when all is done. Nothing fails in the demo, so nothing is ever held or parked, and
// only what a kill has left is charged.
const SELDOM: readonly Crashpoint[] = [
  'relay.afterAcquire',
  'relay.afterCharge',
  'relay.afterHold',
  'relay.afterPark',
  'relay.beforeRelinquish',
  'consume.beforePark',
]
const POINTS = CRASHPOINTS.filter((point) => !SELDOM.includes(point))

/**
 * Spreads `kills` evenly over the invoices and draws a crash point for each, each point once before any comes again. The same seed gives the same
 * plan. `kills` must be less than `invoices`, so that there is always work left to be killed in.
 */
export function planKills(seed: number, kills: number, invoices: number): readonly PlannedKill[] {
  const random = seededRandom(seed)
  const step = invoices / (kills + 1)
  // Near each other the kills must come soon, or the work would be over before the point is reached that often.
  const hitMax = Math.max(1, Math.min(HIT_MAX, Math.floor(step / 2)))
  let left: Crashpoint[] = []
  return Array.from({ length: kills }, (_, index) => {
    if (left.length === 0) left = [...POINTS]
    const [point] = left.splice(Math.floor(random() * left.length), 1) as [Crashpoint]
    return { point, hit: 1 + Math.floor(random() * hitMax), afterInvoices: Math.floor((index + 1) * step) }
  })
}

/** Numbers in [0, 1) that a seed determines (a 32-bit mix of a counter). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x9e3779b9) >>> 0
    let mixed = Math.imul(state ^ (state >>> 16), 0x85ebca6b)
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32
  }
}
