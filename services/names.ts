/** The servers that there is code for, in the order of tables. */
export const SERVICE_NAMES = ['postgres', 'redis', 'nats', 'kafka', 'pulsar'] as const

/** A server that development and tests can ask for. */
export type ServiceName = (typeof SERVICE_NAMES)[number]

/** Whether `name` is one of `SERVICE_NAMES`. */
export function isServiceName(name: string): name is ServiceName {
  return (SERVICE_NAMES as readonly string[]).includes(name)
}

/**
 * The servers that `names` ask for, each once; all where nothing is asked for.
 * Throws an `Error` that names what is unknown, what was probably meant, and what there is.
 */
export function parseNames(names: readonly string[]): readonly ServiceName[] {
  if (names.length === 0) return SERVICE_NAMES
  const unknown = names.filter((name) => !isServiceName(name))
  if (unknown.length > 0) throw new Error(unknown.map((name) => unknownName(name)).join('\n'))
  return SERVICE_NAMES.filter((name) => names.includes(name))
}

function unknownName(name: string): string {
  const meant = suggestion(name)
  return `unknown server ${JSON.stringify(name)}${meant === undefined ? '' : `: did you mean ${meant}?`} There are: ${SERVICE_NAMES.join(', ')}`
}

const ALIASES: Readonly<Record<string, ServiceName>> = { pg: 'postgres', postgresql: 'postgres', jetstream: 'nats', valkey: 'redis' }
/** Two letters wrong, one swap: beyond that a guess is no help. */
const DISTANCE_MAX = 2

function suggestion(name: string): ServiceName | undefined {
  const lower = name.toLowerCase()
  if (Object.hasOwn(ALIASES, lower)) return ALIASES[lower]
  return SERVICE_NAMES.map((known) => ({ known, distance: distance(lower, known) }))
    .filter((entry) => entry.distance <= DISTANCE_MAX)
    .toSorted((a, b) => a.distance - b.distance)[0]?.known
}

/** How many letters must be added, removed or changed; long names are cut, since none of ours is long. */
function distance(a: string, b: string): number {
  const from = a.slice(0, 20)
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= from.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (from[i - 1] === b[j - 1] ? 0 : 1)))
    row = next
  }
  return row[b.length]!
}
