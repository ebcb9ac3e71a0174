import type { Row } from './outbox-rows.ts'

/** What a claim finds. */
export interface Due {
  /** In the order in which they are to be sent: by priority across keys, by number within a key. */
  readonly rows: readonly Row[]
  /** Rows met that stand behind a parked one of their key. */
  readonly stopped: readonly { readonly row: Row; readonly behind: Row }[]
}

/** Most followers that one claim parks: a claim must not take for ever. */
const STOPPED_MAX = 10_000

/** Walks the levels, the highest first, and takes what is due and may go. */
export function pickDue(
  levels: readonly ReadonlySet<Row>[],
  keys: ReadonlyMap<string, ReadonlySet<Row>>,
  now: number,
  limit: number,
  admits: (row: Row) => boolean,
): Due {
  const rows: Row[] = []
  const stopped: { row: Row; behind: Row }[] = []
  const cursors = new Map<string, KeyCursor>()
  // Met before it was its turn: it goes right behind the row of its key that it had to wait for.
  const passed = new Set<Row>()
  for (let priority = levels.length - 1; priority >= 0; priority--) {
    for (const row of levels[priority]!) {
      if (rows.length >= limit) return { rows, stopped }
      if (!admits(row)) continue
      const cursor = cursors.get(row.keyId) ?? openCursor(keys.get(row.keyId)!, now, admits)
      cursors.set(row.keyId, cursor)
      if (cursor.head !== row) {
        if (cursor.parked !== undefined && cursor.parked.id < row.id) {
          if (stopped.length < STOPPED_MAX) stopped.push({ row, behind: cursor.parked })
        } else passed.add(row)
        continue
      }
      rows.push(row)
      cursor.advance()
      while (cursor.head !== undefined && (cursor.head.priority > priority || passed.has(cursor.head)) && rows.length < limit) {
        rows.push(cursor.head)
        cursor.advance()
      }
    }
  }
  return { rows, stopped }
}

interface KeyCursor {
  /** The next row of the key that may be sent; none where the key is blocked or used up. */
  readonly head: Row | undefined
  /** The parked row that the key stops at, once the cursor has come to it. */
  readonly parked: Row | undefined
  advance(): void
}

function openCursor(rows: Iterable<Row>, now: number, admits: (row: Row) => boolean): KeyCursor {
  const iterator = rows[Symbol.iterator]()
  let parked: Row | undefined
  const next = (): Row | undefined => {
    for (;;) {
      const { value: row, done } = iterator.next()
      if (done === true || parked !== undefined) return undefined
      if (row.status === 'scheduled') continue
      if (row.status === 'parked') parked = row
      return row.status === 'parked' || row.heldUntil > now || !admits(row) ? undefined : row
    }
  }
  let head = next()
  return {
    get head() {
      return head
    },
    get parked() {
      return parked
    },
    advance() {
      head = head === undefined ? undefined : next()
    },
  }
}
