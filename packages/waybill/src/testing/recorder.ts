import { WaybillError } from '../core/errors.ts'
import type { Observe, WaybillEvent } from '../core/observe.ts'
import { checkInteger } from '../core/options.ts'

/** The {@link WaybillEvent} of one type. */
export type WaybillEventOf<Type extends WaybillEvent['type']> = Extract<WaybillEvent, { readonly type: Type }>

/** Keeps what happened, for tests to look at. */
export interface Recorder {
  /** Hand this to what is observed. */
  readonly observe: Observe
  /** Everything seen, oldest first. */
  readonly events: readonly WaybillEvent[]
  /** What was seen of one type, oldest first. */
  ofType<Type extends WaybillEvent['type']>(type: Type): readonly WaybillEventOf<Type>[]
  /**
   * The first event of `type` that fits `predicate`; also one that was seen before this call, so there is no race to start waiting in time.
   * Waits for at most `timeoutMs`, 1 to 600,000. @default 10000
   * @throws WaybillError `TIMEOUT`, with what was seen instead
   */
  waitFor<Type extends WaybillEvent['type']>(
    type: Type,
    predicate?: (event: WaybillEventOf<Type>) => boolean,
    timeoutMs?: number,
  ): Promise<WaybillEventOf<Type>>
  /** Forgets what was seen. */
  clear(): void
}

/** Records up to `eventsMax` events (1 to 1,000,000); then the oldest make room. @default 100000 */
export function createRecorder(eventsMax = 100_000): Recorder {
  checkInteger(eventsMax, 'eventsMax', 1, 1_000_000)
  const events: WaybillEvent[] = []
  const waiting = new Set<(event: WaybillEvent) => void>()
  return {
    events,
    observe(event) {
      if (events.length >= eventsMax) events.shift()
      events.push(event)
      for (const offer of waiting) offer(event)
    },
    ofType: (type) => events.filter((event): event is WaybillEventOf<typeof type> => event.type === type),
    waitFor<Type extends WaybillEvent['type']>(
      type: Type,
      predicate: (event: WaybillEventOf<Type>) => boolean = () => true,
      timeoutMs = 10_000,
    ) {
      checkInteger(timeoutMs, 'timeoutMs', 1, 600_000)
      const fits = (event: WaybillEvent): event is WaybillEventOf<Type> => event.type === type && predicate(event as WaybillEventOf<Type>)
      const { promise, resolve, reject } = Promise.withResolvers<WaybillEventOf<Type>>()
      const seen = events.find(fits)
      if (seen !== undefined) {
        resolve(seen)
        return promise
      }
      const offer = (event: WaybillEvent): void => {
        try {
          if (!fits(event)) return
          resolve(event)
        } catch (error) {
          // The predicate's fault: the one who waits hears of it, not the one who is observed.
          reject(error)
        }
        waiting.delete(offer)
        clearTimeout(timer)
      }
      const timer = setTimeout(() => {
        waiting.delete(offer)
        reject(
          new WaybillError('TIMEOUT', `no ${type} that fits came within ${timeoutMs} ms`, {
            got: summary(events),
            where: 'recorder.waitFor',
          }),
        )
      }, timeoutMs)
      waiting.add(offer)
      return promise
    },
    clear() {
      events.length = 0
    },
  }
}

function summary(events: readonly WaybillEvent[]): string {
  const counts = new Map<string, number>()
  for (const { type } of events) counts.set(type, (counts.get(type) ?? 0) + 1)
  return [...counts].map(([type, count]) => `${count} × ${type}`).join(', ') || 'nothing'
}
