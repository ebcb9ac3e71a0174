import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { main } from './main.ts'

const page = readFileSync(new URL('../../../docs/commands.md', import.meta.url), 'utf8')

/** What stands under each heading of the second level, by that heading. */
const sections = new Map(
  page
    .split(/^## /m)
    .slice(1)
    .map((text) => [text.slice(0, text.indexOf('\n')), text] as const),
)

const anchorOf = (heading: string): string => heading.toLowerCase().replaceAll(' ', '-')

async function help(...argv: readonly string[]): Promise<string> {
  let printed = ''
  const stream = { write: (text: string) => void (printed += text) }
  assert.equal(await main([...argv, '--help'], { stdout: stream, stderr: stream, env: {} }), 0)
  return printed
}

/** The commands that the help names. */
async function commands(): Promise<readonly string[]> {
  const [, list = ''] = /^Commands\n((?: {2}.*\n)+)/m.exec(await help()) ?? []
  return [...list.matchAll(/^ {2}(\S+(?: \S+)?) {2,}/gm)].map(([, name]) => name!)
}

/** `--name VALUE` of each option in a help's text. */
const inHelp = (text: string): readonly string[] => [...text.matchAll(/^ {2}(--[a-z-]+(?: [A-Z]+)?)(?:, -\w)? /gm)].map(([, flag]) => flag!)

/** The same in the first column of a section's tables, and of the sections that it links to. */
function inPage(heading: string): readonly string[] {
  const text = sections.get(heading)!
  const own = [...text.matchAll(/^\| (`--[^|]*)\|/gm)].flatMap(([, cell = '']) =>
    [...cell.matchAll(/`(--[^`]+)`/g)].map(([, flag]) => flag!),
  )
  const linked = [...sections.keys()].filter((other) => other.startsWith('Options ') && text.includes(`](#${anchorOf(other)})`))
  return [...own, ...linked.flatMap(inPage)]
}

test('docs/commands.md has a section and a line of its table for every command, and no others', async () => {
  const names = (await commands()).map((name) => `waybill ${name}`)
  assert.ok(names.length > 10)
  assert.deepEqual([...sections.keys()].filter((heading) => heading.startsWith('waybill ')).toSorted(), names.toSorted())
  for (const name of names) assert.ok(page.includes(`\n| [\`${name}\`](#${anchorOf(name)}) |`), name)
})

test('docs/commands.md has every option of every command, and no others', async () => {
  for (const name of await commands()) {
    const flags = inHelp(await help(...name.split(' ')))
    assert.ok(flags.length >= 2, name)
    assert.deepEqual(inPage(`waybill ${name}`).toSorted(), flags.toSorted(), name)
  }
})

test('docs/commands.md names the environment variables that the help names', async () => {
  const [, list = ''] = /^Environment\n((?: {2}.*\n)+)/m.exec(await help()) ?? []
  const named = [...list.matchAll(/^ {2}([A-Z_, ]+?) {2}/gm)].flatMap(([, names = '']) => names.split(', '))
  assert.ok(named.length > 4)
  const cells = [...sections.get('Environment')!.matchAll(/^\| (`[^|]*)\|/gm)].flatMap(([, cell = '']) =>
    [...cell.matchAll(/`([A-Z_]+)`/g)].map(([, name]) => name!),
  )
  assert.deepEqual(cells.toSorted(), named.toSorted())
})
