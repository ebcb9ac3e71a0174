import { readFileSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import { codecRows, seenSoFar } from './codec.ts'
import { type Row, type RowResult, runRow } from './harness.ts'
import { handledSoFar, inProcessRows } from './in-process.ts'
import { keyedRows } from './keyed.ts'
import { pgliteRows } from './pglite.ts'

// Peers side by side: `npm run bench [-- A1 C ...]`. A filter is the beginning of row ids. Writes RESULTS.md when nothing is filtered out.

const filters = process.argv.slice(2).map((filter) => filter.toUpperCase())
const wanted = (id: string): boolean => filters.length === 0 || filters.some((filter) => id.startsWith(filter) || filter.startsWith(id))

const figure = (value: number): string =>
  value >= 1e6
    ? `${(value / 1e6).toFixed(2)} M/s`
    : value >= 1e4
      ? `${Math.round(value / 1e3)} k/s`
      : value >= 1e3
        ? `${(value / 1e3).toFixed(1)} k/s`
        : `${Math.round(value)} /s`
const ratio = (value: number): string => `${value >= 10 ? value.toFixed(1) : value.toFixed(2)} ×`

function toMarkdown({ row, measured, judged }: RowResult): string {
  const toolkit = measured.find(({ role }) => role === 'toolkit')!
  return [
    `### ${row.id} ${row.title}`,
    '',
    '| | per second | spread | waybill ÷ this | target | met |',
    '|---|---|---|---|---|---|',
    ...measured.map((line) => {
      const target = judged.find(({ against }) => against === line.name)
      const name = line.role === 'toolkit' ? `**${line.name}**` : line.role === 'floor' ? `_${line.name}_` : line.name
      const compared = line === toolkit ? '' : ratio(target?.ratio ?? toolkit.perSecond / line.perSecond)
      return `| ${name} | ${figure(line.perSecond)} | ±${(line.spread * 100).toFixed(0)} % | ${compared} | ${target === undefined ? '' : `≥ ${ratio(target.atLeast)}`} | ${target === undefined ? '' : target.met ? 'yes' : '**no**'} |`
    }),
    ...(row.note === undefined ? [] : ['', row.note]),
    '',
  ].join('\n')
}

// What else the machine was doing: above the number of cores, all figures are too low and the spread is wide.
const LOAD = os.loadavg()[0] ?? 0

function machine(): string {
  const cpus = os.cpus()
  return `${cpus[0]?.model.trim() ?? 'unknown CPU'}, ${cpus.length} cores, ${Math.round(os.totalmem() / 2 ** 30)} GiB, ${os.type()} ${os.arch()}, Node ${process.versions.node}, ${new Date().toISOString().slice(0, 10)}, load average ${LOAD.toFixed(1)} at the start`
}

function versions(): string {
  const { dependencies } = JSON.parse(readFileSync(new URL('./package.json', import.meta.url), 'utf8')) as {
    dependencies: Record<string, string>
  }
  return Object.entries(dependencies)
    .filter(([name]) => name !== 'waybill' && name !== 'node')
    .map(([name, version]) => `${name} ${version.replace(/^npm:.*@/, '')}`)
    .join(', ')
}

await using stack = new AsyncDisposableStack()
const makers: readonly [string, () => Promise<readonly Row[]> | readonly Row[]][] = [
  ['A', () => inProcessRows(stack)],
  ['B', keyedRows],
  ['C', codecRows],
  ['F', () => pgliteRows(stack)],
]

const results: RowResult[] = []
for (const [group, make] of makers) {
  if (!wanted(group)) continue
  for (const row of await make()) {
    if (!wanted(row.id)) continue
    const result = await runRow(row)
    results.push(result)
    console.log(toMarkdown(result))
  }
}
if (results.length === 0) throw new Error(`no row begins with ${filters.join(', ')}`)
const judged = results.flatMap((result) => result.judged)
const met = judged.filter((target) => target.met).length
console.log(`${met} of ${judged.length} targets met; ${handledSoFar() + seenSoFar() > 0 ? 'work was seen' : 'no work was seen'}`)

if (filters.length === 0) {
  writeFileSync(
    new URL('./RESULTS.md', import.meta.url),
    `# Results

${machine()}.

Made by \`npm run bench\`. Each table is one process, its contenders in turn, in rounds; figures are medians over the rounds, _spread_ is the median
absolute deviation, ratios are medians of the ratios within a round. _Floors_ (in italics) do less than the job, to show what it could cost at
least. Figures of another machine or day are not comparable; ratios are. ${met} of ${judged.length} targets are met.

Peers: ${versions()}.

${results.map(toMarkdown).join('\n')}`,
  )
}
