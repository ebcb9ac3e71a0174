import { parseArgs } from 'node:util'
import { WaybillError } from 'waybill'
import { suggestion } from './suggest.ts'

/** One option of a command. */
export interface FlagSpec {
  readonly help: string
  /** Name of its value in the help; an option without a value is a switch. */
  readonly value?: string
  /** Whether it may be given several times. */
  readonly multiple?: boolean
  readonly short?: string
}

/** The options a command was given, by their long names. */
export interface Flags {
  /** Whether the switch was given. */
  on(name: string): boolean
  /** The value, the last one where it was repeated. */
  text(name: string): string | undefined
  texts(name: string): readonly string[]
  /** @throws WaybillError `INVALID_SETTING` where it is no whole number within the limits */
  integer(name: string, min: number, max: number): number | undefined
  /** @throws WaybillError `INVALID_SETTING` where it is none of `allowed` */
  oneOf<const Value extends string>(name: string, allowed: readonly Value[]): Value | undefined
}

/**
 * Reads a command's arguments.
 * @throws WaybillError `INVALID_SETTING` for an unknown option (with the nearest known one), a missing value, or anything that is no option
 */
export function parseFlags(args: readonly string[], specs: Readonly<Record<string, FlagSpec>>): Flags {
  const values = new Map<string, string[]>()
  const given = new Set<string>()
  const options = Object.fromEntries(
    Object.entries(specs).map(([name, spec]) => [
      name,
      {
        type: spec.value === undefined ? ('boolean' as const) : ('string' as const),
        ...(spec.short === undefined ? {} : { short: spec.short }),
      },
    ]),
  )
  const { tokens } = parseArgs({ args: [...args], options, strict: false, tokens: true, allowPositionals: true })
  const known = Object.keys(specs).map((name) => `--${name}`)
  for (const token of tokens) {
    if (token.kind === 'positional')
      throw new WaybillError('INVALID_SETTING', 'unexpected argument', { got: token.value, allowed: known.join(', ') })
    if (token.kind === 'option-terminator') continue
    const spec = Object.hasOwn(specs, token.name) ? specs[token.name] : undefined
    if (spec === undefined)
      throw new WaybillError('INVALID_SETTING', `unknown option${suggestion(token.rawName, known)}`, {
        got: token.rawName,
        allowed: known.join(', '),
      })
    if (spec.value === undefined && token.value !== undefined)
      throw new WaybillError('INVALID_SETTING', `${token.rawName} takes no value`, { got: token.value })
    if (spec.value !== undefined && (token.value === undefined || token.value === ''))
      throw new WaybillError('INVALID_SETTING', `${token.rawName} needs a value`, { allowed: `${token.rawName} ${spec.value}` })
    if (given.has(token.name) && spec.value !== undefined && spec.multiple !== true)
      throw new WaybillError('INVALID_SETTING', `${token.rawName} was given twice`, { allowed: 'once' })
    given.add(token.name)
    if (token.value !== undefined) values.set(token.name, [...(values.get(token.name) ?? []), token.value])
  }
  const text = (name: string): string | undefined => values.get(name)?.at(-1)
  return {
    on: (name) => given.has(name),
    text,
    texts: (name) => values.get(name) ?? [],
    integer(name, min, max) {
      const value = text(name)
      if (value === undefined) return undefined
      const number = Number(value)
      if (/^-?\d{1,15}$/.test(value) && number >= min && number <= max) return number
      throw new WaybillError('INVALID_SETTING', `--${name} is not usable`, { got: value, allowed: `a whole number from ${min} to ${max}` })
    },
    oneOf(name, allowed) {
      const value = text(name)
      const found = allowed.find((candidate) => candidate === value)
      if (value === undefined || found !== undefined) return found
      throw new WaybillError('INVALID_SETTING', `--${name} is not usable${suggestion(value, allowed)}`, {
        got: value,
        allowed: allowed.join(', '),
      })
    },
  }
}
