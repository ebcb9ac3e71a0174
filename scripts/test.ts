import { globSync } from 'node:fs'
import { join, relative, resolve, sep } from 'node:path'
import { run } from 'node:test'
import { inspect } from 'node:util'
import { tallyLine } from './tally.ts'

// Runs the tests below the current folder: `node scripts/test.ts [path or part of a path ...]`. Node's own runner does the work; this counts tests
// instead of files, calls a file without any test a failure, and ends with one line that a machine can read.

const PATTERNS = ['packages/*/src/**/*.test.ts', 'packages/*/test/**/*.test.ts', 'examples/**/*.test.ts', 'scripts/**/*.test.ts']
/** Files at a time. Some start a database server, and the smallest machines have two cores. */
const CONCURRENCY = 2
/** No file may take longer: one that hangs is a failure, not an endless run. */
const FILE_TIMEOUT_MS = 10 * 60_000
/** Files that take longer are named at the end. */
const SLOW_MS = 20_000

const root = process.cwd()
const started = performance.now()

function findFiles(filters: readonly string[]): readonly string[] {
  const paths = globSync(PATTERNS, { cwd: root })
    .map((path) => path.replaceAll(sep, '/'))
    .filter((path) => !path.includes('node_modules/'))
  const wanted = filters.map((filter) => relative(root, resolve(root, filter)).replaceAll(sep, '/'))
  const chosen = wanted.length === 0 ? paths : paths.filter((path) => wanted.some((filter) => path.includes(filter)))
  return chosen.toSorted().map((path) => join(root, path))
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`

async function runFiles(files: readonly string[]): Promise<number> {
  let passed = 0
  let skipped = 0
  const failures: string[] = []
  const slow: string[] = []
  const stderr = new Map<string, string>()

  const fail = (file: string | undefined, name: string, detail: string): void => {
    const title = `${file === undefined ? '' : `${relative(root, file)}: `}${name}`
    failures.push(title)
    console.log(`FAIL ${title}\n${detail.replace(/^/gm, '    ')}`)
  }

  const stream = run({
    files: [...files],
    concurrency: CONCURRENCY,
    isolation: 'process',
    timeout: FILE_TIMEOUT_MS,
    execArgv: ['--conditions=waybill:source'],
  })
  for await (const event of stream) {
    if (event.type === 'test:stderr') {
      // Kept and shown with a failure only: most of it is a database server's chatter.
      const { file, message } = event.data
      stderr.set(file, ((stderr.get(file) ?? '') + message).slice(-8_000))
    } else if (event.type === 'test:complete' && event.data.name === event.data.file) {
      const { file, details } = event.data
      console.log(`     ${relative(root, file)} ${seconds(details.duration_ms)}`)
      if (details.duration_ms > SLOW_MS) slow.push(`${relative(root, file)} ${seconds(details.duration_ms)}`)
    } else if (event.type === 'test:pass') {
      const { name, file, skip, todo, details } = event.data
      if (details.type === 'suite') continue
      if (skip !== undefined || todo !== undefined) skipped++
      else if (name === file) fail(undefined, relative(root, file), 'there is no test in this file')
      else passed++
    } else if (event.type === 'test:fail') {
      const { name, file, todo, details } = event.data
      const { failureType, cause } = details.error as { readonly failureType?: string; readonly cause?: unknown }
      if (todo !== undefined) skipped++
      else if (failureType === 'subtestsFailed') continue
      else if (name === file) fail(undefined, relative(root, file), stderr.get(file) ?? inspect(details.error))
      else fail(file, name, inspect(cause ?? details.error))
    } else if (event.type === 'test:summary' && event.data.file === undefined && !event.data.success && failures.length === 0) {
      fail(undefined, 'the run', 'the runner reports a failure that belongs to no test')
    }
  }

  if (slow.length > 0) console.log(`\nFiles over ${seconds(SLOW_MS)}:\n${slow.map((line) => `     ${line}`).join('\n')}`)
  if (failures.length > 0) console.log(`\nFailed:\n${failures.map((line) => `     ${line}`).join('\n')}`)
  if (passed === 0 && failures.length === 0) console.log('\nNo test ran, which counts as a failure.')
  console.log(`\n${files.length} files, ${seconds(performance.now() - started)}`)
  console.log(tallyLine({ passed, failed: failures.length, skipped }))
  return passed > 0 && failures.length === 0 ? 0 : 1
}

process.exitCode = await runFiles(findFiles(process.argv.slice(2)))
