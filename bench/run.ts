import { kafkaBenches } from './brokers/kafka.ts'
import { natsBenches } from './brokers/nats.ts'
import { pulsarBenches } from './brokers/pulsar.ts'
import { redisBenches } from './brokers/redis.ts'
import { relayBenches } from './brokers/relay.ts'
import { codecRows, seenSoFar } from './codec.ts'
import type { Effort } from './harness.ts'
import { handledSoFar, inProcessRows } from './in-process.ts'
import { keyedRows } from './keyed.ts'
import { pgliteRows } from './pglite.ts'
import { postgresBenches } from './postgres/benches.ts'
import { type Bench, benchOf, type GroupResult, machine, type Report, toMarkdown, writeResults } from './report.ts'

// Peers side by side: `npm run bench [-- A1 C F-relay ... --quick]`. A filter is the beginning of ids. What is run as a whole group goes to RESULTS.md,
// unless it was quick: that is a tenth of the work, to see that all runs.

interface Group {
  readonly letter: string
  readonly name: string
  /** Also says what servers it has started. */
  readonly make: (wanted: (id: string) => boolean) => Promise<{ readonly benches: readonly Bench[]; readonly about?: string | undefined }>
}

const quick = process.argv.includes('--quick')
const effort: Effort = quick ? 'quick' : 'full'
const filters = process.argv
  .slice(2)
  .filter((argument) => argument !== '--quick')
  .map((filter) => filter.toUpperCase())
const wantsGroup = (letter: string): boolean => filters.length === 0 || filters.some((filter) => filter.startsWith(letter))
const wants = (id: string): boolean => filters.length === 0 || filters.some((filter) => id.toUpperCase().startsWith(filter))
const wantsAllOf = (letter: string): boolean => filters.length === 0 || filters.includes(letter)

await using stack = new AsyncDisposableStack()
const groups: readonly Group[] = [
  { letter: 'A', name: 'in process', make: async () => ({ benches: (await inProcessRows(stack)).map(benchOf) }) },
  { letter: 'B', name: 'keyed work', make: async () => ({ benches: keyedRows().map(benchOf) }) },
  { letter: 'C', name: 'envelopes', make: async () => ({ benches: codecRows().map(benchOf) }) },
  { letter: 'D', name: 'Redis', make: (wanted) => redisBenches(stack, wanted) },
  { letter: 'E', name: 'NATS JetStream', make: (wanted) => natsBenches(stack, wanted) },
  {
    letter: 'F',
    name: 'outbox',
    async make(wanted) {
      const pglite = ['F1', 'F2', 'F3'].some(wanted) ? (await pgliteRows(stack)).map(benchOf) : []
      const postgres = await postgresBenches(stack, wanted)
      return { benches: [...postgres.benches, ...pglite], about: postgres.about }
    },
  },
  { letter: 'K', name: 'Kafka', make: (wanted) => kafkaBenches(stack, wanted) },
  { letter: 'P', name: 'Pulsar', make: (wanted) => pulsarBenches(stack, wanted) },
  { letter: 'R', name: 'relay to brokers', make: (wanted) => relayBenches(stack, wanted) },
]

const command = `npm run bench${filters.length === 0 ? '' : ` -- ${filters.join(' ')}`}`
const where = machine()
const results: GroupResult[] = []
const all: Report[] = []
for (const { letter, name, make } of groups) {
  if (!wantsGroup(letter)) continue
  const { benches, about } = await make(wants)
  const reports: Report[] = []
  for (const bench of benches) {
    if (!wants(bench.id)) continue
    const report = await bench.run(effort)
    reports.push(report)
    console.log(toMarkdown(report))
  }
  all.push(...reports)
  if (wantsAllOf(letter))
    results.push({ letter, name, about: `\`${command}\` on ${where}.${about === undefined ? '' : ` ${about}.`}`, reports })
}
if (all.length === 0) throw new Error(`nothing begins with ${filters.join(', ')}`)
const met = all.flatMap((report) => report.met)
console.log(
  `${met.filter(Boolean).length} of ${met.length} targets met; ${handledSoFar() + seenSoFar() > 0 ? 'in-process work was seen' : 'no in-process work was asked for'}`,
)
if (!quick && results.length > 0) writeResults(results)
