import type { Transport } from '../core/transport.ts'
import type { ContractTest } from './contract-tools.ts'
import { deliveryChecks } from './transport-delivery-checks.ts'
import { orderChecks } from './transport-order-checks.ts'
import { publishChecks } from './transport-publish-checks.ts'
import { type Bench, createBench } from './transport-tools.ts'

export interface TransportContractOptions {
  /** Longest wait for something that must come. @default 20000 */
  readonly deadlineMs?: number
  /** How long nothing must come until "nothing more" is believed; used where no later message can tell. @default 100 */
  readonly quietMs?: number
  /** Largest body that the transport is set to take; without it that check is left out. */
  readonly messageMaxBytes?: number
}

/** One check: what it promises, and how to see it. */
export interface TransportCheck {
  readonly name: string
  run(bench: Bench, options: TransportContractOptions): Promise<void>
}

/**
 * What every transport must do, as tests; what a transport does not declare in its capabilities is not asked of it. `make` gives a transport of its
 * own to each test; it may lead to the same broker, as each test has topics and groups of its own. Hand in `test` of `node:test`, `it` of vitest or
 * the like.
 */
export function transportContract(test: ContractTest, make: () => Promise<Transport>, options: TransportContractOptions = {}): void {
  const { deadlineMs = 20_000, quietMs = 100 } = options
  for (const check of [...publishChecks, ...deliveryChecks, ...orderChecks]) {
    test(check.name, async () => {
      const bench = createBench(await make(), { deadlineMs, quietMs })
      try {
        await check.run(bench, options)
      } finally {
        await bench.end()
      }
    })
  }
}
