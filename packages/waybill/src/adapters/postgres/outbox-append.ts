import type { OutboxEntry } from '../../core/stores.ts'
import { type OutboxSql, SEPARATOR } from './outbox-sql.ts'
import { type Run, base64Of } from './statements.ts'

// Larger appends go in several statements: a single parameter can't be endless.
const CHUNK_ROWS_MAX = 1000
const CHUNK_BYTES_MAX = 8 * 1024 * 1024

/** Writes rows in the caller's transaction; gives back their numbers, by index. */
export async function appendRows(
  run: Run,
  sql: Pick<OutboxSql, 'append' | 'appendOne' | 'lockSlots'>,
  entries: readonly OutboxEntry[],
): Promise<readonly string[]> {
  // Nothing that `publish` lets through contains the separator; whoever appends by hand may have one in a key.
  const chunks = entries.some(hasSeparator) ? entries.map((entry) => [entry]) : chunked(entries)
  // All locks first: chunk by chunk they would be taken in an order that can deadlock.
  if (chunks.length > 1) await run(sql.lockSlots, [JSON.stringify(entries.map(({ message: { topic, key } }) => ({ topic, key })))])
  const rowIds: string[] = []
  for (const chunk of chunks) {
    const rows = await run<{ row_id: string }>(
      ...(chunk.length === 1 ? ([sql.appendOne, valuesOf(chunk[0]!)] as const) : ([sql.append, columnsOf(chunk)] as const)),
    )
    // Numbers are drawn in the order of the entries, but no order of the answer is promised.
    for (const { row_id } of rows.length > 1 ? rows.toSorted(byNumber) : rows) rowIds.push(row_id)
  }
  return rowIds
}

function hasSeparator({ message: { id, topic, key }, eventType, destination }: OutboxEntry): boolean {
  return [id, topic, key, eventType, destination].some((text) => text?.includes(SEPARATOR) === true)
}

function chunked(entries: readonly OutboxEntry[]): OutboxEntry[][] {
  const chunks: OutboxEntry[][] = [[]]
  let bytes = 0
  for (const entry of entries) {
    const size = entry.message.body.byteLength
    if (chunks.at(-1)!.length > 0 && (chunks.at(-1)!.length >= CHUNK_ROWS_MAX || bytes + size > CHUNK_BYTES_MAX)) {
      chunks.push([])
      bytes = 0
    }
    chunks.at(-1)!.push(entry)
    bytes += size
  }
  return chunks
}

/** The columns of `append` and the parameters of `appendOne`, in their order. */
function valuesOf({
  message,
  eventType,
  destination = 'default',
  priority = 5,
  holdMs = 0,
  availableAt,
}: OutboxEntry): readonly (string | null)[] {
  const { id, topic, key, headers, body } = message
  return [
    id,
    eventType,
    destination,
    topic,
    key,
    String(priority),
    JSON.stringify(headers),
    base64Of(body),
    holdMs > 0 ? String(holdMs) : null,
    availableAt?.toISOString() ?? null,
  ]
}

function columnsOf(entries: readonly OutboxEntry[]): readonly (string | null)[] {
  const rows = entries.map(valuesOf)
  return rows[0]!.map((_, column) =>
    rows.every((row) => row[column] === null) ? null : rows.map((row) => row[column] ?? '').join(SEPARATOR),
  )
}

function byNumber({ row_id: left }: { readonly row_id: string }, { row_id: right }: { readonly row_id: string }): number {
  return left.length - right.length || (left < right ? -1 : 1)
}
