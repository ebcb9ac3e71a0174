import { isWaybillError, type WaybillError } from '../../core/errors.ts'
import type { Link } from './link.ts'
import { TRIM_COUNT } from './scripts.ts'
import { compareIds, idBeforeTime } from './stream-id.ts'

export interface TrimmerOptions {
  readonly link: Link
  readonly retainMs: number
  readonly retainMax: number
  readonly everyMs: number
  onFailure(error: WaybillError): void
}

/** Removes what every group has settled and nobody needs any more, a little at a time. */
export interface Trimmer {
  /** From now on this stream too. */
  watch(stream: string): void
  close(): void
}

const STREAMS_MAX = 100_000
/** Entries that one step may remove. */
const STEP_MAX = 10_000
/** Streams that are looked at together. */
const TOGETHER = 16
/** Entries that one step removes where there are too many: each is looked at. */
const COUNT_STEP = 1_000

export function createTrimmer({ link, retainMs, retainMax, everyMs, onFailure }: TrimmerOptions): Trimmer {
  const streams = new Set<string>()
  let timer: NodeJS.Timeout | undefined
  let closed = false

  async function trimAll(): Promise<void> {
    const all = [...streams]
    try {
      const [seconds] = (await link.call(['TIME'])) as readonly [string]
      const oldest = idBeforeTime(Number(seconds) * 1000 - retainMs)
      for (let at = 0; at < all.length && !closed; at += TOGETHER)
        await Promise.all(all.slice(at, at + TOGETHER).map((stream) => trimOne(stream, oldest).catch(failed)))
    } catch (error) {
      failed(error)
    }
    plan()
  }

  /** One stream that can't be trimmed keeps no other from it. */
  function failed(error: unknown): void {
    if (isWaybillError(error) && error.code !== 'CLOSED') onFailure(error)
  }

  async function trimOne(stream: string, oldest: string): Promise<void> {
    const count = Number(await link.call(['XLEN', stream]))
    if (count === 0) return
    const unsettled = await firstUnsettled(stream)
    if (unsettled === undefined) {
      // Nobody reads it: it is a buffer for whoever may come.
      if (count > retainMax) await link.call(['XTRIM', stream, 'MAXLEN', '~', String(retainMax), 'LIMIT', String(STEP_MAX)])
      return
    }
    const safe = compareIds(oldest, unsettled) < 0 ? oldest : unsettled
    if (safe !== '0-0') await link.call(['XTRIM', stream, 'MINID', '~', safe, 'LIMIT', String(STEP_MAX)])
    if (count > retainMax) await link.script(TRIM_COUNT, [stream], [unsettled, String(retainMax), String(COUNT_STEP)])
  }

  /** The id from which on some group still needs all; undefined where there is no group. */
  async function firstUnsettled(stream: string): Promise<string | undefined> {
    const groups = (await link.call(['XINFO', 'GROUPS', stream])) as readonly (readonly unknown[])[]
    let first: string | undefined
    for (const group of groups) {
      const fields = new Map<unknown, unknown>()
      for (let at = 0; at + 1 < group.length; at += 2) fields.set(group[at], group[at + 1])
      let needed = String(fields.get('last-delivered-id'))
      if (Number(fields.get('pending')) > 0) {
        const [, oldest] = (await link.call(['XPENDING', stream, String(fields.get('name'))])) as readonly [number, string | null]
        if (oldest !== null && compareIds(oldest, needed) < 0) needed = oldest
      }
      if (first === undefined || compareIds(needed, first) < 0) first = needed
    }
    return first
  }

  function plan(): void {
    if (closed || streams.size === 0) return
    timer = setTimeout(() => void trimAll(), everyMs)
    timer.unref()
  }

  return {
    watch(stream) {
      if (streams.has(stream) || streams.size >= STREAMS_MAX) return
      streams.add(stream)
      if (streams.size === 1) plan()
    },
    close() {
      closed = true
      clearTimeout(timer)
    },
  }
}
