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
  /** Milliseconds of a length of time such as `90s`, `10m`, `2h` or `1d`. @throws WaybillError `INVALID_SETTING` */
  duration(name: string): number | undefined
  /** @throws WaybillError `INVALID_SETTING` where it is none of `allowed` */
  oneOf<const Value extends string>(name: string, allowed: readonly Value[]): Value | undefined
}

const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/**
 * Reads a command's arguments. `positional`: the option that arguments without a name are values of.
 * @throws WaybillError `INVALID_SETTING` for an unknown option (with the nearest known one), a missing value, or anything that is no option
 */
export function parseFlags(args: readonly string[], specs: Readonly<Record<string, FlagSpec>>, positional?: string): Flags {
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
    if (token.kind === 'positional' && positional !== undefined) {
      const before = values.get(positional) ?? []
      if (before.length > 0 && specs[positional]?.multiple !== true)
        throw new WaybillError('INVALID_SETTING', 'one argument too many', { got: token.value, allowed: `one ${specs[positional]?.value}` })
      values.set(positional, [...before, token.value])
      continue
    }
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
    duration(name) {
      const value = text(name)
      if (value === undefined) return undefined
      const [, number, unit = ''] = /^(\d{1,9})(ms|s|m|h|d)$/.exec(value) ?? []
      if (number !== undefined) return Number(number) * UNITS_MS[unit]!
      throw new WaybillError('INVALID_SETTING', `--${name} is not usable`, { got: value, allowed: 'a length of time: 90s, 10m, 2h, 1d' })
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
