import { spawn } from 'node:child_process'
import { addTallies, parseTally, type Tally, tallyLine } from './tally.ts'

// Everything that must hold before a change is accepted, in one run: `npm run ci`. A step that fails doesn't stop the others, so that one run tells all.

interface Step {
  readonly name: string
  readonly command: readonly [string, ...string[]]
  /** Whether the step ends with a line of counts of its own; otherwise it counts as one. */
  readonly counts: boolean
}

const STEPS: readonly Step[] = [
  { name: 'format', command: ['npm', 'run', '--silent', 'check:format'], counts: false },
  { name: 'lint', command: ['npm', 'run', '--silent', 'check:lint'], counts: false },
  { name: 'types', command: ['npm', 'run', '--silent', 'check:types'], counts: false },
  { name: 'tests', command: ['npm', 'test', '--silent'], counts: true },
  { name: 'demo', command: [process.execPath, 'scripts/demo-seeds.ts'], counts: true },
]

const OUTPUT_KEPT = 4_000
// Here nothing may be skipped for want of a server.
process.env['WAYBILL_REQUIRE_SERVERS'] ??= 'all'

/** Runs a step, passes its output through, and gives back its counts. */
function runStep({ name, command: [program, ...args], counts }: Step): Promise<Tally> {
  console.log(`\n== ${name}`)
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    let tail = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      tail = (tail + text).slice(-OUTPUT_KEPT)
      process.stdout.write(text)
    })
    child.on('error', reject)
    child.on('close', (code) => {
      const counted = counts ? parseTally(tail) : { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 }
      // A step that dies before it counts, or fails without a failed test, is a failure of its own.
      if (counted === undefined) resolve({ passed: 0, failed: 1, skipped: 0 })
      else resolve(code !== 0 && counted.failed === 0 ? { ...counted, failed: 1 } : counted)
    })
  })
}

const tallies: Tally[] = []
const failing: string[] = []
for (const step of STEPS) {
  const tally = await runStep(step)
  tallies.push(tally)
  if (tally.failed > 0) failing.push(step.name)
}
const all = addTallies(tallies)
console.log(failing.length === 0 ? '\n== all good' : `\n== failed: ${failing.join(', ')}`)
console.log(tallyLine(all))
process.exitCode = all.failed === 0 ? 0 : 1
