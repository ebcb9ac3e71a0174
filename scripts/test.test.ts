import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { addTallies, parseTally, tallyLine } from './tally.ts'

const runner = fileURLToPath(new URL('./test.ts', import.meta.url))

/** Runs the runner over `files` (name → text) in a folder of their own. */
function runOver(
  files: Readonly<Record<string, string>>,
  filters: readonly string[] = [],
): { readonly status: number | null; readonly lines: readonly string[] } {
  const folder = mkdtempSync(join(tmpdir(), 'runner-'))
  try {
    mkdirSync(join(folder, 'scripts'))
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, 'scripts', name), text)
    // Node refuses to run tests from within a test, and tells by this variable.
    const env = { ...process.env }
    delete env['NODE_TEST_CONTEXT']
    const { status, stdout } = spawnSync(process.execPath, [runner, ...filters], { cwd: folder, encoding: 'utf8', env })
    return { status, lines: stdout.trimEnd().split('\n') }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const HEAD = `import { test, describe, after } from 'node:test'\n`
const GOOD = `${HEAD}describe('suite', () => { test('one', () => {}); test('two', () => {}) })\n`

test('passing tests are counted, suites are not', () => {
  const { status, lines } = runOver({ 'a.test.ts': GOOD, 'b.test.ts': `${HEAD}test('three', () => {})\n` })
  assert.equal(lines.at(-1), '3 passed, 0 failed')
  assert.equal(status, 0)
})

test('a failing test fails the run and is named in the summary', () => {
  const { status, lines } = runOver({
    'a.test.ts': GOOD,
    'b.test.ts': `${HEAD}describe('s', () => { test('bad', () => { throw new Error('no') }) })\n`,
  })
  assert.equal(lines.at(-1), '2 passed, 1 failed')
  assert.equal(status, 1)
  assert.ok(lines.includes('     scripts/b.test.ts: bad'))
})

test('a file that does not load fails the run', () => {
  const { status, lines } = runOver({ 'a.test.ts': GOOD, 'b.test.ts': `throw new Error('at load')\n` })
  assert.equal(lines.at(-1), '2 passed, 1 failed')
  assert.equal(status, 1)
  assert.ok(lines.some((line) => line.includes('at load')))
})

test('a file without a test fails the run', () => {
  const { status, lines } = runOver({ 'a.test.ts': GOOD, 'b.test.ts': 'export const x = 1\n' })
  assert.equal(lines.at(-1), '2 passed, 1 failed')
  assert.equal(status, 1)
})

test('a failing clean-up fails the run', () => {
  const { status, lines } = runOver({
    'a.test.ts': `${HEAD}describe('s', () => { after(() => { throw new Error('x') }); test('one', () => {}) })\n`,
  })
  assert.equal(lines.at(-1), '1 passed, 1 failed')
  assert.equal(status, 1)
})

test('a process that dies in the middle fails the run', () => {
  const { status, lines } = runOver({ 'a.test.ts': `${HEAD}test('one', () => {})\ntest('two', () => process.exit(0))\n` })
  assert.equal(status, 1, lines.join('\n'))
})

test('skipped and todo tests are counted apart', () => {
  const { status, lines } = runOver({ 'a.test.ts': `${HEAD}test('one', () => {})\ntest.skip('two', () => {})\ntest.todo('three')\n` })
  assert.equal(lines.at(-1), '1 passed, 0 failed, 2 skipped')
  assert.equal(status, 0)
})

test('no test at all is a failure', () => {
  const { status, lines } = runOver({})
  assert.equal(lines.at(-1), '0 passed, 0 failed')
  assert.equal(status, 1)
})

test('a filter chooses files by a part of their path', () => {
  const { status, lines } = runOver({ 'a.test.ts': GOOD, 'b.test.ts': `${HEAD}test('three', () => {})\n` }, ['scripts/b'])
  assert.equal(lines.at(-1), '1 passed, 0 failed')
  assert.equal(status, 0)
})

test('the last line is read back as it was written, and sums', () => {
  const tally = { passed: 3, failed: 1, skipped: 2 }
  assert.deepEqual(parseTally(`noise\n${tallyLine(tally)}\n`), tally)
  assert.equal(parseTally('3 passed'), undefined)
  assert.deepEqual(addTallies([tally, { passed: 1, failed: 0, skipped: 0 }]), { passed: 4, failed: 1, skipped: 2 })
})
