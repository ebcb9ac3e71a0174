import { type Source, WaybillError, isWaybillError } from 'waybill'
import { BROKER_FLAGS, explained, openBroker, requiredBroker } from '../cli/broker.ts'
import type { Flags } from '../cli/arguments.ts'
import type { Command, CommandInput, ExitCode } from '../cli/command.ts'
import { sayTransport } from '../cli/transport-events.ts'
import { filterOf } from './filter.ts'
import { follow } from './follow.ts'
import { humanLine, jsonLine, seenOf } from './seen.ts'

const COUNT_MAX = 1_000_000_000
const TOPICS_MAX = 100

/** `waybill tail`: shows what passes by, and changes nothing. */
export const tailCommand: Command = {
  name: 'tail',
  summary: 'show the events of topics as they pass by',
  description: [
    'Shows what is published to topics, decoded, a line each, until SIGINT or --count. Joins no group and settles',
    'nothing: no consumer notices. What is no event is shown as it is. A topic that is not there yet is waited for, not',
    'made. What is not printable is escaped. Several filters must all fit; of several types, or keys, one.',
  ],
  flags: {
    topic: { value: 'TOPIC', multiple: true, help: 'a topic; may be given without --topic' },
    from: { value: 'START', help: 'earliest, latest (default), or a time: 2026-11-21T15:00:00Z, or 10m for ten minutes ago' },
    type: { value: 'PATTERN', multiple: true, help: 'only events of this type; * stands for any characters: order.*' },
    key: { value: 'KEY', multiple: true, help: 'only messages of this key' },
    where: {
      value: 'CONDITION',
      multiple: true,
      help: 'FIELD=VALUE: only where this field of the envelope has this value: payload.amount=3',
    },
    count: { value: 'N', help: `end after so many were shown, 1 to ${COUNT_MAX}` },
    ...BROKER_FLAGS,
  },
  positional: 'topic',
  stoppable: true,
  run: tail,
}

async function tail(input: CommandInput): Promise<ExitCode> {
  const { flags, output, env, signal } = input
  const topics = topicsOf(flags)
  const [start, filter, countMax] = [startOf(flags, Date.now()), filterOf(flags), flags.integer('count', 1, COUNT_MAX) ?? Infinity]
  const choice = requiredBroker(input)
  const transport = await openBroker(
    choice,
    env,
    sayTransport(output, (error) => explained(error, choice, env)),
  )
  let count = 0
  try {
    if (typeof start === 'object' && transport.capabilities.startsAtTime !== true)
      throw new WaybillError('UNSUPPORTED', `${transport.name} cannot begin at a time`, {
        got: flags.text('from'),
        allowed: 'earliest or latest',
        where: '--from',
      })
    await follow({
      transport,
      choice,
      env,
      topics,
      start,
      signal,
      onMissing: (topic) => output.note(`${topic} is not there yet: waiting for it`),
      async onDelivery(delivery) {
        const seen = seenOf(delivery)
        if (!filter(seen)) return true
        output.print(flags.on('json') ? jsonLine(seen) : humanLine(seen, output))
        return ++count < countMax && (await output.room(signal))
      },
    })
    return 0
  } catch (error) {
    throw explained(error, choice, env)
  } finally {
    await transport.close()
  }
}

function topicsOf(flags: Flags): readonly string[] {
  const topics = [...new Set(flags.texts('topic'))]
  if (topics.length > 0 && topics.length <= TOPICS_MAX) return topics
  throw new WaybillError('INVALID_SETTING', topics.length === 0 ? 'which topic was not said' : 'these are too many topics', {
    ...(topics.length === 0 ? {} : { got: topics.length }),
    allowed: `1 to ${TOPICS_MAX} topics: waybill tail TOPIC; "waybill topics" lists them`,
  })
}

/** Where to begin. @throws WaybillError `INVALID_SETTING` */
function startOf(flags: Flags, nowMs: number): NonNullable<Source['start']> {
  const text = flags.text('from') ?? 'latest'
  if (text === 'earliest' || text === 'latest') return text
  try {
    return { at: new Date(nowMs - flags.duration('from')!) }
  } catch (error) {
    if (!isWaybillError(error, 'INVALID_SETTING')) throw error
  }
  // With its zone, or as a day: what has none means another moment on each machine.
  const isTime = /^\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d))?$/.test(text)
  const at = new Date(text)
  if (isTime && !Number.isNaN(at.getTime())) return { at }
  throw new WaybillError('INVALID_SETTING', '--from is not usable', {
    got: text,
    allowed: 'earliest, latest, a time with its zone (2026-11-21T15:00:00Z, 2026-11-21), or how long ago (90s, 10m, 2h, 1d)',
  })
}
