import { writeFileSync } from 'node:fs'
import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises'
import { WaybillError, isWaybillError, messageOf } from '../../src/core/errors.ts'
import type { Message, Publisher, PublishOutcome } from '../../src/core/transport.ts'
import { createRelay } from '../../src/outbox/relay.ts'
import { armCrashpointFromEnvironment } from '../../src/testing/crashpoints.ts'
import { seededRandom } from '../../src/testing/contract-tools.ts'
import { openBrokerFile } from './broker-file.ts'
import { type BrokenStore, openStorage } from './storages.ts'

// A relay as a process of its own: node relay-process.ts '{"url": ...}', with an IPC channel to whoever started it. SIGTERM stops it in good order.

/** What a relay process is told. */
export interface RelayProcessOptions {
  readonly url: string
  readonly relayId: string
  readonly leaseMs: number
  readonly seed: number
  /** The file that is the broker. */
  readonly broker: string
  /** `POINT:HIT`: where it kills itself. */
  readonly crash?: string
  /** Written just before it does. */
  readonly lastWords?: string
  /** So many messages of a thousand are refused by content, as often as `refusals` says, by each process anew. */
  readonly refusedPerMille?: number
  readonly refusals?: number
  readonly attemptsMax?: number
  readonly queryTimeoutMs?: number
  readonly broken?: BrokenStore
}

/** What a relay process says, from time to time and at its end. */
export interface RelayReport {
  readonly published: number
  readonly held: number
  readonly parked: number
  /** Failures of the database. */
  readonly failures: number
  readonly shards: number
  readonly fatal?: string
}

const REPORT_MS = 50
const SLOW_MESSAGES = 0.3
const SLOW_MS = 4
const REFUSING = new WaybillError('MESSAGE_REJECTED', 'refused on purpose')
const FOLLOWS = new WaybillError('QUEUE_FULL', 'stands behind one that was refused')

const options = JSON.parse(process.argv[2] ?? '{}') as RelayProcessOptions

/** A number from 0 to 999 that is an event's own: every process refuses the same ones. */
function lotOf(eventId: string): number {
  let hash = 7
  for (const character of eventId) hash = (hash * 31 + character.codePointAt(0)!) >>> 0
  return hash % 1000
}

/** Stores one message after the other, with the turn of the event loop in between: what stops the process may stop it in the middle of a call. */
function recordingPublisher({ broker, relayId, seed, refusedPerMille = 0, refusals = 1 }: RelayProcessOptions): Publisher {
  const file = openBrokerFile(broker)
  const random = seededRandom(seed)
  const refused = new Map<string, number>()

  function isRefused({ id }: Message): boolean {
    if (lotOf(id) >= refusedPerMille) return false
    const times = (refused.get(id) ?? 0) + 1
    refused.set(id, times)
    return times <= refusals
  }

  async function publish(messages: readonly Message[], signal: AbortSignal): Promise<readonly PublishOutcome[]> {
    const outcomes: PublishOutcome[] = []
    const stopped = new Set<string>()
    for (const message of messages) {
      // A broker takes its time: what strikes then finds rows in flight.
      if (random() < SLOW_MESSAGES) await delay(SLOW_MS)
      else await turn()
      if (stopped.has(message.key) || signal.aborted) {
        outcomes.push({ kind: 'rejected', error: FOLLOWS })
      } else if (isRefused(message)) {
        stopped.add(message.key)
        outcomes.push({ kind: 'rejected', error: REFUSING })
      } else {
        file.store({ eventId: message.id, key: message.key, relayId })
        outcomes.push({ kind: 'stored' })
      }
    }
    return outcomes
  }
  return { capabilities: { ordering: 'key', stopsKeyAtFailure: true, acknowledges: 'stored', delay: false }, publish }
}

async function main(): Promise<void> {
  const { url, relayId, leaseMs, seed, crash, lastWords, attemptsMax = 20, queryTimeoutMs, broken } = options
  armCrashpointFromEnvironment(crash, {
    action() {
      if (lastWords !== undefined) writeFileSync(lastWords, `${crash}\n`)
      process.kill(process.pid, 'SIGKILL')
    },
  })
  const storage = await openStorage({
    url,
    name: relayId,
    poolMax: 6,
    ...(broken === undefined ? {} : { broken }),
    ...(queryTimeoutMs === undefined ? {} : { queryTimeoutMs }),
  })
  const relay = createRelay({
    store: storage.outbox,
    publishers: new Map([['default', recordingPublisher(options)]]),
    relayId,
    leaseMs,
    batchSize: 40,
    inFlightMax: 200,
    pollIntervalMs: 50,
    shutdownMs: 2_000,
    retry: { attemptsMax, baseMs: 5, maxMs: 50 },
    random: seededRandom(seed + 1),
  })
  const stop = new AbortController()
  process.once('SIGTERM', () => stop.abort())
  const reporting = setInterval(report, REPORT_MS)
  let fatal: string | undefined
  try {
    await relay.run(stop.signal)
  } catch (error) {
    fatal = `${isWaybillError(error) ? error.code : 'ERROR'}: ${messageOf(error)}`
  }
  clearInterval(reporting)
  report()
  await storage.close()
  process.exitCode = fatal === undefined ? 0 : 1
  process.disconnect()

  function report(): void {
    const { published, held, parked, failures, shards } = relay.stats()
    const said: RelayReport = { published, held, parked, failures, shards, ...(fatal === undefined ? {} : { fatal }) }
    // Whoever started it may be gone: `disconnect` follows.
    process.send?.(said, undefined, undefined, () => {})
  }
}

// An orphan ends at once: nobody would stop it.
process.once('disconnect', () => process.exit())
await main()
