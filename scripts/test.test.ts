import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { service } from '../services/index.ts'
import { missingColumns, readFindings } from './brokers-doc.ts'
import { addTallies, parseTally, tallyLine } from './tally.ts'

const runner = fileURLToPath(new URL('./test.ts', import.meta.url))

/** Runs the runner over `files` (name → text) in a folder of their own. */
function runOver(
  files: Readonly<Record<string, string>>,
  filters: readonly string[] = [],
  variables: Readonly<Record<string, string>> = {},
): { readonly status: number | null; readonly lines: readonly string[] } {
  const folder = mkdtempSync(join(tmpdir(), 'runner-'))
  try {
    mkdirSync(join(folder, 'scripts'))
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, 'scripts', name), text)
    // Node refuses to run tests from within a test, and tells by this variable.
    const env: NodeJS.ProcessEnv = { ...process.env, ...variables }
    for (const name of ['NODE_TEST_CONTEXT', 'WAYBILL_SERVICES', 'WAYBILL_REQUIRE_SERVERS']) if (!(name in variables)) delete env[name]
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

test('a run within a run neither removes what the outer one has found of brokers nor compares it', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'findings-'))
  t.after(() => rmSync(folder, { recursive: true }))
  for (const name of missingColumns([])) writeFileSync(join(folder, `${name}.json`), JSON.stringify({ name, versions: [], results: [] }))
  const { status, lines } = runOver({ 'contract.x.test.ts': GOOD }, [], { WAYBILL_FINDINGS: folder })
  assert.deepEqual([status, lines.at(-1)], [0, '2 passed, 0 failed'])
  assert.deepEqual(missingColumns(readFindings(folder)), [])
})

const SERVICES = JSON.stringify(new URL('../services/index.ts', import.meta.url).href)

/** A test file that asks for a server and says which it got. */
const asks = (name: string): string => `${HEAD}
import { service } from ${SERVICES}
const server = await service('${name}')
test('one', { skip: 'skipped' in server && server.skipped }, () => console.log('GOT ' + server.url))
test('two', () => {})\n`

/** An address where nobody answers. */
const NOBODY = { NATS_URL: 'nats://127.0.0.1:1' }

test('servers are started once for all files that need them, and the results are one table', async (t) => {
  const redis = await service('redis')
  if ('skipped' in redis) return t.skip(redis.skipped)
  const files = { 'contract.redis.test.ts': asks('redis'), 'chaos.redis.test.ts': asks('redis'), 'contract.nats.test.ts': asks('nats') }
  const bad = { 'chaos.nats.test.ts': `${HEAD}test('bad', () => { throw new Error('no') })\n`, 'postgres-x.test.ts': GOOD }
  const { status, lines } = runOver({ ...files, ...bad }, [], NOBODY)
  const text = lines.join('\n')
  assert.equal(status, 1)
  const table = lines.slice(lines.findIndex((line) => line.startsWith('suite')))
  assert.deepEqual(
    table.slice(0, 5).map((line) => line.split(/  +/)),
    [
      ['suite', 'postgres', 'redis', 'nats'],
      ['chaos', '-', 'passed 2', 'FAILED'],
      ['contract', '-', 'passed 2', 'passed 1, skipped 1 [1]'],
      ['others', 'passed 2', '-', '-'],
      ['[1] nothing answers at 127.0.0.1:1'],
    ],
    text,
  )
  assert.match(text, /servers: no nats, redis \S+ \((installed|compose|environment)\)/)
  assert.equal(lines.at(-1), '7 passed, 1 failed, 1 skipped')
})

test('a server that is required and not there fails its tests, and says why', () => {
  const variables = { ...NOBODY, WAYBILL_REQUIRE_SERVERS: 'redis,nats' }
  const { status, lines } = runOver({ 'contract.nats.test.ts': asks('nats') }, [], variables)
  assert.equal(status, 1)
  assert.ok(
    lines.some((line) => /nats is required \(WAYBILL_REQUIRE_SERVERS\): nothing answers at 127\.0\.0\.1:1/.test(line)),
    lines.join('\n'),
  )
  assert.ok(lines.some((line) => /^contract +FAILED$/.test(line)))
})

test('the last line is read back as it was written, and sums', () => {
  const tally = { passed: 3, failed: 1, skipped: 2 }
  assert.deepEqual(parseTally(`noise\n${tallyLine(tally)}\n`), tally)
  assert.equal(parseTally('3 passed'), undefined)
  assert.deepEqual(addTallies([tally, { passed: 1, failed: 0, skipped: 0 }]), { passed: 4, failed: 1, skipped: 2 })
})
