import { WaybillError } from '../../../core/errors.ts'

/** What has these methods, or an error that says what would do. @throws WaybillError `INVALID_OPTION` */
export function checkMethods<T>(value: T, methods: readonly string[], allowed: string, where: string): T {
  if (methods.every((name) => typeof memberOf(value, name) === 'function')) return value
  throw new WaybillError('INVALID_OPTION', `${where} can't use this`, {
    got: value === null ? 'null' : typeof value,
    allowed,
    where,
  })
}

/**
 * Refuses a connection or a pool where a transaction is needed: statements would run, each in a transaction of its own, and an event would be published
 * although the business change was rolled back.
 * @throws WaybillError `INVALID_OPTION`
 */
export function checkTransaction(isTransaction: boolean, allowed: string, where: string): void {
  if (isTransaction) return
  throw new WaybillError('INVALID_OPTION', `${where} needs a transaction that is open`, {
    got: 'something outside a transaction',
    allowed,
    where,
  })
}

/** Whether a `pg` client is in no transaction; `false` for anything else, and for older versions, which can't tell. */
export function isIdle(client: unknown): boolean {
  const status = memberOf(client, 'getTransactionStatus')
  return typeof status === 'function' && status.call(client) === 'I'
}

/** A property of anything that may have some; `undefined` elsewhere. */
export function memberOf(value: unknown, name: string): unknown {
  return (typeof value === 'object' && value !== null) || typeof value === 'function' ? (value as Record<string, unknown>)[name] : undefined
}
