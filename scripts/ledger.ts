import { parseArgs } from 'node:util'
import { messageOf } from '../packages/waybill/src/core/errors.ts'
import { startPostgresServer } from '../packages/waybill/src/testing/postgres-server.ts'
import { FAULT_NAMES, faultNamed } from '../packages/waybill/test/chaos/faults.ts'
import { type Fault, describe, faultsOf, runLedger } from '../packages/waybill/test/chaos/ledger.ts'
import { BROKEN_STORES, type BrokenStore } from '../packages/waybill/test/chaos/storages.ts'
import type { AppendOrder } from '../packages/waybill/test/chaos/writers.ts'
import { tallyLine } from './tally.ts'

// The outbox ledger over real processes on a real PostgreSQL, under a fault: `npm run ledger -- --seed 7 --fault sigstop`. Each run counts as one test.

const USAGE = `npm run ledger -- [--seed N[,N ...]] [--fault NAME[,NAME ...] | all] [--append before|after|mixed] [--transactions N] [--writers N] [--keys N]
  [--lease MS] [--long] [--broken ${Object.keys(BROKEN_STORES).join('|')}] [--json]
  --long: the real measure of the fault (a relay stays frozen for 10 s beyond its lease of 15 s) instead of the short one of the tests
  faults: ${FAULT_NAMES.join(' ')}; several points in one run: kill:POINT+POINT`

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(1 + Math.floor(Math.random() * 1_000_000)) },
    fault: { type: 'string', default: 'none' },
    append: { type: 'string', default: 'after' },
    transactions: { type: 'string', default: '50' },
    writers: { type: 'string', default: '24' },
    keys: { type: 'string', default: '12' },
    lease: { type: 'string' },
    long: { type: 'boolean', default: false },
    broken: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

function count(name: 'seed' | 'transactions' | 'writers' | 'keys' | 'lease', text: string): number {
  const number = Number(text)
  if (Number.isInteger(number) && number >= 1 && number <= 1_000_000) return number
  throw new Error(`--${name} ${text}: a whole number from 1 to 1000000 is needed`)
}

function oneOf<T extends string>(name: string, text: string, allowed: readonly T[]): T {
  const found = allowed.find((one) => one === text)
  if (found === undefined) throw new Error(`--${name} ${text}: one of ${allowed.join(', ')} is needed`)
  return found
}

function faultOf(name: string): Fault {
  const fault = faultNamed(name, values.long)
  if (fault === undefined) throw new Error(`--fault ${name}: one of ${FAULT_NAMES.join(', ')} is needed`)
  return fault
}

function plan() {
  return {
    seeds: values.seed.split(',').map((text) => count('seed', text)),
    faults: (values.fault === 'all' ? FAULT_NAMES : values.fault.split(',')).map(faultOf),
    shape: {
      append: oneOf<AppendOrder>('append', values.append, ['before', 'after', 'mixed']),
      transactions: count('transactions', values.transactions),
      writers: count('writers', values.writers),
      keys: count('keys', values.keys),
      leaseMs: count('lease', values.lease ?? (values.long ? '15000' : '1000')),
      ...(values.broken === undefined
        ? {}
        : { broken: oneOf('broken', values.broken, Object.keys(BROKEN_STORES) as readonly BrokenStore[]) }),
    },
  }
}

async function run({ seeds, faults, shape }: ReturnType<typeof plan>): Promise<number> {
  let passed = 0
  let failed = 0
  const server = await startPostgresServer()
  try {
    for (const seed of seeds) {
      for (const fault of faults) {
        // Before it starts: whoever stops it knows what to replay.
        if (!values.json) console.log(`     seed ${seed}, ${fault.name} ...`)
        const wrong = await runOne(seed, fault)
        if (wrong) failed++
        else passed++
      }
    }
  } finally {
    await server.close()
  }
  if (!values.json) console.log(tallyLine({ passed, failed, skipped: 0 }))
  return failed === 0 && passed > 0 ? 0 : 1

  async function runOne(seed: number, fault: Fault): Promise<boolean> {
    try {
      const report = await runLedger({ server, seed, fault, ...shape })
      const wrong = faultsOf(report)
      console.log(values.json ? JSON.stringify({ ...report, wrong }) : `${wrong.length === 0 ? 'ok  ' : 'FAIL'} ${describe(report)}`)
      if (wrong.length > 0 && !values.json) console.log(`     ${wrong.join('\n     ')}`)
      return wrong.length > 0
    } catch (error) {
      console.log(values.json ? JSON.stringify({ seed, fault: fault.name, wrong: [messageOf(error)] }) : `FAIL ${messageOf(error)}`)
      return true
    }
  }
}

async function main(): Promise<number> {
  if (values.help) {
    console.log(USAGE)
    return 0
  }
  try {
    return await run(plan())
  } catch (error) {
    console.error(`${messageOf(error)}\n${USAGE}`)
    return 2
  }
}

process.exitCode = await main()
