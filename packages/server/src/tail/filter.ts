import { WaybillError } from 'waybill'
import type { Flags } from '../cli/arguments.ts'
import type { Seen } from './seen.ts'

/** Whether a message is to be shown. */
export type Filter = (seen: Seen) => boolean

/**
 * The filter that `--type`, `--key` and `--where` describe: all three must let a message through; of several types, or keys, one.
 * @throws WaybillError `INVALID_SETTING`
 */
export function filterOf(flags: Flags): Filter {
  const types = flags.texts('type').map(pattern)
  const keys = new Set(flags.texts('key'))
  const conditions = flags.texts('where').map(condition)
  return (seen) =>
    (keys.size === 0 || keys.has(seen.message.key)) &&
    (types.length === 0 || types.some((fits) => fits(typeOf(seen)))) &&
    conditions.every((holds) => holds(seen))
}

// Of a foreign message the header, where it has one.
function typeOf({ envelope, message }: Seen): string | undefined {
  return envelope?.event_type ?? message.headers['event_type']
}

/** `*` stands for any characters. By hand: as a regular expression `*a*a*a*` takes longer than anybody waits. */
function pattern(text: string): (value: string | undefined) => boolean {
  const parts = text.split('*')
  const [first = '', last = ''] = [parts[0], parts.at(-1)]
  return (value) => {
    if (value === undefined) return false
    if (parts.length === 1) return value === text
    if (value.length < first.length + last.length || !value.startsWith(first) || !value.endsWith(last)) return false
    const inner = value.slice(first.length, value.length - last.length)
    let at = 0
    for (const part of parts.slice(1, -1)) {
      const found = inner.indexOf(part, at)
      if (found === -1) return false
      at = found + part.length
    }
    return true
  }
}

/** `field=value`: a field of the envelope, with dots into what it holds: `payload.lines.0.sku=A1`. */
function condition(text: string): (seen: Seen) => boolean {
  const at = text.indexOf('=')
  const path = text.slice(0, at).split('.')
  if (at < 1 || path.includes(''))
    throw new WaybillError('INVALID_SETTING', '--where is not usable', {
      got: text,
      allowed: 'field=value, with a field of the envelope: aggregate_id=o-17, payload.amount=3',
    })
  const wanted = text.slice(at + 1)
  return ({ envelope }) => envelope !== undefined && asText(reach(envelope, path)) === wanted
}

function reach(value: unknown, path: readonly string[]): unknown {
  let here = value
  for (const name of path) {
    if (typeof here !== 'object' || here === null || !Object.hasOwn(here, name)) return undefined
    here = (here as Readonly<Record<string, unknown>>)[name]
  }
  return here
}

// What has parts equals no text.
function asText(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  return typeof value === 'number' || typeof value === 'boolean' || value === null ? String(value) : undefined
}
