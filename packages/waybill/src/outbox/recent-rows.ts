/** A bounded set of row numbers; the oldest leave first. */
export interface RecentRows {
  has(rowId: string): boolean
  add(rowId: string): void
  delete(rowId: string): void
}

export function createRecentRows(max: number): RecentRows {
  const rows = new Set<string>()
  return {
    has: (rowId) => rows.has(rowId),
    add(rowId) {
      rows.add(rowId)
      if (rows.size > max) rows.delete(rows.values().next().value!)
    },
    delete(rowId) {
      rows.delete(rowId)
    },
  }
}
