/** What is known of a produce request that failed, by `topic\npartition`. */
export interface Produced {
  readonly stored: ReadonlySet<string>
  /** What the broker said last of partitions that it refused. */
  readonly refused: ReadonlyMap<string, Error>
  /** Whether the last word of every broker concerned was an answer, not a lost connection. */
  readonly isDefinite: boolean
}

interface ProduceResponse {
  readonly responses: readonly {
    readonly name: string
    readonly partitionResponses: readonly { readonly index: number; readonly errorCode: number }[]
  }[]
}

/** Stored before, and its number known: an answer to a batch that was sent again. */
const DUPLICATE_SEQUENCE = 46

/**
 * Reads the library's error of a send. Its shape: one error per broker, each either one failure or a list of tries; `produced.offsets` for
 * brokers that took all, and `response` where a broker answered.
 */
export function storedPartitions(error: unknown): Produced {
  const stored = new Set<string>()
  const refused = new Map<string, Error>()
  let isDefinite = true
  for (const { topic, partition } of offsetsOf(error)) stored.add(`${topic}\n${partition}`)
  for (const ofBroker of branches(error, /^Producing messages failed/)) {
    const tries = branches(ofBroker, /^produce failed/)
    for (const [index, attempt] of tries.entries()) {
      const response = responseOf(attempt)
      const isLast = index === tries.length - 1
      if (response === undefined) {
        if (isLast) isDefinite = false
        continue
      }
      for (const [t, { name, partitionResponses }] of response.responses.entries()) {
        for (const [p, answer] of partitionResponses.entries()) {
          const place = `${name}\n${answer.index}`
          if (answer.errorCode === 0 || answer.errorCode === DUPLICATE_SEQUENCE) stored.add(place)
          else if (isLast) refused.set(place, errorAt(attempt, `/responses/${t}/partition_responses/${p}`))
        }
      }
    }
  }
  return { stored, refused, isDefinite }
}

function branches(error: unknown, message: RegExp): readonly unknown[] {
  return error instanceof AggregateError && message.test(error.message) ? error.errors : [error]
}

function responseOf(error: unknown): ProduceResponse | undefined {
  if (!(error instanceof Error) || !('response' in error)) return undefined
  const { response } = error
  return typeof response === 'object' && response !== null && 'responses' in response ? (response as ProduceResponse) : undefined
}

function errorAt(error: unknown, path: string): Error {
  const found = error instanceof AggregateError ? error.errors.find((each: unknown) => pathOf(each) === path) : undefined
  return found instanceof Error ? found : error instanceof Error ? error : new Error('the broker refused the partition', { cause: error })
}

const pathOf = (error: unknown): unknown => (typeof error === 'object' && error !== null && 'path' in error ? error.path : undefined)

function offsetsOf(error: unknown): readonly { readonly topic: string; readonly partition: number }[] {
  if (!(error instanceof Error) || !('produced' in error)) return []
  const { produced } = error
  const offsets = typeof produced === 'object' && produced !== null && 'offsets' in produced ? produced.offsets : undefined
  return Array.isArray(offsets) ? offsets : []
}
