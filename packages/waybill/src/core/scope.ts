import { AsyncLocalStorage } from 'node:async_hooks'
import type { UnitScope } from './unit.ts'

/**
 * What travels along the calls that one request or one handled event sets off, without anybody passing it on:
 * published events take their correlation, causation, trace and metadata from here.
 */
export interface Scope {
  /** Names the whole business conversation; stays the same from hop to hop. */
  readonly correlationId?: string
  /** Id of the event being handled: the cause of what is published meanwhile. */
  readonly causationId?: string
  /** W3C trace id, 32 hexadecimal digits. */
  readonly traceId?: string
  /** Tenant, user, session and the like. */
  readonly metadata?: Readonly<Record<string, string>>
  /** The unit of work that a publish joins. */
  readonly unit?: UnitScope
}

const storage = new AsyncLocalStorage<Scope>()
const EMPTY: Scope = Object.freeze({})

/** The scope of the running call; empty outside of one. */
export function currentScope(): Scope {
  return storage.getStore() ?? EMPTY
}

/** Runs `fn` in the current scope with `changes` applied. Use it where a request enters, to set the correlation id. */
export function withScope<T>(changes: Scope, fn: () => T): T {
  return storage.run({ ...currentScope(), ...changes }, fn)
}

/** Runs `fn` in exactly `scope`: nothing is inherited from the caller. */
export function runInScope<T>(scope: Scope, fn: () => T): T {
  return storage.run(scope, fn)
}
