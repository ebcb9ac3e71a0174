import type { Transport } from '../core/transport.ts'
import { messageOf } from '../core/errors.ts'
import { newId } from '../core/ids.ts'
import type { ContractTest } from './contract-tools.ts'
import type { BrokerCheck, BrokerCheckTools, TransportCheck, TransportCheckResult, TransportContractOptions } from './transport-checks.ts'
import { deliveryChecks } from './transport-delivery-checks.ts'
import { effectChecks } from './transport-effect-checks.ts'
import { faultChecks } from './transport-fault-checks.ts'
import { orderChecks } from './transport-order-checks.ts'
import { processChecks } from './transport-process-checks.ts'
import { publishChecks } from './transport-publish-checks.ts'
import { createBench } from './transport-tools.ts'

/**
 * What every transport must do, as tests. What a transport does not declare in its capabilities is not asked of it, and said so to `report`. `make`
 * gives a transport of its own to each test; it may lead to the same broker, as each test has topics and groups of its own. Hand in `test` of
 * `node:test`, `it` of vitest or the like.
 */
export function transportContract(test: ContractTest, make: () => Promise<Transport>, options: TransportContractOptions = {}): void {
  const { deadlineMs = 20_000, quietMs = 100 } = options

  function declare(check: TransportCheck | BrokerCheck, run: () => Promise<Pick<TransportCheckResult, 'result' | 'detail'>>): void {
    if (options.only?.includes(check.check) === false) return
    test(check.name, async () => {
      const report = (outcome: Pick<TransportCheckResult, 'result' | 'detail'>): void =>
        options.report?.({ check: check.check, test: check.name, ...outcome })
      try {
        report(await run())
      } catch (error) {
        report({ result: 'failed', detail: messageOf(error) })
        throw error
      }
    })
  }

  for (const check of [...publishChecks, ...deliveryChecks, ...orderChecks, ...effectChecks]) {
    declare(check, async () => {
      const bench = createBench(await make(), { deadlineMs, quietMs })
      try {
        const missing = check.requires?.(bench.transport.capabilities)
        if (missing !== undefined) return { result: 'undeclared', detail: missing }
        if (check.check === 'payload-limit' && options.messageMaxBytes === undefined)
          return { result: 'not run', detail: 'messageMaxBytes was not given' }
        return { result: 'passed', detail: (await check.run(bench, options)) ?? '' }
      } finally {
        await bench.end()
      }
    })
  }
  for (const check of [...faultChecks, ...processChecks]) {
    declare(check, async () => {
      const missing = await undeclared(make, check)
      if (missing !== undefined) return { result: 'undeclared', detail: missing }
      if (options.broker === undefined) return { result: 'not run', detail: 'no broker was given that may be hurt' }
      const broker = await options.broker()
      if (check.processes === true && broker.process === undefined)
        return { result: 'not run', detail: 'no module was given that other processes could load' }
      return { result: 'passed', detail: (await check.run(broker, createTools(options.recoveryMs ?? 120_000))) ?? '' }
    })
  }
}

async function undeclared(make: () => Promise<Transport>, { requires }: BrokerCheck): Promise<string | undefined> {
  if (requires === undefined) return undefined
  const transport = await make()
  try {
    return requires(transport.capabilities)
  } finally {
    await transport.close()
  }
}

function createTools(recoveryMs: number): BrokerCheckTools {
  const unique = newId().slice(-12)
  let names = 0
  return { topic: () => `contract.f${unique}-${++names}`, group: () => `contract/f${unique}-${++names}`, recoveryMs }
}
