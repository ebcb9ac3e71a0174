import { globSync, rmSync } from 'node:fs'
import { basename, join, relative, resolve, sep } from 'node:path'
import { run } from 'node:test'
import { inspect } from 'node:util'
import { closeServices, HANDED, service } from '../services/index.ts'
import { differences, FINDINGS, missingColumns, readFindings } from './brokers-doc.ts'
import { placeOf, ServerTable, serversFor } from './server-table.ts'
import { tallyLine } from './tally.ts'

// Runs the tests below the current folder: `node scripts/test.ts [path or part of a path ...]`. Node's own runner does the work; this counts tests
// instead of files, calls a file without any test a failure, and ends with one line that a machine can read. The servers that test files ask for by their
// names (`<suite>.<server>.test.ts`) are started once for all of them. What the contract suites find of each broker is compared with docs/brokers.md.

const PATTERNS = [
  'packages/*/src/**/*.test.ts',
  'packages/*/test/**/*.test.ts',
  'examples/**/*.test.ts',
  'scripts/**/*.test.ts',
  'services/**/*.test.ts',
]
/** Files at a time: one more than the smallest machines have cores, since the suites on servers wait more than they compute. */
const CONCURRENCY = 3
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

/** The file that was run: a suite that several files share says of its tests that they stand in a file of its own. */
const fileOf = (data: { readonly file?: string; readonly entryFile?: string }): string => data.entryFile ?? data.file ?? ''

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`

/** Starts the servers that `files` need, and hands their addresses to the processes of the tests; what can't be had is a reason to skip there. */
async function startServers(files: readonly string[]): Promise<void> {
  const names = serversFor(files.map((file) => relative(root, file)))
  if (names.length === 0) return
  const begin = performance.now()
  const found = await Promise.all(names.map(async (name) => [name, await service(name, { evenIfRequired: true })] as const))
  process.env[HANDED] = JSON.stringify(Object.fromEntries(found))
  const said = found.map(([name, server]) => ('skipped' in server ? `no ${name}` : `${name} ${server.version} (${server.provider})`))
  console.log(`     servers: ${said.join(', ')}; ${seconds(performance.now() - begin)}\n`)
}

async function runFiles(files: readonly string[]): Promise<number> {
  let passed = 0
  let skipped = 0
  const failures: string[] = []
  const slow: string[] = []
  const stderr = new Map<string, string>()
  const table = new ServerTable()

  const fail = (file: string | undefined, name: string, detail: string): void => {
    const title = `${file === undefined ? '' : `${relative(root, file)}: `}${name}`
    table.note(file === undefined ? name : relative(root, file), 'failed')
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
    } else if (event.type === 'test:diagnostic') {
      // What suites on servers have measured: how long it took to recover, what was repeated.
      const place = placeOf(relative(root, fileOf(event.data)))
      if (place !== undefined && event.data.nesting > 0) console.log(`     ${place.suite} ${place.column}: ${event.data.message}`)
    } else if (event.type === 'test:complete' && event.data.name === event.data.file) {
      const { file, details } = event.data
      console.log(`     ${relative(root, file)} ${seconds(details.duration_ms)}`)
      if (details.duration_ms > SLOW_MS) slow.push(`${relative(root, file)} ${seconds(details.duration_ms)}`)
    } else if (event.type === 'test:pass') {
      const { name, skip, todo, details } = event.data
      const file = fileOf(event.data)
      if (details.type === 'suite' && skip === undefined) continue
      if (skip !== undefined || todo !== undefined) {
        skipped++
        table.note(relative(root, file), { skipped: typeof skip === 'string' ? skip : 'without a reason' })
      } else if (name === file) fail(undefined, relative(root, file), 'there is no test in this file')
      else {
        passed++
        table.note(relative(root, file), 'passed')
      }
    } else if (event.type === 'test:fail') {
      const { name, todo, details } = event.data
      const file = fileOf(event.data)
      const { failureType, cause } = details.error as { readonly failureType?: string; readonly cause?: unknown }
      if (todo !== undefined) skipped++
      else if (failureType === 'subtestsFailed') continue
      else if (name === file) fail(undefined, relative(root, file), stderr.get(file) ?? inspect(details.error))
      else fail(file, name, inspect(cause ?? details.error))
    } else if (event.type === 'test:summary' && event.data.file === undefined && !event.data.success && failures.length === 0) {
      fail(undefined, 'the run', 'the runner reports a failure that belongs to no test')
    }
  }

  const matrix = compareMatrix(files)
  if (matrix !== undefined && matrix.length > 0) fail(undefined, 'docs/brokers.md', matrix.join('\n'))
  else if (matrix !== undefined) passed++
  if (slow.length > 0) console.log(`\nFiles over ${seconds(SLOW_MS)}:\n${slow.map((line) => `     ${line}`).join('\n')}`)
  if (failures.length > 0) console.log(`\nFailed:\n${failures.map((line) => `     ${line}`).join('\n')}`)
  if (passed === 0 && failures.length === 0) console.log('\nNo test ran, which counts as a failure.')
  const lines = table.lines()
  if (lines.length > 0) console.log(`\n${lines.join('\n')}`)
  console.log(`\n${files.length} files, ${seconds(performance.now() - started)}`)
  console.log(tallyLine({ passed, failed: failures.length, skipped }))
  return passed > 0 && failures.length === 0 ? 0 : 1
}

/** How docs/brokers.md differs from what was found; undefined where not every broker was asked, or where the findings are of another run. */
function compareMatrix(files: readonly string[]): readonly string[] | undefined {
  if (!ownsFindings || !files.some((file) => basename(file).startsWith('contract.'))) return undefined
  const findings = readFindings(process.env['WAYBILL_FINDINGS'])
  const missing = missingColumns(findings)
  if (missing.length === 0) return differences(findings)
  const unheard = missing.filter((name) => files.some((file) => basename(file) === `contract.${name}.test.ts`))
  // Where nothing may be skipped, a suite that has left nothing behind is a fault, not a reason to look away.
  if (unheard.length > 0 && process.env['WAYBILL_REQUIRE_SERVERS'] === 'all') return [`no findings of ${unheard.join(', ')}, which was run`]
  console.log(`\ndocs/brokers.md was not compared: there are no findings for ${missing.join(', ')}.`)
  return undefined
}

const files = findFiles(process.argv.slice(2))
// A run within a run, as the tests of this script make them, leaves the findings of the outer one alone, and their comparison too.
const ownsFindings = process.env['WAYBILL_FINDINGS'] === undefined
if (ownsFindings) {
  rmSync(FINDINGS, { recursive: true, force: true })
  process.env['WAYBILL_FINDINGS'] = FINDINGS
}
await startServers(files)
try {
  process.exitCode = await runFiles(files)
} finally {
  await closeServices()
}
