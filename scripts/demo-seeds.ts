import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { tallyLine } from './tally.ts'

// The demo under five seeds, twenty kills each: `node scripts/demo-seeds.ts [seed ...]`. Each seed counts as one test.

const SEEDS = ['1', '2', '3', '5', '7']
const KILLS = 20
/** A run that takes longer than this hangs. */
const RUN_TIMEOUT_MS = 20 * 60_000

const root = fileURLToPath(new URL('..', import.meta.url))

interface Run {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

function runDemo(seed: string): Promise<Run> {
  return new Promise((resolve, reject) => {
    const child = spawn('npx', ['--no-install', 'waybill', 'demo', '--json', '--kills', String(KILLS), '--seed', seed], {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: RUN_TIMEOUT_MS,
    })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr = (stderr + text).slice(-4_000)))
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, stdout, stderr }))
  })
}

/** What is wrong with a run; empty where nothing is. */
function faultsOf({ code, stdout }: Run): readonly string[] {
  let report: Readonly<Record<string, unknown>>
  try {
    report = JSON.parse(stdout) as Readonly<Record<string, unknown>>
  } catch {
    return [`exit code ${code}`, `stdout is not one JSON object: ${JSON.stringify(stdout.slice(0, 200))}`]
  }
  return [
    ...(code === 0 ? [] : [`exit code ${code}`]),
    ...['lost', 'duplicateEffects', 'orderViolations']
      .filter((name) => report[name] !== 0)
      .map((name) => `${name}: ${JSON.stringify(report[name])}`),
    ...(Number(report['kills']) >= KILLS ? [] : [`kills: ${JSON.stringify(report['kills'])} of ${KILLS}`]),
    ...(Number(report['invoices']) > 0 ? [] : [`invoices: ${JSON.stringify(report['invoices'])}`]),
  ]
}

let passed = 0
let failed = 0
const seeds = process.argv.length > 2 ? process.argv.slice(2) : SEEDS
for (const seed of seeds) {
  const started = performance.now()
  const run = await runDemo(seed)
  const faults = faultsOf(run)
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  if (faults.length === 0) passed++
  else failed++
  console.log(
    `demo seed ${seed}: ${faults.length === 0 ? 'nothing lost, doubled or reordered' : `FAIL ${faults.join('; ')}`}, ${KILLS} kills, ${seconds} s`,
  )
  if (faults.length > 0 && run.stderr !== '') console.log(run.stderr.replace(/^/gm, '    '))
}
console.log(tallyLine({ passed, failed, skipped: 0 }))
process.exitCode = failed === 0 && passed > 0 ? 0 : 1
