import { closeSync, openSync, readFileSync, readdirSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { LoggedDelivery } from './check.ts'

const NAME = /^deliveries-\d+\.log$/

/** Writes down deliveries outside the database, each with a write of its own: what was written survives SIGKILL. */
export interface DeliveryLog extends Disposable {
  append(handler: string, eventId: string): void
}

/** A new log for the process of this `run`. Times are of the machine's clock that never goes back, which is the same in all its processes. */
export function openDeliveryLog(folder: string, run: number): DeliveryLog {
  const file = openSync(join(folder, `deliveries-${run}.log`), 'ax')
  return {
    append: (handler, eventId) => void writeSync(file, `${handler}\t${eventId}\t${process.hrtime.bigint()}\n`),
    [Symbol.dispose]: () => closeSync(file),
  }
}

/** All deliveries of all processes, in order; `consumerOf` turns the name of a handler into the consumer's. */
export function readDeliveryLogs(folder: string, consumerOf: (handler: string) => string): readonly LoggedDelivery[] {
  const all = readdirSync(folder)
    .filter((name) => NAME.test(name))
    .flatMap((name) => readFileSync(join(folder, name), 'utf8').split('\n'))
    .flatMap((line) => {
      const [handler, eventId, time] = line.split('\t')
      // A last line that was cut off tells of nothing that anybody has handled.
      return handler === undefined || eventId === undefined || time === undefined
        ? []
        : [{ consumer: consumerOf(handler), eventId, time: BigInt(time) }]
    })
  return all.toSorted((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0)).map(({ consumer, eventId }) => ({ consumer, eventId }))
}
