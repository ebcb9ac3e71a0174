/** Every place at which a test may kill the process. Each stands where a crash would hurt most. */
export const CRASHPOINTS = [
  'unit.beforeAppend',
  'unit.beforeCommit',
  'unit.afterCommit',
  'relay.afterAcquire',
  'relay.afterClaim',
  'relay.beforePublish',
  'relay.afterPublish',
  'relay.afterMark',
  'relay.afterCharge',
  'relay.afterHold',
  'relay.afterPark',
  'relay.beforeRelinquish',
  'inbox.beforeHandler',
  'inbox.beforeCommit',
  'inbox.afterCommit',
  'consume.beforePark',
  'consume.beforeAck',
] as const
export type Crashpoint = (typeof CRASHPOINTS)[number]

let hook: ((point: Crashpoint) => void) | undefined

/** Does nothing, unless a test has set a hook. */
export function crashpoint(point: Crashpoint): void {
  hook?.(point)
}

/** Sets or, with `undefined`, removes the hook of this process. */
export function setCrashpointHook(next: ((point: Crashpoint) => void) | undefined): void {
  hook = next
}
