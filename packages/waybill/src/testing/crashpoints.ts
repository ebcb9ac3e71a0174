import { CRASHPOINTS, setCrashpointHook, type Crashpoint } from '../core/crashpoint.ts'
import { WaybillError } from '../core/errors.ts'
import { checkFunction, checkInteger } from '../core/options.ts'

/** When a crash point strikes, and what it does then. */
export interface CrashpointOptions {
  /** At which time that the point is passed; 1 to 1,000,000,000. @default 1 */
  readonly hit?: number
  /** What happens. What it throws is thrown at the point. @default the process is killed at once, by SIGKILL: nothing is flushed, nothing cleaned up */
  readonly action?: () => void
}

/** How often each point that was passed was passed. */
export type CrashpointCounts = Readonly<Partial<Record<Crashpoint, number>>>

interface Armed {
  readonly point: Crashpoint
  readonly hit: number
  readonly action: () => void
  passed: number
}

const HIT_MAX = 1_000_000_000
// The hook is the process's own, so what it serves is too.
const armed = new Set<Armed>()
const counters = new Set<Map<Crashpoint, number>>()

function strike(point: Crashpoint): void {
  for (const counter of counters) counter.set(point, (counter.get(point) ?? 0) + 1)
  for (const one of armed) {
    if (one.point !== point || ++one.passed !== one.hit) continue
    armed.delete(one)
    hookOnlyWhereNeeded()
    one.action()
  }
}

function hookOnlyWhereNeeded(): void {
  setCrashpointHook(armed.size + counters.size === 0 ? undefined : strike)
}

function killSelf(): void {
  process.kill(process.pid, 'SIGKILL')
}

/**
 * Makes `point` strike once, at its `hit`-th passing from now; other points that are armed stay so. Gives back what disarms it.
 * @throws WaybillError `INVALID_OPTION` where there is no such point, or an option is out of range
 */
export function armCrashpoint(point: Crashpoint, { hit = 1, action = killSelf }: CrashpointOptions = {}): () => void {
  if (!CRASHPOINTS.includes(point))
    throw new WaybillError('INVALID_OPTION', 'there is no such crash point', {
      got: point,
      allowed: CRASHPOINTS.join(', '),
      where: 'crashpoint',
    })
  const one: Armed = { point, hit: checkInteger(hit, 'hit', 1, HIT_MAX), action: checkFunction(action, 'action'), passed: 0 }
  armed.add(one)
  hookOnlyWhereNeeded()
  return () => {
    armed.delete(one)
    hookOnlyWhereNeeded()
  }
}

/**
 * Arms what a setting names: `relay.afterPublish` (its first passing), `relay.afterPublish:3` (its third), several joined by commas. Nothing where
 * `value` is undefined or empty. Gives back what disarms them all.
 * @throws WaybillError `INVALID_SETTING`; nothing is armed then
 */
export function armCrashpointFromEnvironment(value: string | undefined, options: Pick<CrashpointOptions, 'action'> = {}): () => void {
  const wanted = (value ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map(parse)
  const disarms = wanted.map(({ point, hit }) => armCrashpoint(point, { ...options, hit }))
  return () => disarms.forEach((disarm) => disarm())
}

function parse(text: string): { readonly point: Crashpoint; readonly hit: number } {
  const [name = '', hit = '1', ...rest] = text.split(':')
  const point = CRASHPOINTS.find((known) => known === name)
  if (point !== undefined && rest.length === 0 && /^[1-9]\d{0,8}$/.test(hit)) return { point, hit: Number(hit) }
  throw new WaybillError('INVALID_SETTING', point === undefined ? 'there is no such crash point' : 'the hit of a crash point is no count', {
    got: text,
    allowed: `NAME or NAME:HIT, HIT from 1 to 999999999, NAME one of ${CRASHPOINTS.join(', ')}`,
    where: 'crashpoint',
  })
}

/** Disarms everything that is armed in this process. */
export function disarmCrashpoints(): void {
  armed.clear()
  hookOnlyWhereNeeded()
}

/** Counts from now on how often each point is passed, without striking: shows where a run came by, and where it could be killed. */
export function countCrashpoints(): { readonly counts: () => CrashpointCounts; readonly stop: () => void } {
  const counter = new Map<Crashpoint, number>()
  counters.add(counter)
  hookOnlyWhereNeeded()
  return {
    counts: () => Object.fromEntries(counter),
    stop() {
      counters.delete(counter)
      hookOnlyWhereNeeded()
    },
  }
}
