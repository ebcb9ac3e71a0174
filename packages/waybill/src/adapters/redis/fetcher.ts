import { isWaybillError, WaybillError } from '../../core/errors.ts'
import type { RawEntry } from './entries.ts'
import type { Link } from './link.ts'
import { commandError, replyCode } from './redis-errors.ts'
import { CONSUMER, FETCH } from './scripts.ts'

/** What to read, and in whose right. */
export interface FetchRequest {
  readonly stream: string
  /** The key of the lease, and what it holds while it is ours. */
  readonly lease: string
  readonly token: string
  readonly group: string
  /** Most entries. */
  readonly most: number
}

/** Reads new entries for the leases of one connection, only while they are held: the server compares in the same step in which it reads. */
export interface Fetcher {
  /**
   * New entries, which count as delivered then; none where there are none.
   * @throws WaybillError `LEASE_LOST`; as `Link.script`
   */
  fetch(request: FetchRequest): Promise<readonly RawEntry[]>
}

/** Up to here a script is quickest: one trip. Beyond, a script takes three times as long for each entry as the server itself does. */
export const SCRIPT_MOST = 16
/** Leases that are read for together: the server does nothing else meanwhile. */
const ROUND_MAX = 16
/** Rounds whose leases are watched for the next one. */
const RECENT_MAX = 4

interface Watched {
  readonly generation: number
  readonly tokens: ReadonlyMap<string, string | undefined>
}

interface Wanted extends FetchRequest {
  resolve(entries: readonly RawEntry[]): void
  reject(error: unknown): void
}

/**
 * Few entries come by a script; many by a transaction for all leases that want some: the server watches the leases from before they are compared until it
 * has read, and where one has changed meanwhile it reads nothing. Then the script does it for each.
 */
export function createFetcher(link: Link, where: string): Fetcher {
  let wanted: Wanted[] = []
  let isRunning = false
  /** Leases that are watched already, and what they held when that began. */
  let watched: Watched | undefined
  /** Those of the last rounds. */
  let recent: readonly (readonly string[])[] = []
  /** Whether this server and user let us: without the right to begin a transaction, the reads would be done outside of any. */
  let mayTransact = true
  /** The connection on which that was tried. */
  let triedOn: number | undefined

  const byScript = async ({ stream, lease, token, group, most }: FetchRequest): Promise<readonly RawEntry[]> =>
    (await link.script(FETCH, [stream, lease], [group, token, String(Math.min(most, SCRIPT_MOST))], { bytes: true })) as readonly RawEntry[]

  async function run(): Promise<void> {
    // Those that ask within one turn go together.
    await Promise.resolve()
    let handOut: (() => void) | undefined
    while (wanted.length > 0) {
      // Half of them: while the server reads for these, those of the last round are worked on here, and ask again.
      const count = Math.min(ROUND_MAX, Math.ceil(wanted.length / 2))
      const round = wanted.slice(0, count)
      wanted = wanted.slice(count)
      const reading = readTogether(round)
      // The client writes at the end of this turn: what came before is worked on in the one after.
      if (handOut !== undefined) setImmediate(setImmediate, handOut)
      handOut = await reading
    }
    isRunning = false
    handOut?.()
  }

  /** Gives what hands out the answers. Never rejects. */
  async function readTogether(round: readonly Wanted[]): Promise<() => void> {
    try {
      const watching = await watch(round)
      if (watching === undefined)
        return () => {
          for (const request of round) settle(request, undefined)
        }
      const { generation, tokens } = watching
      const held = round.filter(({ lease, token }) => tokens.get(lease) === token)
      const replies = held.length === 0 ? [] : await readWatched(held, generation)
      return () => {
        for (const { lease, token, reject } of round)
          if (tokens.get(lease) !== token) reject(new WaybillError('LEASE_LOST', 'the lease is with somebody else', { where: lease }))
        for (const [at, request] of held.entries()) settle(request, replies?.[at])
      }
    } catch (error) {
      return () => {
        for (const { reject } of round) reject(error)
      }
    }
  }

  /** An answer for each, or nothing where one of the leases has changed meanwhile. */
  async function readWatched(held: readonly Wanted[], generation: number): Promise<readonly unknown[] | null> {
    const leases = held.map(({ lease }) => lease)
    // Most come again soon: they are watched by then.
    recent = [leases, ...recent].slice(0, RECENT_MAX)
    const next = [...new Set(recent.flat())]
    const read = ({ stream, group, most }: Wanted) => ['XREADGROUP', 'GROUP', group, CONSUMER, 'COUNT', `${most}`, 'STREAMS', stream, '>']
    // Another connection than that of `generation` would watch nothing.
    const replies = await link.together([['MULTI'], ...held.map(read), ['EXEC'], ...watchAndGet(next)], { bytes: true, generation })
    watched = { generation, tokens: tokensOf(next, replies.at(-1)) }
    return replies.at(-3) as readonly unknown[] | null
  }

  /** Nothing where this user may not. */
  async function watch(round: readonly Wanted[]): Promise<Watched | undefined> {
    const before = watched
    watched = undefined
    // What was not ours then may be by now.
    if (before?.generation === link.generation && round.every(({ lease, token }) => before.tokens.get(lease) === token)) return before
    const leases = round.map(({ lease }) => lease)
    if (triedOn === link.generation) {
      const replies = await link.together(watchAndGet(leases), { bytes: true, generation: triedOn })
      return { generation: triedOn, tokens: tokensOf(leases, replies.at(-1)) }
    }
    try {
      const replies = await link.together([['MULTI'], ['EXEC'], ...watchAndGet(leases)], { bytes: true })
      triedOn = link.generation
      return { generation: triedOn, tokens: tokensOf(leases, replies.at(-1)) }
    } catch (error) {
      if (!isWaybillError(error) || !isRefusal(error)) throw error
      mayTransact = false
      // Where it may be begun and not ended, whatever comes next on this connection would wait in it, and be answered as if it were done.
      link.drop(error)
      return undefined
    }
  }

  /** `undefined`: a lease has changed; mostly it was extended. */
  function settle(request: Wanted, reply: unknown): void {
    if (reply === undefined) byScript(request).then(request.resolve, request.reject)
    else if (reply instanceof Error) request.reject(commandError(reply, where))
    else request.resolve((reply as readonly (readonly [stream: Buffer, entries: readonly RawEntry[]])[] | null)?.[0]?.[1] ?? [])
  }

  return {
    fetch(request) {
      if (request.most <= SCRIPT_MOST || !mayTransact) return byScript(request)
      return new Promise((resolve, reject) => {
        wanted.push({ ...request, resolve, reject })
        if (isRunning) return
        isRunning = true
        void run()
      })
    },
  }
}

const watchAndGet = (leases: readonly string[]): readonly (readonly string[])[] => [
  ['WATCH', ...leases],
  ['MGET', ...leases],
]

/** A right is missing, the end of a transaction is forbidden, or the server knows no such command. */
const isRefusal = ({ code, cause }: WaybillError): boolean => {
  const said = replyCode(cause)
  return code === 'ACCESS_DENIED' || said === 'EXECABORT' || said === 'ERR'
}

function tokensOf(leases: readonly string[], reply: unknown): ReadonlyMap<string, string | undefined> {
  const values = reply as readonly (Buffer | null)[]
  return new Map(leases.map((lease, at) => [lease, values[at]?.toString('utf8')]))
}
