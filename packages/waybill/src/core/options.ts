import { WaybillError } from './errors.ts'

/** A whole number between two limits, or an error that names the option. @throws WaybillError `INVALID_OPTION` */
export function checkInteger(value: unknown, where: string, min: number, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
  throw new WaybillError('INVALID_OPTION', `${where} is out of range`, {
    got: value,
    allowed: `a whole number from ${min} to ${max}`,
    where,
  })
}

/** A function, or an error that names the option. @throws WaybillError `INVALID_OPTION` */
export function checkFunction<T>(value: T, where: string): T {
  if (typeof value === 'function') return value
  throw new WaybillError('INVALID_OPTION', `${where} is not a function`, { got: value, allowed: 'a function', where })
}

/**
 * Refuses what `allowed` does not name: a misspelt option would leave a default in force, and nobody would hear of it. `allowed` names all there are, by
 * the compiler's word.
 * @throws WaybillError `INVALID_OPTION`
 */
export function checkNames<T extends object>(options: T, allowed: Readonly<Record<keyof NoInfer<T>, true>>, where: string): void {
  const unknown = Object.keys(options).find((name) => !Object.hasOwn(allowed, name))
  if (unknown === undefined) return
  throw new WaybillError('INVALID_OPTION', 'there is no option of this name', {
    got: unknown,
    allowed: Object.keys(allowed).join(', '),
    where: `${where}.${unknown}`,
  })
}
