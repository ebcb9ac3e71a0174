import { readFileSync } from 'node:fs'
import { WaybillError, messageOf } from './errors.ts'

/** Settings as the environment or a file gives them. */
export type Environment = Readonly<Record<string, string | undefined>>

/** Reads single settings; an empty one counts as not set. Every error names the setting. */
export interface SettingReader {
  text(name: string): string | undefined
  /** @throws WaybillError `INVALID_SETTING` for what is not a whole number between the limits */
  integer(name: string, min: number, max: number): number | undefined
  /** `true`, `false`, `1`, `0`, `yes`, `no`, `on`, `off`. @throws WaybillError `INVALID_SETTING` */
  flag(name: string): boolean | undefined
  /** @throws WaybillError `INVALID_SETTING` */
  oneOf<T extends string>(name: string, allowed: readonly T[]): T | undefined
  /** The content of the file that the setting names. @throws WaybillError `INVALID_FILE` */
  file(name: string): string | undefined
  /** The value of a setting that must be there. @throws WaybillError `INVALID_SETTING` */
  required(name: string, allowed: string): string
}

const YES = ['true', '1', 'yes', 'on']
const NO = ['false', '0', 'no', 'off']

/** Reads from `env`. */
export function readSettings(env: Environment): SettingReader {
  const text = (name: string): string | undefined => {
    const value = env[name]?.trim()
    return value === '' ? undefined : value
  }
  const wrong = (name: string, got: string | undefined, allowed: string): WaybillError =>
    new WaybillError('INVALID_SETTING', `${name} is not usable`, { got, allowed })
  return {
    text,
    integer(name, min, max) {
      const value = text(name)
      if (value === undefined) return undefined
      const number = /^-?\d{1,15}$/.test(value) ? Number(value) : Number.NaN
      if (number >= min && number <= max) return number
      throw wrong(name, value, `a whole number from ${min} to ${max}`)
    },
    flag(name) {
      const value = text(name)?.toLowerCase()
      if (value === undefined) return undefined
      if (YES.includes(value)) return true
      if (NO.includes(value)) return false
      throw wrong(name, value, 'true or false')
    },
    oneOf(name, allowed) {
      const value = text(name)
      if (value === undefined) return undefined
      const known = allowed.find((one) => one.toLowerCase() === value.toLowerCase())
      if (known !== undefined) return known
      throw wrong(name, value, allowed.join(', '))
    },
    file(name) {
      const path = text(name)
      if (path === undefined) return undefined
      try {
        return readFileSync(path, 'utf8')
      } catch (cause) {
        throw new WaybillError('INVALID_FILE', `${name} names a file that can't be read: ${messageOf(cause)}`, {
          got: path,
          allowed: 'a file',
        })
      }
    },
    required(name, allowed) {
      const value = text(name)
      if (value !== undefined) return value
      throw new WaybillError('INVALID_SETTING', `${name} is not set`, { allowed })
    },
  }
}
