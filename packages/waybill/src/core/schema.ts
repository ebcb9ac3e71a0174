import { WaybillError } from './errors.ts'

/**
 * The part of Standard Schema v1 (standardschema.dev) that we call. zod, valibot, arktype and many others implement it;
 * describing it here keeps every schema library out of our types.
 */
export interface SchemaLike<Output = unknown> {
  readonly '~standard': {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>
    readonly types?: { readonly input: unknown; readonly output: Output } | undefined
  }
}

type SchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | {
      readonly issues: ReadonlyArray<{
        readonly message: string
        readonly path?: ReadonlyArray<PropertyKey | { readonly key: PropertyKey }> | undefined
      }>
    }

const ISSUES_SHOWN = 5

/**
 * The value as the schema gives it back; a promise only where the schema is asynchronous.
 * @throws WaybillError `INVALID_PAYLOAD` naming path and reason of the first issues
 */
export function validate<Output>(schema: SchemaLike<Output>, value: unknown, where: string): Output | Promise<Output> {
  const result = schema['~standard'].validate(value)
  return result instanceof Promise ? result.then((settled) => accept(settled, where)) : accept(result, where)
}

function accept<Output>(result: SchemaResult<Output>, where: string): Output {
  if (result.issues === undefined) return result.value
  const shown = result.issues.slice(0, ISSUES_SHOWN).map(({ message, path }) => `${pathText(path)}: ${message}`)
  const more = result.issues.length - shown.length
  throw new WaybillError(
    'INVALID_PAYLOAD',
    `the payload does not satisfy its schema: ${shown.join('; ')}${more > 0 ? `; and ${more} more` : ''}`,
    { where },
  )
}

function pathText(path: ReadonlyArray<PropertyKey | { readonly key: PropertyKey }> | undefined): string {
  return ['payload', ...(path ?? []).map((part) => String(typeof part === 'object' ? part.key : part))].join('.')
}
