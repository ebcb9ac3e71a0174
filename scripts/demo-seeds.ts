import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { tallyLine } from './tally.ts'

// The demo under five seeds, twenty kills each, and once over each broker, which is killed and restarted too: `node scripts/demo-seeds.ts [seed or broker ...]`.
// Each run counts as one test.

const SEEDS = ['1', '2', '3', '5', '7']
const SEED_KILLS = 20
const BROKERS = ['redis', 'nats', 'kafka', 'pulsar']
const BROKER_KILLS = 5
/** As much of the data as a small machine carries over a broker in about a minute. */
const BROKER_INVOICES = 200
/** A run that takes longer than this hangs. */
const RUN_TIMEOUT_MS = 20 * 60_000

const root = fileURLToPath(new URL('..', import.meta.url))

/** One run, and what must come of it beside the three zeros. */
interface Plan {
  readonly name: string
  readonly args: readonly string[]
  readonly kills: number
  readonly brokerRestarts: number
}

function planOf(name: string): Plan {
  if (BROKERS.includes(name)) {
    const args = [
      '--broker',
      name,
      '--database',
      'postgres',
      '--restart-broker',
      '--kills',
      String(BROKER_KILLS),
      '--invoices',
      String(BROKER_INVOICES),
    ]
    return { name: `over ${name} and PostgreSQL`, args, kills: BROKER_KILLS, brokerRestarts: 2 }
  }
  return { name: `seed ${name}`, args: ['--kills', String(SEED_KILLS), '--seed', name], kills: SEED_KILLS, brokerRestarts: 0 }
}

interface Run {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

function runDemo({ args }: Plan): Promise<Run> {
  return new Promise((resolve, reject) => {
    const child = spawn('npx', ['--no-install', 'waybill', 'demo', '--json', ...args], {
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

/** What is wrong with a run, and how long it took to recover from each restart of its broker. */
function judge(
  { kills, brokerRestarts }: Plan,
  { code, stdout }: Run,
): { readonly faults: readonly string[]; readonly recoveries: readonly number[] } {
  let report: Readonly<Record<string, unknown>>
  try {
    report = JSON.parse(stdout) as Readonly<Record<string, unknown>>
  } catch {
    return { faults: [`exit code ${code}`, `stdout is not one JSON object: ${JSON.stringify(stdout.slice(0, 200))}`], recoveries: [] }
  }
  const faults = [
    ...(code === 0 ? [] : [`exit code ${code}`]),
    ...['lost', 'duplicateEffects', 'orderViolations']
      .filter((name) => report[name] !== 0)
      .map((name) => `${name}: ${JSON.stringify(report[name])}`),
    ...(Number(report['kills']) >= kills ? [] : [`kills: ${JSON.stringify(report['kills'])} of ${kills}`]),
    ...(report['brokerRestarts'] === brokerRestarts
      ? []
      : [`brokerRestarts: ${JSON.stringify(report['brokerRestarts'])} of ${brokerRestarts}`]),
    ...(Number(report['invoices']) > 0 ? [] : [`invoices: ${JSON.stringify(report['invoices'])}`]),
  ]
  return { faults, recoveries: report['recoverySeconds'] as readonly number[] }
}

let passed = 0
let failed = 0
for (const plan of (process.argv.length > 2 ? process.argv.slice(2) : [...SEEDS, ...BROKERS]).map(planOf)) {
  const started = performance.now()
  const run = await runDemo(plan)
  const { faults, recoveries } = judge(plan, run)
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  if (faults.length === 0) passed++
  else failed++
  const restarts =
    recoveries.length === 0
      ? ''
      : `, broker restarted ${recoveries.length} times and recovered in ${recoveries.map((one) => one.toFixed(1)).join(' and ')} s`
  console.log(
    `demo ${plan.name}: ${faults.length === 0 ? 'nothing lost, doubled or reordered' : `FAIL ${faults.join('; ')}`}, ${plan.kills} kills${restarts}, ${seconds} s`,
  )
  if (faults.length > 0 && run.stderr !== '') console.log(run.stderr.replace(/^/gm, '    '))
}
console.log(tallyLine({ passed, failed, skipped: 0 }))
process.exitCode = failed === 0 && passed > 0 ? 0 : 1
