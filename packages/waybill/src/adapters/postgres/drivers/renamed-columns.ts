// What a column is never called in our statements, or in anybody's that does not quote it.
const CHANGED = /[A-Z-]/

/**
 * Rows under the names that their statement asks for, where the client is set up to rename columns (`postgres.camel`, Knex's `postProcessResponse`): a
 * statement that says `row_id` reads `row_id`. A name that stands in the statement itself stays.
 */
export function namedAsAsked(rows: readonly unknown[], text: string): readonly unknown[] {
  const [first] = rows
  if (typeof first !== 'object' || first === null) return rows
  const asked = new Map<string, string>()
  for (const name of Object.keys(first)) {
    if (!CHANGED.test(name) || text.includes(name)) continue
    const plain = snakeCase(name)
    if (text.includes(plain)) asked.set(name, plain)
  }
  if (asked.size === 0) return rows
  return rows.map((row) =>
    Object.fromEntries(Object.entries(row as Record<string, unknown>).map(([name, value]) => [asked.get(name) ?? name, value])),
  )
}

/** Of a name in camel, Pascal or kebab case. */
function snakeCase(name: string): string {
  return name
    .replaceAll(/(?<=.)[A-Z]/g, (letter) => `_${letter}`)
    .replaceAll('-', '_')
    .toLowerCase()
}
