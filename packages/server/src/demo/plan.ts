import { WaybillError } from 'waybill'
import { CRASHPOINTS, type Crashpoint } from 'waybill/testing'

/** When and where one process of the demo dies. */
export interface PlannedKill {
  readonly point: Crashpoint
  /** It dies when it comes to the point for this time, counted from `afterInvoices`. */
  readonly hit: number
  /** Invoices published, in all, before the point is armed. */
  readonly afterInvoices: number
}

/** Where in the load the broker is taken away and brought back, in invoices published. */
export interface Outage {
  readonly mode: 'kill' | 'graceful'
  /** It goes now; the shop goes on once it is gone. */
  readonly goneAt: number
  /** The shop waits here until it is back, so that something is left for afterwards. */
  readonly backAt: number
}

const HIT_MAX = 5
const OUTAGE_INVOICES_MIN = 16

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
 * plan. `kills` must be less than `invoices`, so that there is always work left to be killed in. `processes` share the work, and so the ways past a point.
 */
export function planKills(seed: number, kills: number, invoices: number, processes = 1): readonly PlannedKill[] {
  const random = seededRandom(seed)
  const step = invoices / (kills + 1)
  // Near each other the kills must come soon, or the work would be over before the point is reached that often.
  const hitMax = Math.max(1, Math.min(Math.floor(HIT_MAX / processes), Math.floor(step / 2 / processes)))
  let left: Crashpoint[] = []
  return Array.from({ length: kills }, (_, index) => {
    if (left.length === 0) left = [...POINTS]
    const [point] = left.splice(Math.floor(random() * left.length), 1) as [Crashpoint]
    return { point, hit: 1 + Math.floor(random() * hitMax), afterInvoices: Math.floor((index + 1) * step) }
  })
}

/**
 * Two outages of the broker for so many invoices: first it is killed, later stopped in good order. Each begins in the middle between two kills where
 * there are five, and leaves an eighth of the load for afterwards.
 * @throws WaybillError `INVALID_SETTING` where there are too few invoices
 */
export function planOutages(invoices: number): readonly Outage[] {
  if (invoices < OUTAGE_INVOICES_MIN)
    throw new WaybillError('INVALID_SETTING', '--restart-broker needs more invoices, so that some are left for afterwards', {
      got: invoices,
      allowed: `at least ${OUTAGE_INVOICES_MIN}`,
    })
  const at = (share: number): number => Math.floor(invoices * share)
  return [
    { mode: 'kill', goneAt: at(0.25), backAt: at(0.375) },
    { mode: 'graceful', goneAt: at(0.75), backAt: at(0.875) },
  ]
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
