/** What a label says once there are too many different values. */
export const OTHER = 'other'

/**
 * Lets the first `valuesMax` different values through and makes all later ones {@link OTHER}: each value of a label is a time series that nobody
 * forgets, here and in Prometheus, so a name that comes from outside must not make them without limit.
 */
export function createBoundedLabels(valuesMax: number): (value: string) => string {
  const known = new Set<string>()
  return (value) => {
    if (known.has(value)) return value
    if (known.size >= valuesMax) return OTHER
    known.add(value)
    return value
  }
}
