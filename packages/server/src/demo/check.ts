import { CONSUMERS, type EffectKey, type Expected } from './expected.ts'
import type { DemoBroker, DemoDatabase } from './setup.ts'

/** One thing a consumer did, as it stands in the table without a unique constraint. */
export interface Effect extends EffectKey {
  readonly eventId: string
  /** Id of the event that led to it. */
  readonly causationId: string | undefined
}

/** One delivery, as it was logged outside the database. */
export interface LoggedDelivery {
  readonly consumer: string
  readonly eventId: string
}

/** What was found when everything had come to rest. */
export interface Found {
  /** In the order in which they were written. */
  readonly effects: readonly Effect[]
  /** In the order in which they came. */
  readonly deliveries: readonly LoggedDelivery[]
  readonly revenuePence: ReadonlyMap<string, number>
  readonly stock: ReadonlyMap<string, number>
  readonly kills: number
  readonly killsPlanned: number
  readonly deadLetters: number
  readonly outboxPending: number
}

/** The result of the demo, as `--json` prints it. */
export interface DemoResult {
  readonly invoices: number
  readonly lines: number
  /** Distinct events by type, as the ledger saw them. */
  readonly published: Readonly<Record<string, number>>
  /** Distinct events by consumer. */
  readonly handled: Readonly<Record<string, number>>
  /** Deliveries beyond the first of an event to a consumer. */
  readonly redelivered: number
  readonly kills: number
  /** Effects that the file calls for and nobody had. */
  readonly lost: number
  /** Effects beyond those that the file calls for. */
  readonly duplicateEffects: number
  /** Events that came to the ordered consumer after a later one of their key. */
  readonly orderViolations: number
  readonly revenuePence: Readonly<Record<string, number>>
  readonly stock: Readonly<Record<string, number>>
  readonly broker: DemoBroker
  readonly database: DemoDatabase
  /** At work at the same time. */
  readonly processes: number
  readonly brokerRestarts: number
  /**
   * For each restart: from the broker's first answer until stock, revenue and ledger had each been given an event that was made after it; where nothing
   * came any more, until the end.
   */
  readonly recoverySeconds: readonly number[]
  readonly seconds: number
}

/** What the check says. */
export interface Verdict {
  readonly result: Omit<DemoResult, 'broker' | 'database' | 'processes' | 'brokerRestarts' | 'recoverySeconds' | 'seconds'>
  /** Everything that is not as it must be, in words; empty where all is well. */
  readonly problems: readonly string[]
}

const EXAMPLES = 3

/** Compares what the consumers did with what the file calls for. */
export function checkFound(expected: Expected, found: Found): Verdict {
  const { missing, extra } = compareEffects(expected.effects, found.effects)
  const ledger = found.effects.filter(({ consumer }) => consumer === 'ledger')
  const byEvent = new Map(ledger.map((effect) => [effect.eventId, effect]))
  const delivered = found.deliveries.filter(({ consumer }) => consumer === 'ledger').map(({ eventId }) => eventId)
  const arrivals = [...new Set(delivered)].flatMap((eventId) => byEvent.get(eventId) ?? [])
  // Order is of what was done and of what came: an early delivery that was put right by luck counts too.
  const violations = new Set([...outOfOrder(ledger), ...outOfOrder(arrivals)])
  const problems = [
    ...list('lost: nobody saw', missing),
    ...list('duplicate or uncalled-for effect', extra),
    ...list('out of order', [...violations]),
    ...compareTotals('revenuePence', expected.revenuePence, found.revenuePence),
    ...compareTotals('stock', expected.stock, found.stock),
    ...checkTraces(ledger, new Set(delivered)),
    ...(found.kills === found.killsPlanned ? [] : [`killed ${found.kills} times instead of ${found.killsPlanned}`]),
    ...(found.deadLetters === 0 ? [] : [`${found.deadLetters} messages are dead-lettered`]),
    ...(found.outboxPending === 0 ? [] : [`${found.outboxPending} rows are still in the outbox`]),
  ]
  return {
    result: {
      invoices: distinct(ledger.filter(({ topic }) => topic === 'order')),
      lines: expected.lines,
      published: countBy(ledger, ({ eventType }) => eventType),
      handled: { ...Object.fromEntries(CONSUMERS.map((consumer) => [consumer, 0])), ...countBy(found.effects, ({ consumer }) => consumer) },
      redelivered: found.deliveries.length - new Set(found.deliveries.map(({ consumer, eventId }) => `${consumer} ${eventId}`)).size,
      kills: found.kills,
      lost: missing.length,
      duplicateEffects: extra.length,
      orderViolations: violations.size,
      revenuePence: sorted(found.revenuePence),
      stock: sorted(found.stock),
    },
    problems,
  }
}

