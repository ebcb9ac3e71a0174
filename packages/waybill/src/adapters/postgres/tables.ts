import { WaybillError } from '../../core/errors.ts'

/** Where Waybill's tables are. */
export interface TableOptions {
  /** An identifier in lower case, at most 63 characters. Made by `migrate` where it is missing. @default 'public' */
  readonly schema?: string
  /** What every table name begins with: lower case, at most 30 characters. @default 'waybill_' */
  readonly prefix?: string
}

/** Quoted and qualified names, ready to stand in SQL. */
export interface Tables {
  readonly schema: string
  /** The schema's name, and what names begin with, as they were given. */
  readonly names: { readonly schema: string; readonly prefix: string }
  readonly outbox: string
  /** The sequence that numbers the outbox, as a string literal for `nextval`. */
  readonly outboxIds: string
  readonly lease: string
  readonly relay: string
  readonly inbox: string
  readonly inboxAttempt: string
  readonly deadLetter: string
  readonly migration: string
}

// No quote, no dot, no upper case: what is left can stand between double quotes as it is, and means the same without them.
const IDENTIFIER = /^[a-z_][a-z0-9_]*$/

/** @throws WaybillError `INVALID_OPTION` */
export function resolveTables({ schema = 'public', prefix = 'waybill_' }: TableOptions = {}): Tables {
  check(schema, 'schema', 63)
  check(prefix, 'prefix', 30)
  const name = (table: string) => `"${schema}"."${prefix}${table}"`
  return Object.freeze({
    schema: `"${schema}"`,
    names: Object.freeze({ schema, prefix }),
    outbox: name('outbox'),
    outboxIds: `'${name('outbox_ids')}'`,
    lease: name('lease'),
    relay: name('relay'),
    inbox: name('inbox'),
    inboxAttempt: name('inbox_attempt'),
    deadLetter: name('dead_letter'),
    migration: name('migration'),
  })
}

function check(value: unknown, where: string, lengthMax: number): void {
  if (typeof value === 'string' && value.length <= lengthMax && IDENTIFIER.test(value)) return
  throw new WaybillError('INVALID_OPTION', `${where} is not a usable SQL name`, {
    got: value,
    allowed: `1 to ${lengthMax} lower-case letters, digits and "_", not beginning with a digit`,
    where,
  })
}
