import { show, WaybillError, type WaybillErrorCode } from '../core/errors.ts'

export const JSON_CONTENT_TYPE = 'application/json'

/** What keeps a value from coming back equal from JSON. */
export interface JsonFlaw {
  /** `payload.lines[3].price` */
  readonly path: string
  readonly problem: string
  readonly got: unknown
  readonly allowed: string
}

/**
 * Whether `value` comes back equal from JSON, as far as a fast walk can tell: `false` means "look closer", not "no".
 * Strings are not looked at: a lone surrogate shows in the text that `JSON.stringify` makes of it.
 */
export function looksLikeJson(value: unknown, levels: number): boolean {
  if (typeof value === 'string' || value === null || value === true || value === false) return true
  // Infinity and NaN are the numbers that differ from themselves by NaN; 1 / -0 is the one that is less than zero.
  if (typeof value === 'number') return value - value === 0 && (value !== 0 || 1 / value > 0)
  return (
    typeof value === 'object' &&
    levels > 0 &&
    (Array.isArray(value) ? looksLikeArray(value, levels - 1) : looksLikeObject(value as PlainObject, levels - 1))
  )
}

type PlainObject = Record<string, unknown>

function looksLikeArray(array: readonly unknown[], levels: number): boolean {
  if (Object.getPrototypeOf(array) !== Array.prototype) return false
  for (let index = 0; index < array.length; index++) {
    const item = array[index]
    if (typeof item !== 'string' && !looksLikeJson(item, levels)) return false
  }
  return true
}

function looksLikeObject(object: PlainObject, levels: number): boolean {
  const prototype: unknown = Object.getPrototypeOf(object)
  if (prototype !== Object.prototype && prototype !== null) return false
  // `for in` is twice as fast as Object.keys here. What it may see beyond own keys only leads to a closer look.
  for (const key in object) {
    if (key === '__proto__') return false
    const item = object[key]
    if (typeof item !== 'string' && item !== undefined && !looksLikeJson(item, levels)) return false
  }
  return true
}

/** How strict {@link findFlaw} is. */
export interface FlawOptions {
  /** Levels of arrays and objects, the outermost included. */
  readonly maxDepth: number
  /** JSON text may hold -0, and reading it gives -0 back. Writing it would give 0. */
  readonly negativeZero: boolean
}

/** The first thing in `value` that would not come back equal from JSON. Slow and exact: for what {@link looksLikeJson} doubts. */
export function findFlaw(value: unknown, path: string, options: FlawOptions): JsonFlaw | undefined {
  return flawOf(value, path, options, [])
}

/** @throws WaybillError `code`, where {@link findFlaw} finds something */
export function refuseFlaw(payload: unknown, options: FlawOptions, code: WaybillErrorCode): void {
  const flaw = findFlaw(payload, 'payload', options)
  if (flaw !== undefined) throw new WaybillError(code, flaw.problem, { got: flaw.got, allowed: flaw.allowed, where: flaw.path })
}

function flawOf(value: unknown, path: string, options: FlawOptions, ancestors: readonly object[]): JsonFlaw | undefined {
  switch (typeof value) {
    case 'boolean':
      return undefined
    case 'string':
      return value.isWellFormed()
        ? undefined
        : { path, problem: 'a string holds a lone surrogate', got: value, allowed: 'well-formed text' }
    case 'number':
      if (!Number.isFinite(value)) return { path, problem: 'a number is not finite', got: value, allowed: 'a finite number' }
      return Object.is(value, -0) && !options.negativeZero
        ? { path, problem: 'JSON would turn -0 into 0', got: '-0', allowed: '0' }
        : undefined
    case 'object':
      return value === null ? undefined : flawOfObject(value, path, options, ancestors)
    case 'undefined':
      return { path, problem: 'undefined has no form in JSON', got: value, allowed: 'null, or no such property' }
    default:
      return {
        path,
        problem: `a ${typeof value} has no form in JSON`,
        got: typeof value === 'symbol' ? String(value) : value,
        allowed: 'text, numbers, booleans, null, arrays and plain objects',
      }
  }
}

function flawOfObject(value: object, path: string, options: FlawOptions, ancestors: readonly object[]): JsonFlaw | undefined {
  if (ancestors.includes(value)) return { path, problem: 'the value contains itself', got: 'a cycle', allowed: 'a tree' }
  if (ancestors.length >= options.maxDepth)
    return {
      path,
      problem: 'nested too deeply',
      got: `more than ${options.maxDepth} levels`,
      allowed: `at most ${options.maxDepth} levels`,
    }
  const inner = [...ancestors, value]
  if (Array.isArray(value)) {
    if (!isPlain(value, 'concat')) return classFlaw(value, path)
    for (let index = 0; index < value.length; index++) {
      const at = `${path}[${index}]`
      if (!Object.hasOwn(value, index))
        return { path: at, problem: 'an array has a hole', got: undefined, allowed: 'an array without holes' }
      const flaw = flawOf(value[index], at, options, inner)
      if (flaw !== undefined) return flaw
    }
    return undefined
  }
  if (!isPlain(value, 'isPrototypeOf')) return classFlaw(value, path)
  for (const [key, item] of Object.entries(value)) {
    const at = /^[A-Za-z_$][\w$]*$/.test(key) ? `${path}.${key}` : `${path}[${show(key)}]`
    if (key === '__proto__') return { path: at, problem: 'a property is called __proto__', got: key, allowed: 'any other name' }
    if (!key.isWellFormed())
      return { path: at, problem: 'the name of a property holds a lone surrogate', got: key, allowed: 'well-formed text' }
    // Like JSON and most readers, we don't tell an undefined property from an absent one.
    const flaw = item === undefined ? undefined : flawOf(item, at, options, inner)
    if (flaw !== undefined) return flaw
  }
  return undefined
}

/** Plain: without a class. Also where it comes from another realm (a test runner's sandbox), whose built-ins are not ours. */
function isPlain(value: object, methodOfBase: string): boolean {
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype === null || prototype === Object.prototype || prototype === Array.prototype) return true
  if (!Object.hasOwn(prototype as object, methodOfBase)) return false
  const next: unknown = Object.getPrototypeOf(prototype)
  return next === null || Object.getPrototypeOf(next) === null
}

function classFlaw(value: object, path: string): JsonFlaw {
  const name = Object.prototype.toString.call(value).slice(8, -1)
  const className = (value as { readonly constructor?: { readonly name?: unknown } }).constructor?.name
  const got = name === 'Object' && typeof className === 'string' && className !== '' ? className : name
  return {
    path,
    problem: 'an instance of a class does not come back from JSON as it was',
    got,
    allowed: name === 'Date' ? 'text: use date.toISOString()' : 'plain objects and arrays',
  }
}
