import { WaybillError } from './errors.ts'
import { checkGroup, checkTopic } from './names.ts'
import { checkInteger } from './options.ts'
import type { Source } from './transport.ts'

/** A {@link Source} that has been checked, with its defaults. */
export interface CheckedSource {
  /** Each once. */
  readonly topics: readonly string[]
  readonly group: string | undefined
  readonly start: NonNullable<Source['start']>
  readonly batchMax: number
}

/**
 * Checks what somebody wants to read: every transport refuses the same things with the same errors.
 * @throws WaybillError `INVALID_NAME` | `INVALID_OPTION`; `UNSUPPORTED` for a time where `startsAtTime` is false
 */
export function checkSource({ topics, group, start = 'earliest', batchMax = 200 }: Source, startsAtTime: boolean): CheckedSource {
  if (!Array.isArray(topics) || topics.length === 0)
    throw new WaybillError('INVALID_OPTION', 'there is nothing to subscribe to', {
      got: topics,
      allowed: 'one topic or more',
      where: 'topics',
    })
  checkStart(start, startsAtTime)
  checkInteger(batchMax, 'batchMax', 1, 10_000)
  return { topics: [...new Set(topics)].map(checkTopic), group: group === undefined ? undefined : checkGroup(group), start, batchMax }
}

function checkStart(start: unknown, startsAtTime: boolean): void {
  if (start === 'earliest' || start === 'latest') return
  const at = typeof start === 'object' && start !== null && 'at' in start ? start.at : undefined
  if (!(at instanceof Date) || Number.isNaN(at.getTime()))
    throw new WaybillError('INVALID_OPTION', 'start is not known', {
      got: start,
      allowed: "'earliest', 'latest' or { at: Date }",
      where: 'start',
    })
  if (!startsAtTime)
    throw new WaybillError('UNSUPPORTED', 'this transport cannot begin at a time', {
      got: start,
      allowed: "'earliest' or 'latest'",
      where: 'start',
    })
}
