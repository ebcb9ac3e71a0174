import { closeSync, openSync, readFileSync, readdirSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { LoggedDelivery } from './check.ts'

const NAME = /^deliveries-(\d+)\.log$/

/** Writes down deliveries outside the database, each with a write of its own: what was written survives SIGKILL. */
export interface DeliveryLog extends Disposable {
  append(handler: string, eventId: string): void
}

/** A new log for the process of this `run`. */
export function openDeliveryLog(folder: string, run: number): DeliveryLog {
  const file = openSync(join(folder, `deliveries-${run}.log`), 'ax')
  return {
    append: (handler, eventId) => void writeSync(file, `${handler}\t${eventId}\n`),
    [Symbol.dispose]: () => closeSync(file),
  }
}

/** All deliveries of all runs, in order; `consumerOf` turns the name of a handler into the consumer's. */
export function readDeliveryLogs(folder: string, consumerOf: (handler: string) => string): readonly LoggedDelivery[] {
  const runs = readdirSync(folder)
    .flatMap((name) => NAME.exec(name)?.[1] ?? [])
    .map(Number)
    .toSorted((a, b) => a - b)
  return runs.flatMap((run) =>
    readFileSync(join(folder, `deliveries-${run}.log`), 'utf8')
      .split('\n')
      .flatMap((line) => {
        const [handler, eventId] = line.split('\t')
        return handler === undefined || eventId === undefined ? [] : [{ consumer: consumerOf(handler), eventId }]
      }),
  )
}
