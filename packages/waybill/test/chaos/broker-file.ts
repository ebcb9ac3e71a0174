import { closeSync, openSync, readSync, writeSync } from 'node:fs'

/**
 * A file as broker: each message is a line, appended by one write, so that what a process has said is there whatever becomes of it, and the lines of
 * several processes are in one order.
 */
export interface BrokerFile {
  /** Durable, for whoever outlives this process, when it returns. */
  store(sent: Sent): void
  close(): void
}

/** A message that has arrived. */
export interface Sent {
  readonly eventId: string
  readonly key: string
  /** By which relay. */
  readonly relayId: string
}

export function openBrokerFile(path: string): BrokerFile {
  const file = openSync(path, 'a')
  return {
    store: ({ eventId, key, relayId }) => void writeSync(file, `${eventId}\t${key}\t${relayId}\n`),
    close: () => closeSync(file),
  }
}

const CHUNK_BYTES = 256 * 1024

/** Reads what has arrived since the last time, whole lines only. */
export function readBrokerFile(path: string): { readonly next: () => readonly Sent[]; readonly close: () => void } {
  const file = openSync(path, 'a+')
  const chunk = Buffer.alloc(CHUNK_BYTES)
  let position = 0
  let rest = ''
  return {
    next() {
      const sent: Sent[] = []
      for (;;) {
        const read = readSync(file, chunk, 0, CHUNK_BYTES, position)
        if (read === 0) return sent
        position += read
        // What is written is ASCII: no character is ever cut in two.
        const lines = (rest + chunk.toString('latin1', 0, read)).split('\n')
        rest = lines.pop()!
        for (const line of lines) {
          const [eventId = '', key = '', relayId = ''] = line.split('\t')
          sent.push({ eventId, key, relayId })
        }
      }
    },
    close: () => closeSync(file),
  }
}
