const DISTANCE_MAX = 2
const COMPARED_MAX = 64

/** `; did you mean "x"?` where one of `known` is close to `got`, else nothing. */
export function suggestion(got: string, known: readonly string[]): string {
  let best: string | undefined
  let bestDistance = DISTANCE_MAX + 1
  for (const candidate of known) {
    const distance = candidate.startsWith(got) && got.length >= 2 ? 1 : editDistance(got.slice(0, COMPARED_MAX), candidate)
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance]
  }
  return best === undefined ? '' : `; did you mean "${best}"?`
}

/** Letters to insert, drop or change to get from one text to the other. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (let i = 1; i <= from.length; i++) {
    const next = [i]
    for (let j = 1; j <= to.length; j++) {
      next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (from[i - 1] === to[j - 1] ? 0 : 1)))
    }
    row = next
  }
  return row[to.length]!
}
