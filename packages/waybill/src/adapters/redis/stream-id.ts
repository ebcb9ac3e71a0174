/** A stream's id, `milliseconds-number`, in two parts; the second may be left out. */
function split(id: string): readonly [ms: string, number: string] {
  const at = id.indexOf('-')
  return at === -1 ? [id, '0'] : [id.slice(0, at), id.slice(at + 1)]
}

function parts(id: string): readonly [ms: bigint, number: bigint] {
  const [ms, number] = split(id)
  return [BigInt(ms), BigInt(number)]
}

const NUMBER_MAX = 2n ** 64n - 1n
const BITS = 22n
const SHARE_MAX = 2n ** BITS - 1n

/** Less than 0 where `one` comes before `other`. */
export function compareIds(one: string, other: string): number {
  if (one === other) return 0
  const [ms, number] = parts(one)
  const [otherMs, otherNumber] = parts(other)
  if (ms !== otherMs) return ms < otherMs ? -1 : 1
  return number === otherNumber ? 0 : number < otherNumber ? -1 : 1
}

/** The id just before `id`. */
export function idBefore(id: string): string {
  const [ms, number] = parts(id)
  if (number > 0n) return `${ms}-${number - 1n}`
  return ms > 0n ? `${ms - 1n}-${NUMBER_MAX}` : '0-0'
}

/** The id after which all is that came at `atMs` or later. */
export const idBeforeTime = (atMs: number): string => (atMs <= 0 ? '0-0' : idBefore(`${Math.ceil(atMs)}-0`))

/** Of the last id that was asked for: many of one millisecond follow each other. */
let known = { ms: '', base: 0n }

/** An id as one number that rises with it, of 63 bits until the year 2039. */
export function sequenceOf(id: string): bigint {
  const [ms, number] = split(id)
  if (known.ms !== ms) known = { ms, base: BigInt(ms) << BITS }
  const share = BigInt(number)
  return known.base | (share < SHARE_MAX ? share : SHARE_MAX)
}
