import type { RelayLease, StuckKey } from 'waybill'
import { counted, lengthOfTime, printable } from '../cli/printable.ts'
import { type Check, type Finding, tableName } from './finding.ts'

const SHARDS = 64
const AGE_WARN_MS = 60_000
/** A relay looks at least twice a second: what waits longer than this waits for something. */
const WAITS_MS = 5_000
const KEYS_SHOWN = 10
const KEYS_COUNTED = 100
const ERROR_SHOWN = 200

type Found = Omit<Finding, 'check'>

const lagCheck: Check = {
  name: 'lag',
  async run({ storage }) {
    const { pending, oldestPendingMs, scheduled, parked } = await storage.outbox.stats()
    const rest = `${scheduled} scheduled, ${parked} parked`
    if (pending === 0) return [{ level: 'ok', found: `nothing waits; ${rest}` }]
    const found = `${counted(pending, 'row')} pending, the oldest for ${lengthOfTime(oldestPendingMs)}; ${rest}`
    if (oldestPendingMs < AGE_WARN_MS) return [{ level: 'ok', found }]
    return [{ level: 'warn', found, advice: 'see below: a relay that is not at work, or keys that stand still' }]
  },
}

const relaysCheck: Check = {
  name: 'relays',
  async run({ storage }) {
    const [leases, { pending, oldestPendingMs }] = [await storage.outbox.leases(), await storage.outbox.stats()]
    return relayFindings(leases, pending, oldestPendingMs)
  },
}

/** Who is at work, who is not any more, and who holds what. */
export function relayFindings(leases: readonly RelayLease[], pending: number, oldestMs: number): readonly Found[] {
  const alive = leases.filter(({ expiresInMs }) => expiresInMs > 0)
  const dead = leases.filter(({ expiresInMs }) => expiresInMs <= 0)
  const findings: Found[] = dead.map(({ relayId, expiresInMs, shards }) => ({
    level: 'warn',
    found: `relay ${printable(relayId)} is gone: its lease ran out ${lengthOfTime(-expiresInMs)} ago${shards === 0 ? '' : `, with ${counted(shards, 'shard')}`}`,
    advice:
      alive.length > 0
        ? 'nothing: the others take over its shards, and send first what it had in flight'
        : 'start a relay: it takes over at once, and sends first what the dead one had in flight',
  }))
  if (alive.length === 0) return [...findings, noRelay(pending)]
  const held = alive.reduce((sum, { shards }) => sum + shards, 0)
  const waits = pending > 0 && oldestMs > WAITS_MS
  for (const { relayId, shards, expiresInMs } of alive) {
    const found = `relay ${printable(relayId)} holds ${counted(shards, 'shard')}; free in ${lengthOfTime(expiresInMs)} unless renewed`
    if (!waits) findings.push({ level: 'ok', found })
    else
      findings.push({
        level: 'warn',
        found: `${found}; yet a row has waited for ${lengthOfTime(oldestMs)}`,
        advice: `if that process is dead, its shards are free in ${lengthOfTime(expiresInMs)} for any other relay; if it lives, look for stuck keys and at its log`,
      })
  }
  if (held < SHARDS)
    findings.push({
      level: pending > 0 ? 'warn' : 'info',
      found: `${SHARDS - held} of ${SHARDS} shards are with nobody`,
      advice: 'the relays at work take them within a lease; look again, and at their logs if it stays',
    })
  const counts = alive.map(({ shards }) => shards)
  if (Math.max(...counts) - Math.min(...counts) > 1)
    findings.push({
      level: 'info',
      found: `the shards are spread unevenly: ${counts.join(', ')}`,
      advice: 'nothing: it evens out within a lease',
    })
  return findings
}

function noRelay(pending: number): Found {
  const advice = 'start an application that has the transport, or "waybill relay"'
  if (pending > 0)
    return { level: 'error', found: `no relay is at work, and ${counted(pending, 'row')} wait${pending === 1 ? 's' : ''}`, advice }
  return { level: 'info', found: 'no relay is at work; nothing waits for one', advice }
}

const stuckKeysCheck: Check = {
  name: 'stuck keys',
  async run({ storage }) {
    const keys = await storage.outbox.stuckKeys(KEYS_COUNTED)
    if (keys.length === 0) return [{ level: 'ok', found: 'no key stands still' }]
    const findings = keys.slice(0, KEYS_SHOWN).map(stuckFinding)
    const more = keys.length - KEYS_SHOWN
    if (more > 0)
      findings.push({
        level: 'error',
        found: `${more}${keys.length === KEYS_COUNTED ? ' or more' : ''} further keys stand still`,
        advice: 'waybill outbox ls --status parked --limit 1000',
      })
    return findings
  },
}

function stuckFinding({ topic, key, rowId, status, attempts, lastError, followers, ageMs }: StuckKey): Found {
  const error = lastError === undefined ? '' : `: ${printable(lastError.slice(0, ERROR_SHOWN))}`
  const behind = followers === 0 ? 'nothing behind it' : `${followers}${followers >= 1_000 ? ' or more' : ''} behind it`
  const where = `${printable(topic)}, key ${printable(key)}`
  if (status === 'held')
    return {
      level: 'warn',
      found: `${where}: row ${rowId} has failed ${counted(attempts, 'time')} and is tried again, ${behind}, ${lengthOfTime(ageMs)} old${error}`,
      advice: `nothing, or now: waybill outbox retry ${rowId}`,
    }
  return {
    level: 'error',
    found: `${where}: row ${rowId} is parked after ${counted(attempts, 'attempt')}, ${behind}, ${lengthOfTime(ageMs)} old${error}`,
    advice: `look: waybill outbox show ${rowId}; once the cause is gone: waybill outbox retry ${rowId}; to give it up: waybill outbox skip ${rowId}`,
  }
}

const deadLettersCheck: Check = {
  name: 'dead letters',
  async run(input) {
    const { deadLetters } = input.storage
    const count = await deadLetters.count()
    if (count === 0) return [{ level: 'ok', found: 'none' }]
    const newest = (await deadLetters.list({ limit: KEYS_SHOWN })).map(({ handler }) => handler)
    return [
      {
        level: 'warn',
        found: `${counted(count, 'message')} could not be handled, by ${printable([...new Set(newest)].join(', '))}`,
        advice: `read their errors: select id, handler, topic, key, reason, error from ${tableName(input, 'dead_letter')} order by id`,
      },
    ]
  },
}

/** In the order in which they are read. */
export const OUTBOX_CHECKS: readonly Check[] = [lagCheck, relaysCheck, stuckKeysCheck, deadLettersCheck]
