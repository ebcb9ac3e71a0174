// Stands for a cloud's queues and the client that its vendor ships: FIFO topics that fan out to queues, message groups, receipt handles, visibility
// timeouts, batches of ten. All of it is in memory, so that the example runs anywhere.

/** A message to be sent. Messages of one group stay in order; one id is stored once within five minutes. */
export interface SendEntry {
  readonly id: string
  readonly group: string
  readonly attributes: Readonly<Record<string, string>>
  readonly body: Uint8Array
}

/** A message that was received, invisible to others until its timeout. */
export interface QueueMessage extends SendEntry {
  /** What it is deleted by. It changes with each time that the message is received. */
  readonly receipt: string
  readonly sequence: bigint
  readonly receiveCount: number
}

export interface ReceiveRequest {
  /** Who receives: while something of a group is invisible, the group's messages go to whoever has it. */
  readonly receiver: string
  /** 1 to 10. */
  readonly max: number
  /** How long to wait for a first message. */
  readonly waitMs: number
  readonly visibilityMs: number
}

interface Stored {
  readonly entry: SendEntry
  readonly sequence: bigint
  readonly sentAtMs: number
}

/** A message in one queue. */
interface Queued {
  readonly stored: Stored
  receiveCount: number
}

/** One message group of one queue. */
interface Group {
  readonly waiting: Queued[]
  invisible: number
  receiver: string | undefined
}

interface Flight {
  readonly queued: Queued
  untilMs: number
}

interface Queue {
  readonly topic: Topic
  readonly groups: Map<string, Group>
  /** Groups of which something waits. */
  readonly ready: Set<Group>
  readonly flights: Map<string, Flight>
  readonly waiters: Set<() => void>
}

interface Topic {
  readonly archive: Stored[]
  readonly seen: Map<string, number>
  readonly queues: Set<Queue>
  sequence: bigint
}

const BATCH_MAX = 10
const BODY_MAX_BYTES = 262_144
const ARCHIVE_MAX = 100_000
const DEDUPLICATION_MS = 300_000

export type QueueService = ReturnType<typeof createQueueService>