/** Which effects the file calls for and are not there, and which are there beyond what it calls for. */
function compareEffects(
  expected: readonly EffectKey[],
  found: readonly Effect[],
): { missing: readonly EffectKey[]; extra: readonly Effect[] } {
  const open = new Map(expected.map((effect) => [identity(effect), effect]))
  const seen = new Set<string>()
  const extra = found.filter((effect) => {
    const event = `${effect.consumer} ${effect.eventId}`
    const repeated = seen.has(event)
    seen.add(event)
    return !open.delete(identity(effect)) || repeated
  })
  return { missing: [...open.values()], extra }
}

/** Of each event the first occurrence, where a later one of its topic and key came before. */
function outOfOrder(effects: readonly Effect[]): readonly Effect[] {
  const last = new Map<string, number>()
  const seen = new Set<string>()
  return effects.filter(({ eventId, topic, key, seq }) => {
    if (seen.has(eventId)) return false
    seen.add(eventId)
    const lane = JSON.stringify([topic, key])
    const before = last.get(lane) ?? 0
    last.set(lane, Math.max(before, seq))
    return seq <= before
  })
}

/** Each event at the ledger must have been delivered, by the log's account, and each stock movement must name the order that caused it. */
function checkTraces(ledger: readonly Effect[], delivered: ReadonlySet<string>): readonly string[] {
  const orders = new Set(ledger.filter(({ topic }) => topic === 'order').map(({ eventId }) => eventId))
  return [
    ...list(
      'in the ledger, and not in the log of deliveries',
      ledger.filter(({ eventId }) => !delivered.has(eventId)),
    ),
    ...list(
      'without the order that caused it',
      ledger.filter(({ eventType, causationId }) => eventType === 'stock.StockMoved' && !orders.has(causationId ?? '')),
    ),
  ]
}

function compareTotals(what: string, expected: ReadonlyMap<string, number>, found: ReadonlyMap<string, number>): readonly string[] {
  const wrong = [...new Set([...expected.keys(), ...found.keys()])].filter((name) => expected.get(name) !== found.get(name))
  const shown = wrong
    .slice(0, EXAMPLES)
    .map((name) => `${name} is ${found.get(name) ?? 'missing'} instead of ${expected.get(name) ?? 'absent'}`)
  return wrong.length === 0 ? [] : [`${what} is wrong for ${wrong.length}: ${shown.join(', ')}${wrong.length > EXAMPLES ? ' ...' : ''}`]
}

function list(what: string, effects: readonly EffectKey[]): readonly string[] {
  if (effects.length === 0) return []
  const shown = effects.slice(0, EXAMPLES).map(({ consumer, eventType, key, seq }) => `${consumer} ${eventType} ${key} #${seq}`)
  return [`${what} (${effects.length}): ${shown.join(', ')}${effects.length > EXAMPLES ? ' ...' : ''}`]
}

function identity({ consumer, eventType, topic, key, seq }: EffectKey): string {
  return JSON.stringify([consumer, eventType, topic, key, seq])
}

function distinct(effects: readonly Effect[]): number {
  return new Set(effects.map(({ eventId }) => eventId)).size
}

function countBy(effects: readonly Effect[], name: (effect: Effect) => string): Record<string, number> {
  const groups = Map.groupBy(effects, name)
  return Object.fromEntries(
    [...groups].map(([group, members]) => [group, distinct(members)] as const).toSorted(([a], [b]) => (a < b ? -1 : 1)),
  )
}

function sorted(totals: ReadonlyMap<string, number>): Record<string, number> {
  return Object.fromEntries([...totals].toSorted(([a], [b]) => (a < b ? -1 : 1)))
}
