import { WaybillError } from './errors.ts'
import { checkInteger } from './options.ts'

/** How an event travels. */
export const PublishStrategy = Object.freeze({
  /** In-process handlers only; nothing durable. */
  SYNC_ONLY: 'SYNC_ONLY',
  /** The transactional outbox only; nothing in process. */
  ASYNC_ONLY: 'ASYNC_ONLY',
  /** In process first, within a timeout; the outbox where that fails. */
  HYBRID_FAST: 'HYBRID_FAST',
  /** The outbox first; then in process, as a confirmation. */
  HYBRID_RELIABLE: 'HYBRID_RELIABLE',
})
export type PublishStrategy = keyof typeof PublishStrategy

/** How far an event reaches. */
export const EventScope = Object.freeze({
  /** Stays within its bounded context. */
  INTRA_BC: 'INTRA_BC',
  /** Crosses into other bounded contexts. */
  INTER_BC: 'INTER_BC',
  /** Leaves the system. */
  EXTERNAL: 'EXTERNAL',
})
export type EventScope = keyof typeof EventScope

/** How one publish, one event type or one bounded context wants its events to travel. What is left out is decided by the less specific rule. */
export interface PublishConfig {
  readonly strategy?: PublishStrategy
  readonly scope?: EventScope
  /** How long the in-process path may take, 1 to 600,000. A timeout means unknown, not failed. @default 1000 */
  readonly timeoutMs?: number
  /** 0 (last) to 9 (first): orders what is due across keys, never within one key. @default 5 */
  readonly priority?: number
  /**
   * Of a single publish only, with `ASYNC_ONLY`: not due before, by the database's clock; at most 10 years ahead, and due at once where it is past. What
   * is published later with the same key doesn't wait for it.
   */
  readonly availableAt?: Date
}

/** Ready-made configurations. */
export const PublishStrategies = Object.freeze({
  /** Notifications within a context: in process within 50 ms, else by the outbox. */
  INTRA_BC_FAST: Object.freeze({ strategy: 'HYBRID_FAST', scope: 'INTRA_BC', timeoutMs: 50, priority: 5 }),
  /** Business events for other contexts: by the outbox. */
  INTER_BC_RELIABLE: Object.freeze({ strategy: 'ASYNC_ONLY', scope: 'INTER_BC' }),
  /** Orders and payments: by the outbox, confirmed in process within 200 ms. */
  CRITICAL_HYBRID: Object.freeze({ strategy: 'HYBRID_RELIABLE', scope: 'INTER_BC', timeoutMs: 200, priority: 9 }),
}) satisfies Readonly<Record<string, PublishConfig>>

/** The name of a preset. */
export type PublishPreset = keyof typeof PublishStrategies

const TIMEOUT_MAX_MS = 600_000

/**
 * How one publish wants to travel: a configuration that may name a date too.
 * @throws WaybillError `UNKNOWN_STRATEGY` | `INVALID_OPTION`
 */
export function resolvePublishCall(input: PublishConfig | PublishPreset | undefined, where: string): PublishConfig {
  if (typeof input !== 'object' || input?.availableAt === undefined) return resolvePublishConfig(input, where)
  const { availableAt, ...config } = input
  if (!(availableAt instanceof Date) || Number.isNaN(availableAt.getTime()))
    throw new WaybillError('INVALID_OPTION', `${where}.availableAt is no date`, { got: availableAt, allowed: 'a valid Date', where })
  // A copy: a date can be set.
  return { ...resolvePublishConfig(config, where), availableAt: new Date(availableAt) }
}

/**
 * A standing configuration from a value or a preset's name, checked field by field.
 * @throws WaybillError `UNKNOWN_STRATEGY` | `INVALID_OPTION`
 */
export function resolvePublishConfig(input: PublishConfig | PublishPreset | undefined, where: string): PublishConfig {
  if (input === undefined) return EMPTY
  const config = typeof input === 'string' ? presetOf(input, where) : input
  if (typeof config !== 'object' || config === null)
    throw new WaybillError('INVALID_OPTION', 'a publish configuration must be an object or the name of a preset', { got: config, where })
  for (const name of Object.keys(config)) {
    if (name === 'availableAt')
      throw new WaybillError('INVALID_OPTION', 'a date is a matter of a single publish, not of every one to come', {
        got: name,
        allowed: 'publish(event, { availableAt })',
        where,
      })
    if (!FIELDS.has(name))
      throw new WaybillError('INVALID_OPTION', 'unknown field in a publish configuration', {
        got: name,
        allowed: [...FIELDS].join(', '),
        where,
      })
  }
  if (config.strategy !== undefined) oneOf(PublishStrategy, config.strategy, `${where}.strategy`)
  if (config.scope !== undefined) oneOf(EventScope, config.scope, `${where}.scope`)
  if (config.timeoutMs !== undefined) checkInteger(config.timeoutMs, `${where}.timeoutMs`, 1, TIMEOUT_MAX_MS)
  if (config.priority !== undefined) checkInteger(config.priority, `${where}.priority`, 0, 9)
  return config
}

const EMPTY: PublishConfig = Object.freeze({})
const FIELDS: ReadonlySet<string> = new Set(['strategy', 'scope', 'timeoutMs', 'priority'])

function presetOf(name: string, where: string): PublishConfig {
  if (Object.hasOwn(PublishStrategies, name)) return PublishStrategies[name as PublishPreset]
  throw new WaybillError('UNKNOWN_STRATEGY', 'no preset has this name', {
    got: name,
    allowed: Object.keys(PublishStrategies).join(', '),
    where,
  })
}

function oneOf(allowed: Readonly<Record<string, string>>, value: unknown, where: string): void {
  if (typeof value === 'string' && Object.hasOwn(allowed, value)) return
  throw new WaybillError('UNKNOWN_STRATEGY', `${where} is unknown`, { got: value, allowed: Object.keys(allowed).join(', '), where })
}