export function createQueueService() {
  const topics = new Map<string, Topic>()
  const queues = new Map<string, Queue>()
  let receipts = 0

  function topicOf(name: string): Topic {
    const topic = topics.get(name) ?? { archive: [], seen: new Map(), queues: new Set(), sequence: 0n }
    topics.set(name, topic)
    return topic
  }

  function queueOf(name: string): Queue {
    const queue = queues.get(name)
    if (queue === undefined) throw new Error(`QueueDoesNotExist: ${name}`)
    return queue
  }

  function put(queue: Queue, queued: Queued): void {
    const { group: id } = queued.stored.entry
    const group = queue.groups.get(id) ?? { waiting: [], invisible: 0, receiver: undefined }
    queue.groups.set(id, group)
    let at = group.waiting.length
    while (at > 0 && group.waiting[at - 1]!.stored.sequence > queued.stored.sequence) at--
    group.waiting.splice(at, 0, queued)
    queue.ready.add(group)
    wakeAll(queue)
  }

  function wakeAll(queue: Queue): void {
    for (const wake of queue.waiters) wake()
  }

  function land(queue: Queue, receipt: string, visibleAgain: boolean): void {
    const { queued } = queue.flights.get(receipt)!
    queue.flights.delete(receipt)
    const group = queue.groups.get(queued.stored.entry.group)!
    group.invisible--
    if (visibleAgain) put(queue, queued)
    else if (group.invisible > 0) return
    else if (group.waiting.length > 0) wakeAll(queue)
    else queue.groups.delete(queued.stored.entry.group)
  }

  function take(queue: Queue, { receiver, max, visibilityMs }: ReceiveRequest): QueueMessage[] {
    const nowMs = Date.now()
    for (const [receipt, { untilMs }] of queue.flights) if (untilMs <= nowMs) land(queue, receipt, true)
    const messages: QueueMessage[] = []
    for (const group of queue.ready) {
      if (messages.length === max) break
      if (group.invisible > 0 && group.receiver !== receiver) continue
      group.receiver = receiver
      for (const queued of group.waiting.splice(0, max - messages.length)) {
        const receipt = `receipt-${++receipts}`
        group.invisible++
        queue.flights.set(receipt, { queued, untilMs: nowMs + visibilityMs })
        const { entry, sequence } = queued.stored
        messages.push({ ...entry, receipt, sequence, receiveCount: ++queued.receiveCount })
      }
      // Groups take turns.
      queue.ready.delete(group)
      if (group.waiting.length > 0) queue.ready.add(group)
    }
    return messages
  }

  /** Does it for each receipt that still counts, and gives back those that do not. */
  function each(name: string, list: readonly string[], act: (queue: Queue, receipt: string) => void): string[] {
    if (list.length > BATCH_MAX) throw new Error('TooManyEntriesInBatchRequest')
    const queue = queueOf(name)
    const known = list.filter((receipt) => queue.flights.has(receipt))
    for (const receipt of known) act(queue, receipt)
    return list.filter((receipt) => !known.includes(receipt))
  }

  return {
    /** By index: undefined where it was stored, or else why not. */
    async sendBatch(name: string, entries: readonly SendEntry[]): Promise<readonly ('MessageTooLong' | undefined)[]> {
      if (entries.length > BATCH_MAX) throw new Error('TooManyEntriesInBatchRequest')
      const topic = topicOf(name)
      const nowMs = Date.now()
      for (const [id, atMs] of topic.seen) {
        if (atMs + DEDUPLICATION_MS > nowMs) break
        topic.seen.delete(id)
      }
      return entries.map((entry) => {
        if (entry.body.byteLength > BODY_MAX_BYTES) return 'MessageTooLong'
        if (topic.seen.has(entry.id)) return undefined
        topic.seen.set(entry.id, nowMs)
        const stored = { entry, sequence: ++topic.sequence, sentAtMs: nowMs }
        topic.archive.push(stored)
        if (topic.archive.length > ARCHIVE_MAX) topic.archive.shift()
        for (const queue of topic.queues) put(queue, { stored, receiveCount: 0 })
        return undefined
      })
    },

    /** Makes a queue of a topic, where there is none of that name. It begins with what was sent at `replayFrom` or later, or else with what comes. */
    async createQueue(name: string, topicName: string, replayFrom: Date | undefined): Promise<void> {
      if (queues.has(name)) return
      const topic = topicOf(topicName)
      const queue: Queue = { topic, groups: new Map(), ready: new Set(), flights: new Map(), waiters: new Set() }
      queues.set(name, queue)
      topic.queues.add(queue)
      if (replayFrom === undefined) return
      for (const stored of topic.archive) if (stored.sentAtMs >= replayFrom.getTime()) put(queue, { stored, receiveCount: 0 })
    },

    async deleteQueue(name: string): Promise<void> {
      const queue = queues.get(name)
      queue?.topic.queues.delete(queue)
      queues.delete(name)
    },

    /** Up to ten messages; none where none came in time, or `signal` aborted. */
    async receive(name: string, request: ReceiveRequest, signal: AbortSignal): Promise<readonly QueueMessage[]> {
      const queue = queueOf(name)
      const messages = signal.aborted ? [] : take(queue, request)
      if (messages.length > 0 || signal.aborted) return messages
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          clearTimeout(timer)
          signal.removeEventListener('abort', wake)
          queue.waiters.delete(wake)
          resolve()
        }
        const timer = setTimeout(wake, request.waitMs)
        signal.addEventListener('abort', wake)
        queue.waiters.add(wake)
      })
      return signal.aborted ? [] : take(queue, request)
    },

    /** They are done. Gives back the receipts that do not count any more. */
    async deleteBatch(name: string, list: readonly string[]): Promise<readonly string[]> {
      return each(name, list, (queue, receipt) => land(queue, receipt, false))
    },

    /** Visible to others after `visibilityMs` from now; 0: at once. Gives back the receipts that do not count any more. */
    async changeVisibility(name: string, list: readonly string[], visibilityMs: number): Promise<readonly string[]> {
      return each(name, list, (queue, receipt) => {
        if (visibilityMs === 0) land(queue, receipt, true)
        else queue.flights.get(receipt)!.untilMs = Date.now() + visibilityMs
      })
    },
  }
}
