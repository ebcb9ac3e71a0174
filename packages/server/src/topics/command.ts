import type { TopicReport } from 'waybill'
import { BROKER_FLAGS, adminOf, ask, openBroker, requiredBroker } from '../cli/broker.ts'
import type { Command, CommandInput, ExitCode } from '../cli/command.ts'
import { table } from '../cli/output.ts'
import { counted, printable } from '../cli/printable.ts'

/** `waybill topics`: what a broker holds, and who has not read it yet. */
export const topicsCommand: Command = {
  name: 'topics',
  summary: 'list the topics of the broker, with their groups and what these have not handled',
  description: [
    'Lists the topics that the broker has, or those named: what they are called there, their partitions, the messages',
    'held, and of each group its members and its lag, the messages that it has not settled. "-": the broker does not',
    'tell. Changes nothing. Exit code 1 where a topic that was named is missing.',
  ],
  flags: { topic: { value: 'TOPIC', multiple: true, help: 'only this topic; may be given without --topic' }, ...BROKER_FLAGS },
  positional: 'topic',
  run: topics,
}

async function topics(input: CommandInput): Promise<ExitCode> {
  const { flags, output, env, signal } = input
  const choice = requiredBroker(input)
  const named = [...new Set(flags.texts('topic'))]
  const transport = await openBroker(choice, env)
  try {
    const admin = adminOf(transport)
    const reports = await ask(choice, env, signal, (limit) => admin.topics(named.length === 0 ? undefined : named, limit))
    if (flags.on('json')) output.json({ transport: transport.name, topics: reports.map(forMachines) })
    else {
      for (const line of lines(reports)) output.print(line)
      const groups = new Set(reports.flatMap((report) => report.groups.map(({ group }) => group)))
      output.note(`${counted(reports.length, 'topic')}, ${counted(groups.size, 'group')} at ${transport.name}`)
    }
    return 0
  } finally {
    await transport.close()
  }
}

// JSON has no undefined, and what is left out is not the same as what can't be told.
function forMachines({ messages, groups, ...rest }: TopicReport): object {
  return {
    ...rest,
    messages: messages ?? null,
    groups: groups.map(({ group, members, lag }) => ({ group, members: members ?? null, lag: lag ?? null })),
  }
}

function lines(reports: readonly TopicReport[]): readonly string[] {
  if (reports.length === 0) return []
  const figure = (value: number | undefined): string => (value === undefined ? '-' : String(value))
  const rows = reports.flatMap(({ topic, brokerName, partitions, messages, groups }) => {
    const own = [printable(topic), printable(brokerName), String(partitions), figure(messages)]
    // A topic is said once, its groups below one another.
    const first =
      groups[0] === undefined ? [['', '', '']] : groups.map(({ group, members, lag }) => [printable(group), figure(members), figure(lag)])
    return first.map((cells, at) => [...(at === 0 ? own : ['', '', '', '']), ...cells])
  })
  return table(['topic', 'at the broker', 'partitions', 'messages', 'group', 'members', 'lag'], rows)
}
