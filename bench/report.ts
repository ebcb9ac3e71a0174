import { readFileSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import type { Effort, Row, RowResult } from './harness.ts'
import { runRow } from './harness.ts'

/** A question that the bench answers. */
export interface Bench {
  readonly id: string
  readonly run: (effort: Effort) => Promise<Report>
}

/** An answer, as it stands in the results. */
export interface Report {
  readonly id: string
  readonly title: string
  readonly columns: readonly string[]
  readonly lines: readonly (readonly string[])[]
  /** One for each target. */
  readonly met: readonly boolean[]
  readonly note?: string | undefined
}

export const benchOf = (row: Row): Bench => ({ id: row.id, run: async (effort) => reportOf(await runRow(row, effort)) })

export const yesNo = (met: boolean | undefined): string => (met === undefined ? '' : met ? 'yes' : '**no**')
export const times = (value: number): string => `${value >= 10 ? value.toFixed(1) : value.toFixed(2)} ×`
export const named = (name: string, role: 'toolkit' | 'peer' | 'floor'): string =>
  role === 'toolkit' ? `**${name}**` : role === 'floor' ? `_${name}_` : name

export const perSecond = (value: number): string =>
  value >= 1e6
    ? `${(value / 1e6).toFixed(2)} M/s`
    : value >= 1e4
      ? `${Math.round(value / 1e3)} k/s`
      : value >= 1e3
        ? `${(value / 1e3).toFixed(1)} k/s`
        : `${Math.round(value)} /s`

function reportOf({ row, measured, judged, facts }: RowResult): Report {
  const toolkit = measured.find(({ role }) => role === 'toolkit')!
  // A target may be of another of our contenders than the first: it has a line of its own then.
  const others = judged.filter(({ of }) => of !== toolkit.name)
  return {
    id: row.id,
    title: row.title,
    columns: ['', 'per second', 'spread', 'waybill ÷ this', 'target', 'met'],
    lines: [
      ...measured.map((line) => {
        const target = judged.find(({ against, of }) => against === line.name && of === toolkit.name)
        const compared =
          line === toolkit || (row.pairs === true && target === undefined) ? '' : times(target?.ratio ?? toolkit.perSecond / line.perSecond)
        const spread = `±${(line.spread * 100).toFixed(0)} %`
        return [named(line.name, line.role), perSecond(line.perSecond), spread, compared, atLeast(target?.atLeast), yesNo(target?.met)]
      }),
      ...others.map(({ of, against, ratio, atLeast: least, met }) => [
        `${of} ÷ ${against}`,
        '',
        '',
        times(ratio),
        atLeast(least),
        yesNo(met),
      ]),
      ...facts.map(({ name, value, target, met }) => [name, value, '', '', target ?? '', yesNo(met)]),
    ],
    met: [...judged, ...facts].flatMap(({ met }) => (met === undefined ? [] : [met])),
    note: row.note,
  }
}

const atLeast = (ratio: number | undefined): string => (ratio === undefined ? '' : `≥ ${times(ratio)}`)

export function toMarkdown({ id, title, columns, lines, note }: Report): string {
  const toRow = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  return [
    `### ${id} ${title}`,
    '',
    toRow(columns),
    `|${'---|'.repeat(columns.length)}`,
    ...lines.map(toRow),
    ...(note === undefined ? [] : ['', note]),
    '',
  ].join('\n')
}

/** Of this machine and moment. What else it was doing counts: with a load above the number of cores all figures are too low. */
export function machine(): string {
  const cpus = os.cpus()
  return `${cpus[0]?.model.trim() ?? 'unknown CPU'}, ${cpus.length} cores, ${Math.round(os.totalmem() / 2 ** 30)} GiB, ${os.type()} ${os.arch()}, Node ${process.versions.node}, ${new Date().toISOString().slice(0, 10)}, load average ${(os.loadavg()[0] ?? 0).toFixed(1)} at the start`
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

const RESULTS = new URL('./RESULTS.md', import.meta.url)
const intro = (): string => `# Results

Made by \`npm run bench\`, group by group: \`npm run bench -- F\` writes group F anew and leaves the others. In a table the contenders run in turn, in
rounds; figures are medians over the rounds, _spread_ is the median absolute deviation, ratios are medians of the ratios within a round. _Floors_
(in italics) do less than the job, to show what it could cost at least. Figures of another machine or day are not comparable; ratios are.

Peers: ${versions()}.
`

/** A group of one run. */
export interface GroupResult {
  readonly letter: string
  readonly name: string
  /** Machine, command, servers. */
  readonly about: string
  readonly reports: readonly Report[]
}

/** Puts groups in their place in RESULTS.md; those that did not run stay as they were. */
export function writeResults(groups: readonly GroupResult[]): void {
  const sections = new Map<string, string>()
  for (const part of readFileSync(RESULTS, 'utf8').split(/^(?=## )/m)) {
    const letter = /^## (\S+) /.exec(part)?.[1]
    if (letter !== undefined) sections.set(letter, part.trimEnd())
  }
  for (const { letter, name, about, reports } of groups) {
    const met = reports.flatMap((report) => report.met)
    const summary = `${about} ${met.filter(Boolean).length} of ${met.length} targets are met.`
    sections.set(letter, [`## ${letter} ${name}`, '', summary, '', ...reports.map(toMarkdown)].join('\n').trimEnd())
  }
  const ordered = [...sections.entries()].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, section]) => section)
  writeFileSync(RESULTS, `${[intro(), ...ordered].join('\n\n').replaceAll('\n\n\n', '\n\n')}\n`)
}
